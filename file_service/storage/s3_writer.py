"""A write into a bucket, and what its token says."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING
from uuid import UUID

from file_service.aio import uncancelled
from file_service.errors import NotFound, ServiceError
from file_service.storage.base import Writer
from file_service.storage.multipart_upload import MultipartUploader
from file_service.storage.part_sizes import PartSizes, TooManyParts
from file_service.storage.s3_errors import renamed

if TYPE_CHECKING:
    from file_service.storage.s3 import S3Storage

log = logging.getLogger(__name__)


def token_of(sizes: PartSizes) -> str:
    """How the parts of a write are cut, in words."""
    kind, length = "equal" if sizes.equal else "growing", "" if sizes.length is None else str(sizes.length)
    return f"{kind}-{sizes.part_size}-{sizes.largest}-{length}"


def sizes_of(token: str, present: PartSizes) -> PartSizes:
    """The sizes with which a write was begun, whatever the settings say at present; `NotFound` for a foreign token."""
    try:
        equal, part_size, largest, length = token.split("-")
        sizes = replace(present, equal=equal == "equal", part_size=int(part_size), largest=int(largest))
        return replace(sizes, length=int(length) if length else None)
    except (ValueError, TooManyParts):
        raise NotFound("No such upload.") from None


class S3Writer:
    """`Writer` on parts, and on a tail once it is suspended."""

    def __init__(
        self, storage: S3Storage, key: UUID, sizes: PartSizes, uploader: MultipartUploader, *, resumed: bool = False
    ) -> None:
        self.token = token_of(sizes)
        self._storage = storage
        self._key = key
        self._uploader = uploader
        self._resumed = resumed
        self._ended = False

    @property
    def offset(self) -> int:
        """Bytes taken."""
        return self._uploader.offset

    async def write(self, chunk: bytes) -> None:
        """Cut into parts, which are sent while the next one is received."""
        with renamed():
            await self._uploader.write(chunk)

    async def suspend(self) -> None:
        """Wait for the parts on their way, then keep the rest as a tail.

        When that fails the write has ended all the same, with what was kept before: nobody may take that back.
        """
        self._ended = True
        uploader = self._uploader
        try:
            with renamed():
                await uploader.arrived()
                unfinished, tail = self._storage.unfinished(self._key), uploader.tail
                await unfinished.keep_tail(uploader.offset - len(tail), uploader.upload_id, tail)
        finally:
            await uncancelled(uploader.stop())

    async def commit(self) -> None:
        """Complete; the object has been seen when this returns."""
        with renamed():
            await self._uploader.complete()
        self._ended = True
        if self._resumed:
            await self._drop_tail()

    async def abort(self) -> None:
        """Drop the parts, and the tail of an earlier session."""
        if not self._ended:
            with renamed():
                await self._uploader.abort()
            await self._storage.delete(self._key)
            self._ended = True

    async def _drop_tail(self) -> None:
        try:
            with renamed():
                await self._storage.unfinished(self._key).drop_tail()
        except ServiceError as error:
            log.warning("s3: the tail of %s stays until the file is deleted: %s", self._key, error.detail)


_: type[Writer] = S3Writer
