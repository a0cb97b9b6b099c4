"""A storage in two dictionaries that keeps every promise of base.py except to outlive the process.

A call does its work first and then lets others run, so that one cancelled on the way has happened all the same: the
harder case for whoever cleans up.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from uuid import UUID

from file_service.errors import Damaged, NotFound, StorageFull, Unavailable
from file_service.storage.base import NO_METADATA, Bounded, Marked, Metadata, Storage, Writer


class MemoryStorage:
    """`Storage`, `Bounded` and `Marked`; `room` bytes fit in. `handles` counts the writers and readers now open."""

    def __init__(self, *, chunk_size: int = 1 << 16, room: int = 1 << 40) -> None:
        self.staged: dict[UUID, bytearray] = {}
        self.published: dict[UUID, bytes] = {}
        self.handles = 0
        self._chunk_size = chunk_size
        self._room = room
        self._identity: UUID | None = None

    async def create(self, key: UUID, *, length: int | None = None, metadata: Metadata = NO_METADATA) -> MemoryWriter:
        """Begin with no bytes."""
        self.staged[key] = bytearray()
        await asyncio.sleep(0)
        return MemoryWriter(self, key)

    async def resume(self, key: UUID, token: str) -> MemoryWriter:
        """Go on with the bytes that are there."""
        await asyncio.sleep(0)
        if key not in self.staged or token != key.hex:
            raise NotFound("No such upload.")
        return MemoryWriter(self, key)

    async def read(self, key: UUID, start: int = 0, stop: int | None = None) -> AsyncGenerator[bytes, None]:
        """See `Storage.read`; a file deleted meanwhile is read to its end."""
        await asyncio.sleep(0)
        data = self.published.get(key)
        if data is None or len(data) < (stop or 0):
            raise Damaged(key)
        self.handles += 1
        try:
            stop = len(data) if stop is None else stop
            for offset in range(start, stop, self._chunk_size):
                yield data[offset : min(offset + self._chunk_size, stop)]
                await asyncio.sleep(0)
        finally:
            self.handles -= 1

    async def delete(self, key: UUID) -> None:
        """Drop both."""
        self.staged.pop(key, None)
        self.published.pop(key, None)
        await asyncio.sleep(0)

    async def check(self) -> None:
        """Memory is always there."""
        await asyncio.sleep(0)

    async def free(self) -> int:
        """What is left of the room."""
        await asyncio.sleep(0)
        return self._room - sum(map(len, [*self.staged.values(), *self.published.values()]))

    async def identity(self) -> UUID | None:
        """What `mark` was given."""
        await asyncio.sleep(0)
        return self._identity

    async def mark(self, identity: UUID) -> None:
        """The first identity stays."""
        self._identity = self._identity or identity
        await asyncio.sleep(0)


class MemoryWriter:
    """`Writer` on the bytes under a key; another's `delete` takes them from it."""

    def __init__(self, storage: MemoryStorage, key: UUID) -> None:
        self.token = key.hex
        self._storage = storage
        self._key = key
        self._bytes = storage.staged[key]
        self._open = True
        storage.handles += 1

    @property
    def offset(self) -> int:
        """Bytes written."""
        return len(self._bytes)

    async def write(self, chunk: bytes) -> None:
        """Append, as far as there is room."""
        if await self._storage.free() < len(chunk):
            raise StorageFull
        self._bytes += chunk
        await asyncio.sleep(0)

    async def suspend(self) -> None:
        """Leave the bytes where they are."""
        self._end()
        await asyncio.sleep(0)

    async def commit(self) -> None:
        """Move the bytes."""
        if self._storage.staged.get(self._key) is not self._bytes:
            raise Unavailable("storage")
        del self._storage.staged[self._key]
        self._storage.published[self._key] = bytes(self._bytes)
        self._end()
        await asyncio.sleep(0)

    async def abort(self) -> None:
        """Drop the bytes."""
        if self._open:
            self._end()
            await self._storage.delete(self._key)

    def _end(self) -> None:
        self._open = False
        self._storage.handles -= 1


_: type[Storage] = MemoryStorage
__: type[Bounded] = MemoryStorage
___: type[Marked] = MemoryStorage
____: type[Writer] = MemoryWriter
