"""`file-service check`: every planted fault is named, nothing healthy is, repair is safe and repeatable."""

import shutil
import sqlite3
import subprocess
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from threading import Event
from urllib.request import Request, urlopen
from uuid import UUID, uuid4

import pytest

from file_service.db.engine import connected
from file_service.db.files import Files
from file_service.service.check import examine
from file_service.service.files import FileService
from file_service.settings import Settings
from file_service.storage.base import Found
from file_service.storage.local import LocalStorage, local_storage
from tests.support.postgres import Postgres
from tests.support.process import Service
from tests.support.s3_server import SERVERS
from tests.support.tampering import Folder, InBucket, Tampered

Spawn = Callable[..., Service]
Started = Callable[..., Service]


@pytest.fixture(params=["local", "moto", "swift"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Tampered:
    """Where the service keeps its files."""
    return Folder(tmp_path / "data") if request.param == "local" else InBucket(SERVERS[request.param]())


local_place = pytest.mark.parametrize("place", ["local"], indirect=True)
quick_places = pytest.mark.parametrize("place", ["local", "moto"], indirect=True)


@pytest.fixture
def started(spawn: Spawn, place: Tampered) -> Started:
    """A service there."""
    return lambda **settings: spawn(place=place, **settings)


def check(service: Service, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run the command on the service's storage and database, or with other settings."""
    other = {f"FILE_SERVICE_{name.upper()}": value for name, value in settings.items()}
    command = [sys.executable, "-m", "file_service", "check", *arguments]
    environment = service.environment | other
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def store(service: Service, data: bytes) -> str:
    """The path of a new file's link."""
    with urlopen(Request(f"{service.url}/files", data=data, method="POST")) as answer:
        return str(answer.headers["Location"])


def name_of(service: Service, link: str) -> str:
    """What a file is called in storage."""
    with closing(sqlite3.connect(service.data_dir / "file_service.db")) as database:
        id_ = UUID(link.split("/")[2]).hex
        return str(database.execute("SELECT attempt FROM file WHERE id = ?", [id_]).fetchone()[0])


def findings(done: subprocess.CompletedProcess[str]) -> set[str]:
    """What is wrong, without the sizes and the closing words."""
    lines = done.stdout.splitlines()
    return {" ".join(line.split(" ")[:3]) for line in lines if line.startswith(("orphan", "damaged", "whole"))}


def test_a_healthy_store_has_nothing_wrong_while_it_runs(started: Started) -> None:
    service = started()
    for number in range(3):
        store(service, b"x" * number)
    done = check(service)
    assert (done.returncode, done.stdout) == (0, "3 objects, 3 files: nothing wrong\n"), done.stderr


def test_every_planted_fault_is_named_and_repaired_once(started: Started, place: Tampered) -> None:
    service = started()
    links = [store(service, data) for data in (b"whole", b"missing", b"cut short")]
    whole, missing, cut = (name_of(service, link) for link in links)
    orphan, staged = uuid4().hex, uuid4().hex
    saved = place.read(missing)
    place.lose(missing)
    place.put(cut, b"c")
    place.put(orphan, b"orphan")
    place.stage(staged, b"half")
    place.stage(whole, b"what a write left that was finished by another process")

    dry = check(service)
    assert dry.returncode == 1, dry.stderr
    assert findings(dry) == {
        f"orphan object {UUID(orphan)}",
        f"orphan staged {UUID(staged)}",
        f"orphan staged {UUID(whole)}",
        *(f"damaged file {link.split('/')[2]}" for link in links[1:]),
    }
    assert f"orphan staged {UUID(staged)} 4 bytes\n" in dry.stdout
    assert (place.published(), place.staged()) == ({whole, cut, orphan}, {staged, whole}), "nothing is changed"

    assert check(service, "--repair").returncode == 1
    assert place.quarantined() == {orphan, f"{staged}.staged", f"{whole}.staged"}
    assert (place.published(), place.staged()) == ({whole, cut}, set())
    again = check(service, "--repair")
    assert (again.returncode, findings(again)) == (0, set()), "a second run finds nothing new"
    place.put(missing, saved)
    assert "whole again" in check(service, "--repair").stdout
    for link, data in ((links[0], b"whole"), (links[1], saved)):
        with urlopen(service.url + link) as answer:
            assert answer.read() == data
    assert place.quarantined() == {orphan, f"{staged}.staged", f"{whole}.staged"}


def test_what_is_not_ours_is_left_alone(started: Started, place: Tampered) -> None:
    service = started()
    store(service, b"x")
    foreign = place.litter()
    before = place.everything()
    done = check(service, "--repair")
    assert (done.returncode, done.stdout) == (0, "1 objects, 1 files: nothing wrong\n"), done.stderr
    assert foreign <= place.everything() == before


@quick_places
def test_a_place_of_another_database_is_refused(started: Started, place: Tampered) -> None:
    service = started()
    store(service, b"x")
    place.put(uuid4().hex, b"orphan")
    place.mark(uuid4())
    before = place.everything()
    done = check(service, "--repair")
    assert done.returncode == 2
    assert "another database" in done.stderr
    assert place.everything() == before


@local_place
def test_an_empty_database_is_refused_and_adopts_nothing(started: Started, place: Tampered, tmp_path: Path) -> None:
    service = started()
    store(service, b"x")
    before = place.everything()
    for _ in range(2):
        done = check(service, "--repair", database_url=f"sqlite+aiosqlite:///{tmp_path}/empty.db")
        assert done.returncode == 2
        assert "database is empty" in done.stderr
    assert place.everything() == before


@pytest.mark.parametrize("place", ["moto"], indirect=True)
def test_another_prefix_is_refused(started: Started, place: Tampered) -> None:
    service = started()
    store(service, b"x")
    before = place.everything()
    done = check(service, "--repair", s3_prefix="some/other/place/")
    assert done.returncode == 2
    assert "no marker" in done.stderr
    assert place.everything() == before


@local_place
@pytest.mark.parametrize("count", [100, 101])
def test_repair_refuses_when_more_is_wrong_than_can_be_believed(started: Started, place: Tampered, count: int) -> None:
    service = started()
    for _ in range(count):
        place.put(uuid4().hex, b"x")
    done = check(service, "--repair")
    assert done.returncode == (1 if count == 100 else 2)
    assert len(place.published()) == (0 if count == 100 else count)
    assert len(place.quarantined()) == (count if count == 100 else 0)


@local_place
def test_an_older_database_is_refused(started: Started, place: Tampered, tmp_path: Path) -> None:
    service = started()
    store(service, b"before the backup")
    service.terminate()
    shutil.copy(service.data_dir / "file_service.db", tmp_path / "backup.db")
    service.start()
    with ThreadPoolExecutor(4) as clients:
        list(clients.map(lambda _: store(service, b"after the backup"), range(101)))
    service.terminate()
    before = place.everything()
    done = check(service, "--repair", database_url=f"sqlite+aiosqlite:///{tmp_path}/backup.db")
    assert done.returncode == 2
    assert "101 of 102 are wrong" in done.stderr
    assert place.everything() == before


# While the service works


def busy(services: list[Service], number: int, stop: Event) -> int:
    """Store, large and small, and delete, until told to stop; how many files were stored."""
    stored = 0
    while not stop.is_set():
        service = services[(number + stored) % len(services)]
        link = store(service, bytes(6 << 20) if stored % 8 == 3 else b"small")
        stored += 1
        if stored % 2:
            with urlopen(Request(service.url + link, method="DELETE")) as answer:
                assert answer.status == 204
    return stored


@quick_places
def test_checks_find_what_is_planted_and_nothing_else_while_replicas_work(
    spawn: Spawn, place: Tampered, postgres: Postgres
) -> None:
    database = f"c{uuid4().hex}"
    url = postgres.create_database(database, template="template")
    services = [spawn(place=place, database_url=url) for _ in range(2)]
    cut = store(services[0], b"cut")
    (cut_name,) = place.published()
    missing = store(services[1], b"missing")
    (missing_name,) = place.published() - {cut_name}
    place.put(cut_name, b"c")
    place.lose(missing_name)
    orphan, staged = uuid4().hex, uuid4().hex
    place.put(orphan, b"orphan")
    place.stage(staged, b"half")
    stop = Event()
    with ThreadPoolExecutor(4) as clients:
        working = [clients.submit(busy, services, number, stop) for number in range(4)]
        try:
            runs = [check(services[0], "--repair") for _ in range(3)]
        finally:
            stop.set()
        assert all(work.result() for work in working)
    assert findings(runs[0]) == {
        f"orphan object {UUID(orphan)}",
        f"orphan staged {UUID(staged)}",
        f"damaged file {cut.split('/')[2]}",
        f"damaged file {missing.split('/')[2]}",
    }, runs[0].stderr
    assert [(run.returncode, findings(run)) for run in runs[1:]] == [(0, set())] * 2, runs
    assert place.quarantined() == {orphan, f"{staged}.staged"}
    for service in services:
        service.terminate()
    postgres.drop_database(database)


class Busy:
    """A storage in which much happens between two looks."""

    def __init__(self, storage: LocalStorage) -> None:
        self.quarantine = storage.quarantine
        self._storage = storage

    async def listed_then(self, digit: str) -> None:
        """What happens after the listing."""

    async def looked_then(self, key: UUID) -> None:
        """What happens before another look."""

    async def list(self, digit: str) -> AsyncGenerator[Found, None]:
        """What the storage has, and had."""
        async for found in self._storage.list(digit):
            yield found
        await self.listed_then(digit)

    async def find(self, key: UUID) -> Sequence[Found]:
        """What the storage has."""
        await self.looked_then(key)
        return await self._storage.find(key)


@pytest.fixture
async def service(tmp_path: Path, settings: Callable[..., Settings]) -> AsyncIterator[FileService]:
    """A store in a folder, with twenty files."""
    made = settings()
    async with (
        connected(made.database, pool_size=1, timeout=5, durable=False) as database,
        local_storage(made.data_dir, chunk_size=4096, durable=False) as storage,
    ):
        await storage.mark(uuid4())
        service = FileService(Files(database), storage, uuid4())
        for _ in range(20):
            await service.store("a", "text/plain", chunks())
        yield service


async def chunks() -> AsyncIterator[bytes]:
    """A body."""
    yield b"content"


async def test_files_deleted_after_they_were_listed_are_no_orphans(service: FileService) -> None:
    class Deleting(Busy):
        async def listed_then(self, digit: str) -> None:
            for file in await service.files.between(UUID(digit + 31 * "0"), UUID(digit + 31 * "f"), 100):
                await service.delete(file.id)

    assert isinstance(service.storage, LocalStorage)
    report = await examine(service.files, Deleting(service.storage))
    assert (report.clean, report.objects) == (True, 20)
    assert (await service.page(1)).files == []


@pytest.mark.parametrize("deleted", [False, True])
async def test_files_stored_after_the_listing_are_whole(service: FileService, deleted: bool) -> None:
    looked: set[UUID] = set()
    stored: dict[UUID, UUID] = {}

    class Storing(Busy):
        async def listed_then(self, digit: str) -> None:
            key = UUID(int=0) if digit != "0" else UUID(int=1 << 127)
            while digit in "08f" and key.hex[0] != digit:
                file = (await service.store("a", "text/plain", chunks())).file
                key, stored[file.attempt] = file.attempt, file.id

        async def looked_then(self, key: UUID) -> None:
            looked.add(key)
            if deleted:
                await service.delete(stored[key])

    assert isinstance(service.storage, LocalStorage)
    report = await examine(service.files, Storing(service.storage))
    assert report.clean
    assert len(looked) >= 3, "those that the listing missed"
    assert len((await service.page(1000)).files) == 20 + len(stored) - (len(looked) if deleted else 0)
