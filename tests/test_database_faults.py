"""The database goes away, hangs, forgets to answer, is full: no acknowledged file is lost, none appears by half."""

import asyncio
import hashlib
import json
import random
import sqlite3
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from pathlib import Path
from uuid import UUID, uuid4

import aiohttp
import pytest
from sqlalchemy.engine import make_url

from file_service.db.migrate import migrate
from file_service.service.files import Rules
from tests.support import mounts
from tests.support.doors import BOUNDARY, raw, request
from tests.support.fault_proxy import FaultProxy, Loss
from tests.support.postgres import Postgres
from tests.support.process import Service
from tests.support.raw import connection, exchange, read_answer, reset
from tests.support.store import COLUMNS, Store, eventually, stored

PATIENCE = 2.0  # seconds after which the service takes a database that hangs for unavailable
SLACK = 1.5  # seconds that a busy machine may add
LEASE = 0.5
POOL = 5
ACTIVITY = """
    SELECT CASE WHEN state LIKE 'idle in%' AND state_change < now() - interval '0.2 s' THEN 'lying idle' ELSE state END
    FROM pg_stat_activity WHERE datname = current_database()
"""
BEGINNING = b"text/x-content"  # what only the transaction that begins an upload of `Site` sends to the server
FINISHING = hashlib.sha256(b"content").digest()  # and what only the one that finishes it
READY = b"GET /health/ready HTTP/1.1\r\nHost: a\r\n\r\n"
Spawn = Callable[..., Service]
Serve = Callable[..., Awaitable[str]]


@pytest.fixture(scope="module")
def _server() -> Iterator[Postgres]:
    with Postgres() as server:
        migrate(server.create_database("template"))
        yield server


@pytest.fixture
def server(_server: Postgres) -> Iterator[Postgres]:
    """A PostgreSQL that tests may stop, freeze and kill; up again for the next one."""
    yield _server
    _server.resume()
    _server.stop("immediate")
    _server.start()


@pytest.fixture
def name(server: Postgres) -> str:
    """The name of a fresh, migrated database on it."""
    name = f"t{uuid4().hex}"
    server.create_database(name, template="template")
    return name


@pytest.fixture
def service(spawn: Spawn, server: Postgres, name: str) -> Service:
    return spawn(database_url=server.url(name), lease_time=LEASE, sweep_interval=0.1, database_pool_size=POOL)


@pytest.fixture
def store(service: Service, server: Postgres, name: str) -> Store:
    return Store(service, lambda: rows(server, name))


async def until(holds: Callable[[], Awaitable[bool]], within: float = 10) -> None:
    """Wait until `holds()` is true."""
    async with asyncio.timeout(within):
        while not await holds():  # noqa: ASYNC110 - the service or the server makes it true
            await asyncio.sleep(0.02)


def rows(server: Postgres, name: str) -> list[tuple[str, str, str]]:
    """Every row's id, attempt and state."""
    lines = server.sql(COLUMNS, name).splitlines()
    return [(id_, attempt, state) for id_, attempt, state in (line.split("|") for line in lines)]


def connections(server: Postgres, name: str) -> list[str]:
    """What every connection to the database does; `lying idle` for one that sits in a transaction for a while."""
    return server.sql(ACTIVITY, name).splitlines()


@contextmanager
def locked(server: Postgres, name: str) -> Iterator[None]:
    """Somebody else holds the table of files, so that whoever wants to read or write it waits."""
    where = ["-h", "127.0.0.1", "-p", str(server.port), "-U", "postgres", "-d", name]
    with server._spawn("psql", *where, "-Xq", stdin=subprocess.PIPE) as foreign:
        assert foreign.stdin is not None
        foreign.stdin.write(b"BEGIN; LOCK TABLE file;\n")
        foreign.stdin.flush()
        held = "SELECT count(*) FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND granted"
        eventually(lambda: server.sql(held, name) == "1", 10)
        yield
        foreign.stdin.close()


def refusal(url: str, message: bytes) -> float:
    """Assert that `message` is answered with 503 and a Retry-After; after how many seconds."""
    start = time.monotonic()
    answer = exchange(url, message)
    assert answer.status == 503, answer
    assert int(answer.headers["retry-after"]) > 0
    assert answer.interim == ()
    return time.monotonic() - start


# Away and hung


@pytest.mark.parametrize("fault", ["stop", "kill", "pause"])
def test_without_a_database_everything_is_503_at_once_until_it_is_back(
    fault: str, store: Store, server: Postgres
) -> None:
    kept = stored(store.send(raw(b"kept")))
    getattr(server, fault)()
    announced = [b"Content-Length: 104857600"]
    messages = [
        request(b"POST", b"/files", [*announced, b"Expect: 100-continue"]),  # no byte of the body is asked for
        request(b"POST", b"/files", announced),  # none is waited for
        raw(b"small", lines=[b"Idempotency-Key: key"]),
        request(b"GET", b"/files/" + kept.encode() + b"/"),
        request(b"GET", b"/files"),
        request(b"DELETE", b"/files/" + kept.encode() + b"/"),
    ]
    with ThreadPoolExecutor(2) as clients:
        times = [*clients.map(lambda message: refusal(store.url, bytes(message)), messages)]
    assert max(times) < PATIENCE + SLACK
    assert json.loads(exchange(store.url, READY).body)["failing"].keys() == {"database"}
    assert exchange(store.url, b"GET /health/live HTTP/1.1\r\nHost: a\r\n\r\n").status == 200
    assert store.unfinished() == set()
    server.resume() if fault == "pause" else server.start()
    eventually(lambda: exchange(store.url, bytes(raw(b"new"))).status == 201, 5)
    assert store.get(kept) == b"kept"
    assert "Traceback" not in store.log()


def test_a_crowd_before_a_hung_database_is_refused_as_fast(service: Service, server: Postgres) -> None:
    """More requests than connections: those that wait for a connection wait no longer than the others."""
    server.pause()
    start = time.monotonic()
    with ExitStack() as stack:
        socks = [stack.enter_context(connection(service.url)) for _ in range(6 * POOL)]
        for sock in socks:
            sock.sendall(bytes(raw(b"small")))
        assert {read_answer(sock).status for sock in socks} == {503}
    assert time.monotonic() - start < 2 * PATIENCE + SLACK
    server.resume()
    eventually(lambda: exchange(service.url, bytes(raw(b"new"))).status == 201, 5)


def test_a_database_that_hangs_for_a_moment_in_mid_upload_costs_nothing(store: Store, server: Postgres) -> None:
    upload = raw(b"x" * 100_000)
    with connection(store.url) as sock:
        sock.sendall(upload.head + upload.body[:50_000])
        eventually(lambda: [row.state for row in store.rows()] == ["receiving"])
        server.pause()
        sock.sendall(upload.body[50_000:])
        time.sleep(1)
        server.resume()
        answer = read_answer(sock)
    store.holds(stored(answer))


# The answer to a COMMIT is lost


@pytest.fixture
async def proxy(server: Postgres) -> AsyncIterator[FaultProxy]:
    async with FaultProxy(server.port) as proxy:
        yield proxy


@pytest.fixture
async def site(proxy: FaultProxy, server: Postgres, name: str, serve: Serve, tmp_path: Path) -> "Site":
    return Site(await serve(database_url=proxy.url(server.url(name)), sweep_interval=0.1), server, name, tmp_path)


class Site:
    """A service in this process behind the proxy, seen from both sides."""

    def __init__(self, url: str, server: Postgres, name: str, tmp_path: Path) -> None:
        self.url = url
        self._server, self._name = server, name
        self._folder = tmp_path / "data"

    async def post(self, body: bytes, **headers: str) -> tuple[int, str]:
        """Status and body of the answer to an upload."""
        headers = {"Content-Type": BEGINNING.decode(), **headers}
        async with (
            aiohttp.ClientSession() as client,
            client.post(f"{self.url}/files", data=body, headers=headers) as got,
        ):
            assert ("Retry-After" in got.headers) == (got.status == 503)
            return got.status, await got.text()

    async def get(self, id_: str) -> tuple[int, bytes]:
        """Status and body of a download."""
        async with aiohttp.ClientSession() as client, client.get(f"{self.url}/files/{id_}/") as got:
            return got.status, await got.read()

    async def delete(self, id_: str) -> int:
        """Status of a deletion."""
        async with aiohttp.ClientSession() as client, client.delete(f"{self.url}/files/{id_}/") as got:
            return got.status

    async def states(self) -> dict[str, str]:
        """The state of every row, by id."""
        return {id_: state for id_, _, state in await asyncio.to_thread(rows, self._server, self._name)}

    def on_disk(self) -> list[str]:
        """What has bytes: published keys, and staged ones as tmp/key."""
        staged = [f"tmp/{path.name}" for path in self._folder.glob("tmp/*") if path.name != ".probe"]
        return sorted([*staged, *(path.name for path in self._folder.glob("objects/*/*/*"))])

    async def settles(self, *ids: str, within: float = 30) -> None:
        """Assert that soon exactly the files `ids` are stored and nothing else is left."""

        async def settled() -> bool:
            return await self.states() == dict.fromkeys(ids, "stored") and len(self.on_disk()) == len(ids)

        await until(settled, within)

    async def is_only(self, state: str) -> bool:
        """Whether there is one row, in this state."""
        return [*(await self.states()).values()] == [state]

    async def serves(self, id_: str, content: bytes) -> bool:
        """Whether a download has this content."""
        return await self.get(id_) == (200, content)


@pytest.mark.parametrize("loss", Loss)
async def test_a_lost_commit_is_looked_into_and_the_upload_succeeds(loss: Loss, proxy: FaultProxy, site: Site) -> None:
    proxy.lose(loss, containing=FINISHING)
    status, id_ = await site.post(b"content")
    assert proxy.lost.is_set()
    assert status == 201
    assert await site.get(id_) == (200, b"content")
    await site.settles(id_)


@pytest.mark.parametrize("loss", [Loss.REQUEST, Loss.ANSWER])
async def test_a_lost_commit_of_a_form_keeps_all_of_its_files(loss: Loss, proxy: FaultProxy, site: Site) -> None:
    parts = b"".join(
        b'--%b\r\nContent-Disposition: form-data; name="f"; filename="%d"\r\n\r\nfile %d\r\n' % (BOUNDARY, n, n)
        for n in range(3)
    )
    proxy.lose(loss, containing=hashlib.sha256(b"file 2").digest())
    form = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY.decode()}"}
    status, ids = await site.post(parts + b"--%b--\r\n" % BOUNDARY, **form)
    assert proxy.lost.is_set()
    assert status == 201
    assert [await site.get(id_) for id_ in ids.split()] == [(200, b"file %d" % n) for n in range(3)]
    await site.settles(*ids.split())


@pytest.mark.parametrize("loss", Loss)
async def test_a_lost_commit_before_the_first_byte_is_503_and_leaves_nothing(
    loss: Loss, proxy: FaultProxy, site: Site
) -> None:
    proxy.lose(loss, containing=BEGINNING)
    assert (await site.post(b"content"))[0] == 503
    assert proxy.lost.is_set()
    await site.settles()
    assert (await site.post(b"content"))[0] == 201


@pytest.fixture
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Services made after this give up sooner when the outcome of a commit cannot be had."""
    monkeypatch.setattr("file_service.app.Rules", partial(Rules, commit_patience=0.2))


@pytest.mark.usefixtures("_impatient")
@pytest.mark.parametrize("loss", [Loss.REQUEST, Loss.ANSWER])
async def test_when_the_outcome_stays_unknown_the_bytes_are_kept_until_it_is_known(
    loss: Loss, proxy: FaultProxy, site: Site
) -> None:
    """503, and whichever it was: the file is there, whole, or everything of it is gone."""
    proxy.lose(loss, containing=FINISHING, stay_down=True)
    assert (await site.post(b"content"))[0] == 503
    assert proxy.lost.is_set()
    committed = loss is Loss.ANSWER
    # The server rolls back when it sees that the connection is gone.
    await until(lambda: site.is_only("stored" if committed else "receiving"))
    [id_] = await site.states()
    assert len(site.on_disk()) == 1
    await proxy.up()
    if committed:
        await until(lambda: site.serves(id_, b"content"))
        await asyncio.sleep(0.5)  # a few sweeps
        await site.settles(id_)
        assert await site.get(id_) == (200, b"content")
    else:
        await site.settles()
        assert (await site.get(id_))[0] == 404


@pytest.mark.parametrize("loss", [Loss.REQUEST, Loss.ANSWER])
async def test_a_lost_commit_of_a_deletion_can_be_asked_again(loss: Loss, proxy: FaultProxy, site: Site) -> None:
    _, id_ = await site.post(b"content")
    proxy.lose(loss, containing=UUID(id_).bytes)
    assert await site.delete(id_) == 503
    assert proxy.lost.is_set()
    assert await site.delete(id_) == (204 if loss is Loss.REQUEST else 404)
    assert (await site.get(id_))[0] == 404
    await site.settles()


@pytest.mark.parametrize("loss", [Loss.REQUEST, Loss.ANSWER])
async def test_a_lost_commit_of_giving_up_is_made_good_by_the_sweep(loss: Loss, proxy: FaultProxy, site: Site) -> None:
    proxy.lose(loss, containing=b"aborting")
    digest = "sha-256=:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=:"
    status, _ = await site.post(b"content", **{"Content-Digest": digest})
    assert proxy.lost.is_set()
    assert status == 400
    await site.settles()


async def test_a_retry_after_a_lost_answer_finds_its_file(proxy: FaultProxy, site: Site) -> None:
    """The service answered 503 to what it had stored: the key tells the client so."""
    key = {"Idempotency-Key": "key"}
    proxy.lose(Loss.ANSWER, containing=BEGINNING)
    assert (await site.post(b"content", **key))[0] == 503
    proxy.lose(Loss.ANSWER, containing=FINISHING)
    status, id_ = await site.post(b"content", **key)
    assert status == 201
    assert await site.post(b"content", **key) == (201, id_)
    await site.settles(id_)


# Slow uploads and the pool


def test_slow_uploads_hold_no_connection(store: Store, server: Postgres, name: str) -> None:
    uploads = [raw(random.randbytes(2000), name=f"{number}.bin") for number in range(300)]
    with ExitStack() as stack:
        socks = [stack.enter_context(connection(store.url)) for _ in uploads]
        for sock, upload in zip(socks, uploads, strict=True):
            sock.sendall(upload.head + upload.body[:1000])
        eventually(lambda: len(store.unfinished()) == len(uploads), 20)
        times = []
        for _ in range(40):
            start = time.monotonic()
            assert store.call("GET", "/files")[0].status == 200
            times.append(time.monotonic() - start)
            found = connections(server, name)
            assert len(found) <= POOL + 1  # the one that asks
            assert "lying idle" not in found
        assert sorted(times)[-2] < 0.2
        for sock, upload in zip(socks, uploads, strict=True):
            sock.sendall(upload.body[1000:])
        ids = [stored(read_answer(sock)) for sock in socks]
    store.holds(*ids)
    assert [store.get(id_) for id_ in ids[::30]] == [upload.body for upload in uploads[::30]]


def test_a_pool_that_is_taken_is_503_and_not_500(store: Store, server: Postgres, name: str) -> None:
    with ExitStack() as stack:
        socks = [stack.enter_context(connection(store.url)) for _ in range(4 * POOL)]
        with locked(server, name):
            for sock in socks:
                sock.sendall(bytes(raw(b"small")))
            answers = [read_answer(sock) for sock in socks]
    assert {answer.status for answer in answers} == {503}
    assert "Traceback" not in store.log()
    store.holds(within=5)
    store.holds(stored(store.send(raw(b"small"))), within=5)


def test_clients_that_vanish_while_the_database_works_leave_the_pool_whole(
    store: Store, server: Postgres, name: str
) -> None:
    with ExitStack() as stack:
        socks = [stack.enter_context(connection(store.url)) for _ in range(200)]
        with locked(server, name):
            for number, sock in enumerate(socks):
                sock.sendall(bytes(request(b"GET", b"/files")) if number % 2 else bytes(raw(b"small")))
            eventually(lambda: connections(server, name).count("active") >= POOL)
            for sock in socks:
                reset(sock)
    eventually(lambda: set(connections(server, name)) <= {"idle", "active"} and no_locks(server, name), 10)
    assert len(connections(server, name)) <= POOL + 1
    for word in ("Traceback", "another operation", "Exception", "never retrieved"):
        assert word not in store.log()
    eventually(lambda: {row.state for row in store.rows()} <= {"stored"} and store.unfinished() == set(), 10)
    answers = [store.send(raw(b"small")) for _ in range(2 * POOL)]
    assert {answer.status for answer in answers} == {201}


def no_locks(server: Postgres, name: str) -> bool:
    """Whether nobody waits for a lock any more."""
    return server.sql("SELECT count(*) FROM pg_locks WHERE NOT granted", name) == "0"


# Restarts under load


class Load:
    """Clients that upload without a pause and remember what was acknowledged."""

    def __init__(self, url: str) -> None:
        self.acknowledged: dict[str, bytes] = {}
        self.statuses: set[int] = set()
        self._url = url
        self._stop = asyncio.Event()

    async def __call__(self) -> None:
        """Run until told to stop."""
        async with aiohttp.ClientSession() as client, asyncio.TaskGroup() as clients:
            for _ in range(6):
                clients.create_task(self._upload(client))

    def stop(self) -> None:
        """Let every client end its upload."""
        self._stop.set()

    async def served(self, after: int, within: float = 5) -> None:
        """Wait until more than `after` uploads have been acknowledged."""

        async def more() -> bool:
            return len(self.acknowledged) > after

        await until(more, within)

    async def _upload(self, client: aiohttp.ClientSession) -> None:
        while not self._stop.is_set():
            content = random.randbytes(20_000)
            async with client.post(f"{self._url}/files", data=content) as got:
                self.statuses.add(got.status)
                if got.status == 201:
                    self.acknowledged[await got.text()] = content
                else:
                    await asyncio.sleep(0.05)


@pytest.mark.parametrize("fault", ["immediate", "kill", "terminate", "standby"])
async def test_nothing_acknowledged_is_lost_when_the_server_fails_under_load(
    fault: str, store: Store, server: Postgres, name: str
) -> None:
    load = Load(store.url)
    others = f"FROM pg_stat_activity WHERE datname = '{name}' AND pid <> pg_backend_pid()"

    def fail() -> None:
        if fault == "immediate":
            server.stop("immediate")
            server.start()
        elif fault == "kill":
            server.kill()
            server.start()
        elif fault == "terminate":
            for _ in range(10):
                server.sql(f"SELECT pg_terminate_backend(pid) {others}")
        else:
            server.sql(f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')
            server.sql(f"SELECT pg_terminate_backend(pid) {others}")
            eventually(lambda: 503 in load.statuses, 5)
            server.sql(f'ALTER DATABASE "{name}" RESET default_transaction_read_only')

    async with asyncio.TaskGroup() as group:
        group.create_task(load())
        for _ in range(2):
            await load.served(len(load.acknowledged) + 10)
            await asyncio.to_thread(fail)
            await load.served(len(load.acknowledged) + 10)
        load.stop()
    assert load.statuses <= {201, 503}
    assert len(load.acknowledged) > 40
    assert {id_: store.get(id_) for id_ in load.acknowledged} == load.acknowledged
    await asyncio.to_thread(eventually, lambda: settled(store), 10)
    assert load.acknowledged.keys() <= {row.id for row in store.rows()}
    assert "Traceback" not in store.log()


def settled(store: Store) -> bool:
    """Whether every row is a stored file with its bytes and there are no other bytes."""
    found = store.rows()
    unsettled = {row.state for row in found} - {"stored"}
    return not unsettled and store.published() == {row.attempt for row in found} and not store.unfinished()


# SQLite


def test_two_services_on_one_sqlite_see_each_others_files(spawn: Spawn) -> None:
    one, other = spawn(), spawn()
    id_ = stored(exchange(one.url, bytes(raw(b"content"))))
    for service in (other, one, other):
        assert Store(service).get(id_) == b"content"
    assert Store(other).call("DELETE", f"/files/{id_}/")[0].status == 204
    assert Store(one).call("GET", f"/files/{id_}/")[0].status == 404


@pytest.mark.parametrize("mode", ["IMMEDIATE", "EXCLUSIVE"])
async def test_a_foreign_lock_on_sqlite_is_503_for_writers_and_readers_go_on(
    mode: str, serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("file_service.db.engine.BUSY_SECONDS", 0.3)
    url = await serve()
    async with aiohttp.ClientSession() as client:
        async with client.post(f"{url}/files", data=b"content") as got:
            id_ = await got.text()
        path = tmp_path / "data" / "file_service.db"
        with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as foreign:
            # In a thread, since the service may be in a transaction that goes on in this loop.
            await asyncio.to_thread(foreign.execute, f"BEGIN {mode}")
            async with client.post(f"{url}/files", data=b"content") as got:
                assert (got.status, int(got.headers["Retry-After"]) > 0) == (503, True)
            async with client.get(f"{url}/files/{id_}/") as got:
                assert (got.status, await got.read()) == (200, b"content")
            async with client.get(f"{url}/files") as got:
                assert len((await got.json())["files"]) == 1
            foreign.execute("ROLLBACK")
        async with client.post(f"{url}/files", data=b"content") as got:
            assert got.status == 201
    assert [*(tmp_path / "data").glob("tmp/*")] == []


@mounts.needs_mount
def test_a_full_disk_under_sqlite_is_507_and_the_database_stays_whole(
    spawn: Spawn, tmp_path: Path, sqlite_template: Path
) -> None:
    """Whether the room ends at the begin of an upload or before its end."""
    with mounts.tmpfs(tmp_path / "disk", size="4m") as disk:
        (disk / "database.db").write_bytes(sqlite_template.read_bytes())
        url = f"sqlite+aiosqlite:///{disk}/database.db"
        service = spawn(database_url=url, lease_time=LEASE, sweep_interval=0.1)

        def query() -> list[tuple[str, str, str]]:
            with closing(sqlite3.connect(f"file:{disk}/database.db?mode=ro", uri=True)) as database:
                return list(database.execute(COLUMNS))

        store = Store(service, query)
        kept = stored(store.send(raw(b"kept")))
        upload = raw(b"x" * 100_000)
        with connection(service.url) as sock:
            sock.sendall(upload.head + upload.body[:50_000])
            eventually(lambda: len(store.unfinished()) == 1)
            filler = mounts.fill(disk, leave=0)
            statuses = [store.send(raw(b"small")).status for _ in range(30)]
            assert set(statuses[-5:]) == {507}
            sock.sendall(upload.body[50_000:])
            assert read_answer(sock).status == 507
        assert store.get(kept) == b"kept"
        filler.unlink()
        more = [stored(store.send(raw(b"small"))) for _ in range(3)]
        eventually(lambda: {row.state for row in store.rows()} == {"stored"}, 10)
        assert {kept, *more} <= {row.id for row in store.rows()}
        assert len(store.rows()) == 4 + statuses.count(201)
        eventually(lambda: settled(store), 10)
        assert service.terminate() == 0
        with closing(sqlite3.connect(disk / "database.db")) as database:
            assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


# Secrets


def test_the_password_is_in_no_log_and_no_answer(spawn: Spawn, server: Postgres, name: str) -> None:
    secret = "s3cret-%2F-w0rd"
    address = make_url(server.url(name)).set(password=secret).render_as_string(hide_password=False)
    service = spawn(database_url=address, log_level="debug", sweep_interval=0.1, lease_time=LEASE)
    answers = [exchange(service.url, bytes(raw(b"small")))]
    server.stop("immediate")
    answers += [exchange(service.url, bytes(raw(b"small"))) for _ in range(3)]
    answers.append(exchange(service.url, READY))
    service.terminate()
    assert service.start(wait=False).wait() == 1
    assert "could not start" in service.output()
    assert [answer.status for answer in answers] == [201, 503, 503, 503, 503]
    assert "s3cret" not in service.output() + str(answers)
    assert "small" not in service.output()


@pytest.mark.parametrize("url", ["postgresql+asyncpg://host:s3cret", "mysql://me:s3cret@host/db", "me:s3cret"])
def test_an_address_that_cannot_be_used_is_refused_without_showing_it(url: str, spawn: Spawn) -> None:
    service = spawn(database_url=url, wait=False)
    assert service.wait() == 1
    assert "FILE_SERVICE_DATABASE_URL" in service.output()
    assert "s3cret" not in service.output()


def test_what_users_send_is_in_no_log_at_any_level(spawn: Spawn) -> None:
    service = spawn(log_level="debug")
    upload = raw(b"small", name="my-diary.txt", lines=[b"Idempotency-Key: my-key"])
    answer = exchange(service.url, bytes(upload))
    assert answer.status == 201
    assert service.terminate() == 0
    for private in ("my-diary", "my-key", answer.headers["delete-token"]):
        assert private not in service.output()
