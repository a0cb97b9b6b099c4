"""The repository of files: every change names the attempt it is about, so that no cleanup can hit another's row."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from file_service.db.engine import Database, rowcount
from file_service.db.tables import clock, delivery, file, replica
from file_service.errors import Superseded
from file_service.model import Attempt, File, Page, Result, RetryKey

STORED = file.c.state.in_(["stored", "damaged"])
ALIVE = sa.or_(file.c.expires_at.is_(None), file.c.expires_at > clock())
VISIBLE = sa.and_(STORED, ALIVE)
USED_UP = sa.or_(file.c.state.in_(["expiring", "gone"]), sa.and_(STORED, sa.not_(ALIVE)))  # in time or downloads
LATELY = 10_000  # files remembered at most


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

        return await self._db.write(work)

    async def finish(self, results: Sequence[Result]) -> list[File]:
        """Make all these files visible at once, or none; repeatable, also when an earlier answer was lost.

        Raises `Superseded` when one of the attempts is no longer receiving.
        """

        async def work(connection: AsyncConnection) -> list[File]:
            for result in results:
                if not await rowcount(connection, _stored(result)) and not await connection.scalar(
                    sa.select(file.c.id).where(_is(result.attempt), STORED)
                ):
                    raise Superseded
            ids = [result.attempt.id for result in results]
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
        lasting = found is not None and found.expires_at is None
        if found is not None and lasting and version is not None and self._db.version() == version == self._version:
            self._lately[id_] = found
        return found

    async def gone(self, id_: UUID) -> bool:
        """Whether there was a file with this id whose time or downloads are used up, as long as that is remembered."""
        return bool(await self._db.fetch(sa.select(file.c.id).where(file.c.id == id_, USED_UP)))

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

    async def states(self, keys: Collection[UUID]) -> dict[UUID, str]:
        """The states of the rows that own these keys."""
        rows = await self._db.fetch(sa.select(file.c.attempt, file.c.state).where(file.c.attempt.in_(keys)))
        return {row.attempt: row.state for row in rows}

    async def between(self, first: UUID, last: UUID, limit: int) -> list[File]:
        """Up to `limit` visible files with keys from `first` to `last`, in the order of these."""
        query = sa.select(file).where(file.c.attempt.between(first, last), VISIBLE).order_by(file.c.attempt)
        return [_file(row) for row in await self._db.fetch(query.limit(limit))]

    async def give_up(self, attempt: Attempt) -> bool:
        """Mark an attempt as aborting; False when it was stored, so that its bytes must stay.

        An attempt whose row is gone was reclaimed by another replica; what it left since then is its own to remove.
        """
        statement = (
            file.update()
            .where(_is(attempt), file.c.state.in_(["receiving", "aborting"]))
            .values(state="aborting", **_NO_KEY)
        )

        async def work(connection: AsyncConnection) -> bool:
            if await rowcount(connection, statement):
                return True
            return await connection.scalar(sa.select(file.c.id).where(_is(attempt))) is None

        return await self._db.write(work)

    async def give_up_dead(self, grace: float) -> int:
        """Mark every attempt whose replica's lease ended more than `grace` seconds ago as aborting; how many.

        The places that its downloads held are given back.
        """
        alive = sa.select(replica.c.id).where(replica.c.lease_until > clock(-grace))
        dead = sa.and_(file.c.state == "receiving", file.c.owner.not_in(alive))

        async def work(connection: AsyncConnection) -> int:
            await connection.execute(delivery.delete().where(delivery.c.owner.not_in(alive)))
            return await rowcount(connection, file.update().where(dead).values(state="aborting", **_NO_KEY))

        return await self._db.write(work)

    async def delete_token(self, id_: UUID) -> bytes | None:
        """The SHA-256 of the file's delete token."""
        rows = await self._db.fetch(sa.select(file.c.delete_token).where(file.c.id == id_, VISIBLE))
        return rows[0][0] if rows else None

    async def set_delete_token(self, id_: UUID, sha256: bytes) -> None:
        """Give the file another delete token."""
        await self._db.execute(file.update().where(file.c.id == id_, VISIBLE).values(delete_token=sha256))

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
        states = ["aborting", "deleting", "expiring"]
        query = sa.select(file.c.id, file.c.attempt).where(file.c.state.in_(states)).limit(limit)
        return [Attempt(row.id, row.attempt) for row in await self._db.fetch(query)]

    async def settle(self, attempt: Attempt) -> None:
        """Delete the row of an attempt whose bytes are gone; one that expired is kept for a while. Repeatable."""

        async def work(connection: AsyncConnection) -> None:
            expired = sa.and_(_is(attempt), file.c.state == "expiring")
            await connection.execute(file.update().where(expired).values(state="gone"))
            await connection.execute(file.delete().where(_is(attempt), file.c.state.in_(["aborting", "deleting"])))

        await self._db.write(work)

    async def expire(self) -> int:
        """Mark the files whose time is over as expiring; how many."""
        over = sa.and_(STORED, file.c.expires_at <= clock())
        return await self._db.execute(file.update().where(over).values(state="expiring", gone_at=clock(), **_NO_KEY))

    async def forget_gone(self, retention: float) -> None:
        """Delete the rows of files that are gone for `retention` seconds."""
        await self._db.execute(file.delete().where(file.c.state == "gone", file.c.gone_at < clock(-retention)))


_NO_KEY: dict[str, Any] = {"retry_key": None, "retry_part": None}


def _is(attempt: Attempt) -> sa.ColumnElement[bool]:
    return sa.and_(file.c.id == attempt.id, file.c.attempt == attempt.key)


def _stored(result: Result) -> sa.Update:
    received, terms = result.received, result.terms
    return (
        file.update()
        .where(_is(result.attempt), file.c.state == "receiving")
        .values(
            state="stored",
            size=received.size,
            sha256=received.sha256,
            crc32=received.crc32,
            created_at=clock(),
            expires_at=None if terms.expires_in is None else clock(terms.expires_in),
            max_downloads=terms.max_downloads,
            delete_token=result.delete_token,
        )
    )


async def _take_over(connection: AsyncConnection, key: RetryKey) -> File | None:
    if connection.dialect.name == "postgresql":
        # Two requests with one key would both find no row and collide; SQLite has one writer at a time anyway.
        number = sa.func.hashtextextended(key.value, key.part)
        await connection.execute(sa.select(sa.func.pg_advisory_xact_lock(number)))
    mine = sa.and_(file.c.retry_key == key.value, file.c.retry_part == key.part)
    await connection.execute(file.update().where(mine, USED_UP).values(**_NO_KEY))  # what is gone cannot be repeated
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
        crc32=row.crc32,
        created_at=row.created_at,
        expires_at=row.expires_at,
        max_downloads=row.max_downloads,
        damaged=row.state == "damaged",
    )
