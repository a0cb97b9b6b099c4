"""What attempts leave when they fail, die or are taken for dead: all of it goes, and nothing else does."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from file_service.db.engine import Database, connected
from file_service.db.files import Files
from file_service.db.replicas import Replicas
from file_service.errors import NotFound, ServiceError, Superseded, Unavailable
from file_service.model import Attempt, File, RetryKey
from file_service.service.files import FileService, Rules
from file_service.service.sweep import Sweeper
from file_service.storage.local import LocalStorage, local_storage
from tests.support.clock import put_ahead, put_sqlite_ahead
from tests.support.fault_proxy import FaultProxy
from tests.support.postgres import Postgres
from tests.support.process import Service
from tests.support.raw import connection
from tests.support.rows import begun, result, states
from tests.support.store import eventually

CONTENT = b"first half, second half"
LEASE = 0.3  # seconds; a replica silent for twice this long is taken for dead
NEVER = 3600.0


class Body:
    """A request body that stops half-way until it is let go, or fails there."""

    def __init__(self) -> None:
        self.stopped = asyncio.Event()
        self._go = asyncio.Event()
        self._error: Exception | None = None

    async def chunks(self) -> AsyncIterator[bytes]:
        """The content in two pieces."""
        yield CONTENT[:12]
        self.stopped.set()
        await self._go.wait()
        if self._error:
            raise self._error
        yield CONTENT[12:]

    def go_on(self, error: Exception | None = None) -> None:
        """Send the rest, or fail."""
        self._error = error
        self._go.set()


class Replica:
    """One process of the service, as far as this is about it."""

    def __init__(self, database: Database, storage: LocalStorage, *, interval: float = NEVER) -> None:
        self.id = uuid4()
        self.database, self.storage = database, storage
        self.files = Files(database)
        self.service = FileService(self.files, storage, self.id, Rules(block_size=1, commit_patience=0.5))
        self.replicas = Replicas(database)
        self.sweeper = Sweeper(self.service, self.replicas, lease_time=LEASE, interval=interval)

    async def beat(self) -> None:
        """Renew the lease."""
        await self.replicas.beat(self.id, LEASE)

    async def store(self, chunks: AsyncIterator[bytes], key: str | None = None) -> File:
        """An upload."""
        return (await self.service.store("name", "text/plain", chunks, key=key)).file

    async def begin_to_store(self, key: str | None = None) -> tuple[Body, "asyncio.Task[File]"]:
        """An upload that has come half-way."""
        body = Body()
        upload = asyncio.create_task(self.store(body.chunks(), key))
        await body.stopped.wait()
        return body, upload

    async def read(self, file: File) -> bytes:
        """A download."""
        return b"".join([chunk async for chunk in self.service.read(file)])

    async def left(self) -> tuple[dict[UUID, str], set[str]]:
        """The state of every row, and the keys that have bytes, staged or published."""
        root = self.storage.disk.root
        on_disk = {path.name for path in [*root.glob("tmp/*"), *root.glob("objects/*/*/*")]}
        return await states(self.database), on_disk


NOTHING: tuple[dict[UUID, str], set[str]] = ({}, set())


def just(found: File) -> tuple[dict[UUID, str], set[str]]:
    """One stored file and its bytes."""
    return {found.id: "stored"}, {found.attempt.hex}


async def whole() -> AsyncIterator[bytes]:
    """The content at once."""
    yield CONTENT


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    async with connected(database_url, pool_size=5, timeout=2, durable=False) as database:
        yield database


@pytest.fixture
async def storage(tmp_path: Path) -> AsyncIterator[LocalStorage]:
    async with local_storage(tmp_path / "data", chunk_size=1 << 16, durable=False) as storage:
        await storage.mark(uuid4())
        yield storage


@pytest.fixture
def replica(database: Database, storage: LocalStorage) -> Replica:
    return Replica(database, storage)


@pytest.fixture
def other(database: Database, storage: LocalStorage) -> Replica:
    return Replica(database, storage)


async def soon(holds: Callable[[], Awaitable[bool]], within: float = 5) -> None:
    """Wait until `holds()` is true."""
    async with asyncio.timeout(within):
        while not await holds():  # noqa: ASYNC110 - the database makes it true
            await asyncio.sleep(0.01)


async def leave(replica: Replica, what: str, state: str) -> Attempt:
    """What a process killed at the right moment leaves: a row in `state`, and nothing, staged or published bytes."""
    attempt = await begun(replica.files, owner=replica.id)
    if what != "nothing":
        writer = await replica.storage.create(attempt.key)
        await writer.write(CONTENT)
        await (writer.commit() if what == "published" else writer.suspend())
    if state == "aborting":
        await replica.files.give_up(attempt)
    if state == "deleting":
        await replica.files.finish([result(attempt, CONTENT)])
        await replica.files.mark_deleting(attempt.id)
    return attempt


# What is left is reclaimed


@pytest.mark.parametrize("state", ["receiving", "aborting", "deleting"])
@pytest.mark.parametrize("what", ["nothing", "staged", "published"])
async def test_what_a_killed_replica_left_is_reclaimed(what: str, state: str, replica: Replica, other: Replica) -> None:
    attempt = await leave(replica, what, state)
    assert (await other.left())[1] == (set() if what == "nothing" else {attempt.key.hex})
    await other.sweeper.sweep()
    assert await other.left() == NOTHING
    await other.sweeper.sweep()


async def test_a_replica_is_dead_after_twice_its_lease(replica: Replica, other: Replica) -> None:
    loop = asyncio.get_running_loop()
    start = loop.time()
    await replica.beat()
    attempt = await begun(replica.files, owner=replica.id)

    async def reclaimed() -> bool:
        await other.sweeper.sweep()
        return await other.left() == NOTHING

    assert not await reclaimed()
    await soon(reclaimed)
    assert loop.time() - start >= 2 * LEASE
    assert await replica.files.get(attempt.id) is None


async def test_bytes_go_first_and_rows_last(
    replica: Replica, storage: LocalStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever a kill leaves between the two steps is a row, by which the rest is found again."""
    stuck, removable = [await leave(replica, "published", "aborting") for _ in range(2)]
    delete, seen = storage.delete, dict[UUID, str]()

    async def unsure(key: UUID) -> None:
        seen.update((await replica.left())[0])
        if key == stuck.key:
            raise Unavailable("storage")
        await delete(key)

    monkeypatch.setattr(storage, "delete", unsure)
    await replica.sweeper.sweep()
    assert seen == {stuck.id: "aborting", removable.id: "aborting"}
    assert await replica.left() == ({stuck.id: "aborting"}, {stuck.key.hex})
    monkeypatch.undo()
    await replica.sweeper.sweep()
    assert await replica.left() == NOTHING


async def test_two_replicas_sweep_at_once(
    replica: Replica, other: Replica, storage: LocalStorage, database: Database
) -> None:
    dead = Replica(database, storage)
    kept = await replica.store(whole())
    for what in ["nothing", "staged", "published"] * 5:
        for state in ("receiving", "aborting", "deleting"):
            await leave(dead, what, state)
    await asyncio.gather(*(each.sweeper.sweep() for each in (replica, other) * 3))
    assert await replica.left() == just(kept)


async def test_a_deletion_that_stuck_is_finished(
    replica: Replica, storage: LocalStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = await replica.store(whole())

    async def away(_: UUID) -> None:
        raise Unavailable("storage")

    monkeypatch.setattr(storage, "delete", away)
    await replica.service.delete(found.id)
    with pytest.raises(NotFound):
        await replica.service.get(found.id)
    assert await replica.left() == ({found.id: "deleting"}, {found.attempt.hex})
    monkeypatch.undo()
    await replica.sweeper.sweep()
    assert await replica.left() == NOTHING


@pytest.mark.parametrize("database_url", ["sqlite", "postgresql"], indirect=True)
async def test_a_process_killed_in_mid_upload_and_started_again_cleans_up(
    database_url: str, spawn: Callable[..., Service]
) -> None:
    timing = {"lease_time": LEASE, "sweep_interval": 0.1}
    service = await asyncio.to_thread(spawn, database_url=database_url, **timing)
    with connection(service.url) as whole_one, connection(service.url) as half:
        whole_one.sendall(b"POST /files HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nwhole")
        assert whole_one.recv(1000).startswith(b"HTTP/1.1 201")
        half.sendall(b"POST /files HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n" + b"h" * 600_000)
        await asyncio.to_thread(eventually, lambda: [*service.data_dir.glob("tmp/*")] != [])
        service.kill()
    async with connected(database_url, pool_size=1, timeout=2, durable=False) as database:
        assert sorted((await states(database)).values()) == ["receiving", "stored"]
        await asyncio.to_thread(service.start)
        await soon(lambda: only(database, "stored"))
    assert {path.name for path in service.data_dir.glob("tmp/*")} <= {".probe"}
    assert len([*service.data_dir.glob("objects/*/*/*")]) == 1


async def only(database: Database, state: str) -> bool:
    """Whether there is one row, in this state."""
    return [*(await states(database)).values()] == [state]


# Nothing living is touched


async def test_a_slow_upload_of_a_living_replica_is_left_alone(replica: Replica, other: Replica) -> None:
    loop = asyncio.get_running_loop()
    async with replica.sweeper.running():
        body, upload = await replica.begin_to_store()
        deadline = loop.time() + 3 * LEASE
        while loop.time() < deadline:
            await other.sweeper.sweep()
            await asyncio.sleep(0.02)
        body.go_on()
        found = await upload
    assert await other.read(found) == CONTENT
    assert await other.left() == just(found)


async def test_a_wrong_clock_kills_nobody(
    database_url: str, storage: LocalStorage, request: pytest.FixtureRequest
) -> None:
    """Every replica's clock is a day behind the database's, which is the only one that counts."""
    if "postgresql" in database_url:
        put_ahead(request.getfixturevalue("postgres"), database_url)
    async with connected(database_url, pool_size=5, timeout=2, durable=False) as database:
        put_sqlite_ahead(database)
        replica, other = Replica(database, storage), Replica(database, storage)
        await replica.beat()
        body, upload = await replica.begin_to_store()
        await other.sweeper.sweep()
        body.go_on()
        found = await upload
        await leave(other, "published", "receiving")
        await replica.sweeper.sweep()
        assert await replica.left() == just(found)
        assert await replica.read(found) == CONTENT


async def test_stored_files_outlive_their_replica(replica: Replica, other: Replica) -> None:
    found = await replica.store(whole())
    await replica.replicas.leave(replica.id)
    await other.sweeper.sweep()
    assert await other.read(found) == CONTENT


# The dead come back


async def ends_in_vain(upload: "asyncio.Task[File]") -> None:
    """The upload fails, with an answer that lets the client try again."""
    with pytest.raises((Superseded, Unavailable)):
        await upload


async def test_a_zombie_that_still_writes_fails_and_leaves_nothing(replica: Replica, other: Replica) -> None:
    body, upload = await replica.begin_to_store()
    await other.sweeper.sweep()
    assert await replica.left() == NOTHING
    body.go_on()
    await ends_in_vain(upload)
    assert await replica.left() == NOTHING


async def test_a_zombie_that_had_not_yet_written_fails_and_leaves_nothing(
    replica: Replica, other: Replica, storage: LocalStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = storage.create

    async def late(key: UUID, **known: Any) -> object:
        await other.sweeper.sweep()
        assert await other.left() == NOTHING
        return await create(key, **known)

    monkeypatch.setattr(storage, "create", late)
    await ends_in_vain(asyncio.create_task(replica.store(whole())))
    assert await replica.left() == NOTHING


@pytest.mark.parametrize("failing", [False, True])
async def test_a_zombie_that_had_written_everything_fails_and_leaves_nothing(
    failing: bool,
    replica: Replica,
    other: Replica,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also when its own cleaning up fails and is left to its sweep."""
    finish, give_up = replica.files.finish, replica.files.give_up

    async def late(results: object) -> object:
        await other.sweeper.sweep()
        return await finish(results)  # type: ignore[arg-type]

    async def away(_: Attempt) -> bool:
        raise Unavailable("database")

    monkeypatch.setattr(replica.files, "finish", late)
    if failing:
        monkeypatch.setattr(replica.files, "give_up", away)
    await ends_in_vain(asyncio.create_task(replica.store(whole())))
    monkeypatch.setattr(replica.files, "give_up", give_up)
    await replica.sweeper.sweep()
    assert await replica.left() == NOTHING
    assert replica.service.given_up == set()


async def test_bytes_that_a_zombie_wrote_after_its_row_was_gone_are_found_by_its_own_sweep(
    replica: Replica, other: Replica, storage: LocalStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It comes to life after the sweep of another replica, writes, and cannot reach the database to clean up."""
    create, give_up = storage.create, replica.files.give_up

    async def late(key: UUID, **known: Any) -> object:
        await other.sweeper.sweep()
        return await create(key, **known)

    async def away(_: Attempt) -> bool:
        raise Unavailable("database")

    monkeypatch.setattr(storage, "create", late)
    monkeypatch.setattr(replica.files, "give_up", away)
    await ends_in_vain(asyncio.create_task(replica.store(whole())))
    assert len((await replica.left())[1]) == 1
    monkeypatch.setattr(replica.files, "give_up", give_up)
    await replica.sweeper.sweep()
    assert await replica.left() == NOTHING


# A retry and the attempt it took over from


@pytest.mark.parametrize("error", [None, ConnectionResetError()])
@pytest.mark.parametrize("swept", [False, True])
async def test_an_attempt_that_ends_after_its_retry_succeeded_leaves_the_retry_alone(
    swept: bool, error: Exception | None, replica: Replica, other: Replica
) -> None:
    for each in (replica, other):
        await each.beat()
    body, first = await replica.begin_to_store("key")
    found = await other.store(whole(), "key")
    if swept:
        await other.sweeper.sweep()
    body.go_on(error)
    with pytest.raises((Superseded, Unavailable) if error is None else ConnectionResetError):
        await first
    for each in (replica, other):
        await each.sweeper.sweep()
    assert await replica.left() == just(found)
    assert await replica.read(await replica.service.get(found.id)) == CONTENT
    assert (await replica.store(whole(), "key")).id == found.id


async def test_of_ten_parallel_tries_one_is_stored(replica: Replica) -> None:
    await replica.beat()
    uploads = [await replica.begin_to_store("key") for _ in range(10)]
    for body, _ in uploads:
        body.go_on()
    outcomes = await asyncio.gather(*(upload for _, upload in uploads), return_exceptions=True)
    [found] = [outcome for outcome in outcomes if isinstance(outcome, File)]
    assert sum(isinstance(outcome, Superseded) for outcome in outcomes) == 9
    assert await replica.left() == just(found)


async def test_a_dead_attempts_key_is_free_for_its_retry(replica: Replica, other: Replica) -> None:
    await begun(replica.files, key=RetryKey("key"), owner=replica.id)
    found = await other.store(whole(), "key")
    await other.sweeper.sweep()
    assert await other.left() == just(found)


# Outages of the database


@pytest.fixture
async def proxied(
    postgres: Postgres, storage: LocalStorage
) -> AsyncIterator[tuple[FaultProxy, Callable[..., Replica]]]:
    """A proxy before a PostgreSQL database, and a maker of replicas that use it."""
    name = f"t{uuid4().hex}"
    url = postgres.create_database(name, template="template")
    async with (
        FaultProxy(postgres.port) as proxy,
        connected(proxy.url(url), pool_size=5, timeout=1, durable=True) as database,
    ):
        yield proxy, lambda **options: Replica(database, storage, **options)
    postgres.drop_database(name)


async def test_an_attempt_that_failed_during_an_outage_is_reclaimed_afterwards(
    proxied: tuple[FaultProxy, Callable[..., Replica]],
) -> None:
    proxy, make = proxied
    replica = make()
    await replica.beat()
    body, upload = await replica.begin_to_store()
    proxy.down()
    body.go_on(ConnectionResetError())
    with pytest.raises(ConnectionResetError):
        await upload
    [attempt] = replica.service.given_up
    with pytest.raises(Unavailable):
        await replica.sweeper.sweep()
    assert replica.service.given_up == {attempt}
    await proxy.up()
    await replica.beat()
    await replica.sweeper.sweep()
    assert replica.service.given_up == set()
    assert await replica.left() == NOTHING


async def test_after_an_outage_the_living_have_time_to_say_so(
    proxied: tuple[FaultProxy, Callable[..., Replica]],
) -> None:
    """While the database was away no lease could be renewed; whose first sweep comes early must not judge by that."""
    proxy, make = proxied
    slow, eager = make(), make(interval=0.02)
    await slow.beat()
    body, upload = await slow.begin_to_store()
    async with eager.sweeper.running():
        proxy.down()
        await asyncio.sleep(2.5 * LEASE)
        await proxy.up()
        await soon(lambda: answers(eager))
        await asyncio.sleep(LEASE)  # many sweeps' time, in which only the slow replica has not yet beaten again
        await slow.beat()
        body.go_on()
        assert await slow.read(await upload) == CONTENT


async def test_a_replica_that_starts_after_an_outage_gives_the_living_time_too(
    proxied: tuple[FaultProxy, Callable[..., Replica]],
) -> None:
    _, make = proxied
    slow, fresh = make(), make(interval=0.02)
    await slow.beat()
    body, upload = await slow.begin_to_store()
    await asyncio.sleep(2.5 * LEASE)  # the database was away, or so it seems to the one that starts now
    async with fresh.sweeper.running():
        await asyncio.sleep(LEASE)
        await slow.beat()
        body.go_on()
        assert await slow.read(await upload) == CONTENT


async def test_a_replica_that_starts_reclaims_what_the_dead_left_all_the_same(
    replica: Replica, database: Database, storage: LocalStorage
) -> None:
    await leave(replica, "published", "receiving")
    async with Replica(database, storage, interval=0.05).sweeper.running():
        await soon(lambda: empty(replica))


async def empty(replica: Replica) -> bool:
    """Whether there is nothing left."""
    return await replica.left() == NOTHING


async def answers(replica: Replica) -> bool:
    """Whether the database answers it."""
    try:
        await replica.files.leftovers()
    except ServiceError:
        return False
    return True
