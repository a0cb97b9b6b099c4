"""The client of an object store, set up for large bodies and for stores that are not Amazon's."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aiobotocore.config import AioConfig
from aiobotocore.session import AioSession
from botocore.loaders import Loader, create_loader

if TYPE_CHECKING:
    from types_aiobotocore_s3.client import S3Client

REGION = "us-east-1"  # for stores that have none
CONNECT = 5.0


@asynccontextmanager
async def s3_client(
    endpoint_url: str | None = None,
    region: str | None = None,
    *,
    path_style: bool | None = None,
    ca_file: Path | None = None,
    timeout: float = 60.0,
    keys: tuple[str, str] | None = None,
) -> AsyncIterator[S3Client]:
    """A client that leaves retries to its user (see `s3_retries`) and adds neither trailers nor Expect.

    Without `endpoint_url` the store is Amazon's; others are addressed by path unless `path_style` says otherwise.
    `ca_file` has the certificates to trust in place of the usual ones. Credentials come from the ordinary AWS chain,
    unless `keys` are an access key id and its secret.

    Bodies come with a checksum (`s3_parts.body_of`), so no other is made where none is required: as trailers they are
    refused by some stores and kept in the object by others. A server that never answers `Expect: 100-continue` would
    hang an upload. Each open download has a connection, so their number has no limit here: that of the service's own
    connections bounds it.
    """
    for log in (logging.getLogger("botocore"), logging.getLogger("aiobotocore")):
        log.setLevel(max(log.getEffectiveLevel(), logging.INFO))  # below that it prints what was signed, and how
    by_path = endpoint_url is not None if path_style is None else path_style
    config = AioConfig(
        connect_timeout=min(timeout, CONNECT),
        read_timeout=timeout,
        max_pool_connections=0,
        signature_version="s3v4",  # else links are signed in the way that most regions and stores have given up
        retries={"total_max_attempts": 1},
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        s3={"addressing_style": "path" if by_path else "virtual"},
    )
    session = AioSession()
    session.register_component("data_loader", _models())
    client = session.create_client(
        "s3",
        region or session.get_config_variable("region") or REGION,
        endpoint_url=endpoint_url,
        verify=None if ca_file is None else str(ca_file),
        config=config,
        aws_access_key_id=keys and keys[0],
        aws_secret_access_key=keys and keys[1],
    )
    async with client as opened:
        opened.meta.events.register("before-call.s3", _without_expect)
        yield opened


@cache
def _models() -> Loader:
    """What botocore knows of the protocol: a megabyte of JSON that a session would read anew."""
    return create_loader()


def _without_expect(params: dict[str, Any], **_: object) -> None:
    params["headers"].pop("Expect", None)
