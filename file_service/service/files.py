"""Storing, opening, listing and deleting files.

A byte's way in: intent row -> staged write -> hash and limits -> durable in storage -> row visible -> answer. No
database connection is held while a body is read.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID, uuid4

from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_delay, wait_exponential_jitter

from file_service.aio import uncancelled
from file_service.db.files import Files
from file_service.errors import Damaged, KeyReused, NotFound, ServiceError, StorageFull, TooLarge, Unavailable
from file_service.model import Attempt, File, Page, Received, RetryKey
from file_service.service.streams import Digests, Hashes, coalesced, copy, hashed, limited
from file_service.storage.base import Bounded, Storage, staged

log = logging.getLogger(__name__)
SHA256 = "sha-256"


@dataclass(frozen=True, slots=True)
class Rules:
    """What the service is told by its settings. Sizes are bytes, times seconds."""

    max_file_size: int | None = None
    block_size: int = 1 << 20
    commit_patience: float = 10.0  # how long an unknown commit outcome is looked into


class FileService:
    """The store."""

    def __init__(self, files: Files, storage: Storage, owner: UUID, rules: Rules | None = None) -> None:
        self.files = files
        self.storage = storage
        self.owner = owner
        self.rules = rules or Rules()
        self.given_up: set[Attempt] = set()  # failed attempts whose end could not be recorded; the sweep does it

    async def admit(self, length: int | None) -> None:
        """Refuse a file of `length` bytes before its first byte: `TooLarge`, `StorageFull`."""
        limit = self.rules.max_file_size
        if limit is not None and length is not None and length > limit:
            raise TooLarge(f"The file is larger than the limit of {limit} bytes.")
        await self.check_room(length)

    async def check_room(self, length: int | None) -> None:
        """Raise `StorageFull` when `length` bytes cannot be had; an unknown length needs at least one."""
        if isinstance(self.storage, Bounded) and await self.storage.free() < (length or 1):
            raise StorageFull

    async def store(
        self,
        name: str | None,
        content_type: str,
        chunks: AsyncIterator[bytes],
        *,
        expected: Digests | None = None,
        key: str | None = None,
    ) -> File:
        """Store one file; when this returns it is durable and visible."""
        async with self.batch(key) as batch:
            await batch.add(name, content_type, chunks, expected)
        return batch.files[0]

    @asynccontextmanager
    async def batch(self, key: str | None = None) -> AsyncIterator[Batch]:
        """Files that become visible together when the block ends, or not at all when anything goes wrong in it."""
        batch = Batch(self, key)
        try:
            yield batch
            await batch.close()
        except BaseException:
            await uncancelled(batch.abort())
            raise

    async def get(self, id_: UUID) -> File:
        """The file with this id, or `NotFound`."""
        if (found := await self.files.get(id_)) is None:
            raise NotFound
        return found

    async def read(self, file: File, start: int = 0, stop: int | None = None) -> AsyncGenerator[bytes, None]:
        """The bytes [start, stop) of `file`; `Damaged` as early as possible when they are not all there.

        The row then says so too, until a later read finds them again.
        """
        attempt = Attempt(file.id, file.attempt)
        try:
            async with aclosing(self.storage.read(file.attempt, start, file.size if stop is None else stop)) as chunks:
                async for chunk in chunks:
                    yield chunk
        except Damaged:
            log.critical("file %s: its bytes are missing or cut short in storage", file.id)
            await self.files.mark_damaged(attempt, damaged=True)
            raise
        if file.damaged:
            await self.files.mark_damaged(attempt, damaged=False)

    async def page(self, limit: int, before: tuple[datetime, UUID] | None = None) -> Page:
        """Up to `limit` files, newest first, after the position `before`."""
        return await self.files.page(limit, before)

    async def delete(self, id_: UUID) -> None:
        """Make the file invisible, then remove its bytes, then its row; what fails after the first step is swept."""
        attempt = await self.files.mark_deleting(id_)
        if attempt is None:
            raise NotFound
        await self.discard(attempt)

    async def discard(self, attempt: Attempt) -> None:
        """Remove the bytes, then the row, of an attempt that is aborting or deleting; what fails is swept later."""
        try:
            await self.storage.delete(attempt.key)
            await self.files.remove(attempt)
        except ServiceError as error:
            log.warning("attempt %s: left to the sweep: %s", attempt.key, error.detail)


class Batch:
    """The files of one request."""

    def __init__(self, service: FileService, key: str | None) -> None:
        self.files: list[File] = []
        self._service = service
        self._key = key
        self._attempts: list[Attempt] = []
        self._results: list[tuple[Attempt, Received]] = []
        self._unknown = False

    async def add(
        self, name: str | None, content_type: str, chunks: AsyncIterator[bytes], expected: Digests | None = None
    ) -> None:
        """Take one file in: durable when this returns, visible when the batch ends.

        Raises `TooLarge`, `DigestMismatch`, `KeyReused` and what the storage and the chunks raise.
        """
        service, expected = self._service, expected or {}
        attempt = Attempt(uuid4(), uuid4())
        key = RetryKey(self._key, len(self._attempts) + len(self.files)) if self._key else None
        chunks = limited(chunks, service.rules.max_file_size)
        self._attempts.append(attempt)
        stored = await service.files.begin(attempt, service.owner, name or str(attempt.id), content_type, key)
        if stored is not None:
            self._attempts.remove(attempt)
            await _same(stored, chunks, expected)
            self.files.append(stored)
            return
        hashes = Hashes({SHA256, *expected})
        async with staged(service.storage, attempt.key) as writer:
            await copy(coalesced(chunks, service.rules.block_size), writer.write, hashes)
            hashes.verify(expected)
        self._results.append((attempt, Received(writer.offset, hashes.digest(SHA256))))

    async def close(self) -> None:
        """Make the files visible. A lost answer to the commit is looked into, never guessed at."""
        if self.files and (self._results or await self._service.files.count(self._key or "") != len(self.files)):
            raise KeyReused
        if self._results:
            self.files += await uncancelled(self._finish())

    async def abort(self) -> None:
        """Remove what the attempts left. When the outcome of the commit is unknown nothing is touched."""
        for attempt in self._attempts:
            if self._unknown:
                self._service.given_up.add(attempt)
                continue
            try:
                dead = await self._service.files.give_up(attempt)
            except ServiceError:
                self._service.given_up.add(attempt)
                continue
            if dead:
                await self._service.discard(attempt)

    async def _finish(self) -> list[File]:
        retrying = AsyncRetrying(
            retry=retry_if_exception_type(Unavailable),
            stop=stop_after_delay(self._service.rules.commit_patience),
            wait=wait_exponential_jitter(multiplier=0.1, max=1),
            reraise=True,
        )
        try:
            return await retrying(self._service.files.finish, self._results)
        except Unavailable:
            self._unknown = True
            raise


async def _same(stored: File, chunks: AsyncIterator[bytes], expected: Digests) -> None:
    """Read a repeated body to its end; `KeyReused` unless it is the stored file once more."""
    hashes, size = Hashes({SHA256, *expected}), 0
    async for chunk in hashed(chunks, hashes):
        size += len(chunk)
        if size > stored.size:
            raise KeyReused
    hashes.verify(expected)
    if hashes.digest(SHA256) != stored.sha256:
        raise KeyReused
