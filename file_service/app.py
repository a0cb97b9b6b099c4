"""The picture of the whole program: settings in, application out."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from uuid import uuid4

from aiohttp import web

from file_service.db.deliveries import Deliveries
from file_service.db.engine import Database, connected
from file_service.db.files import Files
from file_service.db.imports import Imports
from file_service.db.migrate import migrated
from file_service.db.replicas import Replicas
from file_service.handlers.keys import ARCHIVES, DELIVERIES, FILES, IMPORTS, PARTS, RULES, STATE, HttpRules, State
from file_service.handlers.metrics import METRICS, Metrics
from file_service.handlers.middlewares import answering, secure
from file_service.handlers.routes import add_routes
from file_service.service.archives import ArchiveService
from file_service.service.deliveries import DeliveryService
from file_service.service.files import FileService, Rules
from file_service.service.identity import recognise
from file_service.service.imports import ImportService
from file_service.service.outside import Outside
from file_service.service.sweep import Sweeper
from file_service.settings import Settings
from file_service.storage.base import MarkedStorage
from file_service.storage.local import local_storage


@asynccontextmanager
async def opened(settings: Settings, *, adopt: bool = True) -> AsyncIterator[tuple[Database, MarkedStorage]]:
    """The migrated database and the storage that belongs to it, both answering; for `adopt` see `recognise`."""
    settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    await migrated(settings.database)
    async with (
        connected(
            settings.database,
            pool_size=settings.database_pool_size,
            timeout=settings.database_timeout,
            durable=settings.durable,
        ) as database,
        chosen_storage(settings) as storage,
    ):
        await recognise(storage, Replicas(database), adopt=adopt)
        await storage.check()
        yield database, storage


def chosen_storage(settings: Settings) -> AbstractAsyncContextManager[MarkedStorage]:
    """The storage that the settings name."""
    if settings.storage == "local":
        return local_storage(settings.data_dir, chunk_size=settings.chunk_size, durable=settings.durable)
    # A service on a disk need not wait for botocore to be imported.
    from file_service.storage.s3 import s3_storage  # noqa: PLC0415

    return s3_storage(
        settings.s3_bucket,
        endpoint_url=settings.s3_endpoint_url,
        region=settings.s3_region,
        prefix=settings.s3_prefix,
        part_size=settings.s3_part_size,
        equal_parts=settings.s3_equal_parts,
        memory=settings.s3_memory,
        storage_class=settings.s3_storage_class,
        path_style=settings.s3_path_style,
        ca_file=settings.s3_ca_file,
        redirect=settings.s3_redirect,
        public_url=settings.s3_public_url,
        chunk_size=settings.chunk_size,
    )


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
        async with opened(settings) as (database, storage), aclosing(Outside(settings.import_allow)) as outside:
            files, replicas, imports = Files(database), Replicas(database), Imports(database)
            rules = Rules(settings.max_file_size, settings.block_size, settings.default_expiry, settings.max_expiry)
            service = FileService(files, storage, uuid4(), rules)
            deliveries = DeliveryService(Deliveries(database), service, service.owner)
            importing = ImportService(imports, service, outside, settings.body_idle_timeout)
            sweeper = Sweeper(
                service,
                replicas,
                lease_time=settings.lease_time,
                interval=settings.sweep_interval,
                gone_retention=settings.gone_retention,
                settle=[deliveries.settle, importing.forget_ended],
                dead=[imports.requeue_dead],
            )
            app[FILES] = service
            app[ARCHIVES] = ArchiveService(service)
            app[DELIVERIES] = deliveries
            app[IMPORTS] = importing
            app[PARTS] = {"database": database.check, "storage": storage.check}
            async with sweeper.running(), importing.running():
                yield

    app.cleanup_ctx.append(parts)
    app.on_response_prepare.append(secure)
    add_routes(app)
    return app
