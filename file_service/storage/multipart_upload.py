"""One object in S3, written as a stream of bytes.

An object that fits into one part goes by one PutObject when it is complete. A longer one is a multipart upload: while
one part is received those before it are sent, a few at a time, each from memory, so that it can be sent again. Every
body has one checksum that the store verifies, see `body_of`. No trailers: stores are known to refuse them, or to keep
their framing in the object.

Nothing is visible before `complete`, which ends with a HEAD: only an object of the right size that carries the mark of
this attempt counts, and it counts however the request before it ended. What is not completed is aborted, and the abort
confirmed, since a part in flight can outlive it (S3 API reference, AbortMultipartUpload). An abort that could not be
made leaves an unfinished upload in the bucket: a lifecycle rule for those is a good net.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import quote
from uuid import uuid4

from botocore.exceptions import ClientError

from file_service.aio import uncancelled
from file_service.storage.part_body import PartBuffer
from file_service.storage.part_memory import PartMemory, PartShare
from file_service.storage.part_sizes import PartSizes, TooManyParts
from file_service.storage.s3_parts import Altered, Part, abort, body_of
from file_service.storage.s3_retries import FAILURES, Patience, is_missing

if TYPE_CHECKING:
    from types_aiobotocore_s3.client import S3Client

ATTEMPT = "attempt"
MEMORY = 256 << 20
AT_ONCE = 4  # parts of one upload on their way
LONGEST = 256  # characters of a piece of metadata; Swift takes no more, others do


@dataclass(slots=True)
class Gathered:
    """The part that is being received."""

    number: int
    share: PartShare
    buffer: PartBuffer


class MultipartUploader:
    """`async with MultipartUploader(client, bucket, key) as upload: await upload.write(...)` completes at the end.

    Any exception in the block, cancellation too, aborts. `sizes` and `memory` say how the bytes are cut and how many
    are held; `options` are passed to PutObject and CreateMultipartUpload as they are (`StorageClass`, `ContentType`);
    `metadata` becomes the object's as `header` writes it. With `upload_id` and the `parts` that are there an earlier
    upload goes on. Raises botocore's and aiohttp's errors, `TooManyParts`, `Altered`.
    """

    def __init__(
        self,
        client: S3Client,
        bucket: str,
        key: str,
        *,
        sizes: PartSizes | None = None,
        memory: PartMemory | None = None,
        patience: Patience | None = None,
        attempt: str | None = None,
        metadata: Mapping[str, str] | None = None,
        options: Mapping[str, Any] | None = None,
        upload_id: str | None = None,
        parts: Iterable[Part] = (),
    ) -> None:
        self.upload_id = upload_id
        self.parts = {part.number: part for part in parts}
        self.offset = sum(part.size for part in self.parts.values())
        self.attempt = attempt or uuid4().hex
        self._client = client
        self._place: dict[str, Any] = {"Bucket": bucket, "Key": key}
        self._memory = memory or PartMemory(MEMORY)
        self._sizes = sizes or PartSizes(largest=self._memory.largest)
        self._patience = patience or Patience()
        marks = {ATTEMPT: self.attempt} | {name: header(value) for name, value in (metadata or {}).items()}
        self._options: dict[str, Any] = {**(options or {}), "Metadata": marks}
        self._sent = len(self.parts)
        self._gathered: Gathered | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._failure: BaseException | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is not None:
            await uncancelled(self.abort())
            return
        try:
            await uncancelled(self.complete())
        except BaseException:
            await uncancelled(self.abort())
            raise

    @property
    def tail(self) -> memoryview:
        """The bytes that are in no part yet."""
        return self._gathered.buffer.content() if self._gathered else memoryview(b"")

    async def write(self, chunk: bytes) -> None:
        """Append `chunk`; waits for memory, and while enough parts are on their way. Raises what a part failed with."""
        rest = memoryview(chunk)
        while rest:
            part = self._gathered or self._begin()
            if not part.buffer.room:
                await self._send(part)
                continue
            piece = rest[: part.buffer.room]
            await part.share.grow(len(piece))
            part.buffer.write(piece)
            self.offset += len(piece)
            rest = rest[len(piece) :]
        if self._gathered and not self._gathered.buffer.room and self.upload_id:
            await self._send(self._gathered)

    async def arrived(self) -> None:
        """Wait until no part is on its way; raises what one failed with."""
        while self._tasks:
            await asyncio.wait(self._tasks)
        self._check()

    async def complete(self) -> None:
        """Make the object visible, and see that it is; `Altered` when it is not what was sent."""
        if self._gathered and self.upload_id:
            await self._send(self._gathered)
        await self.arrived()
        await self._publish()
        await self.stop()

    async def abort(self) -> None:
        """Drop the parts, and see that they are gone; repeatable."""
        await self.stop()
        if self.upload_id:
            await abort(self._client, {**self._place, "UploadId": self.upload_id}, self._patience)

    async def stop(self) -> None:
        """End what is under way and give the memory back; what is in the store stays."""
        for task in self._tasks:
            task.cancel()
        while self._tasks:
            await asyncio.wait(self._tasks)
        if self._gathered:
            self._gathered.share.release()
            self._gathered = None

    def _check(self) -> None:
        if self._failure:
            raise self._failure

    def _begin(self) -> Gathered:
        number, length = self._sent + 1, self._sizes.length or 0
        size = self._sizes.size(number)
        if size > self._memory.largest:
            raise TooManyParts(f"a part of {size} bytes does not fit into the memory")
        if length > self.offset:
            size = min(size, length - self.offset)
        self._gathered = Gathered(number, self._memory.share(size), PartBuffer(size))
        return self._gathered

    async def _send(self, part: Gathered) -> None:
        """Hand the part to a task of its own, as soon as there may be one more."""
        await self._slots.acquire()
        try:
            self._check()
            if not self.upload_id:
                await uncancelled(self._create())
        except BaseException:
            self._slots.release()
            raise
        self._sent, self._gathered = part.number, None
        task = asyncio.create_task(self._upload(part.number, part.buffer.content()))
        self._tasks.add(task)
        task.add_done_callback(partial(self._ended, part.share))

    def _ended(self, share: PartShare, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._slots.release()
        share.release()
        if not task.cancelled() and (error := task.exception()):
            self._failure = self._failure or error

    async def _create(self) -> None:
        answer = await self._patience(lambda: self._client.create_multipart_upload(**self._place, **self._options))
        self.upload_id = answer["UploadId"]

    async def _upload(self, number: int, data: memoryview) -> None:
        body = await body_of(self._client, data)
        where: dict[str, Any] = {**self._place, "UploadId": self.upload_id, "PartNumber": number}
        answer = await self._patience(lambda: self._client.upload_part(**where, **body), len(data))
        self.parts[number] = Part.of(number, len(data), answer)

    async def _publish(self) -> None:
        """An answer may be lost, or be an error of a request that was carried out: what is there decides."""
        try:
            await (self._complete() if self.upload_id else self._put())
        except FAILURES:
            if not await self._is_there():
                raise
        else:
            if not await self._is_there():
                raise Altered(f"{self._place['Key']} is not there although it was completed")

    async def _put(self) -> None:
        data = self.tail
        body = await body_of(self._client, data)
        await self._patience(lambda: self._client.put_object(**self._place, **body, **self._options), len(data))

    async def _complete(self) -> None:
        parts: Any = {"Parts": [self.parts[number].completed for number in sorted(self.parts)]}
        where: dict[str, Any] = {**self._place, "UploadId": self.upload_id}
        await self._patience(lambda: self._client.complete_multipart_upload(**where, MultipartUpload=parts))

    async def _is_there(self) -> bool:
        try:
            found = await self._patience(lambda: self._client.head_object(**self._place))
        except ClientError as error:
            if is_missing(error):
                return False
            raise
        if {name.lower(): value for name, value in found["Metadata"].items()}.get(ATTEMPT) != self.attempt:
            return False
        if found["ContentLength"] != self.offset:
            raise Altered(f"{self._place['Key']} has {found['ContentLength']} bytes of the {self.offset} sent")
        return True


def header(value: str) -> str:
    """A text as the value of a header: percent-encoded where need be, without its end when it is too long."""
    while len(encoded := quote(value, " ")) > LONGEST:
        value = value[:-1]
    return encoded
