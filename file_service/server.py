"""Running the application: listen, serve until told to stop, drain, leave."""

import asyncio
import logging
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

import uvloop
from aiohttp import web

from file_service.app import create_app
from file_service.handlers.connection import Connection
from file_service.handlers.keys import STATE, State
from file_service.settings import Settings

log = logging.getLogger(__name__)
BACKLOG = 1024  # connections that wait to be accepted
LOOK = 0.05  # seconds between two looks at what still runs
CUT = 1.0  # seconds a request has to end in once it is cut


def log_to_stderr(level: str) -> None:
    """One line an event."""
    logging.basicConfig(level=level.upper(), format="%(asctime)s %(levelname)s %(name)s %(message)s")
    logging.getLogger("alembic.runtime.plugins").setLevel(logging.WARNING)
    logging.getLogger("aiosqlite").setLevel(logging.INFO)  # at DEBUG it writes every statement with its parameters


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
    """The service, answering at the yielded URL while the block runs; then running requests are drained, then cut.

    The drain is not left to aiohttp, whose own drops every byte that comes in from its beginning, so that no upload
    could be finished, and takes a timeout of 0 for none.
    """
    app = create_app(settings)
    runner = web.AppRunner(app, shutdown_timeout=CUT)
    try:
        await runner.setup()
        async with listener(runner, settings.host, settings.port, reuse_port) as address:
            yield address
            app[STATE].draining = True
        await drained(app[STATE], settings.drain_timeout)
    finally:
        await runner.cleanup()


async def drained(state: State, seconds: float) -> None:
    """Return when no request runs any more, after so many seconds at the latest."""
    deadline = asyncio.get_running_loop().time() + seconds
    while state.running and asyncio.get_running_loop().time() < deadline:  # noqa: ASYNC110 - rare, and soon over
        await asyncio.sleep(LOOK)


@asynccontextmanager
async def listener(runner: web.AppRunner, host: str, port: int, reuse_port: bool) -> AsyncIterator[str]:
    """Connections for the runner's application, accepted while the block runs at the yielded URL.

    aiohttp's own TCPSite would make connections of its own kind.
    """
    loop, manager = asyncio.get_running_loop(), cast(web.Server, runner.server)
    accepting = await loop.create_server(
        lambda: Connection(manager, loop=loop), host, port, reuse_port=reuse_port or None, backlog=BACKLOG
    )
    try:
        host, port = accepting.sockets[0].getsockname()[:2]
        yield f"http://{f'[{host}]' if ':' in host else host}:{port}"
    finally:
        accepting.close()
