"""The storages under test, each with what the contract suite must know beyond the protocol: what lies in it, and how
to damage it. A backend joins the suite by one line in `BENCHES`."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from uuid import UUID, uuid4

from file_service.storage.base import Storage
from file_service.storage.disk import MARKER
from file_service.storage.local import LocalStorage, local_storage
from tests.storage.s3_bench import s3
from tests.support.memory_storage import MemoryStorage

CHUNK = 4096  # bytes in which the storages read: a few of them make a file with boundaries inside
IDENTITY = UUID("6a8f2ac5-6f1d-4a80-9c52-1d3f9b0a7e44")


@dataclass
class Contents:
    """What lies in a storage: the keys with staged bytes, the published ones, everything else by its name."""

    staged: set[UUID] = field(default_factory=set)
    published: set[UUID] = field(default_factory=set)
    other: set[str] = field(default_factory=set)
    handles: int = 0  # open writers and readers


@dataclass
class Bench:
    """A storage, `look` into it, `cut(key, size)` to shorten a published file behind its back."""

    storage: Storage
    look: Callable[[], Contents]
    cut: Callable[[UUID, int], None]
    kept: set[UUID] = field(default_factory=set)  # published keys that may be there when the test ends

    async def store(self, data: bytes) -> UUID:
        """Publish `data` under a fresh key."""
        key = uuid4()
        writer = await self.storage.create(key)
        await writer.write(data)
        await writer.commit()
        self.kept.add(key)
        return key

    def check(self) -> None:
        """AssertionError when anything is left: staged bytes, files the test does not speak of, handles, tasks."""
        found, tasks = self.look(), asyncio.all_tasks() - {asyncio.current_task()}
        assert found == Contents(published=self.kept), f"left behind: {found}"
        assert not tasks, f"still running: {tasks}"


@asynccontextmanager
async def memory(_: Path) -> AsyncIterator[Bench]:
    """Two dictionaries."""
    storage = MemoryStorage(chunk_size=CHUNK)
    await storage.mark(IDENTITY)

    def cut(key: UUID, size: int) -> None:
        storage.published[key] = storage.published[key][:size]

    def look() -> Contents:
        return Contents(set(storage.staged), set(storage.published), handles=storage.handles)

    yield Bench(storage, look, cut)


@asynccontextmanager
async def local(folder: Path, *, durable: bool) -> AsyncIterator[Bench]:
    """A folder, and nothing open in it once the storage is closed."""
    root = folder / "root"
    async with local_storage(root, chunk_size=CHUNK, durable=durable) as storage:
        await storage.mark(IDENTITY)
        yield Bench(storage, partial(look_into, storage), lambda key, size: os.truncate(place(root, key), size))
    assert open_below(root) == []


def place(root: Path, key: UUID) -> Path:
    """Where a local storage keeps a published file."""
    return root / "objects" / key.hex[:2] / key.hex[2:4] / key.hex


def look_into(storage: LocalStorage) -> Contents:
    """The folder of a local storage; the small files it keeps open for the next reader are not counted as handles."""
    root = storage.disk.root
    contents = Contents(handles=len(open_below(root)) - len(storage._lately))
    for path in (path.relative_to(root) for path in root.rglob("*") if not path.is_dir()):
        key = _key(path.name)
        if key and path == Path("tmp", key.hex):
            contents.staged.add(key)
        elif key and path == place(Path(), key):
            contents.published.add(key)
        elif path.name != MARKER:
            contents.other.add(str(path))
    return contents


def open_below(folder: Path) -> list[str]:
    """The files and folders below `folder` that this process has open (proc(5), fd)."""
    opened = []
    for link in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):
            opened.append(str(link.readlink()))
    return [path for path in opened if path.startswith(f"{folder}/")]


def _key(name: str) -> UUID | None:
    with suppress(ValueError):
        return UUID(name)
    return None


BENCHES: dict[str, Callable[[Path], AbstractAsyncContextManager[Bench]]] = {
    "memory": memory,
    "local": partial(local, durable=True),
    "local-not-durable": partial(local, durable=False),
    "s3-moto": partial(s3, "moto"),
    "s3-swift": partial(s3, "swift"),
}
