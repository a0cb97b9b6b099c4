"""A file service on a loopback port that keeps what it gets and misbehaves when told."""

import asyncio
import base64
import hashlib
import ssl
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web

KEPT = 16 << 20  # bytes of a body that are kept; of the rest only size and digest


@dataclass
class Request:
    """What came. `complete` says whether the body came to its end."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes = b""
    size: int = 0
    sha256: str = ""
    complete: bool = False


Behaviour = Callable[[web.Request, Request], Awaitable[web.StreamResponse]]


@dataclass
class OddServer:
    """Each request takes the next behaviour of `script`; when there is none, the server is a good one."""

    script: deque[Behaviour] = field(default_factory=deque)
    requests: list[Request] = field(default_factory=list)
    url: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    content: bytes = b""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Note the request and answer."""
        seen = Request(request.method, request.path, dict(request.headers))
        self.requests.append(seen)
        behaviour = self.script.popleft() if self.script else self.behave
        return await behaviour(request, seen)

    async def behave(self, request: web.Request, seen: Request) -> web.StreamResponse:
        """What a good server does."""
        if request.method == "GET":
            return await self.serve(request, seen)
        await read(request, seen)
        return stored(seen)

    async def serve(self, request: web.Request, _: Request) -> web.StreamResponse:
        """Answer with the content, or the end of it."""
        headers = {**description(self.content), **self.headers}
        start = int(request.headers.get("Range", "bytes=0-")[6:-1])
        if not start or request.headers.get("If-Range") != headers.get("ETag"):
            return web.Response(body=self.content, headers=headers)
        size = len(self.content)
        headers["Content-Range"] = f"bytes {start}-{size - 1}/{size}"
        return web.Response(status=206, body=self.content[start:], headers=headers)


async def go_on(request: web.Request) -> None:
    """Tell a client that waits to send the body."""
    if "Expect" in request.headers:
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0


async def read(request: web.Request, seen: Request) -> None:
    """Read the body to its end."""
    await go_on(request)
    digest = hashlib.sha256()
    async for chunk in request.content.iter_any():
        digest.update(chunk)
        seen.size += len(chunk)
        seen.body += chunk if seen.size <= KEPT else b""
    seen.sha256, seen.complete = digest.hexdigest(), True


def stored(seen: Request) -> web.Response:
    """The answer to an upload."""
    return web.json_response({"url": f"/files/{seen.size}/", "sha256": seen.sha256}, status=201)


def description(content: bytes) -> dict[str, str]:
    """The headers that tell one content from another."""
    digest = hashlib.sha256(content)
    return {"ETag": f'"{digest.hexdigest()}"', "Repr-Digest": f"sha-256=:{base64.b64encode(digest.digest()).decode()}:"}


def problem(status: int, detail: str, **headers: str) -> Behaviour:
    """Refuse at once, without reading."""

    async def answer(_: web.Request, __: Request) -> web.StreamResponse:
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        body = {"title": "Title", "status": status, "detail": detail}
        return web.json_response(body, status=status, headers=names, content_type="application/problem+json")

    return answer


async def nothing_yet(_: web.Request) -> None:
    """aiohttp's hook for Expect; its own says 100 Continue before the handler runs."""


@asynccontextmanager
async def odd_server(ssl_context: ssl.SSLContext | None = None) -> AsyncIterator[OddServer]:
    """The server, listening at its `url`."""
    server = OddServer()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", server.handle, expect_handler=nothing_yet)
    runner = web.AppRunner(
        app, handler_cancellation=True, auto_decompress=False, lingering_time=0.5, shutdown_timeout=0.1
    )
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=ssl_context).start()
        server.url = f"{'https' if ssl_context else 'http'}://127.0.0.1:{runner.addresses[0][1]}/files"
        yield server
    finally:
        await runner.cleanup()


Conversation = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def raw_server(conversation: Conversation) -> AsyncIterator[str]:
    """A server that says what no HTTP library would; gives its URL."""
    running: set[asyncio.Task[None]] = set()

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        running.add(task)
        try:
            await conversation(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(converse, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/files"
    finally:
        server.close()
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
