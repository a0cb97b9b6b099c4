"""Requests to the Bot API, how often they are tried, and how its token is kept to ourselves."""

import asyncio
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from http import HTTPStatus
from types import TracebackType
from typing import Any, Self, TypeVar

import aiohttp
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_after_attempt, wait_exponential_jitter
from yarl import URL

from file_service.client.errors import LocalProblem, ServerUnreachable, network_problems
from file_service.client.sending import Body
from file_service.clients.bot_api import FloodWait, Kind, TelegramError, TelegramUnreachable, answered, refusal
from file_service.clients.form import Form
from file_service.clients.secret_url import PLACEHOLDER, QuietResponse, with_secret

CONNECT = 30.0  # seconds for a connection
READ_AHEAD = 1 << 20  # bytes taken from the connection while nobody takes them from us
MAX_ANSWER = 1 << 20  # bytes
MAX_WAIT = 300.0  # seconds; when Telegram asks for more, its error is raised at once
TOKEN = re.compile("[0-9A-Za-z:_-]+")
BOT = f"bot{PLACEHOLDER}"

T = TypeVar("T")
BACKOFF = wait_exponential_jitter(multiplier=0.5, max=30, jitter=0.5)


class BotSession:
    """A bot's connections to the API at `base_url`. Raises ValueError for what is no token or address."""

    def __init__(self, token: str, base_url: str, *, retries: int, idle: float, notice: Callable[[str], None]) -> None:
        if not TOKEN.fullmatch(token):
            raise ValueError("A bot's token has letters, digits, colons, hyphens and underscores only.")
        self.base = URL(base_url)
        if self.base.scheme not in ("http", "https") or not self.base.host:
            raise ValueError("The address must begin with http:// or https:// and a host.")
        self._token, self._attempts, self._idle, self._notice = token, retries + 1, idle, notice

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT, sock_read=self._idle),
            headers={"Accept-Encoding": "identity"},
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            read_bufsize=READ_AHEAD,
            middlewares=(with_secret(self._token),),
            response_class=QuietResponse,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    async def call(self, method: str, kind: type[Kind], fields: Mapping[str, str]) -> Kind:
        """The result of a method. Raises `TelegramError` and `TelegramUnreachable`."""
        return await _reached(self._post(method, kind, data=fields))

    async def send(self, method: str, kind: type[Kind], form: Form, body: Body) -> Kind:
        """The result of a method that takes a file. Raises as `call` does, and what the source of `body` raises."""
        headers = {"Content-Type": form.content_type}
        if body.size is not None:
            headers["Content-Length"] = str(form.length(body.size))
        # The clock of sock_read starts with the request and would end an upload that takes longer.
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT)

        async def answer() -> Kind:
            with body.own_problems():
                async with asyncio.timeout(CONNECT + self._idle) as clock:
                    data = form.body(body.stream(clock, self._idle))
                    return await self._post(method, kind, data=data, headers=headers, timeout=timeout)

        return await _reached(answer())

    @asynccontextmanager
    async def get(self, file_path: str) -> AsyncGenerator[aiohttp.ClientResponse, None]:
        """The answer with the bytes of a file, still to be read by `received`. Raises as `call` does."""
        url = self.base / "file" / BOT / _relative(file_path)
        async with await _reached(self._session.get(url, allow_redirects=False)) as response:
            if response.status != HTTPStatus.OK:
                raise refusal(response.status, await _reached(self._content(response)))
            yield response

    async def persistently(
        self, attempt: Callable[[], Awaitable[T]], repeatable: Callable[[], bool] = lambda: True
    ) -> T:
        """The result of `attempt`, tried again after a passing failure of the API as long as it is `repeatable`."""
        retrying = AsyncRetrying(
            stop=stop_after_attempt(self._attempts),
            retry=retry_if_exception(lambda error: _is_passing(error) and repeatable()),
            wait=_pause,
            before_sleep=self._announce,
            reraise=True,
        )
        return await retrying(attempt)

    async def _post(self, method: str, kind: type[Kind], **request: Any) -> Kind:
        url = self.base / BOT / method
        async with self._session.post(url, allow_redirects=False, **request) as response:
            return answered(response.status, await self._content(response), kind)

    async def _content(self, response: aiohttp.ClientResponse) -> bytes:
        """The answer, cut when it is longer than one has any reason to be; without the token, should it be repeated."""
        content = bytearray()
        while len(content) < MAX_ANSWER and (chunk := await response.content.readany()):
            content += chunk
        return bytes(content).replace(self._token.encode(), PLACEHOLDER.encode())

    def _announce(self, state: RetryCallState) -> None:
        error = state.outcome and state.outcome.exception()
        self._notice(f"{error} Trying again in {state.upcoming_sleep:.1f} s.")


async def received(response: aiohttp.ClientResponse) -> AsyncGenerator[bytes, None]:
    """The blocks of an answer. Raises `TelegramUnreachable`."""
    while block := await _reached(response.content.readany()):
        yield block


async def _reached(work: Awaitable[T]) -> T:
    """The result of `work`. What aiohttp raises is renamed, and forgotten: its frames have seen the token."""
    try:
        with network_problems():
            return await work
    except ServerUnreachable as error:
        problem = TelegramUnreachable(str(error), passing=error.passing)
    except Exception as error:
        error.__context__ = None  # aiohttp's, when the stream that is sent has failed
        raise
    raise problem  # out here nothing is behind it


def _is_passing(error: BaseException) -> bool:
    if not isinstance(error, TelegramError | TelegramUnreachable) or not error.passing:
        return False
    return not isinstance(error, FloodWait) or error.retry_after <= MAX_WAIT


def _pause(state: RetryCallState) -> float:
    error = state.outcome and state.outcome.exception()
    return error.retry_after if isinstance(error, FloodWait) else BACKOFF(state)


def _relative(file_path: str) -> str:
    """The path as the end of a URL. It comes from a server, and may not lead to a method."""
    if file_path.startswith("/"):
        raise LocalProblem("This file is on the disk of the Bot API server, which runs with --local and serves none.")
    if {"", ".", ".."} & set(file_path.split("/")):
        raise LocalProblem("This is no path of a file.")
    return file_path
