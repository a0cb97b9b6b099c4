"""What a bucket holds for us, and the place in it for what nobody owns.

Names that are not ours are nobody's business: other people's objects may lie under the same prefix.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import UUID

from file_service.errors import StorageFailed
from file_service.storage.base import Found
from file_service.storage.s3_errors import renamed
from file_service.storage.s3_objects import head, moved
from file_service.storage.s3_retries import Patience
from file_service.storage.s3_unfinished import TAIL, Unfinished

if TYPE_CHECKING:
    from types_aiobotocore_s3.client import S3Client

QUARANTINE = "quarantine/"
OURS = re.compile(rf"([0-9a-f]{{32}})({re.escape(TAIL)})?")
# Where a listing goes on: what a page says, and how the request for the next one says it.
OBJECTS = {"NextContinuationToken": "ContinuationToken"}
UPLOADS = {"NextKeyMarker": "KeyMarker", "NextUploadIdMarker": "UploadIdMarker"}


class Inventory:
    """`Listed` below `prefix`; `options` are those of new objects, copies too."""

    def __init__(
        self, client: S3Client, bucket: str, prefix: str, patience: Patience, options: Mapping[str, Any]
    ) -> None:
        self._client = client
        self._bucket = bucket
        self._prefix = prefix
        self._patience = patience
        self._options = options

    async def list(self, digit: str) -> AsyncGenerator[Found, None]:
        """The multipart uploads, whose sizes a listing does not tell, then the objects."""
        # Without a delimiter, which not every store knows here.
        async for page in self._pages(self._client.list_multipart_uploads, UPLOADS, digit):
            for found in page.get("Uploads", []):
                if (ours := self._ours(found["Key"])) and not ours[2]:
                    yield Found(UUID(hex=ours[1]), None, staged=True)
        async for page in self._pages(self._client.list_objects_v2, OBJECTS, digit, Delimiter="/"):
            for found in page.get("Contents", []):
                if ours := self._ours(found["Key"]):
                    yield Found(UUID(hex=ours[1]), found["Size"], staged=bool(ours[2]))

    async def find(self, key: UUID) -> Sequence[Found]:
        """See `Listed.find`."""
        with renamed():
            staged = await self._unfinished(key.hex).size()
            published = await head(self._client, self._place(key.hex), self._patience)
        sizes = {True: staged, False: published and published["ContentLength"]}
        return [Found(key, size, kind) for kind, size in sizes.items() if size is not None]

    async def quarantine(self, found: Found) -> None:
        """Copy the object to `quarantine/` below the prefix, and delete it when the copy has been seen there.

        The parts of a multipart upload can be neither read nor moved: it is aborted. Its tail is moved.
        """
        name = found.key.hex
        with renamed():
            if found.staged:
                await self._unfinished(name).drop_uploads()
                name += TAIL
            await self._unfinished(QUARANTINE + name).drop_uploads()  # of a copy that was cut off
            place, target = self._place(name), self._place(QUARANTINE + name)
            await moved(self._client, place, target, self._patience, self._options)

    async def _pages(
        self, request: Callable[..., Awaitable[Any]], following: Mapping[str, str], digit: str, **wish: str
    ) -> AsyncGenerator[Any, None]:
        """Page after page; `StorageFailed` when the store gives the same one again, as one does that cannot page."""
        where: dict[str, str] = {}
        while True:
            with renamed():
                page = await self._patience(
                    partial(request, Bucket=self._bucket, Prefix=self._prefix + digit, **wish, **where)
                )
            yield page
            if not page.get("IsTruncated"):
                return
            going_on = {asked: page[said] for said, asked in following.items() if page.get(said)}
            if not going_on or going_on == where:
                raise StorageFailed("The object store does not list its bucket to the end.")
            where = going_on

    def _ours(self, name: str) -> re.Match[str] | None:
        return OURS.fullmatch(name.removeprefix(self._prefix))

    def _place(self, name: str) -> dict[str, Any]:
        return {"Bucket": self._bucket, "Key": self._prefix + name}

    def _unfinished(self, name: str) -> Unfinished:
        return Unfinished(self._client, self._bucket, self._prefix + name, self._patience)
