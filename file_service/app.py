"""The picture of the whole program: settings in, application out."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import uuid4

from aiohttp import web

from file_service.db.deliveries import Deliveries
from file_service.db.engine import Database, connected
from file_service.db.files import Files
from file_service.db.migrate import migrated
from file_service.db.replicas import Replicas
from file_service.handlers.keys import ARCHIVES, DELIVERIES, FILES, PARTS, RULES, STATE, HttpRules, State
from file_service.handlers.metrics import METRICS, Metrics
from file_service.handlers.middlewares import answering, secure
from file_service.handlers.routes import add_routes
from file_service.service.archives import ArchiveService
from file_service.service.deliveries import DeliveryService
from file_service.service.files import FileService, Rules
from file_service.service.identity import recognise
from file_service.service.sweep import Sweeper
from file_service.settings import Settings
from file_service.storage.local import LocalStorage, local_storage


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[tuple[Database, LocalStorage]]:
    """The migrated database and the storage that belongs to it, both answering."""
    settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    await migrated(settings.database)
    async with (
        connected(
            settings.database,
            pool_size=settings.database_pool_size,
            timeout=settings.database_timeout,
            durable=settings.durable,
        ) as database,
        local_storage(settings.data_dir, chunk_size=settings.chunk_size, durable=settings.durable) as storage,
    ):
        await recognise(storage, Replicas(database))
        await storage.check()
        yield database, storage


def create_app(settings: Settings) -> web.Application:
    """An application that opens what it needs when it starts and closes it in reverse order when it stops."""
    app = web.Application(middlewares=[answering], client_max_size=64 << 10)
    app[RULES] = HttpRules(
        chunked=settings.download_framing == "chunked",
        body_idle=settings.body_idle_timeout,
        send_idle=settings.send_idle_timeout,
    )
    app[STATE] = State()
    app[METRICS] = Metrics()

    async def parts(app: web.Application) -> AsyncIterator[None]:
        async with opened(settings) as (database, storage):
            files, replicas = Files(database), Replicas(database)
            rules = Rules(settings.max_file_size, settings.block_size, settings.default_expiry, settings.max_expiry)
            service = FileService(files, storage, uuid4(), rules)
            deliveries = DeliveryService(Deliveries(database), service, service.owner)
            sweeper = Sweeper(
                service,
                replicas,
                lease_time=settings.lease_time,
                interval=settings.sweep_interval,
                gone_retention=settings.gone_retention,
                settle=[deliveries.settle],
            )
            app[FILES] = service
            app[ARCHIVES] = ArchiveService(service)
            app[DELIVERIES] = deliveries
            app[PARTS] = {"database": database.check, "storage": storage.check}
            async with sweeper.running():
                yield

    app.cleanup_ctx.append(parts)
    app.on_response_prepare.append(secure)
    add_routes(app)
    return app
