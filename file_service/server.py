"""Running the application: listen, serve until told to stop, drain, leave."""

import asyncio
import logging
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import uvloop
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from file_service.app import create_app
from file_service.handlers.keys import STATE
from file_service.settings import Settings

log = logging.getLogger(__name__)
KEEPALIVE = 75.0  # seconds an idle connection, or one that sends no headers, is kept
LINGER = 10.0  # seconds a refused body is read on, so that its client sees the answer and not a reset


def log_to_stderr(level: str) -> None:
    """One line an event."""
    logging.basicConfig(level=level.upper(), format="%(asctime)s %(levelname)s %(name)s %(message)s")
    logging.getLogger("alembic.runtime.plugins").setLevel(logging.WARNING)
    logging.getLogger("aiohttp.server").addFilter(without_traceback)


def run(settings: Settings, *, reuse_port: bool = False) -> None:
    """Serve until SIGTERM or SIGINT. Raises OSError when the port cannot be had and what the parts raise at start."""
    log_to_stderr(settings.log_level)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(settings, reuse_port=reuse_port))


async def serve(settings: Settings, *, reuse_port: bool = False) -> None:
    """The life of one worker."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with listening(settings, reuse_port=reuse_port) as address:
        log.info("serving on %s", address)
        await stop.wait()
        log.info("stopping: running requests have %g seconds", settings.drain_timeout)


@asynccontextmanager
async def listening(settings: Settings, *, reuse_port: bool = False) -> AsyncIterator[str]:
    """The service, answering at the yielded URL while the block runs; then running requests are drained, then cut."""
    app = create_app(settings)
    runner = web.AppRunner(
        app,
        access_log=None,
        auto_decompress=False,
        keepalive_timeout=KEEPALIVE,
        lingering_time=LINGER,
        shutdown_timeout=settings.drain_timeout,
    )
    try:
        await runner.setup()
        await web.TCPSite(runner, settings.host, settings.port, reuse_port=reuse_port or None, backlog=1024).start()
        host, port = runner.addresses[0][:2]
        yield f"http://{f'[{host}]' if ':' in host else host}:{port}"
        app[STATE].draining = True
    finally:
        await runner.cleanup()


def without_traceback(record: logging.LogRecord) -> bool:
    """A request that is not HTTP is the client's fault: one line will do."""
    if record.exc_info and isinstance(record.exc_info[1], HttpProcessingError):
        record.levelno, record.levelname = logging.INFO, "INFO"
        record.msg, record.args = "not HTTP: %s", (repr(record.exc_info[1].message.partition("\n")[0]),)
        record.exc_info = record.exc_text = None
    return True
