"""Bringing a database to the newest schema, from a checkout as from an installed wheel."""

import asyncio
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from file_service.errors import Unavailable

PACKAGE = Path(__file__).parent.parent


def scripts() -> Path:
    """The folder of the migrations: inside the package in a wheel, beside it in a checkout."""
    inside = PACKAGE / "migrations"
    return inside if inside.is_dir() else PACKAGE.parent / "migrations"


def migrate(url: str, revision: str = "head") -> None:
    """Upgrade the database at `url`, blocking; two that start at once wait for each other (see migrations/env.py).

    Raises `Unavailable` with the reason when the database cannot be used, or is of a newer version than this one.
    """
    # alembic takes a third of a second to import, and only this function needs it.
    from alembic import command  # noqa: PLC0415
    from alembic.config import Config  # noqa: PLC0415
    from alembic.util import CommandError  # noqa: PLC0415

    config = Config(attributes={"url": url})
    config.set_main_option("script_location", str(scripts()).replace("%", "%%"))
    try:
        command.upgrade(config, revision)
    except (CommandError, DBAPIError, OSError, TimeoutError) as error:
        reason = str(getattr(error, "orig", error)).partition("\n")[0] or type(error).__name__
        raise Unavailable("database", f"The database cannot be used: {reason}") from error


async def migrated(url: str) -> None:
    """`migrate` from within a running event loop, unless the schema is the newest already."""
    if await _version(url) != newest():
        await asyncio.to_thread(migrate, url)


def newest() -> str:
    """The newest revision: their files begin with their numbers."""
    return max(path.name for path in (scripts() / "versions").glob("[0-9]*.py")).partition("_")[0]


async def _version(url: str) -> str | None:
    """What the database says of itself; None when it says nothing, whatever the reason: alembic finds it out."""
    engine = create_async_engine(url, poolclass=NullPool, hide_parameters=True)
    try:
        async with engine.connect() as connection:
            version: str | None = await connection.scalar(sa.text("SELECT version_num FROM alembic_version"))
            return version
    except (DBAPIError, OSError, TimeoutError):
        return None
    finally:
        await engine.dispose()
