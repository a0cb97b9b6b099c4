"""S3 for the contract suite: a bucket of its own for each test, on either server."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

from file_service.storage.s3 import S3Storage, s3_storage
from file_service.storage.s3_marker import MARKER
from file_service.storage.s3_retries import Patience
from file_service.storage.s3_unfinished import TAIL
from tests.support.s3_server import SERVERS, Bucket, S3Server

if TYPE_CHECKING:
    from tests.storage.benches import Bench, Contents

PREFIX = "some/place/"
PATIENCE = Patience(attempts=4, first=0.001, longest=0.01, timeout=20)


@asynccontextmanager
async def opened(
    server: S3Server, *, url: str | None = None, bucket: Bucket | None = None, **options: Any
) -> AsyncIterator[tuple[S3Storage, Bucket]]:
    """A storage in a fresh bucket, or in `bucket`, reached at `url`; no memory of it is in use at the end."""
    bucket = bucket or server.bucket()
    options = {"endpoint_url": url or server.url, "prefix": PREFIX, "patience": PATIENCE, **options}
    with server.credentials():
        async with s3_storage(bucket.name, **options) as storage:
            yield storage, bucket
    assert storage.memory.free == storage.memory.size


@asynccontextmanager
async def s3(name: str, _: Path) -> AsyncIterator[Bench]:
    """Where the server allows it parts are smaller than the files of the suite, so that these are cut."""
    from tests.storage.benches import CHUNK, IDENTITY, Bench

    server = SERVERS[name]()
    part_size = max(server.smallest_part, CHUNK + 1)
    sizes: dict[str, Any] = {
        "part_size": part_size,
        "smallest_part": max(server.smallest_part, 1000),
        "memory": 4 * part_size,
    }
    async with opened(server, chunk_size=CHUNK, **sizes) as (storage, bucket):
        await storage.mark(IDENTITY)
        readers = count_readers(storage)
        yield Bench(storage, partial(look, storage, bucket, readers), partial(cut, bucket))


def look(storage: S3Storage, bucket: Bucket, readers: list[int]) -> Contents:
    """What is in the bucket; a handle is a reader, a connection that is in use, or memory that parts have."""
    from tests.storage.benches import Contents

    handles = len(readers) + connections(storage) + (storage.memory.free < storage.memory.size)
    contents = Contents(handles=handles)
    contents.staged = {UUID(key.removeprefix(PREFIX)) for key, _ in bucket.uploads()}
    for name in (key.removeprefix(PREFIX) for key in bucket.sizes()):
        if name.endswith(TAIL):
            contents.staged.add(UUID(name.removesuffix(TAIL)))
        elif name != MARKER:
            contents.published.add(UUID(name))
    return contents


def count_readers(storage: S3Storage) -> list[int]:
    """A list that has one entry for every reader that has begun and not ended: a small file leaves no other trace."""
    readers: list[int] = []
    read = storage.read

    async def counted(key: UUID, start: int = 0, stop: int | None = None) -> AsyncGenerator[bytes, None]:
        readers.append(1)
        try:
            async with aclosing(read(key, start, stop)) as chunks:
                async for chunk in chunks:
                    yield chunk
        finally:
            readers.pop()

    storage.read = counted  # type: ignore[method-assign]
    return readers


def connections(storage: S3Storage) -> int:
    """Connections to the server that a request has now."""
    sessions = storage.client._endpoint.http_session._sessions  # type: ignore[attr-defined]
    return sum(len(session.connector._acquired) for session in sessions.values())


def cut(bucket: Bucket, key: UUID, size: int) -> None:
    """Shorten an object: S3 can only put another one in its place."""
    bucket.put(f"{PREFIX}{key.hex}", bucket.read(f"{PREFIX}{key.hex}")[:size])
