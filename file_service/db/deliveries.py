"""The repository of deliveries: how often a file that may be downloaded only so often has been, and is being."""

from __future__ import annotations

from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from file_service.db.engine import Database, rowcount
from file_service.db.files import VISIBLE
from file_service.db.tables import clock, delivery, file, piece


class Deliveries:
    """The tables `delivery` and `piece`.

    Every running download holds a place, and no more places are given than downloads are left, so that no two replicas
    together can deliver too often. The pieces of one client share a place.
    """

    def __init__(self, database: Database) -> None:
        self._db = database

    async def begin(self, id_: UUID, file_id: UUID, client: str, owner: UUID) -> bool:
        """Take a place for `client`; False when none is left."""

        async def work(connection: AsyncConnection) -> bool:
            row = (
                await connection.execute(sa.select(file).where(file.c.id == file_id, VISIBLE).with_for_update())
            ).first()
            others = sa.select(sa.func.count(delivery.c.client.distinct())).where(
                delivery.c.file_id == file_id, delivery.c.client != client
            )
            if row is None or row.downloads + int(await connection.scalar(others) or 0) >= row.max_downloads:
                return False
            await connection.execute(delivery.insert().values(id=id_, file_id=file_id, client=client, owner=owner))
            return True

        return await self._db.write(work)

    async def end(self, id_: UUID) -> None:
        """Give the place back: nothing was delivered."""
        await self._db.execute(delivery.delete().where(delivery.c.id == id_))

    async def delivered(self, id_: UUID, file_id: UUID, client: str, length: int, size: int) -> bool:
        """`length` bytes of the file's `size` went out; True when that used the file's downloads up.

        A client that got as many bytes in pieces as the file has has downloaded it once.
        """

        async def work(connection: AsyncConnection) -> bool:
            if not await rowcount(connection, delivery.delete().where(delivery.c.id == id_)):
                return False  # the replica was taken for dead meanwhile; its place may have been given away
            if not await _whole(connection, file_id, client, length, size):
                return False
            counted = file.update().where(file.c.id == file_id).values(downloads=file.c.downloads + 1)
            await connection.execute(counted)
            used_up = sa.and_(file.c.id == file_id, VISIBLE, file.c.downloads >= file.c.max_downloads)
            return bool(
                await rowcount(connection, file.update().where(used_up).values(state="expiring", gone_at=clock()))
            )

        return await self._db.write(work)


async def _whole(connection: AsyncConnection, file_id: UUID, client: str, length: int, size: int) -> bool:
    """Whether `length` more bytes make a whole download; the bytes of pieces are remembered until they do."""
    if length >= size:
        return True
    mine = sa.and_(piece.c.file_id == file_id, piece.c.client == client)
    before = int(await connection.scalar(sa.select(piece.c.bytes).where(mine)) or 0)
    await connection.execute(piece.delete().where(mine))
    if before + length >= size:
        return True
    await connection.execute(piece.insert().values(file_id=file_id, client=client, bytes=before + length))
    return False
