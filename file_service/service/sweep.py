"""What keeps the store clean while it runs: the replica's lease, and the sweep that removes what failed attempts left.

Every leftover is named by a row, so the sweep asks the database and lists no storage. It acts on an attempt only after
its state has been changed away from `receiving` in one statement; an attempt that was merely slow finds that out when
it wants to become visible, and fails. Safe at any moment, on any number of replicas, repeatable.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from uuid import UUID

from file_service.db.files import Files
from file_service.db.replicas import Replicas
from file_service.errors import ServiceError
from file_service.service.files import FileService

log = logging.getLogger(__name__)
BEATS = 6  # a lease is renewed this often before it would end
FORGET = 86_400.0  # seconds until the lease of a dead replica is dropped


class Sweeper:
    """The background work of one replica; all times are seconds.

    `settle` is work that others left for it; `dead`, told the grace, deals with what dead replicas were at.
    """

    def __init__(
        self,
        service: FileService,
        replicas: Replicas,
        *,
        lease_time: float,
        interval: float,
        gone_retention: float = 604_800.0,
        settle: Sequence[Callable[[], Awaitable[None]]] = (),
        dead: Sequence[Callable[[float], Awaitable[None]]] = (),
    ) -> None:
        self._settle = settle
        self._dead = dead
        self._gone_retention = gone_retention
        self._service = service
        self._replicas = replicas
        self._lease_time = lease_time
        self._interval = interval
        self._quiet_until = 0.0

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Hold the lease and sweep until the block ends; then the lease is given back."""
        await self._beat()
        self._pause()
        loops = [
            asyncio.create_task(_repeat(self._beat, self._lease_time / BEATS)),
            asyncio.create_task(_repeat(self._sweep, self._interval)),
        ]
        try:
            yield
        finally:
            for loop in loops:
                loop.cancel()
            await asyncio.gather(*loops, return_exceptions=True)
            await _left(self._replicas, self._service.owner)

    async def sweep(self) -> None:
        """Reclaim what failed and dead attempts left: bytes first, rows last."""
        files: Files = self._service.files
        for settle in self._settle:
            await settle()
        for attempt in list(self._service.given_up):
            if await files.give_up(attempt):
                await self._service.discard(attempt)
            self._service.given_up.discard(attempt)
        dead = await self._give_up_dead()
        await files.expire()
        attempts = await files.leftovers()
        for attempt in attempts:
            await self._service.discard(attempt)
        await files.forget_gone(self._gone_retention)
        await self._replicas.forget_dead(FORGET)
        if attempts:
            log.info("sweep: %d leftovers, %d of them of replicas that died", len(attempts), dead)

    async def _beat(self) -> None:
        try:
            await self._replicas.beat(self._service.owner, self._lease_time)
        except ServiceError:
            self._pause()
            raise

    async def _sweep(self) -> None:
        try:
            await self.sweep()
        except ServiceError:
            self._pause()
            raise

    async def _give_up_dead(self) -> int:
        # While the database was away nobody could renew a lease: give the living time to do it before judging them. Who
        # starts now cannot know that it was.
        if asyncio.get_running_loop().time() < self._quiet_until:
            return 0
        for deal_with in self._dead:
            await deal_with(self._lease_time)
        return await self._service.files.give_up_dead(grace=self._lease_time)

    def _pause(self) -> None:
        self._quiet_until = asyncio.get_running_loop().time() + 2 * self._lease_time


async def _repeat(work: Callable[[], Awaitable[None]], seconds: float) -> None:
    """Do `work` now and every `seconds`; what fails is logged and tried again sooner."""
    while True:
        try:
            await work()
            pause = seconds
        except ServiceError as error:
            log.warning("%s: %s", work.__name__.strip("_"), error.detail)
            pause = min(seconds, 1.0)
        except Exception:
            log.exception("%s failed", work.__name__.strip("_"))
            pause = seconds
        await asyncio.sleep(pause)


async def _left(replicas: Replicas, owner: UUID) -> None:
    try:
        await replicas.leave(owner)
    except ServiceError as error:
        log.warning("lease not given back, it will run out: %s", error.detail)
