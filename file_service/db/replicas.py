"""The repository of running replicas: a lease each, and the identity of the storage they share."""

from __future__ import annotations

from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from file_service.db.engine import Database, rowcount
from file_service.db.tables import clock, file, replica, storage


class Replicas:
    """The tables `replica` and `storage`."""

    def __init__(self, database: Database) -> None:
        self._db = database

    async def beat(self, id_: UUID, seconds: float) -> None:
        """Say that this replica is alive, for `seconds` from now."""
        until = clock(seconds)

        async def work(connection: AsyncConnection) -> None:
            renewed = replica.update().where(replica.c.id == id_).values(lease_until=until)
            if not await rowcount(connection, renewed):
                await connection.execute(replica.insert().values(id=id_, lease_until=until))

        await self._db.write(work)

    async def leave(self, id_: UUID) -> None:
        """End a replica's lease: whatever attempts it still owns are dead."""
        await self._db.execute(replica.delete().where(replica.c.id == id_))

    async def forget_dead(self, grace: float) -> None:
        """Drop the leases that ended more than `grace` seconds ago and own nothing."""
        owners = sa.select(file.c.owner).where(file.c.state == "receiving")
        await self._db.execute(
            replica.delete().where(replica.c.lease_until < clock(-grace), replica.c.id.not_in(owners))
        )

    async def storage_identity(self) -> UUID | None:
        """The identity of the storage this database belongs to."""
        rows = await self._db.fetch(sa.select(storage.c.identity))
        return rows[0][0] if rows else None

    async def adopt_storage(self, identity: UUID) -> UUID:
        """Record the identity unless there is one already; the one that counts."""
        try:
            await self._db.execute(storage.insert().values(only=True, identity=identity))
        except IntegrityError:
            rows = await self._db.fetch(sa.select(storage.c.identity))
            return UUID(str(rows[0][0]))
        return identity
