"""Migrations: there and back on both databases, equal to the tables in the code, one at a time, killed half-way."""

import asyncio
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any
from uuid import uuid4

import psutil
import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from file_service.db.engine import connected
from file_service.db.files import Files
from file_service.db.migrate import migrate, migrated, newest, scripts
from file_service.db.tables import metadata
from file_service.errors import Unavailable
from tests.support.postgres import Postgres
from tests.support.process import Service
from tests.support.rows import stored
from tests.support.store import eventually

REVISIONS = list(reversed([*ScriptDirectory(str(scripts())).walk_revisions()]))
ADVISORY = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"
STRACE = shutil.which("strace")


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A database without any table, once of either kind."""
    if request.param == "sqlite":
        yield f"sqlite+aiosqlite:///{tmp_path}/empty.db"
        return
    server: Postgres = request.getfixturevalue("postgres")
    name = f"t{uuid4().hex}"
    yield server.create_database(name)
    server.drop_database(name)


@pytest.fixture
def migrator(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """`migrator(url)` starts `file-service migrate` as a process of its own."""
    processes: list[subprocess.Popen[bytes]] = []

    def start(url: str, *before: str) -> subprocess.Popen[bytes]:
        environment = {**os.environ, "FILE_SERVICE_DATABASE_URL": url, "FILE_SERVICE_DATA_DIR": str(tmp_path)}
        line = [*before, sys.executable, "-m", "file_service", "migrate"]
        pipe = subprocess.PIPE
        processes.append(subprocess.Popen(line, env=environment, stdout=pipe, stderr=subprocess.STDOUT))
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def ended(process: subprocess.Popen[bytes]) -> tuple[int, str]:
    """Its exit code and all it printed."""
    out, _ = process.communicate(timeout=60)
    return process.returncode, out.decode()


def on(url: str, work: Callable[[sa.Connection], Any]) -> Any:
    """What `work` returns on a connection to `url`; committed."""

    async def run() -> Any:
        engine = create_async_engine(url, poolclass=NullPool)
        async with engine.begin() as connection:
            return await connection.run_sync(work)

    return asyncio.run(run())


def schema(connection: sa.Connection) -> dict[str, Any]:
    """Everything the server knows of the tables, alembic's own left out."""
    inspector = sa.inspect(connection)
    return {
        name: {
            "columns": [{**column, "type": str(column["type"])} for column in inspector.get_columns(name)],
            "primary key": inspector.get_pk_constraint(name),
            "unique": sorted(map(str, inspector.get_unique_constraints(name))),
            "checks": sorted(map(str, inspector.get_check_constraints(name))),
            "foreign keys": sorted(map(str, inspector.get_foreign_keys(name))),
            "indexes": sorted(predicate(index) + str(index) for index in inspector.get_indexes(name)),
            "comment": inspector.get_table_comment(name) if connection.dialect.supports_comments else None,
        }
        for name in sorted(inspector.get_table_names())
        if name != "alembic_version"
    }


def predicate(index: Any) -> str:
    """Take the WHERE of a partial index out of it, as text."""
    options = index.pop("dialect_options", {})
    return str({name: str(value) for name, value in options.items()})


def tables(url: str) -> set[str]:
    """The names of the tables, alembic's own included."""
    return set(on(url, lambda connection: sa.inspect(connection).get_table_names()))


def downgrade(url: str, revision: str) -> None:
    """`alembic downgrade`."""
    config = Config(attributes={"url": url})
    config.set_main_option("script_location", str(scripts()))
    command.downgrade(config, revision)


# There and back


def test_every_revision_goes_up_down_and_up_again(empty_url: str) -> None:
    assert REVISIONS
    for revision in REVISIONS:
        before = on(empty_url, schema)
        migrate(empty_url, revision.revision)
        after = on(empty_url, schema)
        assert after != before
        downgrade(empty_url, str(revision.down_revision or "base"))
        assert on(empty_url, schema) == before
        migrate(empty_url, revision.revision)
        assert on(empty_url, schema) == after


def test_there_is_one_newest_revision() -> None:
    assert ScriptDirectory(str(scripts())).get_heads() == [newest()]


async def test_alembic_is_asked_only_when_there_is_something_to_do(
    empty_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def counting(url: str) -> None:
        asked.append(url)
        migrate(url)

    monkeypatch.setattr("file_service.db.migrate.migrate", counting)
    await migrated(empty_url)
    await migrated(empty_url)
    await asyncio.to_thread(downgrade, empty_url, REVISIONS[0].revision)
    await migrated(empty_url)
    assert asked == [empty_url] * 2


def test_migrations_make_what_the_code_expects(empty_url: str) -> None:
    """Names of constraints, checks, comments and partial indexes included."""
    migrate(empty_url)
    migrated = on(empty_url, schema)
    downgrade(empty_url, "base")
    assert on(empty_url, schema) == {}
    on(empty_url, metadata.create_all)
    assert on(empty_url, schema) == migrated


def differences(connection: sa.Connection) -> list[Any]:
    """What alembic would put into the next revision."""
    options = {"compare_type": True, "compare_server_default": True}
    return list(compare_metadata(MigrationContext.configure(connection, opts=options), metadata))


def test_alembic_finds_nothing_left_to_migrate(empty_url: str) -> None:
    migrate(empty_url)
    assert on(empty_url, differences) == []
    on(empty_url, lambda connection: connection.exec_driver_sql("ALTER TABLE file ADD COLUMN forgotten INTEGER"))
    on(empty_url, lambda connection: connection.exec_driver_sql("DROP INDEX ix_file_unsettled"))
    assert {difference[0] for difference in on(empty_url, differences)} == {"remove_column", "add_index"}


# From the shell


def test_migrate_is_a_command_and_repeatable(empty_url: str, migrator: Callable[..., subprocess.Popen[bytes]]) -> None:
    assert ended(migrator(empty_url)) == (0, "")
    assert tables(empty_url) == {*metadata.tables, "alembic_version"}
    assert ended(migrator(empty_url)) == (0, "")


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("sqlite+aiosqlite:///{folder}/garbage.db", "file is not a database"),
        ("sqlite+aiosqlite:///{folder}/cut.db", "malformed"),
        ("sqlite+aiosqlite:///{folder}/newer.db", "9999"),
        ("postgresql+asyncpg://someone:s3cret@127.0.0.1:1/db", "Connect call failed"),
    ],
)
def test_a_database_that_cannot_be_used_is_one_readable_line(
    url: str, reason: str, tmp_path: Path, sqlite_template: Path, migrator: Callable[..., subprocess.Popen[bytes]]
) -> None:
    (tmp_path / "garbage.db").write_bytes(os.urandom(8192))
    whole = sqlite_template.read_bytes()
    (tmp_path / "cut.db").write_bytes(whole[:4096] + os.urandom(len(whole) - 4096))
    (tmp_path / "newer.db").write_bytes(whole)
    with closing(sqlite3.connect(tmp_path / "newer.db")) as newer:
        newer.execute("UPDATE alembic_version SET version_num = '9999'")
        newer.commit()
    url = url.format(folder=tmp_path)
    code, said = ended(migrator(url))
    assert code == 1
    assert said.startswith("Error: The database cannot be used: ")
    assert reason in said
    assert "s3cret" not in said
    assert len(said.splitlines()) == 1
    service = Service({"data_dir": tmp_path / "data", "database_url": url}).start(wait=False)
    assert service.wait() == 1
    assert f"file-service: could not start: {said.removeprefix('Error: ')}" in service.output()
    assert "Traceback" not in service.output()


def test_a_user_who_may_not_create_tables_is_told_so(postgres: Postgres) -> None:
    url = postgres.create_database("unwilling")
    postgres.sql("CREATE ROLE reader LOGIN; REVOKE CREATE ON SCHEMA public FROM public", "unwilling")
    with pytest.raises(Unavailable, match="permission denied"):
        migrate(make_url(url).set(username="reader").render_as_string())
    postgres.drop_database("unwilling")
    postgres.sql("DROP ROLE reader")


def test_a_password_with_odd_characters_reaches_the_server(postgres: Postgres) -> None:
    """`%` means something to alembic's settings, `@`, `:` and `/` to addresses."""
    url = postgres.create_database("odd")
    address = make_url(url).set(password="p%40s%s:w/o@rd")
    migrate(address.render_as_string(hide_password=False))
    assert "file" in tables(url)
    postgres.drop_database("odd")


# Two at once


def waiting(server: Postgres, granted: bool) -> int:
    """How many sessions hold the migrators' lock, or wait for it."""
    return int(server.sql(f"{ADVISORY} AND {'' if granted else 'NOT '}granted"))


@pytest.fixture
def blocked(postgres: Postgres) -> Iterator[tuple[str, Callable[[], None]]]:
    """A database where a migration stops half-way: somebody else is about to create one of its tables."""
    name = f"t{uuid4().hex}"
    url = postgres.create_database(name)
    where = ["-h", "127.0.0.1", "-p", str(postgres.port), "-U", "postgres", "-d", name]
    foreign = postgres._spawn("psql", *where, "-Xq", stdin=subprocess.PIPE)
    assert foreign.stdin is not None
    foreign.stdin.write(b"BEGIN; CREATE TABLE replica (id integer);\n")
    foreign.stdin.flush()
    eventually(
        lambda: postgres.sql("SELECT count(*) FROM pg_locks WHERE mode = 'AccessExclusiveLock'", name) != "0", 10
    )

    def release() -> None:
        foreign.stdin.close()  # type: ignore[union-attr]
        foreign.wait()

    yield url, release
    release()
    postgres.drop_database(name)


def test_one_migrates_and_the_other_waits(
    blocked: tuple[str, Callable[[], None]], postgres: Postgres, migrator: Callable[..., subprocess.Popen[bytes]]
) -> None:
    url, release = blocked
    both = [migrator(url), migrator(url)]
    eventually(lambda: waiting(postgres, granted=True) == 1 and waiting(postgres, granted=False) == 1, 20)
    assert tables(url) == set()
    assert [process.poll() for process in both] == [None, None]
    release()
    assert [ended(process) for process in both] == [(0, "")] * 2
    assert on(url, lambda c: c.exec_driver_sql("SELECT version_num FROM alembic_version").all()) == [
        (REVISIONS[-1].revision,)
    ]


def test_sqlite_migrators_wait_for_each_other(tmp_path: Path, migrator: Callable[..., subprocess.Popen[bytes]]) -> None:
    path = tmp_path / "empty.db"
    url = f"sqlite+aiosqlite:///{path}"
    with closing(sqlite3.connect(path, isolation_level=None)) as foreign:
        foreign.execute("PRAGMA journal_mode = WAL")
        foreign.execute("BEGIN IMMEDIATE")
        several = [migrator(url) for _ in range(3)]

        def all_there() -> bool:
            return all(str(path) in {f.path for f in psutil.Process(each.pid).open_files()} for each in several)

        eventually(all_there, 20)
        assert [process.poll() for process in several] == [None] * 3
        foreign.execute("ROLLBACK")
    assert [ended(process) for process in several] == [(0, "")] * 3
    assert on(url, schema).keys() == metadata.tables.keys()


def test_a_migrator_waits_longer_than_a_request_would(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rebuilding a large table takes a while, and every worker that starts meanwhile asks for the same."""
    monkeypatch.setattr("file_service.db.engine.BUSY_SECONDS", 0.05)
    path = tmp_path / "empty.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as foreign, ThreadPoolExecutor() as threads:
        foreign.execute("PRAGMA journal_mode = WAL")
        foreign.execute("BEGIN IMMEDIATE")
        running = threads.submit(migrate, f"sqlite+aiosqlite:///{path}")
        with pytest.raises(TimeoutError):
            running.result(timeout=1)
        foreign.execute("ROLLBACK")
        running.result(timeout=20)


def test_many_start_at_once_on_nothing(empty_url: str, migrator: Callable[..., subprocess.Popen[bytes]]) -> None:
    several = [migrator(empty_url) for _ in range(4)]
    assert [ended(process) for process in several] == [(0, "")] * 4
    assert on(empty_url, differences) == []


# Killed


def test_a_migrator_killed_half_way_leaves_nothing_behind(
    blocked: tuple[str, Callable[[], None]], postgres: Postgres, migrator: Callable[..., subprocess.Popen[bytes]]
) -> None:
    url, release = blocked
    stuck = "SELECT query FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND wait_event <> 'advisory'"
    victim = migrator(url)
    eventually(lambda: "CREATE TABLE replica" in postgres.sql(stuck), 20)
    victim.send_signal(signal.SIGKILL)
    victim.wait()
    again = migrator(url)
    release()
    assert ended(again) == (0, "")
    assert on(url, differences) == []


@pytest.mark.skipif(STRACE is None, reason="strace is not installed")
def test_a_migrator_killed_at_any_write_leaves_a_database_that_migrates(
    tmp_path: Path, migrator: Callable[..., subprocess.Popen[bytes]]
) -> None:
    """As SQLite's own writecrash.test does: kill at a write, at a later one, and so on until there is none left."""
    assert STRACE is not None
    survived, step = False, 0
    while not survived:
        step += 1
        path = tmp_path / f"{step}.db"
        kill = f"inject=pwrite64:signal=KILL:when={step**3}"
        strace = (STRACE, "-f", "-qq", "-o", "/dev/null", "-e", "trace=pwrite64", "-e", kill)
        process = migrator(f"sqlite+aiosqlite:///{path}", *strace)
        survived = ended(process)[0] == 0
        with closing(sqlite3.connect(path)) as database:
            assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        migrate(f"sqlite+aiosqlite:///{path}")
        assert on(f"sqlite+aiosqlite:///{path}", differences) == []
    assert step > 3


# Old code on a newer schema


async def test_running_code_goes_on_when_a_newer_schema_has_more(database_url: str, postgres: Postgres) -> None:
    """While replicas are replaced one after the other, a migration that only adds must not hurt those still running."""
    async with connected(database_url, pool_size=2, timeout=2, durable=False) as database:
        files = Files(database)
        before = await stored(files)
        for addition in (
            "ALTER TABLE file ADD COLUMN colour TEXT",
            "ALTER TABLE file ADD COLUMN weight INTEGER NOT NULL DEFAULT 7",
            "CREATE TABLE later (id INTEGER PRIMARY KEY)",
            "CREATE INDEX ix_file_colour ON file (colour)",
            "UPDATE alembic_version SET version_num = '9999'",
        ):
            await database.execute(sa.text(addition))  # type: ignore[arg-type]
        after = await stored(files)
        assert {found.id for found in (await files.page(10, None)).files} == {before.id, after.id}
        assert await files.get(before.id) == before
        await files.mark_deleting(before.id)
        assert len(await files.leftovers()) == 1
