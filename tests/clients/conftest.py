"""Fixtures for the clients: a Bot API server, and a look-out for secrets."""

import asyncio
import gc
import logging
from collections.abc import AsyncIterator, Iterator
from types import FrameType
from typing import Any

import aiohttp
import pytest
from tenacity import wait_none

from file_service.client import sending
from file_service.clients import bot_session
from file_service.clients.telegram import TelegramClient
from tests.clients.bot_server import TOKEN, BotServer, bot_server

SIGNALS = [name for name in dir(aiohttp.TraceConfig()) if name.startswith("on_")]


@pytest.fixture
async def server() -> AsyncIterator[BotServer]:
    """A Bot API server."""
    async with bot_server() as running:
        yield running


@pytest.fixture
async def client(server: BotServer) -> AsyncIterator[TelegramClient]:
    """A client of it."""
    async with TelegramClient(TOKEN, server.url) as client:
        yield client


@pytest.fixture(autouse=True)
def _no_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    """Try again at once."""
    monkeypatch.setattr(bot_session, "BACKOFF", wait_none())


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait for no server."""
    monkeypatch.setattr(bot_session, "CONNECT", 0.1)
    monkeypatch.setattr(sending, "ANSWER", 0.1)


class LookOut:
    """All that could be read by somebody: logs at every level, what asyncio's debug mode says, tracing, errors."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        self.traced: list[str] = []
        self._caplog = caplog
        self._raised: list[str] = []

    def note(self, error: BaseException | None) -> None:
        """Look at an error, those behind it, and the variables in their frames, as error trackers do."""
        seen: set[int] = set()
        todo = [error]
        while todo:
            if (error := todo.pop()) is None or id(error) in seen:
                continue
            seen.add(id(error))
            self._raised += [str(error), repr(error), repr(error.args), repr(vars(error))]
            todo += [error.__cause__, error.__context__]
            trace = error.__traceback__
            while trace:
                self._raised += variables(trace.tb_frame)
                trace = trace.tb_next

    def text(self) -> str:
        """Everything, as one text."""
        gc.collect()  # what nobody has looked at is reported now
        logged = [self._caplog.handler.format(record) + repr(record.args) for record in self._caplog.records]
        return "\n".join(self.traced + self._raised + logged)


def variables(frame: FrameType) -> list[str]:
    """Each variable as it would be shown; not those of tests, which know every secret."""
    if "/tests/" in frame.f_code.co_filename:
        return []
    return [f"{name}={value!r}" for name, value in frame.f_locals.items()]


@pytest.fixture
async def look_out(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[LookOut]:
    """Watch everything until the test ends."""
    look_out = LookOut(caplog)
    original = aiohttp.ClientSession.__init__

    async def seen(session: Any, context: Any, params: Any) -> None:
        look_out.traced.append(repr(params))

    def traced(self: aiohttp.ClientSession, *args: Any, **kwargs: Any) -> None:
        tracing = aiohttp.TraceConfig()
        for name in SIGNALS:
            getattr(tracing, name).append(seen)
        original(self, *args, **kwargs, trace_configs=[tracing])

    monkeypatch.setattr(aiohttp.ClientSession, "__init__", traced)
    loop = asyncio.get_running_loop()
    loop.set_debug(True)
    loop.slow_callback_duration = 0  # tells of every callback, not only of slow ones
    with caplog.at_level(1):
        for name in ("asyncio", "aiohttp.client", "aiohttp.internal"):
            logging.getLogger(name).setLevel(1)
        yield look_out
    loop.set_debug(False)


@pytest.fixture(autouse=True)
def _levels() -> Iterator[None]:
    """Loggers as they were."""
    loggers = [logging.getLogger(name) for name in ("asyncio", "aiohttp.client", "aiohttp.internal")]
    levels = [logger.level for logger in loggers]
    yield
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)
