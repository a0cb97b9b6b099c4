"""Links by which anybody gets one object straight from the store, for a short time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types_aiobotocore_s3.client import S3Client

# Headers of an answer that GetObject lets the request choose, each by a parameter of its name without the hyphen.
CHOSEN = ("Content-Type", "Content-Disposition", "Cache-Control")


async def presigned(client: S3Client, place: Mapping[str, Any], headers: Mapping[str, str], seconds: int) -> str:
    """A URL for GET (Amazon S3 User Guide, "Sharing objects with presigned URLs"); made here, without a request.

    The store answers it with those of the `headers` that can be chosen. Who has it needs no credentials.
    """
    chosen = {f"Response{name.replace('-', '')}": headers[name] for name in CHOSEN if name in headers}
    return await client.generate_presigned_url("get_object", Params={**place, **chosen}, ExpiresIn=seconds)
