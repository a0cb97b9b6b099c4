"""Downloads of files that may be downloaded only so often: whole deliveries count, everything else does not."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from uuid import UUID, uuid4

from file_service.db.deliveries import Deliveries, Span
from file_service.errors import Gone, ServiceError
from file_service.model import Attempt, File
from file_service.service.files import FileService

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Delivery:
    """A running download; whoever sends it says which bytes of the file have `arrived`."""

    id: UUID
    file: File
    client: str
    arrived: Sequence[Span] = ()


class DeliveryService:
    """Counts for one replica, `owner`."""

    def __init__(self, deliveries: Deliveries, files: FileService, owner: UUID) -> None:
        self._deliveries = deliveries
        self._files = files
        self._owner = owner
        self._unsettled: list[Delivery] = []  # ended ones that could not be recorded

    @asynccontextmanager
    async def delivery(self, file: File, client: str, spans: Sequence[Span]) -> AsyncIterator[Delivery]:
        """A download of the bytes `spans` by `client`; what has `arrived` when the block ends is what counts.

        A whole download is one by itself, the pieces of a client are one together. Raises `Gone` when the downloads
        are used up, or will be by those that run now. Only for a file that has `max_downloads`.
        """
        delivery = Delivery(uuid4(), file, client)
        whole = (0, file.size) in spans
        try:
            placed = await self._deliveries.begin(delivery.id, file.id, client, self._owner, whole=whole)
        except ServiceError:
            self._unsettled.append(delivery)  # the place may have been taken all the same
            raise
        if not placed:
            raise Gone
        try:
            yield delivery
        finally:
            await self._end(delivery)

    async def settle(self) -> None:
        """Record what could not be recorded when it ended; the sweep calls it."""
        while self._unsettled:
            delivery = self._unsettled.pop()
            try:
                await self._record(delivery)
            except ServiceError:
                self._unsettled.append(delivery)
                raise

    async def _end(self, delivery: Delivery) -> None:
        try:
            await self._record(delivery)
        except ServiceError as error:  # the answer has gone out, and there can be no other
            log.warning("file %s: a download is left to the sweep: %s", delivery.file.id, error.detail)
            self._unsettled.append(delivery)

    async def _record(self, delivery: Delivery) -> None:
        """Count it, or give its place back. Repeatable."""
        file = delivery.file
        if not delivery.arrived:
            await self._deliveries.end(delivery.id)
        elif await self._deliveries.delivered(delivery.id, file.id, delivery.client, delivery.arrived, file.size):
            await self._files.discard(Attempt(file.id, file.attempt))
