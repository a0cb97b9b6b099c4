"""The engine: settings really in force, transactions that wait for each other, the database's clock, no secret told."""

import asyncio
import logging
import sqlite3
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncConnection

from file_service.db import engine
from file_service.db.engine import Database, connected
from file_service.db.files import Files
from file_service.db.replicas import Replicas
from file_service.db.tables import file, replica
from file_service.errors import StorageFull, Unavailable
from file_service.model import Attempt
from tests.support.clock import AHEAD, put_ahead, put_sqlite_ahead
from tests.support.postgres import Postgres
from tests.support.rows import attempt_of, begun, now, result, states, stored

SECRET = "hunter2-s3cret"


@pytest.fixture
def sqlite_url(tmp_path: Path, sqlite_template: Path) -> str:
    path = tmp_path / "fresh.db"
    path.write_bytes(sqlite_template.read_bytes())
    return f"sqlite+aiosqlite:///{path}"


def ask(statement: str) -> Callable[[AsyncConnection], Awaitable[object]]:
    """A unit of work that returns the one value of `statement`, or None when it has none."""

    async def work(connection: AsyncConnection) -> object:
        found = await connection.exec_driver_sql(statement)
        return found.scalar() if found.returns_rows else None

    return work


async def add_one(connection: AsyncConnection) -> None:
    """Read a number, let others run, write it back one larger: what goes wrong unless writers take turns."""
    number = (await connection.exec_driver_sql("SELECT number FROM counter")).scalar_one()
    await asyncio.sleep(0)
    await connection.execute(sa.text("UPDATE counter SET number = :number"), {"number": number + 1})


# What is set is in force


@pytest.mark.parametrize(("durable", "synchronous"), [(True, 2), (False, 0)])
async def test_every_sqlite_connection_has_the_promised_settings(
    durable: bool, synchronous: int, sqlite_url: str
) -> None:
    async with connected(sqlite_url, pool_size=3, timeout=2, durable=durable) as database:
        found: list[tuple[object, ...]] = []
        together = asyncio.Barrier(3)  # so that each unit has a connection of its own

        async def look() -> None:
            async with database._engine.connect() as connection:
                await together.wait()
                pragmas = ("synchronous", "journal_mode", "busy_timeout", "foreign_keys")
                found.append(tuple([await ask(f"PRAGMA {pragma}")(connection) for pragma in pragmas]))

        await asyncio.gather(*(look() for _ in range(3)))
        assert found == [(synchronous, "wal", 5000, 1)] * 3


async def test_postgresql_acknowledges_only_what_is_on_disk(postgres: Postgres) -> None:
    async with connected(postgres.url("template1"), pool_size=1, timeout=2, durable=True) as database:
        assert await database.write(ask("SHOW synchronous_commit")) == "on"


async def test_the_pool_never_has_more_connections_than_it_may(postgres: Postgres) -> None:
    url = postgres.create_database("pool")
    async with connected(url, pool_size=3, timeout=5, durable=True) as database:
        ours = sa.text("SELECT count(*), pg_sleep(0.01) FROM pg_stat_activity WHERE datname = 'pool'")
        counts = await asyncio.gather(*(database.fetch(ours) for _ in range(30)))
        assert max(rows[0][0] for rows in counts) == 3
    postgres.drop_database("pool")


# Transactions


async def test_writing_transactions_wait_for_each_other_and_never_deadlock(sqlite_url: str) -> None:
    """Two services' worth of connections on one file; a plain BEGIN fails here with "database is locked"."""
    async with (
        connected(sqlite_url, pool_size=10, timeout=30, durable=False) as one,
        connected(sqlite_url, pool_size=10, timeout=30, durable=False) as other,
    ):
        await one.write(ask("CREATE TABLE counter (number INTEGER)"))
        await one.write(ask("INSERT INTO counter VALUES (0)"))
        await asyncio.gather(*(database.write(add_one) for database in (one, other) for _ in range(20)))
        assert await one.write(ask("SELECT number FROM counter")) == 40


async def test_a_failing_unit_leaves_nothing_behind(database: Database, files: Files) -> None:
    attempt = await begun(files)

    async def work(connection: AsyncConnection) -> None:
        await connection.execute(sa.text("DELETE FROM file"))
        raise LookupError

    with pytest.raises(LookupError):
        await database.write(work)
    assert await states(database) == {attempt.id: "receiving"}


async def test_readers_go_on_while_a_foreign_writer_holds_sqlite(sqlite_url: str) -> None:
    async with connected(sqlite_url, pool_size=2, timeout=2, durable=False) as database:
        found = await stored(Files(database))
        with closing(sqlite3.connect(make_url(sqlite_url).database or "", isolation_level=None)) as foreign:
            foreign.execute("BEGIN EXCLUSIVE")
            async with asyncio.timeout(1):
                assert await Files(database).get(found.id) == found
                assert len((await Files(database).page(10, None)).files) == 1


async def test_a_cancelled_caller_leaves_the_pool_whole(files: Files, database: Database) -> None:
    tasks = [asyncio.create_task(begun(files)) for _ in range(60)]
    for task in tasks:
        await asyncio.sleep(0)
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert database._engine.pool.checkedout() == 0  # type: ignore[attr-defined]
    before = len(await states(database))
    await asyncio.gather(*(stored(files) for _ in range(10)))
    assert len(await states(database)) == before + 10


async def test_a_cancelled_write_is_written(files: Files, database: Database) -> None:
    """Whoever is cancelled can rely on it that the unit has ended: a give-up that follows finds the row."""
    attempt = await begun(files)
    finishing = asyncio.create_task(files.finish([result(attempt)]))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    finishing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await finishing
    assert await states(database) == {attempt.id: "stored"}
    assert not await files.give_up(attempt)


# Foreign errors


async def test_a_locked_sqlite_is_unavailable(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "BUSY_SECONDS", 0.2)
    async with connected(sqlite_url, pool_size=2, timeout=2, durable=False) as database:
        with closing(sqlite3.connect(make_url(sqlite_url).database or "", isolation_level=None)) as foreign:
            foreign.execute("BEGIN IMMEDIATE")
            with pytest.raises(Unavailable) as raised:
                await begun(Files(database))
            assert raised.value.part == "database"
        await begun(Files(database))


async def test_a_full_sqlite_is_a_full_storage(sqlite_url: str) -> None:
    async with connected(sqlite_url, pool_size=1, timeout=2, durable=False) as database:
        pages = await database.write(ask("PRAGMA page_count"))
        await database.write(ask(f"PRAGMA max_page_count = {pages}"))
        outcomes = await asyncio.gather(*(begun(Files(database)) for _ in range(60)), return_exceptions=True)
        assert {type(outcome) for outcome in outcomes} == {Attempt, StorageFull}
        await database.write(ask("PRAGMA max_page_count = 1000000"))
        await begun(Files(database))


async def test_a_pool_without_a_free_connection_is_unavailable(postgres: Postgres) -> None:
    async with connected(postgres.url(), pool_size=1, timeout=0.2, durable=True) as database:
        held, release = asyncio.Event(), asyncio.Event()

        async def hold(_: AsyncConnection) -> None:
            held.set()
            await release.wait()

        holder = asyncio.create_task(database.write(hold))
        await held.wait()
        with pytest.raises(Unavailable):
            await database.check()
        release.set()
        await holder
        await database.check()


async def test_a_statement_that_hangs_is_unavailable_and_the_pool_recovers(postgres: Postgres) -> None:
    async with connected(postgres.url(), pool_size=1, timeout=0.3, durable=True) as database:
        with pytest.raises(Unavailable):
            await database.fetch(sa.text("SELECT pg_sleep(20)"))
        await database.check()


async def test_a_mistake_in_a_statement_is_not_taken_for_an_outage(database: Database) -> None:
    with pytest.raises(sa.exc.DBAPIError):
        await database.fetch(sa.text("SELECT nonsense FROM file"))


# The database's clock


@pytest.fixture
async def ahead(database_url: str, request: pytest.FixtureRequest) -> AsyncIterator[Database]:
    """The database with a clock that is a day ahead of ours."""
    if "postgresql" in database_url:
        put_ahead(request.getfixturevalue("postgres"), database_url)
    async with connected(database_url, pool_size=5, timeout=2, durable=False) as database:
        put_sqlite_ahead(database)
        yield database


async def test_all_times_are_the_databases(ahead: Database) -> None:
    files, replicas, me = Files(ahead), Replicas(ahead), UUID(int=7)
    tomorrow = datetime.now(UTC) + AHEAD
    assert await now(ahead) == pytest.approx(tomorrow, abs=timedelta(minutes=1))
    await replicas.beat(me, 60)
    lease = (await ahead.fetch(sa.select(replica.c.lease_until)))[0][0]
    assert lease == pytest.approx(tomorrow + timedelta(seconds=60), abs=timedelta(minutes=1))
    attempt = await begun(files, owner=me)
    assert await files.give_up_dead(grace=0) == 0
    [found] = await files.finish([result(attempt)])
    assert found.created_at == pytest.approx(tomorrow, abs=timedelta(minutes=1))
    await replicas.forget_dead(grace=0)
    assert len(await ahead.fetch(sa.select(replica))) == 1


async def test_no_statement_brings_a_time_of_its_own(database: Database) -> None:
    """Apart from the position in a list, which came out of the database, no time is ever sent to it."""
    sent: list[object] = []

    def note(*arguments: object) -> None:
        sent.append(arguments[3])

    sa.event.listen(database._engine.sync_engine, "before_cursor_execute", note)
    files, replicas = Files(database), Replicas(database)
    await replicas.beat(UUID(int=7), 60)
    await replicas.beat(UUID(int=7), 60)
    found = await stored(files, owner=UUID(int=7))
    await files.give_up_dead(grace=60)
    await files.expire()
    await files.mark_deleting(found.id)
    await files.settle(attempt_of(found))
    await files.forget_gone(60)
    await replicas.forget_dead(60)
    assert len(sent) > 8
    year = str(datetime.now(UTC).year)
    assert not [parameters for parameters in sent if "datetime" in repr(parameters) or f"{year}-" in repr(parameters)]


# Secrets


def secretive(url: str) -> str:
    """The same address with a password, of which a server that trusts everybody takes no notice."""
    return make_url(url).set(password=SECRET).render_as_string(hide_password=False)


def told(error: BaseException) -> str:
    """Everything an exception and those before it could show."""
    return "".join(traceback.format_exception(error)) + repr(error) + str(error)


async def test_the_password_is_in_no_error_log_or_repr(postgres: Postgres, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    gone = f"nowhere_{SECRET.partition('-')[0]}"  # the server's own words about it may be shown, the password not
    for url in (postgres.url(gone), "postgresql+asyncpg://u@127.0.0.1:1/db", postgres.url("template1")):
        async with connected(secretive(url), pool_size=1, timeout=2, durable=True) as database:
            shown = [repr(database), repr(database._engine), repr(database._engine.url)]
            for statement in ("SELECT 1 / 0", "SELECT nonsense", "SELECT pg_terminate_backend(pg_backend_pid())"):
                with pytest.raises(Exception) as raised:  # noqa: PT011 - whichever it is, it tells nothing
                    await database.write(ask(statement))
                shown.append(told(raised.value))
        assert SECRET not in "".join(shown) + caplog.text


async def test_what_users_call_their_files_is_in_no_error(files: Files, database: Database) -> None:
    """An error shows the statement without its parameters."""
    await begun(files)
    with pytest.raises(sa.exc.IntegrityError) as raised:
        await database.execute(file.update().values(state="stored", name=SECRET))
    assert SECRET not in str(raised.value).partition("DETAIL")[0]
