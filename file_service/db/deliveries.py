"""The repository of deliveries: how often a file that may be downloaded only so often has been, and is being."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from file_service.db.engine import Database, rowcount
from file_service.db.files import VISIBLE
from file_service.db.tables import clock, delivery, file, piece

Span = tuple[int, int]  # the bytes [start, stop) of a file
MAX_SPANS = 1000  # remembered of one client; one that leaves more holes than that is never done


class Deliveries:
    """The tables `delivery` and `piece`.

    Every running download holds a place, and no more places are given than downloads are left, so that no two replicas
    together can deliver too often. The pieces of one client share a place, that of its whole download if there is one:
    clients with several connections begin with a whole download, and those that were cut go on with a piece.
    """

    def __init__(self, database: Database) -> None:
        self._db = database

    async def begin(self, id_: UUID, file_id: UUID, client: str, owner: UUID, *, whole: bool) -> bool:
        """Take a place for `client`, one of its own for a whole download; False when none is left."""
        place = str(id_) if whole else client
        others = sa.select(sa.func.count(delivery.c.place.distinct())).where(delivery.c.file_id == file_id)
        if not whole:
            others = others.where(delivery.c.client != client)

        async def work(connection: AsyncConnection) -> bool:
            row = (
                await connection.execute(sa.select(file).where(file.c.id == file_id, VISIBLE).with_for_update())
            ).first()
            if row is None or row.downloads + int(await connection.scalar(others) or 0) >= row.max_downloads:
                return False
            await connection.execute(
                delivery.insert().values(id=id_, file_id=file_id, client=client, place=place, owner=owner)
            )
            return True

        return await self._db.write(work)

    async def end(self, id_: UUID) -> None:
        """Give the place back: nothing was delivered."""
        await self._db.execute(delivery.delete().where(delivery.c.id == id_))

    async def delivered(self, id_: UUID, file_id: UUID, client: str, spans: Sequence[Span], size: int) -> bool:
        """These bytes of the file's `size` arrived; True when that used the file's downloads up. Repeatable.

        A client that got every byte, at once or in pieces, has downloaded the file once.
        """

        async def work(connection: AsyncConnection) -> bool:
            # The pieces of one client may end at the same moment.
            await connection.execute(sa.select(file.c.id).where(file.c.id == file_id).with_for_update())
            if not await rowcount(connection, delivery.delete().where(delivery.c.id == id_)):
                return False  # the replica was taken for dead meanwhile; its place may have been given away
            if not await _whole(connection, file_id, client, spans, size):
                return False
            counted = file.update().where(file.c.id == file_id).values(downloads=file.c.downloads + 1)
            await connection.execute(counted)
            used_up = sa.and_(file.c.id == file_id, VISIBLE, file.c.downloads >= file.c.max_downloads)
            return bool(
                await rowcount(connection, file.update().where(used_up).values(state="expiring", gone_at=clock()))
            )

        return await self._db.write(work)


async def _whole(connection: AsyncConnection, file_id: UUID, client: str, spans: Sequence[Span], size: int) -> bool:
    """Whether the client has got every byte with these; until then its pieces are remembered."""
    mine = sa.and_(piece.c.file_id == file_id, piece.c.client == client)
    before = (await connection.execute(sa.select(piece.c.start, piece.c.stop).where(mine))).all()
    together = merged([*spans, *((row.start, row.stop) for row in before)])
    await connection.execute(piece.delete().where(mine))
    if together == [(0, size)]:
        return True
    rows = [
        {"file_id": file_id, "client": client, "start": start, "stop": stop} for start, stop in together[:MAX_SPANS]
    ]
    await connection.execute(piece.insert(), rows)
    return False


def merged(spans: Iterable[Span]) -> list[Span]:
    """The same bytes as spans that neither overlap nor touch, in order."""
    result: list[Span] = []
    for start, stop in sorted(spans):
        if result and start <= result[-1][1]:
            result[-1] = result[-1][0], max(result[-1][1], stop)
        else:
            result.append((start, stop))
    return result
