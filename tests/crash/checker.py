"""The books after a crash: what lies in a data folder, and whether list, database and disk agree on what is stored."""

import asyncio
import hashlib
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import sqlalchemy as sa

from file_service.db.engine import connected
from file_service.db.tables import file

DATABASE = "file_service.db"
ROWS = "SELECT attempt, state, size FROM file"
PAGE = 7  # small, so that a list of a few files has several pages already


@dataclass(frozen=True)
class Row:
    """What the database says of one attempt; `size` is None until it is stored."""

    attempt: str
    state: str
    size: int | None


@dataclass(frozen=True)
class Debris:
    """What a crash left: the states of the rows in order, and how many temporary and published files."""

    rows: tuple[str, ...] = ()
    temporary: int = 0
    published: int = 0


def sqlite_rows(data_dir: Path) -> list[Row]:
    """The rows of an embedded database, in use or not: read from a copy, since opening one changes it."""
    with tempfile.TemporaryDirectory() as folder:
        for path in data_dir.glob(f"{DATABASE}*"):
            if not path.name.endswith("-shm"):
                shutil.copy(path, folder)
        with closing(sqlite3.connect(Path(folder, DATABASE))) as database:
            return [Row(*row) for row in database.execute(ROWS)]


def temporary(data_dir: Path) -> dict[str, int]:
    """The files being received: sizes by name."""
    return {path.name: path.stat().st_size for path in (data_dir / "tmp").iterdir() if path.name != ".probe"}


def published(data_dir: Path) -> dict[str, int]:
    """The finished files: sizes by name."""
    return {path.name: path.stat().st_size for path in (data_dir / "objects").glob("*/*/*")}


def debris(data_dir: Path, without: Collection[str]) -> Debris:
    """What a crash left in a folder of an embedded database, besides the attempts `without`."""
    states = sorted(row.state for row in sqlite_rows(data_dir) if row.attempt not in without)
    return Debris(tuple(states), len(temporary(data_dir)), len({*published(data_dir)} - {*without}))


async def listed(url: str) -> dict[str, dict[str, Any]]:
    """All file records by id, page by page."""
    records: dict[str, dict[str, Any]] = {}
    cursor: str | None = None
    async with aiohttp.ClientSession() as client:
        while True:
            query = {"limit": str(PAGE)} | ({"cursor": cursor} if cursor else {})
            async with client.get(f"{url}/files", params=query) as answer:
                assert answer.status == 200
                page = await answer.json()
            records |= {record["id"]: record for record in page["files"]}
            cursor = page["next"]
            if cursor is None:
                return records


async def fetched(url: str, id_: str) -> bytes | None:
    """The bytes of a file; None for 404."""
    async with aiohttp.ClientSession() as client, client.get(f"{url}/files/{id_}/") as answer:
        if answer.status == 404:
            return None
        assert answer.status == 200, await answer.text()
        return await answer.read()


async def settled(
    url: str, data_dir: Path, rows: Callable[[], Awaitable[list[Row]]], within: float
) -> dict[str, dict[str, Any]]:
    """Wait until every leftover is reclaimed, then audit the books; the records of the files that are there.

    Every row is a stored file, on the list, with its bytes on the disk, of its size and digest; nothing else is there.
    """
    deadline = time.monotonic() + within
    while problems := _unsettled(data_dir, await rows()):
        assert time.monotonic() < deadline, problems
        await asyncio.sleep(0.05)
    records = await listed(url)
    found = await rows()
    assert sum(published(data_dir).values()) == sum(row.size or 0 for row in found)
    assert len(records) == len(found)
    for id_, record in records.items():
        content = await fetched(url, id_)
        assert content is not None
        assert (len(content), hashlib.sha256(content).hexdigest()) == (record["size"], record["sha256"])
    return records


def _unsettled(data_dir: Path, rows: list[Row]) -> Mapping[str, Any]:
    problems: dict[str, Any] = {
        "rows": [row for row in rows if row.state != "stored"],
        "temporary": temporary(data_dir),
        "without a row": {*published(data_dir)} - {row.attempt for row in rows},
        "without bytes": {row.attempt for row in rows if row.state == "stored"} - {*published(data_dir)},
    }
    return {what: found for what, found in problems.items() if found}


async def all_rows(database_url: str) -> list[Row]:
    """The rows of a database of either kind, in use."""
    async with connected(database_url, pool_size=1, timeout=5, durable=False) as database:
        found = await database.fetch(sa.select(file.c.attempt, file.c.state, file.c.size))
    return [Row(row.attempt.hex, row.state, row.size) for row in found]
