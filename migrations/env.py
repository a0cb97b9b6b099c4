"""How alembic reaches the database: the service's own engine settings, one migrator at a time."""

import asyncio
import os
from typing import Any

import sqlalchemy as sa
from alembic import context
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from file_service.db.engine import prepare_sqlite
from file_service.db.tables import metadata

PATIENCE = 600.0  # seconds to wait for another migrator of an SQLite database
LOCK = 0x66696C65  # pg_advisory_xact_lock: any constant that all replicas agree on


def url() -> str:
    """The address given by the caller, else the one the service itself would use."""
    given = context.config.attributes.get("url") or os.environ.get("FILE_SERVICE_DATABASE_URL")
    return str(given or "sqlite+aiosqlite:///data/file_service.db")


def upgrade(connection: sa.Connection) -> None:
    """Run the revisions in one transaction that holds the lock, so that a second migrator finds nothing left to do."""
    context.configure(
        connection=connection,
        target_metadata=metadata,
        compare_type=True,
        render_as_batch=connection.dialect.name == "sqlite",
        transaction_per_migration=False,
        transactional_ddl=True,  # SQLite can, once the driver lets us begin the transaction
    )
    with context.begin_transaction():
        if connection.dialect.name == "postgresql":
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(LOCK)))
        context.run_migrations()


async def online() -> None:
    """Connect, upgrade, disconnect."""
    engine = create_async_engine(url(), poolclass=NullPool, hide_parameters=True)
    if engine.dialect.name == "sqlite":
        prepare_sqlite(engine, durable=True, patience=PATIENCE)
    try:
        async with engine.connect() as connection:
            await connection.run_sync(upgrade)
            await connection.commit()
    finally:
        await engine.dispose()


def offline() -> None:
    """Write the SQL instead of running it (`alembic upgrade --sql`)."""
    options: dict[str, Any] = {"url": url(), "target_metadata": metadata, "literal_binds": True}
    context.configure(**options)
    with context.begin_transaction():
        context.run_migrations()


if context.is_offline_mode():
    offline()
else:
    asyncio.run(online())
