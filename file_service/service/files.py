"""Storing, opening, listing and deleting files.

A byte's way in: intent row -> staged write -> hash and limits -> durable in storage -> row visible -> answer. No
database connection is held while a body is read.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from hmac import compare_digest
from uuid import UUID

from file_service.aio import uncancelled
from file_service.db.files import Files
from file_service.errors import BadRequest, Damaged, Forbidden, Gone, NotFound, ServiceError, StorageFull, TooLarge
from file_service.model import Attempt, File, Page, Receipt, Terms
from file_service.service.batch import Batch, token_hash
from file_service.service.streams import Digests
from file_service.storage.base import Bounded, Linked, Storage

log = logging.getLogger(__name__)
NO_TERMS = Terms()
LINK_LIFE = 300  # seconds: to begin a download, and to resume it by the same URL, as some browsers do


@dataclass(frozen=True, slots=True)
class Rules:
    """What the service is told by its settings. Sizes are bytes, times seconds."""

    max_file_size: int | None = None
    block_size: int = 1 << 20
    default_expiry: float | None = None
    max_expiry: float | None = None
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
        length: int | None = None,
        key: str | None = None,
        terms: Terms = NO_TERMS,
    ) -> Receipt:
        """Store one file, of `length` bytes if that is known; when this returns it is durable and visible."""
        async with self.batch(key, terms) as batch:
            await batch.add(name, content_type, chunks, expected, length)
        return batch.receipts[0]

    @asynccontextmanager
    async def batch(self, key: str | None = None, terms: Terms = NO_TERMS) -> AsyncIterator[Batch]:
        """Files that become visible together when the block ends, or not at all when anything goes wrong in it."""
        batch = Batch(self, key, terms)
        try:
            yield batch
            await batch.close()
        except BaseException as error:
            await uncancelled(batch.abort(error))
            raise

    def agree(self, asked: Terms) -> Terms:
        """The terms a file is stored on: those asked for, else the defaults; `BadRequest` beyond the longest expiry."""
        longest = self.rules.max_expiry
        if asked.expires_in is None:
            return Terms(self.rules.default_expiry or longest, asked.max_downloads)
        if longest is not None and asked.expires_in > longest:
            raise BadRequest(f"A file may be kept for {longest:g} seconds at most.")
        return asked

    async def get(self, id_: UUID) -> File:
        """The file with this id, or `NotFound`, or `Gone`."""
        if (found := await self.files.get(id_)) is None:
            raise Gone if await self.files.gone(id_) else NotFound
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
            await self.get(file.id)  # one that was deleted or has expired meanwhile is not damaged
            log.critical("file %s: its bytes are missing or cut short in storage", file.id)
            await self.files.mark_damaged(attempt, damaged=True)
            raise
        if file.damaged and stop in (None, file.size):  # only then the storage has seen that all of it is there
            await self.files.mark_damaged(attempt, damaged=False)

    async def link(self, file: File, headers: Mapping[str, str]) -> str | None:
        """A URL, good for minutes, that gives the bytes with these headers, where the storage does that; else None.

        What is to be counted, and what may be damaged, is read here.
        """
        if not isinstance(self.storage, Linked) or file.max_downloads is not None or file.damaged:
            return None
        left = LINK_LIFE if file.expires_at is None else (file.expires_at - datetime.now(UTC)).total_seconds()
        return await self.storage.link(file.attempt, headers, max(1, int(min(left, LINK_LIFE))))

    async def page(self, limit: int, before: tuple[datetime, UUID] | None = None) -> Page:
        """Up to `limit` files, newest first, after the position `before`."""
        return await self.files.page(limit, before)

    async def delete(self, id_: UUID, token: str | None = None) -> None:
        """Make the file invisible, then remove its bytes, then its row; what fails after the first step is swept.

        A token is checked when there is one: `Forbidden` when it is not the file's.
        """
        if token is not None and not compare_digest(await self.files.delete_token(id_) or b"", token_hash(token)):
            await self.get(id_)
            raise Forbidden("This delete token is not the one that came with the upload.")
        attempt = await self.files.mark_deleting(id_)
        if attempt is None:
            raise Gone if await self.files.gone(id_) else NotFound
        await self.discard(attempt)

    async def discard(self, attempt: Attempt) -> None:
        """Remove the bytes, then the row, of an attempt that has ended; what fails is swept later."""
        try:
            await self.storage.delete(attempt.key)
            await self.files.settle(attempt)
        except ServiceError as error:
            log.warning("attempt %s: left to the sweep: %s", attempt.key, error.detail)
