"""The identity of a storage in a bucket: an object that is written once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import UUID

from botocore.exceptions import ClientError

from file_service.errors import StorageFailed
from file_service.storage.s3_retries import Patience, code_of, is_missing

if TYPE_CHECKING:
    from types_aiobotocore_s3.client import S3Client

MARKER = ".file-service"
UNCONDITIONAL = {"NotImplemented", "InvalidArgument", "InvalidRequest"}  # of stores that know no If-None-Match


class Marker:
    """The marker below `prefix`."""

    def __init__(self, client: S3Client, bucket: str, prefix: str) -> None:
        self._client = client
        self._place: dict[str, Any] = {"Bucket": bucket, "Key": f"{prefix}{MARKER}"}

    async def read(self, patience: Patience) -> UUID | None:
        """The identity, None where there is none; `StorageFailed` when the object is something else."""

        async def content() -> bytes:
            answer = await self._client.get_object(**self._place)
            async with answer["Body"] as body:
                return await body.read()

        try:
            return UUID((await patience(content)).decode("ascii", "replace"))
        except ClientError as error:
            if is_missing(error):
                return None
            raise
        except ValueError:
            raise StorageFailed(f"The marker {self._place['Key']} in the bucket is not readable.") from None

    async def write(self, identity: UUID, patience: Patience) -> None:
        """Write the identity, unless another process was sooner (If-None-Match, RFC 9110 section 13.1.2)."""
        body = {**self._place, "Body": str(identity).encode()}
        try:
            await patience(lambda: self._client.put_object(**body, IfNoneMatch="*"))
        except ClientError as error:
            if code_of(error) in UNCONDITIONAL:
                await patience(lambda: self._client.put_object(**body))
            elif code_of(error) != "PreconditionFailed":
                raise
