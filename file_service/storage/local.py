"""Files on a local disk: aiofile moves the bytes, `Disk` does the rest in threads.

The order of a commit (fsync(2), rename(2)): bytes -> fsync of the file -> link into its folder -> fsync of the folder.
An fsync that failed is never tried again: the kernel may have dropped the pages it could not write.

aiofile is given an explicit context, caio's thread pool in Python: the default (io_uring with a polling thread) doubles
the CPU of buffered writes and, like the other native ones, reports a full disk as an error without a number.
"""

from __future__ import annotations

import asyncio
import os
from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import BinaryIO, TypeVar
from uuid import UUID

from aiofile import AIOFile
from caio.python_aio_asyncio import AsyncioContext

from file_service.aio import uncancelled
from file_service.errors import Damaged, StorageFailed
from file_service.storage.base import DIGITS, NO_METADATA, Found, Listed, Metadata, Storage, Writer
from file_service.storage.disk import Disk
from file_service.storage.system import read_cached, renamed

T = TypeVar("T")
THREADS = 16
LATELY = 128  # small files kept open at most; one that is deleted elsewhere keeps its space until it falls out


@asynccontextmanager
async def local_storage(root: Path, *, chunk_size: int, durable: bool = True) -> AsyncIterator[LocalStorage]:
    """A storage in the folder `root`; reads come in chunks of `chunk_size` bytes."""
    with ThreadPoolExecutor(THREADS, "disk") as threads:
        async with AsyncioContext(max_requests=512) as context:  # type: ignore[no-untyped-call]  # caio's own signature
            storage = LocalStorage(Disk(root, durable), threads, context, chunk_size)
            try:
                yield storage
            finally:
                storage.close()


class LocalStorage:
    """`Storage`, `Bounded`, `Marked` and `Listed` on a folder."""

    def __init__(self, disk: Disk, threads: ThreadPoolExecutor, context: AsyncioContext, chunk_size: int) -> None:
        self.disk = disk
        self._threads = threads
        self._context = context
        self._chunk_size = chunk_size
        self._identity: UUID | None = None
        self._lately: OrderedDict[UUID, BinaryIO] = OrderedDict()

    def close(self) -> None:
        """Close the files that are kept open."""
        for key in list(self._lately):
            self._forget(key)

    async def create(self, key: UUID, *, length: int | None = None, metadata: Metadata = NO_METADATA) -> LocalWriter:
        """Open the temporary file; of what is known of the file a folder has no use."""
        return LocalWriter(self, key, await self.run(self.disk.create, key, unwanted=lambda opened: opened.close()), 0)

    async def resume(self, key: UUID, token: str) -> LocalWriter:
        """Open the temporary file again; its size is the offset."""
        stream = await self.run(self.disk.reopen, key, unwanted=lambda opened: opened.close())
        return LocalWriter(self, key, stream, stream.seek(0, 2))

    async def read(self, key: UUID, start: int = 0, stop: int | None = None) -> AsyncGenerator[bytes, None]:
        """See `Storage.read`. While the caller sends one chunk the next is at hand already, or on its way."""
        if (small := self._read_lately(key, start, stop)) is not None:
            yield small
            return
        first = self._chunk_size if stop is None else min(self._chunk_size, stop - start)
        stream, size, chunk = await self.run(self.disk.open, key, start, first, unwanted=lambda new: new[0].close())
        ahead: bytes | asyncio.Task[bytes] = b""
        try:
            stop = size if stop is None else stop
            if size < stop:
                raise Damaged(key)
            while start < stop:
                if not chunk:
                    raise Damaged(key)
                start += len(chunk)
                ahead = self._ahead(stream, start, min(self._chunk_size, stop - start))
                yield chunk
                chunk = ahead if isinstance(ahead, bytes) else await asyncio.shield(ahead)
        finally:
            try:
                if isinstance(ahead, asyncio.Task):
                    await uncancelled(_settled(ahead))
            finally:
                self._keep(key, stream, size)

    async def delete(self, key: UUID) -> None:
        """Unlink the temporary and the published file."""
        self._forget(key)
        await self.run(self.disk.delete, key)

    async def check(self) -> None:
        """The marker is ours and a small file can be written."""
        await self.run(self.disk.require, self._identity)
        await self.run(self.disk.probe)

    async def free(self) -> int:
        """Bytes left on the disk."""
        return await self.run(self.disk.free, self._identity)

    async def identity(self) -> UUID | None:
        """What the marker says. A root that has one is refused when its parts lie on two filesystems."""
        self._identity = await self.run(self.disk.identity)
        if self._identity is not None and not await self.run(self.disk.one_filesystem):
            raise StorageFailed("tmp and objects in the data folder lie on different filesystems (EXDEV).")
        return self._identity

    async def mark(self, identity: UUID) -> None:
        """Lay the root out."""
        await self.run(self.disk.lay_out, identity)
        self._identity = await self.identity()

    async def list(self, digit: str) -> AsyncGenerator[Found, None]:
        """The temporary files, then the published ones folder by folder."""
        temporary = await self.run(self.disk.names, "tmp")
        for name, size in (pair for pair in temporary if pair[0].startswith(digit)):
            yield Found(UUID(hex=name), size, staged=True)
        for second in DIGITS:
            for name, size in await self.run(self.disk.shards, digit + second):
                yield Found(UUID(hex=name), size, staged=False)

    async def find(self, key: UUID) -> Sequence[Found]:
        """See `Listed.find`."""
        return [Found(key, size, staged) for size, staged in await self.run(self.disk.find, key)]

    async def quarantine(self, found: Found) -> None:
        """Into `quarantine` in the root."""
        self._forget(found.key)
        await self.run(self.disk.quarantine, found.key, found.staged)

    def file(self, stream: BinaryIO) -> AIOFile:
        """aiofile over an open file; it never closes it, since its own close() syncs whatever the setting."""
        return AIOFile.from_fp(stream, context=self._context)

    async def run(self, call: Callable[..., T], *args: object, unwanted: Callable[[T], object] | None = None) -> T:
        """A blocking call in a thread, never left behind half done; see `uncancelled`."""
        with renamed():
            return await uncancelled(self._raw(call, *args), unwanted)

    async def _raw(self, call: Callable[..., T], *args: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, call, *args)

    def _read_lately(self, key: UUID, start: int, stop: int | None) -> bytes | None:
        """The bytes [start, stop) of a small file that was read lately, when no disk has to be asked for them."""
        if (stream := self._lately.get(key)) is None:
            return None
        found = os.fstat(stream.fileno())
        stop = found.st_size if stop is None else stop
        count = max(stop - start, 0)
        if found.st_nlink and stop <= found.st_size <= self._chunk_size:
            with suppress(BlockingIOError):
                self._lately.move_to_end(key)
                # A part of the bytes may have left the page cache.
                if len(data := read_cached(stream.fileno(), start, count)) == count:
                    return data
        self._forget(key)
        return None

    def _keep(self, key: UUID, stream: BinaryIO, size: int) -> None:
        """Keep a small file open for the next reader, like the open file cache of web servers; close a large one."""
        if size > self._chunk_size or key in self._lately:
            stream.close()
            return
        self._lately[key] = stream
        if len(self._lately) > LATELY:
            self._forget(next(iter(self._lately)))

    def _forget(self, key: UUID) -> None:
        if (stream := self._lately.pop(key, None)) is not None:
            stream.close()

    def _ahead(self, stream: BinaryIO, start: int, count: int) -> bytes | asyncio.Task[bytes]:
        try:
            return read_cached(stream.fileno(), start, count) if count else b""
        except BlockingIOError:
            return asyncio.create_task(self._read(stream, start, count))

    async def _read(self, stream: BinaryIO, start: int, count: int) -> bytes:
        with renamed():
            return await self.file(stream).read_bytes(count, start)


async def _settled(ahead: asyncio.Task[bytes]) -> None:
    """Wait for a read that nobody wants any more, so that its descriptor is not closed under it."""
    await asyncio.wait({ahead})
    if not ahead.cancelled():
        ahead.exception()


class LocalWriter:
    """`Writer` on a temporary file."""

    def __init__(self, storage: LocalStorage, key: UUID, stream: BinaryIO, offset: int) -> None:
        self.token = key.hex
        self.offset = offset
        self._storage = storage
        self._key = key
        self._stream = stream
        self._file = storage.file(stream)
        self._ended = False

    async def write(self, chunk: bytes) -> None:
        """Write at the offset; a cancelled write has ended before the cancellation goes on."""
        with renamed():
            self.offset += await uncancelled(self._file.write_bytes(chunk, self.offset))

    async def suspend(self) -> None:
        """Sync, so that the offset survives a power cut, and close."""
        await self._sync()
        await self._close()
        self._ended = True

    async def commit(self) -> None:
        """Sync, close, publish."""
        await self._sync()
        await self._close()
        await self._storage.run(self._storage.disk.publish, self._key)
        self._ended = True

    async def abort(self) -> None:
        """Close and unlink."""
        if not self._ended:
            await self._close()
            await self._storage.delete(self._key)
            self._ended = True

    async def _sync(self) -> None:
        if self._storage.disk.durable:
            with renamed():
                await self._file.fsync()

    async def _close(self) -> None:
        await self._storage.run(self._stream.close)


_: type[Storage] = LocalStorage
___: type[Listed] = LocalStorage
__: type[Writer] = LocalWriter
