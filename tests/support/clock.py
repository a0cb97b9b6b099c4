"""A database whose clock is a day ahead: to it, everybody else's clock is wrong."""

import sqlite3
from contextlib import closing
from datetime import timedelta

import sqlalchemy as sa
from sqlalchemy.engine import make_url

from file_service.db.engine import Database
from tests.support.postgres import Postgres

AHEAD = timedelta(days=1)
NOW = """
    CREATE SCHEMA ahead;
    CREATE FUNCTION ahead.now() RETURNS timestamptz LANGUAGE sql STABLE
        AS $$ SELECT pg_catalog.now() + interval '1 day' $$;
"""


def put_ahead(server: Postgres, url: str) -> None:
    """Let `now()` in the PostgreSQL database at `url` be a day ahead for all connections from now on."""
    name = make_url(url).database or ""
    server.sql(f'{NOW} ALTER DATABASE "{name}" SET search_path = ahead, public, pg_catalog', name)


def put_sqlite_ahead(database: Database) -> None:
    """The same for SQLite, whose clock is its process's: for all connections that `database` makes from now on."""
    sa.event.listen(database._engine.sync_engine, "connect", _replace_strftime)


def _replace_strftime(connection: object, _: object) -> None:
    if create_function := getattr(connection, "create_function", None):
        create_function("strftime", -1, _strftime)


def _strftime(*arguments: str) -> str:
    with closing(sqlite3.connect(":memory:")) as real:
        places = ", ".join("?" * len(arguments))
        return str(real.execute(f"SELECT strftime({places}, '+1 day')", arguments).fetchone()[0])
