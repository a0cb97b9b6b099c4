"""Faults of the disk under a running service: full, broken, read-only, away, tampered with.

Each time: the status that tells the fault, as a problem that a client can act on; no row, no temporary file; readiness
that says so as long as it lasts; and once it is over the service works on without a restart. None of these faults is a
surprise, so no traceback is logged.
"""

import asyncio
import logging
import os
import resource
import shutil
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from file_service.errors import StorageFailed, Unavailable
from tests.storage.site import BLOCK, PATIENCE, Site, eventually, pieces, uploading
from tests.support import mounts
from tests.support.mounts import needs_ext4, needs_mount
from tests.support.process import Service
from tests.support.raw import exchange

MIB = 1 << 20
needs_strace = pytest.mark.skipif(shutil.which("strace") is None, reason="strace is missing")
needs_setpriv = pytest.mark.skipif(shutil.which("setpriv") is None, reason="setpriv (util-linux) is missing")
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
Serve = Callable[..., Any]


@pytest.fixture
def database(tmp_path: Path, sqlite_template: Path) -> Path:
    """A database away from the files."""
    path = tmp_path / "away.db"
    shutil.copy(sqlite_template, path)
    return path


@pytest.fixture(autouse=True)
def _no_traceback(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    caplog.set_level(logging.INFO)
    yield
    assert [record.getMessage() for record in caplog.get_records("call") if record.exc_info] == []


# No space left: 507


@pytest.fixture
def disk(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A disk of its own for the data folder."""
    with mounts.tmpfs(tmp_path / "data", **getattr(request, "param", {})) as folder:
        yield folder


@needs_mount
@pytest.mark.parametrize("room", [MIB // 2, 3 * MIB // 2, 3 * MIB - 4096], ids=["first", "middle", "last"])
async def test_a_disk_that_gets_full_in_any_block_is_507(disk: Path, serve: Serve, room: int) -> None:
    site = Site(await serve(), disk, disk / "file_service.db")
    kept = await site.stored(b"before")
    filler = mounts.fill(disk, leave=room)
    assert (await site.send(pieces(b"x" * 3 * MIB)))[0] == 507
    site.assert_clean(stored=1)
    assert await site.failing() == set()
    await site.stored(b"small")
    filler.unlink()
    await site.stored(b"x" * 3 * MIB)
    assert await site.fetch(kept) == (200, b"before")
    site.assert_clean(stored=3)


@needs_mount
async def test_a_disk_without_any_room_refuses_before_the_body_and_still_serves(disk: Path, serve: Serve) -> None:
    site = Site(await serve(), disk, disk / "file_service.db")
    kept = await site.stored(b"before")
    filler = mounts.fill(disk, leave=0)
    assert (await site.send(pieces(b"x")))[0] == 507
    assert await site.failing() == {"storage"}
    assert await site.fetch(kept) == (200, b"before")
    site.assert_clean(stored=1)
    filler.unlink()
    assert await site.failing() == set()
    await site.stored(b"after")


@needs_mount
async def test_a_length_that_does_not_fit_is_507_before_the_first_byte(disk: Path, serve: Serve) -> None:
    site = Site(await serve(), disk, disk / "file_service.db")
    head = b"POST /files HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\nExpect: 100-continue\r\n\r\n"
    answer = await asyncio.to_thread(exchange, site.url, head)
    assert (answer.status, answer.interim) == (507, ())
    assert "retry-after" in answer.headers
    site.assert_clean()


@needs_mount
@pytest.mark.parametrize("disk", [{"inodes": 64}], indirect=True)
@pytest.mark.parametrize("left", [0, 1])
async def test_a_disk_without_inodes_is_507_and_still_serves(
    disk: Path, serve: Serve, database: Path, left: int
) -> None:
    site = Site(await serve(database_url=f"sqlite+aiosqlite:///{database}"), disk, database)
    kept = await site.stored(b"before")
    filler = mounts.use_up_inodes(disk, leave=left)  # an upload needs one for its file, then some for folders
    assert (await site.send(b"x"))[0] == 507
    assert await site.failing() == ({"storage"} if left == 0 else set())
    assert await site.fetch(kept) == (200, b"before")
    site.assert_clean(stored=1)
    shutil.rmtree(filler)
    assert await site.failing() == set()
    await site.stored(b"after")


# What single system calls report: a service of its own, in which strace makes them fail


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One durable service for all tests that inject."""
    settings = {"durable": True, "block_size": BLOCK, "sweep_interval": 0.2}
    service = Service({"data_dir": tmp_path_factory.mktemp("traced") / "data", **settings})
    try:
        yield service.start()
    finally:
        service.kill()


@pytest.fixture
async def traced(service: Service) -> AsyncIterator[Site]:
    """It, emptied and asked for its tracebacks afterwards."""
    site = Site(service.url, service.data_dir, service.data_dir / "file_service.db")
    yield site
    async with aiohttp.ClientSession() as client, client.get(f"{site.url}/files") as answer:
        for file in (await answer.json())["files"]:
            assert await site.delete(file["id"]) == 204
    site.assert_clean()
    assert "Traceback" not in service.output()


@contextmanager
def injected(service: Service, call: str, error: str, paths: list[Path], log: Path) -> Iterator[None]:
    """The system call fails when it is about one of the paths: named, open, or the folder it works in (strace, -P)."""
    about = [word for path in paths for word in ("-P", str(path))]
    inject = ["-e", f"trace={call}", "-e", f"inject={call}:error={error}"]
    strace = subprocess.Popen(["strace", "-fyqq", "-p", str(service.pid), "-o", str(log), *inject, *about])
    try:
        deadline = time.monotonic() + PATIENCE
        while tracers(service.pid) != {strace.pid}:
            assert time.monotonic() < deadline, "strace did not attach"
            time.sleep(0.005)
        yield
    finally:
        strace.terminate()
        strace.wait(PATIENCE)


def tracers(pid: int) -> set[int]:
    """The processes that trace the threads of `pid`; 0 for none (proc(5), TracerPid)."""
    found = set()
    for status in Path(f"/proc/{pid}/task").glob("*/status"):
        lines = status.read_text().splitlines()
        found.add(next(int(line.split()[1]) for line in lines if line.startswith("TracerPid:")))
    return found


def place(site: Site, what: str, key: str) -> Path:
    """The path of a part of the storage, for an upload in progress."""
    return site.folder / {"file": f"tmp/{key}", "shard": f"objects/{key[:2]}/{key[2:4]}"}.get(what, what)


@needs_root
@needs_strace
@pytest.mark.parametrize(
    ("fault", "status"),
    [
        (("pwrite64", "ENOSPC", "file"), 507),
        (("pwrite64", "EDQUOT", "file"), 507),
        (("pwrite64", "EFBIG", "file"), 507),
        (("pwrite64", "EIO", "file"), 500),
        (("pwrite64", "EROFS", "file"), 503),
        (("fsync", "ENOSPC", "file"), 507),
        (("fsync", "EDQUOT", "file"), 507),
        (("fsync", "EIO", "file"), 500),
        (("fsync", "EIO", "shard"), 500),
        (("fsync", "ENOSPC", "shard"), 507),
        (("close", "EIO", "file"), 500),
        (("close", "EDQUOT", "file"), 507),
        (("linkat", "ENOSPC", "tmp"), 507),
        (("linkat", "EIO", "tmp"), 500),
        (("mkdirat", "ENOSPC", "objects"), 507),
        (("mkdirat", "EIO", "objects"), 500),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else str(value),
)
async def test_a_call_that_fails_leaves_nothing_behind(
    traced: Site, service: Service, tmp_path: Path, fault: tuple[str, str, str], status: int
) -> None:
    call, error, what = fault
    log = tmp_path / "strace"
    async with uploading(traced) as upload:
        if what == "objects":
            shutil.rmtree(place(traced, "shard", upload.key).parent, ignore_errors=True)
        with injected(service, call, error, [place(traced, what, upload.key)], log):
            assert (await upload.finish())[0] == status
    # A folder is synced a second time, for the removal of what could not be published.
    assert log.read_text().count("INJECTED") == (2 if what == "shard" else 1), "a call that failed was tried again"
    traced.assert_clean()
    assert await traced.failing() == set()
    await traced.stored(b"small")


@needs_root
@needs_strace
@pytest.mark.parametrize("call", ["fsync", "openat"])
async def test_readiness_fails_as_long_as_a_probe_does(
    traced: Site, service: Service, tmp_path: Path, call: str
) -> None:
    paths = [traced.folder / "tmp" / ".probe"] if call == "fsync" else [traced.folder / "tmp"]
    with injected(service, call, "EIO", paths, tmp_path / "strace"):
        assert await traced.failing() == {"storage"}
    assert await traced.failing() == set()
    assert traced.temporary() == []


@needs_root
@needs_strace
async def test_what_cannot_be_removed_is_left_to_the_sweep(traced: Site, service: Service, tmp_path: Path) -> None:
    async with uploading(traced) as upload:
        with injected(service, "unlinkat", "EIO", [traced.folder / "tmp"], tmp_path / "strace"):
            assert (await upload.finish())[0] == 500
            assert traced.rows() == ["aborting"]
            assert [path.name for path in traced.temporary()] == [upload.key]
    await eventually(lambda: traced.rows() == [])
    traced.assert_clean()


@needs_root
@needs_strace
async def test_a_deleted_file_that_cannot_be_removed_is_gone_and_left_to_the_sweep(
    traced: Site, service: Service, tmp_path: Path
) -> None:
    id_ = await traced.stored(b"x")
    (shard,) = {path.parent for path in (traced.folder / "objects").rglob("*") if path.is_file()}
    with injected(service, "unlinkat", "EIO", [shard], tmp_path / "strace"):
        assert await traced.delete(id_) == 204
        assert traced.rows() == ["deleting"]
        assert (await traced.fetch(id_))[0] == 404
    await eventually(lambda: traced.rows() == [])
    traced.assert_clean()


@needs_root
async def test_a_limit_on_the_size_of_files_is_507(traced: Site, service: Service) -> None:
    resource.prlimit(service.pid, resource.RLIMIT_FSIZE, (8 * MIB, resource.RLIM_INFINITY))
    try:
        assert (await traced.send(pieces(b"x" * 9 * MIB)))[0] == 507
    finally:
        resource.prlimit(service.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    traced.assert_clean()
    await traced.stored(b"x" * 9 * MIB)


# Read-only, forbidden: 503


@needs_mount
async def test_a_disk_that_is_read_only_is_503_and_still_serves(disk: Path, serve: Serve, database: Path) -> None:
    site = Site(await serve(database_url=f"sqlite+aiosqlite:///{database}"), disk, database)
    kept = await site.stored(b"before")
    mounts.remount(disk, "ro")
    assert (await site.send(b"x"))[0] == 503
    assert await site.failing() == {"storage"}
    assert await site.fetch(kept) == (200, b"before")
    site.assert_clean(stored=1)
    mounts.remount(disk, "rw")
    assert await site.failing() == set()
    await site.stored(b"after")


@needs_mount
@needs_ext4
async def test_a_disk_that_turns_read_only_during_an_upload_is_503(
    tmp_path: Path, serve: Serve, database: Path, request: pytest.FixtureRequest
) -> None:
    with mounts.ext4(tmp_path / "data", tmp_path / "image") as folder:
        site = Site(await serve(database_url=f"sqlite+aiosqlite:///{database}", block_size=BLOCK), folder, database)
        async with uploading(site) as upload:
            mounts.fail_ext4(folder)
            assert (await upload.finish())[0] == 503
        assert (await site.send(b"x"))[0] == 503
        assert await site.failing() == {"storage"}
        assert "stored" not in site.rows()
        assert site.published() == 0


@needs_mount
async def test_a_start_on_a_read_only_disk_is_refused(disk: Path, serve: Serve, database: Path) -> None:
    mounts.remount(disk, "ro")
    with pytest.raises(Unavailable, match="storage"):
        await serve(database_url=f"sqlite+aiosqlite:///{database}")


@needs_root
@needs_setpriv
async def test_a_folder_without_permission_is_503(
    tmp_path: Path, spawn: Callable[..., Service], database: Path
) -> None:
    unprivileged = ("setpriv", "--bounding-set=-dac_override,-dac_read_search")  # a root that permissions bind
    service = spawn(command=unprivileged, database_url=f"sqlite+aiosqlite:///{database}")
    site = Site(service.url, service.data_dir, database)
    for folder in ("tmp", "objects"):
        (site.folder / folder).chmod(0o500)
        assert (await site.send(b"x"))[0] == 503
        assert await site.failing() == ({"storage"} if folder == "tmp" else set())
        (site.folder / folder).chmod(0o700)
        site.assert_clean()
    assert await site.failing() == set()
    await site.stored(b"after")
    assert "Traceback" not in service.output()


# Away: 503, and nothing is written into the bare mountpoint


@needs_mount
async def test_a_disk_taken_away_under_the_service_is_503_until_it_is_back(
    tmp_path: Path, disk: Path, serve: Serve, database: Path
) -> None:
    data = tmp_path / "mounted"
    with mounts.bound(disk / "files", data):
        url = await serve(
            data_dir=data, database_url=f"sqlite+aiosqlite:///{database}", sweep_interval=0.1, block_size=BLOCK
        )
        site = Site(url, data, database)
        kept, deleted = await site.stored(b"x" * MIB), await site.stored(b"y" * MIB)
        async with uploading(site) as upload:
            mounts.unmount(data)
            assert (await upload.finish())[0] == 503
        assert (await site.send(b"x"))[0] == 503
        assert (await site.fetch(kept))[0] == 503
        assert await site.delete(deleted) == 204
        assert await site.failing() == {"storage"}
        assert list(data.iterdir()) == [], "written into the bare mountpoint"
        assert "damaged" not in site.rows()
        with mounts.bound(disk / "files", data):
            assert await site.failing() == set()
            assert await site.fetch(kept) == (200, b"x" * MIB)
            await site.stored(b"after")
            await eventually(lambda: sorted(site.rows()) == ["stored", "stored"])
            site.assert_clean(stored=2)


@needs_mount
def test_a_start_without_the_disk_is_refused(
    tmp_path: Path, disk: Path, spawn: Callable[..., Service], database: Path
) -> None:
    service = spawn(database_url=f"sqlite+aiosqlite:///{database}")
    assert service.terminate() == 0
    mounts.unmount(disk)
    assert service.start(wait=False).wait() == 1
    assert "marker" in service.output()
    assert "mounted" in service.output()
    assert "Traceback" not in service.output()
    assert list(disk.iterdir()) == []


@needs_mount
async def test_a_start_on_the_disk_of_another_database_is_refused(
    tmp_path: Path, serve: Serve, database: Path, sqlite_template: Path
) -> None:
    await serve(database_url=f"sqlite+aiosqlite:///{database}")
    other = tmp_path / "other.db"
    shutil.copy(sqlite_template, other)
    await serve(database_url=f"sqlite+aiosqlite:///{other}", data_dir=tmp_path / "elsewhere")
    with pytest.raises(StorageFailed, match="another database"):
        await serve(database_url=f"sqlite+aiosqlite:///{other}")


# Two filesystems in one folder: refused at the start


@needs_mount
@pytest.mark.parametrize("place", ["tmp", "objects"])
@pytest.mark.parametrize("kind", ["disk", "mount of the same disk"])
@pytest.mark.parametrize("first", [True, False], ids=["first start", "later start"])
def test_a_folder_over_two_filesystems_is_refused_with_the_reason(
    tmp_path: Path, spawn: Callable[..., Service], place: str, kind: str, first: bool
) -> None:
    if not first:
        assert spawn().terminate() == 0
    folder = tmp_path / "data" / place
    with mounts.tmpfs(folder) if kind == "disk" else mounts.bound(tmp_path / "beside", folder):
        service = spawn(wait=False)
        assert service.wait() == 1
        assert "EXDEV" in service.output()
        assert "Traceback" not in service.output()


# Things planted in the folder: 500, an entry in the log, never followed, never waited for

KINDS: dict[str, Callable[[Path, Path], object]] = {
    "link": lambda path, elsewhere: path.symlink_to(elsewhere),
    "fifo": lambda path, _: os.mkfifo(path),
    "file": lambda path, _: path.write_bytes(b"planted"),
    "folder": lambda path, _: path.mkdir(),
}


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[Path]:
    """A folder outside, with a file in it, of which nothing may change."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    (folder / "victim").write_bytes(b"precious")
    yield folder
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {"victim": b"precious"}


@pytest.fixture
async def site(serve: Serve, tmp_path: Path) -> Site:
    """A service on an ordinary folder."""
    url = await serve(block_size=BLOCK, sweep_interval=0.1)
    return Site(url, tmp_path / "data", tmp_path / "data" / "file_service.db")


@pytest.mark.parametrize("kind", ["link", "fifo", "file"])
async def test_a_shard_that_is_no_folder_is_500(
    site: Site, elsewhere: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    shards = [site.folder / "objects" / f"{number:02x}" for number in range(256)]
    for shard in shards:
        KINDS[kind](shard, elsewhere)
    async with asyncio.timeout(PATIENCE):
        assert (await site.send(b"x"))[0] == 500
    assert [record for record in caplog.records if record.getMessage().startswith("storage: ")]
    assert site.temporary() == []
    assert "stored" not in site.rows()
    for shard in shards:
        shard.unlink()
    await site.stored(b"after")
    await eventually(lambda: site.rows() == ["stored"])
    site.assert_clean(stored=1)


@pytest.mark.parametrize("kind", KINDS)
async def test_what_stands_in_the_place_of_a_new_file_is_not_overwritten(
    site: Site, elsewhere: Path, kind: str
) -> None:
    async with uploading(site) as upload, asyncio.timeout(PATIENCE):
        planted = place(site, "shard", upload.key) / upload.key
        planted.parent.mkdir(parents=True)
        KINDS[kind](planted, elsewhere / "victim")
        assert (await upload.finish())[0] == 500
    assert site.temporary() == []
    assert "stored" not in site.rows()
    if kind == "folder":
        planted.rmdir()  # nothing that the service would remove; the sweep tries on
    await eventually(lambda: site.rows() == [])
    assert not planted.is_symlink()
    assert not planted.exists()
    await site.stored(b"after")


@pytest.mark.parametrize("kind", KINDS)
async def test_what_stands_in_the_place_of_a_stored_file_is_not_served(site: Site, elsewhere: Path, kind: str) -> None:
    id_ = await site.stored(b"x" * MIB)
    (stored,) = [path for path in (site.folder / "objects").rglob("*") if path.is_file()]
    stored.unlink()
    KINDS[kind](stored, elsewhere / "victim")
    async with asyncio.timeout(PATIENCE):
        status, body = await site.fetch(id_)
    assert status == 500
    assert b"precious" not in body
    assert await site.failing() == set()
