"""The bytes of one object, over as many GET requests as it takes."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from uuid import UUID

from botocore.exceptions import ClientError, IncompleteReadError

from file_service.errors import Damaged, StorageFailed
from file_service.storage.s3_retries import BROKEN, Patience, is_missing, status_of

if TYPE_CHECKING:
    from types_aiobotocore_s3.client import S3Client

log = logging.getLogger(__name__)
RANGE = HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE
RESUMES = 3
PROGRESS = 16 << 20  # bytes after which earlier breaks are forgotten: a long download may break more often
CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+)")  # RFC 9110 section 14.4


class Reading:
    """The bytes [start, stop) of the object at `place` (Bucket, Key), in chunks of `chunk_size` bytes.

    A body that breaks or stalls is asked for again from the byte where it stopped, up to three times on end, on the
    condition that the object is still the same one (If-Match). Raises `Damaged` for `key` when it is not, or is missing
    or shorter than `stop`.
    """

    def __init__(
        self,
        client: S3Client,
        place: Mapping[str, str],
        key: UUID,
        start: int,
        stop: int | None,
        *,
        chunk_size: int,
        patience: Patience,
    ) -> None:
        self.offset = start
        self.stop = stop
        self._client = client
        self._place: dict[str, Any] = dict(place)
        self._key = key
        self._chunk_size = chunk_size
        self._patience = patience
        self._match: dict[str, str] = {}
        self._body: Any = None
        self._resumes = 0
        self._broken_at = start

    async def first(self) -> bytes:
        """The first chunk; empty when there are no such bytes and none were promised."""
        if self.stop is not None and self.offset >= self.stop:
            await self._measure(self.stop)
            return b""
        try:
            await self._get()
        except ClientError as error:
            if status_of(error) == RANGE and self.stop is None:
                return b""
            raise self._damaged(error) from None
        return await self.chunk()

    async def chunk(self) -> bytes:
        """The next chunk, empty at the end."""
        pieces: list[bytes] = []
        wanted = min(self._chunk_size, (self.stop or 0) - self.offset)
        while wanted > 0:
            try:
                piece = await self._piece(wanted)
            except BROKEN as error:
                await self._again(error)
                continue
            pieces.append(piece)
            self.offset += len(piece)
            wanted -= len(piece)
        return b"".join(pieces)

    def close(self) -> None:
        """Let go of the connection, which is of no more use when the body has not been read to its end."""
        if self._body is not None:
            self._body.close()

    async def _piece(self, wanted: int) -> bytes:
        piece: bytes = await self._body.read(wanted)
        if not piece:
            raise IncompleteReadError(actual_bytes=self.offset, expected_bytes=self.stop or 0)
        return piece

    async def _again(self, error: BaseException) -> None:
        self.close()
        if self.offset - self._broken_at >= PROGRESS:
            self._resumes = 0
        if self._resumes == RESUMES:
            raise error
        self._resumes, self._broken_at = self._resumes + 1, self.offset
        log.info("s3: a body broke at byte %d (%s): going on from there", self.offset, type(error).__name__)
        try:
            await self._get()
        except ClientError as refused:
            raise self._damaged(refused) from None

    async def _get(self) -> None:
        last = "" if self.stop is None else self.stop - 1
        wish: dict[str, Any] = {"Range": f"bytes={self.offset}-{last}", **self._match}
        answer = await self._patience(lambda: self._client.get_object(**self._place, **wish))
        self._body = answer["Body"]
        found = CONTENT_RANGE.fullmatch(answer.get("ContentRange", ""))
        start, size = (int(found[1]), int(found[2])) if found else (0, answer["ContentLength"])
        if start != self.offset:
            raise StorageFailed("The object store does not serve ranges.")
        if self.stop is not None and size < self.stop:
            raise Damaged(self._key)
        self.stop = size if self.stop is None else self.stop
        self._match = {"IfMatch": answer["ETag"]} if answer.get("ETag") else {}

    async def _measure(self, stop: int) -> None:
        try:
            found = await self._patience(lambda: self._client.head_object(**self._place))
        except ClientError as error:
            raise self._damaged(error) from None
        if found["ContentLength"] < stop:
            raise Damaged(self._key)

    def _damaged(self, error: ClientError) -> Exception:
        gone = is_missing(error) or status_of(error) in (RANGE, HTTPStatus.PRECONDITION_FAILED)
        return Damaged(self._key) if gone else error


async def dropped(ahead: asyncio.Task[bytes]) -> None:
    """Cancel a read that nobody wants any more, and wait for its end."""
    ahead.cancel()
    await asyncio.wait({ahead})
    if not ahead.cancelled():
        ahead.exception()  # retrieved, so that it is not reported as lost
