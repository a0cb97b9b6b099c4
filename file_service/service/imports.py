"""Imports: URLs streamed into storage through the same door as uploads, in the background, on any replica.

The queue is a table. A replica takes an import from it, and what it brings becomes a file only while the import is
still in that very try: a cancelled import never becomes one, an import begun again never becomes two.
"""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from uuid import UUID, uuid4

from tenacity import AsyncRetrying, retry_if_exception_type, wait_fixed

from file_service.db.imports import Imports, try_key
from file_service.errors import ImportEnded, NotFound, ServiceError, Superseded, Unavailable
from file_service.model import File, Import
from file_service.names import sanitize_name
from file_service.service.fetching import Fetched, fetched, parse
from file_service.service.files import NO_TERMS, FileService
from file_service.service.outside import Outside

log = logging.getLogger(__name__)
RETENTION = 604_800.0  # seconds that an import is remembered after its end
AT_ONCE = 8  # imports that one replica runs
POLL = 1.0  # seconds between two looks into the queue, and between two notes of progress


@dataclass(slots=True)
class Progress:
    """Bytes that have come, of how many where that is told."""

    size: int = 0
    total: int | None = None


class ImportService:
    """The imports of one replica; `idle` is the seconds without progress after which one fails."""

    def __init__(self, imports: Imports, files: FileService, outside: Outside, idle: float) -> None:
        self._imports = imports
        self._files = files
        self._outside = outside
        self._idle = idle
        self._news = asyncio.Event()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Work on the queue until the block ends; what is running then is left to the others."""
        working = asyncio.create_task(self._work())
        try:
            yield
        finally:
            working.cancel()
            await asyncio.wait({working})

    async def add(self, url: str, name: str | None) -> Import:
        """Queue an import; `UrlRefused` when it can be told already that the URL will not be fetched."""
        await self._outside.check(parse(url))
        added = await self._imports.add(uuid4(), url, sanitize_name(name) if name else None)
        self._news.set()
        return added

    async def get(self, id_: UUID) -> Import:
        """How far an import is; `NotFound`."""
        if (found := await self._imports.get(id_)) is None:
            raise NotFound("No such import.")
        return found

    async def cancel(self, id_: UUID) -> None:
        """End an import before it becomes a file; `NotFound`, and `ImportEnded` when it is too late."""
        if not await self._imports.cancel(id_):
            raise ImportEnded((await self.get(id_)).state)

    async def forget_ended(self) -> None:
        """Drop what ended long ago, and the URLs with it."""
        await self._imports.forget_ended(RETENTION)

    async def _work(self) -> None:
        free = asyncio.Semaphore(AT_ONCE)
        async with asyncio.TaskGroup() as tries:
            while True:
                await free.acquire()
                job = await self._next()
                tries.create_task(self._try(job)).add_done_callback(lambda _: free.release())

    async def _next(self) -> Import:
        while True:
            self._news.clear()
            try:
                if (job := await self._imports.take(self._files.owner)) is not None:
                    return job
            except ServiceError as error:
                log.warning("imports: %s", error.detail)
            except Exception:
                log.exception("the queue of imports failed")
            try:
                async with asyncio.timeout(POLL):
                    await self._news.wait()
            except TimeoutError:
                continue

    async def _try(self, job: Import) -> None:
        """One try from beginning to end; its outcome is recorded when this returns, unless somebody withdrew it."""
        try:
            file = await self._fetch(job)
        except asyncio.CancelledError:
            await self._leave(job)
            raise
        except Superseded:
            log.info("import %s: withdrawn", job.id)
        except Unavailable:
            await _until_recorded(lambda: self._imports.again(job))
        except ServiceError as error:
            log.info("import %s: %s", job.id, error.detail)
            detail = error.detail
            await _until_recorded(lambda: self._imports.failed(job, detail))
        except Exception as error:  # noqa: BLE001 - nobody is above this one
            # Without its text, which may hold the URL.
            frames = "".join(traceback.format_tb(error.__traceback__))
            log.error("import %s failed: %s\n%s", job.id, type(error).__name__, frames)  # noqa: TRY400
            await _until_recorded(lambda: self._imports.failed(job, "The service failed; the reason is in its log."))
        else:
            await _until_recorded(lambda: self._imports.done(job, file.id, file.size))

    async def _fetch(self, job: Import) -> File:
        async with (
            self._noted(job) as progress,
            fetched(self._outside, job.url, self._idle) as answer,
        ):
            progress.total = answer.size
            await self._files.admit(answer.size)
            receipt = await self._files.store(
                job.name or answer.name,
                answer.content_type,
                self._counted(job, answer, progress),
                length=answer.size,
                key=try_key(job),
                terms=self._files.agree(NO_TERMS),
            )
        return receipt.file

    async def _counted(self, job: Import, answer: Fetched, progress: Progress) -> AsyncIterator[bytes]:
        # By the time the first chunk is asked for, the file has its row: see `Imports.progress`.
        if not await self._imports.progress(job, 0, answer.size):
            raise Superseded
        async for chunk in answer.chunks:
            progress.size += len(chunk)
            yield chunk

    @asynccontextmanager
    async def _noted(self, job: Import) -> AsyncIterator[Progress]:
        """Keep the row up to date while the block runs; break it off with `Superseded` once the try is withdrawn."""
        progress = Progress()
        scope = asyncio.timeout(None)
        try:
            async with scope:
                noting = asyncio.create_task(self._note(job, progress, scope))
                try:
                    yield progress
                finally:
                    noting.cancel()
                    await asyncio.wait({noting})
        except TimeoutError:
            if not scope.expired():
                raise
            raise Superseded from None

    async def _note(self, job: Import, progress: Progress, scope: asyncio.Timeout) -> None:
        ours = True
        while ours:
            await asyncio.sleep(POLL)
            try:
                ours = await self._imports.progress(job, progress.size, progress.total)
            except ServiceError as error:
                log.warning("import %s: its progress is not noted: %s", job.id, error.detail)
        scope.reschedule(asyncio.get_running_loop().time())

    async def _leave(self, job: Import) -> None:
        try:
            await self._imports.again(job, counted=False)
        except ServiceError as error:
            log.warning("import %s: left to the sweep: %s", job.id, error.detail)


async def _until_recorded(record: Callable[[], Awaitable[object]]) -> None:
    """However long the database is away: as long as this replica lives nobody else would do it."""
    async for attempt in AsyncRetrying(retry=retry_if_exception_type(ServiceError), wait=wait_fixed(POLL)):
        with attempt:
            await record()
