"""Downloads of files that may be downloaded only so often: whole deliveries count, everything else does not."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from uuid import UUID, uuid4

from file_service.db.deliveries import Deliveries
from file_service.errors import Gone
from file_service.model import Attempt, File
from file_service.service.files import FileService


@dataclass(slots=True)
class Delivery:
    """A running download; whoever sends it says when all of it has arrived."""

    done: bool = False


class DeliveryService:
    """Counts for one replica, `owner`."""

    def __init__(self, deliveries: Deliveries, files: FileService, owner: UUID) -> None:
        self._deliveries = deliveries
        self._files = files
        self._owner = owner

    @asynccontextmanager
    async def delivery(self, file: File, client: str, length: int) -> AsyncIterator[Delivery]:
        """A download of `length` bytes by `client`; it counts when its `done` is set before the block ends.

        A whole download is one by itself, the pieces of a client are one together. Raises `Gone` when the downloads
        are used up, or will be by those that run now. Only for a file that has `max_downloads`.
        """
        delivery = Delivery()
        id_, client = uuid4(), client if length < file.size else str(uuid4())
        if not await self._deliveries.begin(id_, file.id, client, self._owner):
            raise Gone
        try:
            yield delivery
        except BaseException:
            await self._deliveries.end(id_)
            raise
        if not delivery.done:
            await self._deliveries.end(id_)
        elif await self._deliveries.delivered(id_, file.id, client, length, file.size):
            await self._files.discard(Attempt(file.id, file.attempt))
