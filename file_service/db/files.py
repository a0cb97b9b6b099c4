"""The repository of files: every change names the attempt it is about, so that no cleanup can hit another's row."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from file_service.db.engine import Database, rowcount
from file_service.db.tables import clock, file, replica
from file_service.errors import Superseded
from file_service.model import Attempt, File, Page, Received, RetryKey

VISIBLE = file.c.state.in_(["stored", "damaged"])
LATELY = 10_000  # files remembered at most
BEGIN_TRIES = 5  # two requests with one key may collide on the unique index; one of them sees the other's row next time


class Files:
    """The table `file` in the service's words."""

    def __init__(self, database: Database) -> None:
        self._db = database
        self._lately: dict[UUID, File] = {}  # files looked up since the database was last written to
        self._version: int | None = None

    async def begin(
        self, attempt: Attempt, owner: UUID, name: str, content_type: str, key: RetryKey | None
    ) -> File | None:
        """Record the intent to store a file, before its first byte exists.

        With a key: a file stored under it is returned and nothing recorded; an attempt still receiving under it is
        superseded, in the same transaction.
        """
        row = file.insert().values(
            id=attempt.id,
            attempt=attempt.key,
            owner=owner,
            state="receiving",
            name=name,
            content_type=content_type,
            created_at=clock(),
            retry_key=key and key.value,
            retry_part=key and key.part,
        )

        async def work(connection: AsyncConnection) -> File | None:
            if key is not None and (stored := await _take_over(connection, key)):
                return stored
            await connection.execute(row)
            return None

        for _ in range(BEGIN_TRIES - 1):
            try:
                return await self._db.write(work)
            except IntegrityError:
                continue
        return await self._db.write(work)

    async def finish(self, results: Sequence[tuple[Attempt, Received]]) -> list[File]:
        """Make all these files visible at once, or none; repeatable, also when an earlier answer was lost.

        Raises `Superseded` when one of the attempts is no longer receiving.
        """

        async def work(connection: AsyncConnection) -> list[File]:
            for attempt, received in results:
                done = (
                    file.update()
                    .where(_is(attempt), file.c.state == "receiving")
                    .values(state="stored", size=received.size, sha256=received.sha256, created_at=clock())
                )
                if not await rowcount(connection, done) and not await connection.scalar(
                    sa.select(file.c.id).where(_is(attempt), VISIBLE)
                ):
                    raise Superseded
            ids = [attempt.id for attempt, _ in results]
            rows = (await connection.execute(sa.select(file).where(file.c.id.in_(ids)))).all()
            by_id = {row.id: _file(row) for row in rows}
            return [by_id[id_] for id_ in ids]

        return await self._db.write(work)

    async def get(self, id_: UUID) -> File | None:
        """The visible file with this id."""
        version = self._db.version()
        if version is None or version != self._version or len(self._lately) > LATELY:
            self._lately.clear()
            self._version = version
        if (known := self._lately.get(id_)) is not None:
            return known
        rows = await self._db.fetch(sa.select(file).where(file.c.id == id_, VISIBLE))
        found = _file(rows[0]) if rows else None
        if found is not None and version is not None and self._db.version() == version == self._version:
            self._lately[id_] = found
        return found

    async def count(self, key: str) -> int:
        """How many visible files the request with this Idempotency-Key stored."""
        rows = await self._db.fetch(sa.select(sa.func.count()).where(file.c.retry_key == key, VISIBLE))
        return int(rows[0][0])

    async def page(self, limit: int, before: tuple[datetime, UUID] | None) -> Page:
        """Up to `limit` files, newest first, those older than the position `before`."""
        query = sa.select(file).where(VISIBLE).order_by(file.c.created_at.desc(), file.c.id.desc()).limit(limit + 1)
        if before is not None:
            position = sa.tuple_(file.c.created_at, file.c.id)
            query = query.where(position < sa.tuple_(sa.literal(before[0], file.c.created_at.type), before[1]))
        rows = await self._db.fetch(query)
        return Page([_file(row) for row in rows[:limit]], more=len(rows) > limit)

    async def give_up(self, attempt: Attempt) -> bool:
        """Mark an attempt as aborting; False when there is nothing to abort, since it was stored or is gone."""
        statement = (
            file.update()
            .where(_is(attempt), file.c.state.in_(["receiving", "aborting"]))
            .values(state="aborting", **_NO_KEY)
        )
        return bool(await self._db.execute(statement))

    async def give_up_dead(self, grace: float) -> int:
        """Mark every attempt whose replica's lease ended more than `grace` seconds ago as aborting; how many."""
        alive = sa.select(replica.c.id).where(replica.c.lease_until > clock(-grace))
        return await self._db.execute(
            file.update()
            .where(file.c.state == "receiving", file.c.owner.not_in(alive))
            .values(state="aborting", **_NO_KEY)
        )

    async def mark_deleting(self, id_: UUID) -> Attempt | None:
        """Make a file invisible; the attempt whose bytes are to go, or None when there is no such file."""
        statement = (
            file.update().where(file.c.id == id_, VISIBLE).values(state="deleting", **_NO_KEY).returning(file.c.attempt)
        )

        async def work(connection: AsyncConnection) -> UUID | None:
            row = (await connection.execute(statement)).one_or_none()
            return row.attempt if row else None

        key = await self._db.write(work)
        return Attempt(id_, key) if key else None

    async def mark_damaged(self, attempt: Attempt, damaged: bool) -> None:
        """Note that the bytes of a stored file are gone or cut, or that they are whole again."""
        states = ("stored", "damaged") if damaged else ("damaged", "stored")
        await self._db.execute(file.update().where(_is(attempt), file.c.state == states[0]).values(state=states[1]))

    async def leftovers(self, limit: int = 1000) -> list[Attempt]:
        """Attempts whose bytes are to be removed from storage, then their rows."""
        query = sa.select(file.c.id, file.c.attempt).where(file.c.state.in_(["aborting", "deleting"])).limit(limit)
        return [Attempt(row.id, row.attempt) for row in await self._db.fetch(query)]

    async def remove(self, attempt: Attempt) -> None:
        """Delete the row of an attempt whose bytes are gone; repeatable."""
        await self._db.execute(file.delete().where(_is(attempt), file.c.state.in_(["aborting", "deleting"])))


_NO_KEY: dict[str, Any] = {"retry_key": None, "retry_part": None}


def _is(attempt: Attempt) -> sa.ColumnElement[bool]:
    return sa.and_(file.c.id == attempt.id, file.c.attempt == attempt.key)


async def _take_over(connection: AsyncConnection, key: RetryKey) -> File | None:
    mine = sa.and_(file.c.retry_key == key.value, file.c.retry_part == key.part)
    row = (await connection.execute(sa.select(file).where(mine).with_for_update())).one_or_none()
    if row is not None and row.state in ("stored", "damaged"):
        return _file(row)
    if row is not None:
        await connection.execute(file.update().where(file.c.id == row.id).values(state="aborting", **_NO_KEY))
    return None


def _file(row: sa.Row[Any]) -> File:
    return File(
        id=row.id,
        attempt=row.attempt,
        name=row.name,
        size=row.size,
        content_type=row.content_type,
        sha256=row.sha256,
        created_at=row.created_at,
        expires_at=row.expires_at,
        damaged=row.state == "damaged",
    )
