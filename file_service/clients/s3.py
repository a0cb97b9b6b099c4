"""A client of S3, or of a store that speaks its protocol: bytes, files and URLs become objects.

What is longer than a part (8 MiB) is a multipart upload; an object is visible when all of it is there, and what fails
leaves nothing behind. Memory does not grow with the size of an object, except where a method says so.

The URLs are the caller's own: they may lead to private addresses. Do not pass on what strangers send.
"""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncGenerator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self, TypeAlias

from botocore.exceptions import ClientError
from caio.python_aio_asyncio import AsyncioContext

from file_service.client.client import Client
from file_service.client.errors import ServerUnreachable, TransferError, local_problems
from file_service.client.sending import FileSource
from file_service.storage.multipart_upload import MultipartUploader
from file_service.storage.part_memory import PartMemory
from file_service.storage.part_sizes import PartSizes, TooManyParts
from file_service.storage.s3_client import s3_client
from file_service.storage.s3_errors import described
from file_service.storage.s3_parts import Altered
from file_service.storage.s3_retries import FAILURES, Patience, code_of, status_of

FETCH_LIMIT = 64 << 20  # bytes
MEMORY = 128 << 20  # bytes
BLOCK_SIZE = 1 << 20  # bytes read and handed on at once
IDLE = 60.0  # seconds

Buffer: TypeAlias = bytes | bytearray | memoryview
ERRORS = (TooManyParts, Altered, *FAILURES)


class Readable(Protocol):
    """A binary file, from where it stands."""

    def read(self, size: int, /) -> bytes:
        """Up to `size` bytes, none at the end."""


class S3Error(TransferError):
    """The store said no, or did not answer. `code` is its word for it, such as NoSuchBucket, `status` that of HTTP."""

    def __init__(self, error: BaseException) -> None:
        reason = str(error) if isinstance(error, TooManyParts | Altered) else described(error)
        super().__init__(f"The object store {'refused' if isinstance(error, ClientError) else 'failed'}: {reason}.")
        self.code, self.status = code_of(error), status_of(error)


class TooLarge(TransferError):
    """The body has more than `limit` bytes."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"The body has more than {limit} bytes, which is what is held in memory.")
        self.limit = limit


class S3Client:
    """`async with S3Client(url, key_id, secret_key) as s3: await s3.stream_file("bucket", "a/b.iso", "b.iso")`

    Every method returns the size in bytes and raises TransferErrors, `S3Error` among them. The parts of all uploads
    take `memory` bytes together. `patience` is that with the store; `retries`, and `idle`, the seconds in which
    something must move, are for the URLs.
    """

    def __init__(
        self,
        endpoint_url: str | None,
        aws_access_key_id: str,
        aws_secret_access_key: str,
        region_name: str | None = None,
        *,
        memory: int = MEMORY,
        patience: Patience | None = None,
        retries: int = 3,
        idle: float = IDLE,
    ) -> None:
        keys = aws_access_key_id, aws_secret_access_key
        self._patience = patience or Patience()
        self._opening = s3_client(endpoint_url, region_name, keys=keys, timeout=self._patience.timeout)
        self._memory = PartMemory(memory)
        self._retries, self._idle = retries, idle
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        self._client = await self._stack.enter_async_context(self._opening)
        self._io = await self._stack.enter_async_context(AsyncioContext(32))  # type: ignore[no-untyped-call]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def upload_file(self, bucket: str, path: str, buffer: Buffer | Readable) -> int:
        """Store bytes, or a binary file from where it stands, as the object `path`."""
        file = io.BytesIO(buffer) if isinstance(buffer, Buffer) else buffer
        async with self._upload(bucket, path) as upload:
            with local_problems():
                while block := await asyncio.to_thread(file.read, BLOCK_SIZE):
                    await upload.write(block)
        return upload.offset

    async def fetch_and_upload(self, bucket: str, path: str, url: str, *, limit: int = FETCH_LIMIT) -> int:
        """Store what an http(s) URL gives, which is held in memory as a whole; `TooLarge` above `limit` bytes.

        Raises ValueError for any other URL.
        """
        body = MemorySink(limit)
        async with self._source(url) as source:
            await source.fetch_into(url, body)
        return await self.upload_file(bucket, path, body.content)

    async def stream_upload(self, bucket: str, path: str, url: str) -> int:
        """Store what an http(s) URL gives, while it comes. Goes on where it breaks, if the server there can do that.

        Raises ValueError for any other URL.
        """
        async with self._source(url) as source, self._upload(bucket, path) as upload:
            await source.fetch_into(url, upload)
        return upload.offset

    async def stream_file(self, bucket: str, path: str, file: Path | str) -> int:
        """Store a regular file, which must not change meanwhile."""
        with local_problems():
            source = FileSource(Path(file))
        async with self._upload(bucket, path, source.size) as upload:
            with local_problems():
                async with source.opened(self._io, BLOCK_SIZE) as blocks:
                    async for block in blocks:
                        await upload.write(block)
        return upload.offset

    def _source(self, url: str) -> Client:
        return Client(url, retries=self._retries, idle=self._idle)

    @asynccontextmanager
    async def _upload(self, bucket: str, path: str, size: int | None = None) -> AsyncGenerator[UploadSink, None]:
        """An object that is complete when the block ends, and never was when it fails. Raises `S3Error`."""
        with _renamed():
            sizes = PartSizes(largest=self._memory.largest, length=size)
            async with MultipartUploader(
                self._client, bucket, path, sizes=sizes, memory=self._memory, patience=self._patience
            ) as uploader:
                yield UploadSink(uploader)


class UploadSink:
    """An object that is being written, as a `Sink` of the client."""

    def __init__(self, uploader: MultipartUploader) -> None:
        self.offset = 0
        self._uploader = uploader

    def offer(self, name: str) -> None:
        """The object has a name."""

    async def write(self, block: bytes) -> None:
        """Append. Raises `S3Error`."""
        with _renamed():
            await self._uploader.write(block)
        self.offset += len(block)

    async def restart(self) -> None:
        """Only before the first byte."""
        if self.offset:
            raise ServerUnreachable("The server cannot resume, and what is stored cannot be taken back.", passing=False)


class MemorySink:
    """Up to `limit` bytes in memory, as a `Sink` of the client."""

    def __init__(self, limit: int) -> None:
        self.content = bytearray()
        self.offset = 0
        self._limit = limit

    def offer(self, name: str) -> None:
        """Memory has no names."""

    async def write(self, block: bytes) -> None:
        """Append. Raises `TooLarge`."""
        self.content += block
        self.offset = len(self.content)
        if self.offset > self._limit:
            raise TooLarge(self._limit)

    async def restart(self) -> None:
        """Begin again."""
        self.content.clear()
        self.offset = 0


@contextmanager
def _renamed() -> Iterator[None]:
    """Turn what the SDK raises into `S3Error`, alone: stores repeat keys and what was signed in their messages."""
    try:
        yield
    except ERRORS as error:
        raise S3Error(error) from None
