"""Bringing a database to the newest schema, from a checkout as from an installed wheel."""

import asyncio
from pathlib import Path

from sqlalchemy.exc import DBAPIError

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
    """`migrate` from within a running event loop."""
    await asyncio.to_thread(migrate, url)
