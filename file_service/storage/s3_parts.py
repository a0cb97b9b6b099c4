"""The requests around one part: what is sent with a body, what is known of a part, and how all of them go."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from file_service.storage.part_body import PartBody
from file_service.storage.s3_retries import Patience, is_missing

if TYPE_CHECKING:
    from types_aiobotocore_s3.client import S3Client

ABORTS = 5
PAUSE = 0.2  # seconds between two of them
INLINE = 64 << 10  # so little is hashed sooner than a thread takes it


class Altered(Exception):
    """What is in the store is not what was sent there."""


@dataclass(frozen=True, slots=True)
class Part:
    """A part in the store."""

    number: int
    etag: str
    size: int
    checksums: Mapping[str, str] = field(default_factory=dict)  # of a client that has the SDK make them, too

    @classmethod
    def of(cls, number: int, size: int, answer: Mapping[str, Any]) -> Part:
        """The part of which UploadPart or ListParts speaks in `answer`."""
        checksums = {name: value for name, value in answer.items() if name.startswith("Checksum")}
        return cls(number, answer["ETag"], size, checksums)

    @property
    def completed(self) -> Any:
        """As CompleteMultipartUpload wants it."""
        return {"PartNumber": self.number, "ETag": self.etag, **self.checksums}


async def abort(client: S3Client, upload: Mapping[str, Any], patience: Patience) -> None:
    """Abort the multipart `upload` (Bucket, Key, UploadId) until it has no part left; one that is gone is fine."""
    for _ in range(ABORTS):
        try:
            await patience(lambda: client.abort_multipart_upload(**upload))
            left = await patience(lambda: client.list_parts(**upload, MaxParts=1))
        except ClientError as error:
            if is_missing(error):
                return
            raise
        if not left.get("Parts"):
            return
        await asyncio.sleep(PAUSE)
    raise TimeoutError("parts of an aborted upload keep arriving")


async def body_of(client: S3Client, data: memoryview) -> dict[str, Any]:
    """The arguments that send `data` with the one checksum that every store verifies.

    Over plain HTTP the signature covers the body's SHA-256. Over TLS the SDK does not sign bodies, and Content-MD5
    (RFC 1864) stands in.
    """
    body = {"Body": PartBody(data)}
    if client.meta.endpoint_url.startswith("http:"):
        return body
    return {**body, "ContentMD5": _md5(data) if len(data) <= INLINE else await asyncio.to_thread(_md5, data)}


def _md5(data: memoryview) -> str:
    return base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode()
