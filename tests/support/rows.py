"""Rows of the database in a few words: begin one, store one, look at the states."""

import hashlib
import zlib
from datetime import datetime
from uuid import UUID, uuid4

import sqlalchemy as sa

from file_service.db.engine import Database
from file_service.db.files import Files
from file_service.db.tables import clock, file
from file_service.model import Attempt, File, Received, Result, RetryKey, Terms

OWNER = UUID(int=1)  # a replica of which the database may know nothing


def result(attempt: Attempt, content: bytes = b"hello", terms: Terms | None = None) -> Result:
    """What `attempt` has come to when `content` is all it received."""
    received = Received(len(content), hashlib.sha256(content).digest(), zlib.crc32(content))
    return Result(attempt, received, terms or Terms(), delete_token=b"t" * 32)


async def begun(files: Files, *, key: RetryKey | None = None, owner: UUID = OWNER) -> Attempt:
    """A fresh attempt, receiving."""
    attempt = Attempt(uuid4(), uuid4())
    assert await files.begin(attempt, owner, "name.txt", "text/plain", key) is None
    return attempt


async def stored(files: Files, *, key: RetryKey | None = None, owner: UUID = OWNER) -> File:
    """A fresh file, visible."""
    attempt = await begun(files, key=key, owner=owner)
    return (await files.finish([result(attempt)]))[0]


def attempt_of(found: File) -> Attempt:
    """The attempt that became this file."""
    return Attempt(found.id, found.attempt)


async def states(database: Database) -> dict[UUID, str]:
    """The state of every row, by id."""
    return {row.id: row.state for row in await database.fetch(sa.select(file.c.id, file.c.state))}


async def now(database: Database) -> datetime:
    """What the database takes for the time."""
    return datetime.fromisoformat(str((await database.fetch(sa.select(clock())))[0][0]))
