"""The files of one request: taken in one after the other, visible together."""

from __future__ import annotations

import hashlib
import logging
import secrets
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING
from uuid import uuid4

from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_delay, wait_exponential_jitter

from file_service.aio import uncancelled
from file_service.errors import KeyReused, ServiceError, Unavailable
from file_service.model import Attempt, File, Receipt, Received, Result, RetryKey, Terms
from file_service.service.streams import SHA256, Digests, Hashes, coalesced, copy, hashed, limited
from file_service.storage.base import staged

if TYPE_CHECKING:
    from file_service.service.files import FileService

log = logging.getLogger(__name__)


class Batch:
    """Made by `FileService.batch`; `terms` may be changed until the batch ends."""

    def __init__(self, service: FileService, key: str | None, terms: Terms) -> None:
        self.receipts: list[Receipt] = []
        self.terms = terms
        self._service = service
        self._key = key
        self._stored: list[File] = []
        self._attempts: list[Attempt] = []
        self._received: list[tuple[Attempt, Received]] = []

    async def add(
        self,
        name: str | None,
        content_type: str,
        chunks: AsyncIterator[bytes],
        expected: Digests | None = None,
        length: int | None = None,
    ) -> None:
        """Take one file in, of `length` bytes if that is known: durable when this returns, visible when the batch ends.

        Raises `TooLarge`, `DigestMismatch`, `KeyReused` and what the storage and the chunks raise.
        """
        service, expected = self._service, expected or {}
        attempt = Attempt(uuid4(), uuid4())
        name = name or str(attempt.id)
        key = RetryKey(self._key, len(self._attempts) + len(self._stored)) if self._key else None
        chunks = limited(chunks, service.rules.max_file_size)
        self._attempts.append(attempt)
        stored = await service.files.begin(attempt, service.owner, name, content_type, key)
        if stored is not None:
            self._attempts.remove(attempt)
            await _same(stored, chunks, expected)
            self._stored.append(stored)
            return
        hashes = Hashes({SHA256, *expected})
        metadata = {"id": str(attempt.id), "name": name}
        async with staged(service.storage, attempt.key, length=length, metadata=metadata) as writer:
            await copy(coalesced(chunks, service.rules.block_size), writer.write, hashes)
            hashes.verify(expected)
        self._received.append((attempt, Received(writer.offset, hashes.digest(SHA256), hashes.crc32)))

    async def close(self) -> None:
        """Make the files visible. A lost answer to the commit is looked into, never guessed at."""
        if self._stored:
            await self._repeat()
        if self._received:
            await uncancelled(self._finish())

    async def abort(self, error: BaseException) -> None:
        """Remove what the attempts left.

        When the database is away nothing is touched: the commit may have succeeded, and nobody can be asked.
        """
        if isinstance(error, Unavailable) and error.part == "database":
            self._service.given_up.update(self._attempts)
            return
        for attempt in self._attempts:
            try:
                dead = await self._service.files.give_up(attempt)
            except ServiceError:
                self._service.given_up.add(attempt)
                continue
            if dead:
                await self._service.discard(attempt)

    async def _repeat(self) -> None:
        """A retry of a request that had succeeded: the same files, and new delete tokens, as the first may be lost."""
        if self._received or await self._service.files.count(self._key or "") != len(self._stored):
            raise KeyReused
        for file in self._stored:
            token = secrets.token_urlsafe()
            await self._service.files.set_delete_token(file.id, token_hash(token))
            self.receipts.append(Receipt(file, token))

    async def _finish(self) -> None:
        tokens = [secrets.token_urlsafe() for _ in self._received]
        results = [
            Result(*received, self.terms, token_hash(token))
            for received, token in zip(self._received, tokens, strict=True)
        ]
        retrying = AsyncRetrying(
            retry=retry_if_exception_type(Unavailable),
            stop=stop_after_delay(self._service.rules.commit_patience),
            wait=wait_exponential_jitter(multiplier=0.1, max=1),
            reraise=True,
        )
        files: list[File] = await retrying(self._service.files.finish, results)
        self.receipts = [Receipt(file, token) for file, token in zip(files, tokens, strict=True)]


def token_hash(token: str) -> bytes:
    """What is kept of a delete token."""
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()


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
