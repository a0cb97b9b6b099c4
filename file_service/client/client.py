"""Requests, how long they may take, and how often they are tried."""

import asyncio
from collections.abc import AsyncIterable, Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial
from http import HTTPStatus
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

import aiohttp
from caio.python_aio_asyncio import AsyncioContext
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_after_attempt, wait_exponential_jitter
from yarl import URL

from file_service.client.answers import Answer, Stored, refusal, repr_digest, stored
from file_service.client.errors import PASSING, ServerFailed, TransferError, local_problems, network_problems
from file_service.client.fetching import Download, Sink, part_file
from file_service.client.progress import Progress, unseen
from file_service.client.sending import Body, FileSource, Source, StreamSource, upload_headers

BLOCK_SIZE = 256 << 10  # bytes read from a file, hashed and handed to the connection at once
IDLE = 60.0  # seconds in which something must move
CONNECT = 30.0  # seconds for a connection
PATIENCE = 3.0  # seconds to wait for 100 Continue before sending without
EXPECT_FROM = 1 << 20  # bytes; a smaller body is gone before its refusal could come
READ_AHEAD = 1 << 20  # bytes taken from the connection while the disk is busy
MAX_ANSWER = 1 << 20  # bytes
MAX_WAIT = 300.0  # seconds; a longer Retry-After is cut to this

T = TypeVar("T")
BACKOFF = wait_exponential_jitter(multiplier=0.5, max=30, jitter=0.5)


def address(url: str, path: str = "/files") -> URL:
    """Where files are sent; a server alone stands for its `/files`, or another `path`. Raises ValueError."""
    parsed = URL(url)
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise ValueError("The address must begin with http:// or https:// and a host.")
    return parsed.with_path(path) if parsed.path in ("", "/") else parsed


class Client:
    """`async with Client("http://127.0.0.1:8080") as client: stored = await client.send("disk.iso")`

    `retries` is how many more tries a passing failure gets, each announced to `notice`; `idle` is the seconds in which
    something must move. Raises ValueError for an address that is none.
    """

    def __init__(
        self,
        url: str,
        *,
        retries: int = 3,
        idle: float = IDLE,
        block_size: int = BLOCK_SIZE,
        notice: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._url, self._idle, self._block_size, self._notice = address(url), idle, block_size, notice
        self._attempts = retries + 1
        self._expects = True
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        # caio's Python threads: its other back ends report a full disk without an errno.
        self._io = await self._stack.enter_async_context(AsyncioContext(32))  # type: ignore[no-untyped-call]
        session = aiohttp.ClientSession(
            # No sock_read: its clock starts with 100 Continue and would end an upload that takes longer.
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT),
            headers={"Accept-Encoding": "identity"},
            auto_decompress=False,
            read_bufsize=READ_AHEAD,
        )
        self._session = await self._stack.enter_async_context(session)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def send(
        self, source: Path | str | AsyncIterable[bytes], *, name: str | None = None, progress: Progress = unseen
    ) -> Stored:
        """Store a regular file, or a stream that is read once, under `name` (a file's own when not given).

        A stream is tried again only as long as nothing of it was read. Raises TransferError.
        """
        upload: Source
        with local_problems():
            upload = FileSource(Path(source)) if isinstance(source, Path | str) else StreamSource(source)
        headers = upload_headers(name or upload.name, upload.size)
        body = Body(upload.size, progress)

        async def attempt() -> Stored:
            with local_problems():
                async with upload.opened(self._io, self._block_size) as blocks:
                    body.begin(blocks)
                    with network_problems(), body.own_problems():
                        answer = await self._deliver(body, headers)
            if answer.success and not body.whole:
                raise ServerFailed(answer.status, "It answered before it had the whole body.")
            return stored(answer, body.offset, body.sha256.digest())

        return await self._persistently(attempt, lambda: upload.repeatable or not body.started)

    async def fetch(
        self, link: str, path: Path | None = None, *, replace: bool = False, progress: Progress = unseen
    ) -> Path:
        """Download to `path`, or under the server's name into that folder or the current one; the file appears whole.

        An existing file is an error unless `replace`. Raises TransferError.
        """
        with local_problems():
            async with part_file(path, self._io, replace=replace) as part:
                await self.fetch_into(link, part, progress=progress)
                return await part.publish()

    async def fetch_into(self, link: str, sink: Sink, *, progress: Progress = unseen) -> None:
        """Download into `sink`. Raises TransferError; after `DigestMismatch` the sink has all the bytes there are."""
        download = Download(self._url.join(URL(link)), sink, progress)
        with local_problems():
            await self._persistently(partial(self._get, download))
        if download.redirected:  # to an object store, which knows the bytes and not their digest
            answer = await self.ask("HEAD", link)
            download.expect(repr_digest(answer.headers) if answer.success else None)
        if not download.verified():
            self._notice("The server announced no SHA-256; the bytes could not be verified.")

    async def ask(self, method: str, link: str = "", json: object = None, *, repeatable: bool = True) -> Answer:
        """A short request for a short answer, of any status; `link` is relative to the client's own address.

        Tried again while it fails for a passing reason, unless it is not `repeatable`. Raises TransferError.
        """
        url = self._url.join(URL(link))

        async def attempt() -> Answer:
            with network_problems():
                async with (
                    asyncio.timeout(CONNECT + self._idle),
                    self._session.request(method, url, json=json, allow_redirects=False) as response,
                ):
                    answer = await _answer(response)
            if answer.status in PASSING:
                raise refusal(answer)
            return answer

        return await self._persistently(attempt, lambda: repeatable)

    async def _persistently(
        self, attempt: Callable[[], Awaitable[T]], repeatable: Callable[[], bool] = lambda: True
    ) -> T:
        retrying = AsyncRetrying(
            stop=stop_after_attempt(self._attempts),
            retry=retry_if_exception(lambda error: isinstance(error, TransferError) and error.passing and repeatable()),
            wait=_pause,
            before_sleep=self._announce,
            reraise=True,
        )
        return await retrying(attempt)

    def _announce(self, state: RetryCallState) -> None:
        error = state.outcome and state.outcome.exception()
        self._notice(f"{error} Trying again in {state.upcoming_sleep:.1f} s.")

    async def _deliver(self, body: Body, headers: dict[str, str]) -> Answer:
        """Post the body, a large one only once the server has said that it wants it.

        RFC 9110 section 10.1.1: the wait has an end, and after a 417 the request is repeated without the expectation.
        """
        if self._expects and (body.size is None or body.size >= EXPECT_FROM):
            try:
                answer = await self._post(body, headers, patience=PATIENCE, expect=True)
            except TimeoutError:
                if body.started:
                    raise
            else:
                if answer.status != HTTPStatus.EXPECTATION_FAILED or body.started:
                    return answer
            self._expects = False
        return await self._post(body, headers, patience=CONNECT + self._idle)

    async def _post(self, body: Body, headers: dict[str, str], *, patience: float, expect: bool = False) -> Answer:
        """One request; `patience` is the seconds until the body must begin to move."""
        async with asyncio.timeout(patience) as clock:
            data = body.stream(clock, self._idle)
            async with self._session.post(
                self._url, data=data, headers=headers, expect100=expect, allow_redirects=False
            ) as response:
                return await _answer(response)

    async def _get(self, download: Download) -> None:
        if download.whole:
            return  # only the end of the framing was lost
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT, sock_read=self._idle)
        with network_problems():
            async with self._session.get(download.url, headers=download.headers(), timeout=timeout) as response:
                if not await download.begin(response):
                    raise refusal(await _answer(response))
                async for block in response.content.iter_chunked(READ_AHEAD):
                    await download.take(block)
                download.end()


async def _answer(response: aiohttp.ClientResponse) -> Answer:
    """Read an answer to its end; of a refusal whose connection breaks, what has come."""
    content = bytearray()
    try:
        async for chunk in response.content.iter_any():
            content += chunk
            if len(content) > MAX_ANSWER:
                break
    except (aiohttp.ClientError, TimeoutError):
        if response.ok:
            raise
    return Answer(response.url, response.status, response.headers, bytes(content))


def _pause(state: RetryCallState) -> float:
    error = state.outcome and state.outcome.exception()
    asked = getattr(error, "retry_after", None)
    return BACKOFF(state) if asked is None else min(asked, MAX_WAIT)
