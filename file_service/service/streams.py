"""What happens to bytes on their way into storage: small decorators of async iterators."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping

from isal import isal_zlib

from file_service.aio import uncancelled
from file_service.errors import BodyIdle, DigestMismatch, TooLarge

Digests = Mapping[str, bytes]  # RFC 9530 algorithm name -> digest
SHA256 = "sha-256"
ALGORITHMS: dict[str, str] = {"sha-256": "sha256", "sha-512": "sha512", "md5": "md5"}
PROGRESS = 4096  # bytes that count as progress
POLL = 1.0  # seconds of silence between two checks
INLINE = 32 << 10  # a block this small is hashed sooner than a thread takes it


async def limited(chunks: AsyncIterator[bytes], limit: int | None) -> AsyncIterator[bytes]:
    """The same chunks; `TooLarge` as soon as there are more than `limit` bytes."""
    size = 0
    async for chunk in chunks:
        size += len(chunk)
        if limit is not None and size > limit:
            raise TooLarge(f"The file is larger than the limit of {limit} bytes.")
        yield chunk


async def progressing(
    chunks: AsyncIterator[bytes], idle: float, check: Callable[[], None] = lambda: None
) -> AsyncIterator[bytes]:
    """The same chunks; `BodyIdle` when fewer than `PROGRESS` bytes come in `idle` seconds.

    While nothing comes `check` is called now and then and may raise. The time the caller takes does not count.
    """
    loop = asyncio.get_running_loop()
    deadline, moved, source = loop.time() + idle, 0, aiter(chunks)
    while True:
        try:
            async with asyncio.timeout_at(min(deadline, loop.time() + POLL)):
                chunk = await anext(source)
        except StopAsyncIteration:
            return
        except TimeoutError:
            check()
            if loop.time() >= deadline:
                raise BodyIdle(idle) from None
            continue
        moved += len(chunk)
        received = loop.time()
        if moved >= PROGRESS:
            deadline, moved = received + idle, 0
        yield chunk
        deadline += loop.time() - received


async def coalesced(chunks: AsyncIterator[bytes], size: int) -> AsyncIterator[bytes]:
    """The same bytes in blocks of at least `size` (the last may be smaller): many small writes are what costs."""
    waiting: list[bytes] = []
    length = 0
    async for chunk in chunks:
        waiting.append(chunk)
        length += len(chunk)
        if length >= size:
            yield b"".join(waiting)
            waiting.clear()
            length = 0
    if waiting:
        yield b"".join(waiting)


class Hashes:
    """Several digests of one stream, and its CRC-32."""

    def __init__(self, algorithms: Iterable[str]) -> None:
        self.crc32 = 0
        self._hashes = {name: hashlib.new(ALGORITHMS[name], usedforsecurity=False) for name in algorithms}

    def update(self, block: bytes) -> None:
        """Take `block` in; the lock of the interpreter is free meanwhile."""
        self.crc32 = isal_zlib.crc32(block, self.crc32)
        for digest in self._hashes.values():
            digest.update(block)

    def digest(self, algorithm: str) -> bytes:
        """The digest so far."""
        return self._hashes[algorithm].digest()

    def verify(self, expected: Digests) -> None:
        """Raise `DigestMismatch` unless every expected digest is the real one."""
        for algorithm, value in expected.items():
            if self.digest(algorithm) != value:
                raise DigestMismatch(algorithm)


async def hashed(chunks: AsyncIterator[bytes], hashes: Hashes) -> AsyncIterator[bytes]:
    """The same chunks, taken into `hashes` as they pass."""
    async for chunk in chunks:
        hashes.update(chunk)
        yield chunk


async def copy(blocks: AsyncIterator[bytes], write: Callable[[bytes], Awaitable[None]], hashes: Hashes) -> None:
    """Write and hash every block, both at once, while the next one is received."""
    last: asyncio.Task[None] | None = None
    try:
        async for block in blocks:
            if last is not None:
                await last
            last = asyncio.create_task(_take(block, write, hashes))
        if last is not None:
            await last
    except BaseException:
        if last is not None:
            await uncancelled(_settled(last))
        raise


async def _take(block: bytes, write: Callable[[bytes], Awaitable[None]], hashes: Hashes) -> None:
    if len(block) <= INLINE:
        hashes.update(block)
        await write(block)
        return
    hashing = asyncio.get_running_loop().run_in_executor(None, hashes.update, block)
    try:
        await write(block)
    finally:
        await hashing


async def _settled(task: asyncio.Task[None]) -> None:
    await asyncio.wait({task})
    if not task.cancelled():
        task.exception()
