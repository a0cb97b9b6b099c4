"""What local storage promises beyond the contract: about descriptors, names, and what was planted in the folder."""

import asyncio
import os
import resource
import stat
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, contextmanager, suppress
from functools import partial
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from file_service.errors import Damaged, NotFound, ServiceError, StorageFailed, StorageFull, Unavailable
from file_service.storage.base import staged
from file_service.storage.disk import MARKER
from file_service.storage.local import LocalStorage, local_storage
from tests.storage.benches import CHUNK, IDENTITY, open_below, place

KEY = UUID("abcd0000-0000-4000-8000-000000000001")
PATIENCE = 5.0  # seconds after which a call that waits for a planted FIFO is let go, and the test fails


@pytest.fixture
async def storage(tmp_path: Path) -> AsyncIterator[LocalStorage]:
    """A storage in the folder `root`."""
    async with local_storage(tmp_path / "root", chunk_size=CHUNK) as storage:
        await storage.mark(IDENTITY)
        yield storage


@pytest.fixture
def root(storage: LocalStorage) -> Path:
    """Its folder."""
    return storage.disk.root


async def store(storage: LocalStorage, data: bytes, key: UUID = KEY) -> None:
    """Publish `data`."""
    async with staged(storage, key) as writer:
        await writer.write(data)


async def read(storage: LocalStorage, stop: int | None = None, key: UUID = KEY) -> bytes:
    """What is published."""
    async with aclosing(storage.read(key, 0, stop)) as chunks:
        return b"".join([chunk async for chunk in chunks])


@contextmanager
def held(monkeypatch: pytest.MonkeyPatch, name: str) -> Iterator[tuple[threading.Event, threading.Event]]:
    """Every call of os.`name` waits in its thread: (one has arrived, let them go)."""
    real, arrived, go = getattr(os, name), threading.Event(), threading.Event()

    def slow(*args: object) -> object:
        arrived.set()
        assert go.wait(PATIENCE)
        return real(*args)

    monkeypatch.setattr(os, name, slow)
    try:
        yield arrived, go
    finally:
        go.set()


async def passed(event: threading.Event) -> None:
    """Wait for a thread's event."""
    assert await asyncio.to_thread(event.wait, PATIENCE)


# Descriptors


async def test_a_cancelled_write_has_ended_before_its_descriptor_is_closed(
    storage: LocalStorage, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with held(monkeypatch, "pwrite") as (arrived, go):
        storing = asyncio.create_task(store(storage, b"x" * 100))
        await passed(arrived)
        for _ in range(3):
            storing.cancel()
            await asyncio.sleep(0.01)
        assert [path for path in open_below(root) if KEY.hex in path], "closed while a thread writes into it"
        assert not storing.done()
        go.set()
        await asyncio.wait({storing})
    assert storing.cancelled()
    assert open_below(root) == []
    assert list((root / "tmp").iterdir()) == []


async def test_a_cancelled_read_ahead_has_ended_before_its_descriptor_is_closed(
    storage: LocalStorage, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store(storage, b"x" * 3 * CHUNK)
    evict(place(root, KEY))
    chunks = storage.read(KEY)
    await anext(chunks)
    evict(place(root, KEY))
    with held(monkeypatch, "pread") as (arrived, go):
        await anext(chunks)
        reading = asyncio.create_task(anext(chunks))
        await passed(arrived)
        for _ in range(3):
            reading.cancel()
            await asyncio.sleep(0.01)
        assert [path for path in open_below(root) if KEY.hex in path], "closed while a thread reads from it"
        go.set()
        await asyncio.wait({reading})
    assert open_below(root) == []


def evict(path: Path, keep: int = 0) -> None:
    """Drop a file from the page cache but for its first `keep` bytes (posix_fadvise(2))."""
    fd = os.open(path, os.O_RDWR)
    os.fsync(fd)
    for advice in (os.POSIX_FADV_DONTNEED, os.POSIX_FADV_RANDOM):  # random: nothing is read ahead
        os.posix_fadvise(fd, 0, 0, advice)
    os.pread(fd, keep, 0)
    os.close(fd)


async def test_a_small_file_half_in_the_page_cache_is_read_whole(tmp_path: Path) -> None:
    async with local_storage(tmp_path / "root", chunk_size=1 << 20) as storage:
        await storage.mark(IDENTITY)
        data = os.urandom(1 << 18)
        await store(storage, data)
        for keep in (1 << 16, 1 << 12, 0):
            assert await read(storage) == data
            evict(place(storage.disk.root, KEY), keep)
            assert await read(storage, len(data)) == data


async def test_nothing_is_open_once_the_storage_is_closed(tmp_path: Path) -> None:
    async with local_storage(tmp_path, chunk_size=CHUNK) as storage:
        await storage.mark(IDENTITY)
        for _ in range(200):
            await store(storage, b"small", key := uuid4())
            assert await read(storage, key=key) == b"small"
    assert open_below(tmp_path) == []


# Names


def everything_in(folder: Path) -> list[Path]:
    """All paths below `folder`."""
    return list(folder.rglob("*"))


async def test_files_and_folders_are_private(storage: LocalStorage, root: Path) -> None:
    await store(storage, b"x")
    async with staged(storage, uuid4()):
        modes = {stat.filemode(path.stat().st_mode) for path in [root, *everything_in(root)]}
    assert modes == {"drwx------", "-rw-------"}


async def test_a_key_is_never_written_twice(storage: LocalStorage) -> None:
    await store(storage, b"first")
    writer = await storage.create(KEY)
    with pytest.raises(StorageFailed):
        await storage.create(KEY)
    await writer.write(b"second")
    with pytest.raises(StorageFailed):
        await writer.commit()
    assert await read(storage) == b"first"
    await writer.abort()


async def test_a_writer_whose_key_was_swept_cannot_publish(storage: LocalStorage, root: Path) -> None:
    writer = await storage.create(KEY)
    await writer.write(b"zombie")
    await storage.delete(KEY)
    with pytest.raises(ServiceError):
        await writer.commit()
    with pytest.raises(Damaged):
        await read(storage)
    await writer.abort()
    assert [path for path in everything_in(root) if path.name == KEY.hex] == []


async def test_a_folder_given_by_a_link_is_the_folder(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    async with local_storage(tmp_path / "link", chunk_size=CHUNK) as storage:
        await storage.mark(IDENTITY)
        await storage.check()
        await store(storage, b"x")
        assert await read(storage) == b"x"
    assert place(tmp_path / "real", KEY).read_bytes() == b"x"


async def test_a_first_start_that_fails_midway_can_be_repeated(tmp_path: Path) -> None:
    async with local_storage(tmp_path / "root", chunk_size=CHUNK) as storage:
        with no_room_to_write(), pytest.raises(StorageFull):
            await storage.mark(IDENTITY)
        assert await storage.identity() is None
        await storage.mark(IDENTITY)
        assert await storage.identity() == IDENTITY


@contextmanager
def no_room_to_write() -> Iterator[None]:
    """Every write to a file of this process fails with EFBIG (setrlimit(2))."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


# A folder that is not there, or not the one it was


@contextmanager
def away(root: Path) -> Iterator[None]:
    """The folder is gone, and an empty one stands in its place, as when a disk is unmounted."""
    aside = root.with_name("aside")
    root.rename(aside)
    root.mkdir()
    yield
    assert list(root.iterdir()) == [], "written into the bare mountpoint"
    root.rmdir()
    aside.rename(root)


async def test_without_its_marker_every_call_says_that_the_storage_is_away(storage: LocalStorage, root: Path) -> None:
    await store(storage, b"x")
    writer = await storage.create(key := uuid4())
    await writer.suspend()
    running = await storage.create(uuid4())
    calls: list[Callable[[], Awaitable[object]]] = [
        storage.check,
        storage.free,
        partial(store, storage, b"new", uuid4()),
        partial(read, storage),
        partial(storage.resume, key, writer.token),
        partial(storage.delete, KEY),
        running.commit,
    ]
    with away(root):
        for call in calls:
            with pytest.raises(Unavailable) as caught:
                await call()
            assert caught.value.part == "storage"
    assert await read(storage) == b"x"
    await storage.check()
    with pytest.raises(NotFound):
        await storage.resume(uuid4(), "x")
    await running.abort()


async def test_another_storage_in_its_place_is_not_taken_for_it(storage: LocalStorage, root: Path) -> None:
    (root / MARKER).write_text(f"{uuid4()}\n")
    with pytest.raises(Unavailable):
        await storage.check()


@pytest.mark.parametrize("text", ["", "nonsense", "\xff", "6a8f2ac5-6f1d-4a80"])
async def test_a_marker_that_cannot_be_read_is_an_error_and_not_an_absence(
    storage: LocalStorage, root: Path, text: str
) -> None:
    (root / MARKER).write_text(text, encoding="latin-1")
    with pytest.raises(StorageFailed, match=MARKER):
        await storage.identity()


# Planted things: a link is never followed, nothing hangs on a FIFO, nothing is taken for what it is not

PLACES = {
    "marker": MARKER,
    "tmp": "tmp",
    "objects": "objects",
    "shard": "objects/ab",
    "inner shard": "objects/ab/cd",
    "temporary file": f"tmp/{KEY.hex}",
    "file": f"objects/ab/cd/{KEY.hex}",
}
KINDS: dict[str, Callable[[Path, Path], object]] = {
    "link to a folder": lambda path, elsewhere: path.symlink_to(elsewhere),
    "link to a file": lambda path, elsewhere: path.symlink_to(elsewhere / "victim"),
    "link to nothing": lambda path, elsewhere: path.symlink_to(elsewhere / "new"),
    "fifo": lambda path, _: os.mkfifo(path),
    "folder": lambda path, _: path.mkdir(),
    "file": lambda path, _: path.write_bytes(b"planted"),
}
PLACE_OF = {"read": "file", "resume": "temporary file"}
HARMLESS = {
    *((place, "folder") for place in ("tmp", "objects", "shard", "inner shard")),
    *(("marker", kind) for kind in KINDS),  # it is not looked at for a write
}


def plant(root: Path, elsewhere: Path, where: str, kind: str) -> Path:
    """Put something there in place of what belongs there; the path."""
    path = root / PLACES[where]
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists():
        path.rename(root / "aside")
    KINDS[kind](path, elsewhere)
    return path


@contextmanager
def letting_go(fifo: Path) -> Iterator[None]:
    """Fail, and do not hang, when something waits for the other end of `fifo`."""
    late: list[int] = []

    def let_go() -> None:
        if fifo.is_fifo():
            late.append(os.open(fifo, os.O_RDWR | os.O_NONBLOCK))
            os.close(late[0])

    timer = asyncio.get_running_loop().call_later(PATIENCE, let_go)
    yield
    timer.cancel()
    assert not late, "hung on a FIFO"


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[Path]:
    """A folder outside with a file in it, of which nothing may change."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    (folder / "victim").write_bytes(b"precious")
    yield folder
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {"victim": b"precious"}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("where", PLACES)
async def test_what_is_planted_is_neither_followed_nor_waited_for(
    storage: LocalStorage, root: Path, elsewhere: Path, where: str, kind: str
) -> None:
    path = plant(root, elsewhere, where, kind)
    with letting_go(path):
        if (where, kind) in HARMLESS:
            await store(storage, b"mine")
        else:
            with pytest.raises(ServiceError):
                await store(storage, b"mine")
    assert [opened for opened in open_below(root) if KEY.hex not in opened] == []


async def resume(storage: LocalStorage) -> None:
    """Resume and suspend again."""
    writer = await storage.resume(KEY, KEY.hex)
    await writer.suspend()


CALLS: dict[str, Callable[[LocalStorage], Awaitable[object]]] = {
    "read": read,
    "resume": resume,
    "delete": lambda storage: storage.delete(KEY),
    "check": LocalStorage.check,
    "identity": LocalStorage.identity,
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("planted", [(where, kind) for where in PLACES for kind in KINDS], ids=" ".join)
async def test_no_call_follows_or_waits_for_what_is_planted(
    storage: LocalStorage, root: Path, elsewhere: Path, planted: tuple[str, str], call: str
) -> None:
    where, kind = planted
    path = plant(root, elsewhere, where, kind)
    with letting_go(path):
        if call in ("read", "resume") and planted != (PLACE_OF[call], "file"):
            with pytest.raises(ServiceError):
                await CALLS[call](storage)
        else:
            with suppress(ServiceError):
                await CALLS[call](storage)
    assert open_below(root) == [str(path)] * ((call, where, kind) == ("read", "file", "file"))


async def test_a_folder_in_place_of_a_file_is_damage(storage: LocalStorage, root: Path) -> None:
    place(root, KEY).mkdir(parents=True)
    with pytest.raises(Damaged):
        await read(storage)
    assert open_below(root) == []
