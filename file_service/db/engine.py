"""The database connection: one engine, short units of work, foreign errors renamed at the border.

Every unit runs to its end even when the request around it is cancelled (see `uncancelled`), holds its connection only
while it runs, and raises `Unavailable("database")` when the database is away, hung or out of connections.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy import exc
from sqlalchemy.engine import URL, make_url
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from file_service.aio import uncancelled
from file_service.errors import StorageFull, Unavailable

log = logging.getLogger(__name__)
T = TypeVar("T")
BUSY_SECONDS = 5.0  # how long SQLite waits for another process's lock
READ_ONLY = "25006"  # https://www.postgresql.org/docs/current/errcodes-appendix.html
DATABASE_FULL = "database or disk is full"  # https://www.sqlite.org/rescode.html#full


class Database:
    """Units of work on one engine."""

    def __init__(self, engine: AsyncEngine, watcher: sqlite3.Connection | None = None) -> None:
        self._engine = engine
        self._watcher = watcher
        self._reader = engine.execution_options(isolation_level="AUTOCOMMIT", reading=True)

    async def fetch(self, statement: sa.Executable) -> Sequence[sa.Row[Any]]:
        """The rows of one read-only statement."""

        async def unit() -> Sequence[sa.Row[Any]]:
            with renamed():
                async with self._reader.connect() as connection:
                    return (await connection.execute(statement)).all()

        return await uncancelled(unit())

    async def write(self, work: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        """Run `work` in one transaction. `Unavailable` leaves open whether the transaction was committed."""

        async def unit() -> T:
            with renamed():
                async with self._engine.begin() as connection:
                    return await work(connection)

        return await uncancelled(unit())

    async def execute(self, statement: sa.UpdateBase) -> int:
        """Run one writing statement in its own transaction and say how many rows it touched."""
        return await self.write(lambda connection: rowcount(connection, statement))

    def version(self) -> int | None:
        """A number that any commit changes (sqlite.org/pragma.html, data_version); None when it cannot be told."""
        if self._watcher is None:
            return None
        try:
            return int(self._watcher.execute("PRAGMA data_version").fetchone()[0])
        except sqlite3.Error:
            return None

    async def check(self) -> None:
        """Return when the database answers."""
        await self.fetch(sa.select(sa.literal(1)))


async def rowcount(connection: AsyncConnection, statement: sa.UpdateBase) -> int:
    """Execute `statement` and return the number of rows it touched."""
    return (await connection.execute(statement)).rowcount


@asynccontextmanager
async def connected(url: str, *, pool_size: int, timeout: float, durable: bool) -> AsyncIterator[Database]:
    """A `Database` on `url`, `Unavailable` after `timeout` seconds when it hangs or its connections are all taken."""
    address = make_url(url)
    engine = _engine(address, pool_size, timeout, durable)
    # A connection of its own, that writes nothing, sees every commit of the others; asked on the loop, it never waits.
    watcher = sqlite3.connect(address.database or "", timeout=0) if engine.dialect.name == "sqlite" else None
    try:
        yield Database(engine, watcher)
    finally:
        if watcher is not None:
            watcher.close()
        await engine.dispose()


def _engine(url: URL, pool_size: int, timeout: float, durable: bool) -> AsyncEngine:
    if url.get_backend_name() != "sqlite":
        # On a server that hangs, a statement waits one time for its answer and then once more for its end.
        bounds = {"timeout": timeout / 2, "command_timeout": timeout / 2}
        engine = create_async_engine(
            url,
            pool_size=pool_size,
            max_overflow=0,
            pool_timeout=timeout,
            pool_pre_ping=True,
            pool_use_lifo=True,
            hide_parameters=True,
            connect_args=bounds,
        )
        sa.event.listen(engine.sync_engine, "handle_error", leave_standby)
        return engine
    engine = create_async_engine(
        url, pool_size=pool_size, max_overflow=0, pool_timeout=BUSY_SECONDS + timeout, hide_parameters=True
    )
    prepare_sqlite(engine, durable, BUSY_SECONDS)
    return engine


def leave_standby(context: sa.ExceptionContext) -> None:
    """Close all connections to a server that became a read-only standby; new ones lead to the primary."""
    if getattr(context.original_exception, "sqlstate", None) == READ_ONLY:
        context.is_disconnect = True


def prepare_sqlite(engine: AsyncEngine, durable: bool, patience: float) -> None:
    """WAL with synchronous=FULL, since WAL with NORMAL may lose commits in a power cut (sqlite.org/pragma.html).

    Writing transactions take their lock at BEGIN, so that two of them wait for each other, up to `patience` seconds,
    and never deadlock.
    """

    @sa.event.listens_for(engine.sync_engine, "connect")
    def configure(connection: Any, _: Any) -> None:
        connection.isolation_level = None  # the driver must not begin transactions of its own
        for pragma in (
            f"busy_timeout = {patience * 1000:.0f}",
            "journal_mode = WAL",
            f"synchronous = {'FULL' if durable else 'OFF'}",
            "foreign_keys = ON",
        ):
            connection.execute(f"PRAGMA {pragma}").close()

    @sa.event.listens_for(engine.sync_engine, "begin")
    def begin(connection: sa.Connection) -> None:
        if not connection.get_execution_options().get("reading"):
            connection.exec_driver_sql("BEGIN IMMEDIATE")


@contextmanager
def renamed() -> Iterator[None]:
    """Turn what drivers raise when the database is away into `Unavailable`; mistakes in statements stay as they are."""
    try:
        yield
    except (exc.IntegrityError, exc.ProgrammingError, exc.DataError, exc.NotSupportedError):
        raise
    except (exc.DBAPIError, exc.TimeoutError, OSError, TimeoutError) as error:
        # asyncpg's refused or timed-out connects arrive bare.
        cause = error.orig if isinstance(error, exc.DBAPIError) and error.orig is not None else error
        if getattr(cause, "sqlite_errorcode", None) == sqlite3.SQLITE_ERROR:
            raise  # SQLite has one class of error for a mistake and for an outage
        if DATABASE_FULL in str(cause):
            raise StorageFull from error
        log.warning("database: %s: %s", type(cause).__name__, str(cause).partition("\n")[0])
        raise Unavailable("database") from error
