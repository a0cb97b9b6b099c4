"""A proxy between an S3 client and a server that makes what S3 does on its bad days.

It knows the operations, passes every request on as it came, signature and all, and keeps a list of them. A fault takes
the place of that for the next so many requests of one operation, or of one part.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from io import BytesIO
from math import inf

from aiohttp import ClientSession, DummyCookieJar, web
from yarl import URL

# What is between two neighbours only (RFC 9110 section 7.6.1), and what aiohttp says itself.
HOP = {"connection", "keep-alive", "transfer-encoding", "date", "server"}
BY_QUERY = {
    ("POST", "uploads"): "CreateMultipartUpload",
    ("PUT", "partNumber"): "UploadPart",
    ("POST", "uploadId"): "CompleteMultipartUpload",
    ("DELETE", "uploadId"): "AbortMultipartUpload",
    ("GET", "uploads"): "ListMultipartUploads",
    ("GET", "uploadId"): "ListParts",
}
BY_METHOD = {"PUT": "PutObject", "GET": "GetObject", "HEAD": "HeadObject", "DELETE": "DeleteObject"}


@dataclass
class Exchange:
    """One request, and the way on to the server."""

    operation: str
    request: web.Request
    body: bytes
    upstream: ClientSession
    server: str
    part: int | None = None
    over: bool = False

    async def forward(self, body: bytes | None = None) -> web.Response:
        """The server's answer to the request, or to one with another body."""
        sent = self.body if body is None else body
        headers = {name: value for name, value in self.request.headers.items() if name.lower() not in HOP}
        if sent or "Content-Length" in headers:
            headers["Content-Length"] = str(len(sent))
        url = URL(self.server + self.request.raw_path, encoded=True)
        async with self.upstream.request(
            self.request.method, url, headers=headers, data=BytesIO(sent) if sent else None
        ) as answer:
            content = await answer.read()
            passed = {name: value for name, value in answer.headers.items() if name.lower() not in HOP}
            return web.Response(status=answer.status, headers=passed, body=content)

    def reset(self) -> web.Response:
        """End the connection without an answer."""
        if self.request.transport is not None:
            self.request.transport.abort()
        return web.Response()


Fault = Callable[[Exchange], Awaitable[web.StreamResponse]]


@dataclass
class Rule:
    """A fault for the next `times` requests of an operation, or of any, after `skip` good ones."""

    operation: str | None
    fault: Fault
    times: float
    skip: int
    part: int | None

    def applies(self, exchange: Exchange) -> bool:
        """Whether it is this one's turn; counts."""
        meant = self.operation in (None, exchange.operation) and self.part in (None, exchange.part)
        if not meant or self.times <= 0:
            return False
        if self.skip:
            self.skip -= 1
            return False
        self.times -= 1
        return True


@dataclass
class FaultProxy:
    """Listens at `url`; `operations` are the names of the requests so far."""

    url: str = ""
    exchanges: list[Exchange] = field(default_factory=list)
    _rules: list[Rule] = field(default_factory=list)

    @property
    def operations(self) -> list[str]:
        """What was asked, in order."""
        return [exchange.operation for exchange in self.exchanges]

    def inject(
        self, operation: str | None, fault: Fault, *, times: float = 1, skip: int = 0, part: int | None = None
    ) -> None:
        """Let the next `times` requests of the operation fail, of all where it is None; `math.inf` is for ever."""
        self._rules.append(Rule(operation, fault, times, skip, part))

    def heal(self) -> None:
        """Forget all faults."""
        self._rules.clear()

    async def answer(self, exchange: Exchange) -> web.StreamResponse:
        """What the first rule that applies says, else what the server says."""
        self.exchanges.append(exchange)
        rule = next((rule for rule in self._rules if rule.applies(exchange)), None)
        try:
            return await (rule.fault(exchange) if rule else exchange.forward())
        finally:
            exchange.over = True


def operation_of(method: str, path: str, query: Mapping[str, str]) -> str:
    """The name that the S3 API reference has for a request in path style."""
    for (wanted, parameter), name in BY_QUERY.items():
        if method == wanted and parameter in query:
            return name
    return BY_METHOD.get(method, method) if path.strip("/").count("/") else f"{method} bucket"


@asynccontextmanager
async def fault_proxy(server: str, context: ssl.SSLContext | None = None) -> AsyncIterator[FaultProxy]:
    """A proxy before the server at the URL; with a `context` it speaks TLS."""
    proxy = FaultProxy()
    jar = DummyCookieJar()
    async with ClientSession(auto_decompress=False, cookie_jar=jar, skip_auto_headers=["User-Agent"]) as upstream:

        async def handle(request: web.Request) -> web.StreamResponse:
            part = request.query.get("partNumber")
            name = operation_of(request.method, request.path, request.query)
            exchange = Exchange(name, request, await request.read(), upstream, server, int(part) if part else None)
            return await proxy.answer(exchange)

        app = web.Application(client_max_size=1 << 30)
        app.router.add_route("*", "/{path:.*}", handle)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.01, handler_cancellation=True)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
        await site.start()
        host, port = runner.addresses[0][:2]
        proxy.url = f"http{'s' if context else ''}://{host}:{port}"
        try:
            yield proxy
        finally:
            await runner.cleanup()


def refused(status: int, code: str) -> Fault:
    """An error, and the request is not carried out."""

    async def fault(_: Exchange) -> web.StreamResponse:
        return web.Response(status=status, body=_error(code), content_type="application/xml")

    return fault


def killing(kill: Callable[[], None], *, answered: bool) -> Fault:
    """Who asks dies of it: before the request goes on its way, or when it is `answered` but has not seen the answer."""

    async def fault(exchange: Exchange) -> web.StreamResponse:
        try:
            if answered:
                await exchange.forward()
        finally:  # also when it does not wait for the answer
            kill()
        return exchange.reset()

    return fault


def error_in_200(code: str = "InternalError", *, carried_out: bool) -> Fault:
    """200 and an error in the body (S3 API reference, CompleteMultipartUpload)."""

    async def fault(exchange: Exchange) -> web.StreamResponse:
        if carried_out:
            await exchange.forward()
        return web.Response(body=_error(code), content_type="application/xml")

    return fault


async def request_lost(exchange: Exchange) -> web.StreamResponse:
    """The connection breaks before the request arrives."""
    return exchange.reset()


async def answer_lost(exchange: Exchange) -> web.StreamResponse:
    """The request is carried out, and the connection breaks before the answer."""
    await exchange.forward()
    return exchange.reset()


def refused_but_done(status: int, code: str) -> Fault:
    """An error, although the request is carried out."""

    async def fault(exchange: Exchange) -> web.StreamResponse:
        await exchange.forward()
        return web.Response(status=status, body=_error(code), content_type="application/xml")

    return fault


def answered(body: str) -> Fault:
    """Another answer than the server's."""

    async def fault(exchange: Exchange) -> web.StreamResponse:
        await exchange.forward()
        return web.Response(text=body, content_type="application/xml")

    return fault


async def silent(_: Exchange) -> web.StreamResponse:
    """No answer at all."""
    await asyncio.Event().wait()
    return web.Response()


def held(until: asyncio.Event) -> Fault:
    """The request goes on its way when the event is set."""

    async def fault(exchange: Exchange) -> web.StreamResponse:
        await until.wait()
        return await exchange.forward()

    return fault


async def bit_flipped(exchange: Exchange) -> web.StreamResponse:
    """One bit of the body changes on its way."""
    return await exchange.forward(bytes([exchange.body[0] ^ 1]) + exchange.body[1:])


def grown(by: int) -> Fault:
    """The store keeps more than it was sent, as some keep the framing of aws-chunked bodies."""

    async def fault(exchange: Exchange) -> web.StreamResponse:
        return await exchange.forward(exchange.body + b"x" * by)

    return fault


def body_cut(after: int, *, stalls: bool = False) -> Fault:
    """The body of the answer ends after so many bytes, or stops and never ends."""

    async def fault(exchange: Exchange) -> web.StreamResponse:
        whole = await exchange.forward()
        answer = web.StreamResponse(status=whole.status, headers=whole.headers)
        await answer.prepare(exchange.request)
        assert isinstance(whole.body, bytes)
        if after:
            await answer.write(whole.body[:after])
        if stalls:
            await asyncio.Event().wait()
        exchange.reset()
        return answer

    return fault


def _error(code: str) -> bytes:
    return f'<?xml version="1.0"?>\n<Error><Code>{code}</Code><Message>injected</Message></Error>'.encode()


FOR_EVER = inf
