"""The way out: what is sent, read in blocks, and a pass of it over a connection."""

import asyncio
import hashlib
import os
import stat
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Protocol
from uuid import uuid4

import aiohttp
from aiofile import AIOFile
from caio.python_aio_asyncio import AsyncioContext

from file_service.client.progress import Progress
from file_service.names import format_disposition

ANSWER = 600.0  # seconds from the last byte to the answer: the server may have a terabyte to put together


class Source(Protocol):
    """What is sent. `size` is bytes, None when unknown; `repeatable` says whether `opened` may be entered again."""

    name: str | None
    size: int | None
    repeatable: bool

    def opened(self, io: AsyncioContext, block_size: int) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """Its blocks of up to `block_size` bytes."""


class FileChanged(OSError):
    """The file was written to while it was being read."""

    def __init__(self) -> None:
        super().__init__("The file changed while it was being sent.")


class FileSource:
    """A regular file, which must stay as it is found here. Raises OSError, also for anything else."""

    def __init__(self, path: Path) -> None:
        self._path, self._found = path, path.stat()
        if stat.S_ISDIR(self._found.st_mode):
            raise OSError("It is a folder.")
        if not stat.S_ISREG(self._found.st_mode):
            raise OSError("It is not a regular file; send `-` and give it as standard input.")
        self.name: str | None = path.name
        self.size: int | None = self._found.st_size
        self.repeatable = True

    @asynccontextmanager
    async def opened(self, io: AsyncioContext, block_size: int) -> AsyncIterator[AsyncIterator[bytes]]:
        """Its blocks, from the start. Reading them raises OSError, `FileChanged` among them."""
        async with AIOFile(self._path, "rb", context=io) as file:
            yield self._blocks(file, block_size)

    async def _blocks(self, file: AIOFile, block_size: int) -> AsyncGenerator[bytes, None]:
        offset, size = 0, self._found.st_size
        while offset < size:
            block = await file.read_bytes(min(block_size, size - offset), offset)
            offset += len(block)
            # Looked at before the last block is handed out: once the server has that, it has a file.
            if not block or (offset == size and _version(os.fstat(file.fileno())) != _version(self._found)):
                raise FileChanged
            yield block
        if not size and await file.read_bytes(1, 0):  # such as /proc, where every file claims to be empty
            raise FileChanged


def _version(found: os.stat_result) -> tuple[int, ...]:
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


class StreamSource:
    """Blocks that can be had once. Whoever made them closes them."""

    def __init__(self, blocks: AsyncIterable[bytes]) -> None:
        self._blocks = aiter(blocks)
        self.name: str | None = None
        self.size: int | None = None
        self.repeatable = False

    @asynccontextmanager
    async def opened(self, _io: AsyncioContext, _block_size: int) -> AsyncIterator[AsyncIterator[bytes]]:
        """Its blocks, from where reading has come to."""
        yield self._blocks


async def read_descriptor(descriptor: int, block_size: int) -> AsyncGenerator[bytes, None]:
    """The blocks of a pipe, socket, terminal or file. The wait for the next one can be cancelled, unlike a read."""
    while block := await _read_some(descriptor, block_size):
        yield block


async def _read_some(descriptor: int, size: int) -> bytes:
    loop, readable = asyncio.get_running_loop(), asyncio.Event()
    try:
        loop.add_reader(descriptor, readable.set)
    except PermissionError:  # epoll refuses what never keeps a reader waiting
        return await asyncio.to_thread(os.read, descriptor, size)
    try:
        await readable.wait()
    finally:
        loop.remove_reader(descriptor)
    return os.read(descriptor, size)


class Body:
    """A pass over a source, and another one when it is tried again: counted, hashed, timed."""

    def __init__(self, size: int | None, progress: Progress) -> None:
        self.size, self._progress = size, progress

    def begin(self, blocks: AsyncIterator[bytes]) -> None:
        """Start a pass."""
        self._blocks, self.offset, self.sha256 = blocks, 0, hashlib.sha256()
        self.started = self._ended = False
        self._problem: Exception | None = None

    @property
    def whole(self) -> bool:
        """Whether the server can have all of it."""
        return self._ended or self.offset == self.size

    async def stream(self, clock: asyncio.Timeout, idle: float) -> AsyncGenerator[bytes, None]:
        """The blocks. `clock` runs only while the connection has the turn: a slow source is not the server's fault."""
        self.started = True
        _allow(clock, None)
        try:
            async for block in self._blocks:
                self.sha256.update(block)
                self.offset += len(block)
                await _look_up()
                _allow(clock, idle)
                yield block
                _allow(clock, None)
                self._progress(self.offset, self.size)
        except Exception as error:
            self._problem = error
            raise
        self._ended = True
        _allow(clock, ANSWER)

    @contextmanager
    def own_problems(self) -> Iterator[None]:
        """Raise what the source raised; aiohttp wraps it as if the network had failed."""
        try:
            yield
        except (aiohttp.ClientError, TimeoutError):
            if self._problem:
                raise self._problem from None
            raise


def upload_headers(name: str | None, size: int | None) -> dict[str, str]:
    """Those of an upload, for all its tries: the Idempotency-Key makes them one."""
    headers = {
        "Accept": "application/json",
        "Content-Type": "application/octet-stream",
        "Idempotency-Key": f'"{uuid4()}"',
    }
    if name:
        headers["Content-Disposition"] = format_disposition(name)
    if size is not None:
        headers["Content-Length"] = str(size)
    return headers


async def _look_up() -> None:
    """Let the loop read before the next write: a failing write throws away the answer that explains it.

    A server may answer and close while the body is still coming. The first turn polls the socket, the second one comes
    after what was found there.
    """
    await asyncio.sleep(0)
    await asyncio.sleep(0)


def _allow(clock: asyncio.Timeout, seconds: float | None) -> None:
    if not clock.expired():
        clock.reschedule(None if seconds is None else asyncio.get_running_loop().time() + seconds)
