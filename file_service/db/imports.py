"""The repository of imports: a queue that any replica takes from, and what became of each.

An import that is taken gets a try, and the file of a try is stored under the try's own key (see `try_key`). So a try
can be withdrawn at any moment, in one transaction: then its file will never be; or the file is there already, and the
import is done. There is nothing in between.
"""

from __future__ import annotations

from typing import Any, Literal
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from file_service.db.engine import Database, rowcount
from file_service.db.files import STORED
from file_service.db.tables import UNFINISHED, clock, file, import_, replica
from file_service.model import Import

TRIES = 3  # an import whose replica died, or whose database went away, is begun so often
Outcome = Literal["pending", "cancelled"]


def try_key(job: Import) -> str:
    """The retry key of the try that `job` is in; with its blanks no client can send such a one."""
    return f"import {job.id} {job.tries}"


class Imports:
    """The table `import` in the service's words. What concerns one try changes nothing once there is another one."""

    def __init__(self, database: Database) -> None:
        self._db = database

    async def add(self, id_: UUID, url: str, name: str | None) -> Import:
        """Queue an import."""
        row = import_.insert().values(id=id_, url=url, name=name, state="pending", created_at=clock())

        async def work(connection: AsyncConnection) -> Import:
            await connection.execute(row)
            return _import((await connection.execute(sa.select(import_).where(import_.c.id == id_))).one())

        return await self._db.write(work)

    async def get(self, id_: UUID) -> Import | None:
        """The import with this id."""
        rows = await self._db.fetch(sa.select(import_).where(import_.c.id == id_))
        return _import(rows[0]) if rows else None

    async def take(self, owner: UUID) -> Import | None:
        """Begin a try of the oldest pending import, if there is any; no two replicas get the same one."""
        pending = sa.select(import_.c.id).where(UNFINISHED, import_.c.state == "pending")
        oldest = pending.order_by(import_.c.created_at).limit(1)
        if not await self._db.fetch(oldest):
            return None  # looked up first because writing locks an SQLite database
        taken = (
            import_.update()
            .where(import_.c.id == oldest.with_for_update(skip_locked=True).correlate(None).scalar_subquery())
            .values(state="running", owner=owner, tries=import_.c.tries + 1, bytes=0, total=None)
            .values(started_at=clock(), updated_at=clock())
            .returning(import_)
        )

        async def work(connection: AsyncConnection) -> Import | None:
            row = (await connection.execute(taken)).one_or_none()
            return _import(row) if row else None

        return await self._db.write(work)

    async def progress(self, job: Import, size: int, total: int | None) -> bool:
        """Note how far a try is; False when it was withdrawn.

        A try that begins its file first and then hears True here is withdrawn together with the file.
        """
        return await self._change(job, bytes=size, total=total)

    async def done(self, job: Import, file_id: UUID, size: int) -> bool:
        """Note the success of a try."""
        return await self._change(job, state="done", file_id=file_id, bytes=size, total=size)

    async def failed(self, job: Import, error: str) -> bool:
        """Note that a try failed for good."""
        return await self._change(job, state="failed", error=error)

    async def again(self, job: Import, *, counted: bool = True) -> None:
        """Withdraw a try and queue the import for another one; one that is not `counted` was no try."""
        await self._withdraw(_same_try(job), "pending", counted=counted)

    async def cancel(self, id_: UUID) -> bool:
        """Cancel an import; False when it has ended, or there is none."""
        return await self._withdraw(import_.c.id == id_, "cancelled")

    async def requeue_dead(self, grace: float) -> None:
        """Withdraw the tries of replicas whose lease ended more than `grace` seconds ago."""
        alive = sa.select(replica.c.id).where(replica.c.lease_until > clock(-grace))
        dead = sa.and_(UNFINISHED, import_.c.state == "running", import_.c.owner.not_in(alive))
        for row in await self._db.fetch(sa.select(import_.c.id).where(dead)):
            await self._withdraw(sa.and_(import_.c.id == row.id, dead), "pending")

    async def forget_ended(self, retention: float) -> None:
        """Drop the imports that ended more than `retention` seconds ago, and their URLs with them."""
        ended = import_.c.state.in_(["done", "failed", "cancelled"])
        await self._db.execute(import_.delete().where(ended, import_.c.updated_at < clock(-retention)))

    async def _change(self, job: Import, **values: Any) -> bool:
        return bool(await self._db.execute(import_.update().where(_same_try(job)).values(updated_at=clock(), **values)))

    async def _withdraw(self, which: sa.ColumnElement[bool], outcome: Outcome, *, counted: bool = True) -> bool:
        """End what an unfinished import is in, at once with its file; False when there is none, or it is done."""

        async def work(connection: AsyncConnection) -> bool:
            found = sa.select(import_).where(which, UNFINISHED).with_for_update()
            if (row := (await connection.execute(found)).one_or_none()) is None:
                return False
            stored = await _end_file(connection, try_key(_import(row)))
            values = _done(stored) if stored else _over(outcome, row.tries, counted=counted)
            ended = import_.update().where(import_.c.id == row.id).values(updated_at=clock(), **values)
            await connection.execute(ended)
            return stored is None

        return await self._db.write(work)


def _same_try(job: Import) -> sa.ColumnElement[bool]:
    row = import_.c
    return sa.and_(row.id == job.id, row.state == "running", row.owner == job.owner, row.tries == job.tries)


async def _end_file(connection: AsyncConnection, key: str) -> sa.Row[Any] | None:
    """Make sure that the file under `key` never becomes visible, or return it if it is."""
    mine = file.c.retry_key == key
    withdrawn = file.update().where(mine, file.c.state == "receiving")
    if await rowcount(connection, withdrawn.values(state="aborting", retry_key=None, retry_part=None)):
        return None
    return (await connection.execute(sa.select(file).where(mine, STORED))).one_or_none()


def _done(stored: sa.Row[Any]) -> dict[str, Any]:
    return {"state": "done", "file_id": stored.id, "bytes": stored.size, "total": stored.size}


def _over(outcome: Outcome, tries: int, *, counted: bool) -> dict[str, Any]:
    if outcome == "cancelled":
        return {"state": outcome}
    if counted and tries >= TRIES:
        return {"state": "failed", "error": f"The service broke off in the middle of it, {TRIES} times."}
    nothing = {"owner": None, "bytes": 0, "total": None, "started_at": None}
    return {"state": outcome, "tries": tries if counted else tries - 1, **nothing}


def _import(row: sa.Row[Any]) -> Import:
    return Import(
        id=row.id,
        url=row.url,
        name=row.name,
        state=row.state,
        owner=row.owner,
        tries=row.tries,
        bytes=row.bytes,
        total=row.total,
        file_id=row.file_id,
        error=row.error,
        started_at=row.started_at,
        updated_at=row.updated_at,
    )
