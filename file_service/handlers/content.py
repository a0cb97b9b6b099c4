"""Answering with bytes that are known before they are read: whole, a range, several ranges, or why not."""

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, aclosing
from dataclasses import dataclass
from secrets import token_hex
from typing import TypeVar

from aiohttp import HttpVersion11, web

from file_service.digests import wants
from file_service.handlers.arrival import Arrival, Marked
from file_service.handlers.conditions import (
    Facts,
    NotModified,
    Partial,
    PreconditionFailed,
    Unsatisfiable,
    Whole,
    decide,
)
from file_service.handlers.keys import RULES
from file_service.handlers.ranges import ByteRange, Byteranges, byteranges, content_range, unsatisfied_range
from file_service.handlers.sending import Download, send
from file_service.service.deliveries import Delivery

VALIDATORS = ("ETag", "Last-Modified")
Span = tuple[int, int]  # the bytes [start, stop)
Reader = Callable[[int, int], AsyncGenerator[bytes, None]]  # the bytes [start, stop)
Deliver = Callable[[Sequence[Span]], AbstractAsyncContextManager[Delivery]]
Response = TypeVar("Response", bound=Download)


@dataclass(frozen=True, slots=True)
class Content:
    """What can be sent: `facts` for conditions and ranges, the `headers` of every answer with its bytes, its bytes.

    `chunked` false makes whole answers say their length; `delivery`, where downloads are counted, is
    entered with the bytes to be sent.
    """

    facts: Facts
    headers: Mapping[str, str]
    read: Reader
    chunked: bool
    delivery: Deliver | None = None


async def answer_with(request: web.Request, content: Content) -> web.StreamResponse:
    """The answer to a GET or HEAD; HEAD has the headers of GET and no body."""
    match decide(request.method, request.headers, content.facts):
        case NotModified():
            return web.Response(status=304, headers={name: content.headers[name] for name in VALIDATORS})
        case PreconditionFailed():
            raise web.HTTPPreconditionFailed(text="A precondition of the request does not hold.")
        case Unsatisfiable():
            unsatisfied = {"Content-Range": unsatisfied_range(content.facts.size)}
            raise web.HTTPRequestRangeNotSatisfiable(headers=unsatisfied, text="No part of that range is in the file.")
        case decision:
            return await _send(request, content, decision)


async def _send(request: web.Request, content: Content, decision: Whole | Partial) -> web.StreamResponse:
    if content.delivery is not None and request.method != "HEAD":
        return await _counted(request, content, decision, content.delivery)
    response, _, chunks = _laid_out(Download, request, content, decision)
    if request.method == "HEAD":
        await response.prepare(request)
        return response
    async with aclosing(chunks):
        await send(request, response, chunks, request.app[RULES].send_idle)
    return response


async def _counted(
    request: web.Request, content: Content, decision: Whole | Partial, delivery_of: Deliver
) -> web.StreamResponse:
    idle = request.app[RULES].send_idle
    response, spans, chunks = _laid_out(Marked, request, content, decision)
    async with aclosing(chunks), delivery_of(spans) as delivery:
        with Arrival(request) as arrival:
            try:
                await send(request, response, chunks, idle)
                await arrival.completed(idle)
            finally:
                delivery.arrived = arrival.of(spans, response)
    return response


def _laid_out(
    kind: type[Response], request: web.Request, content: Content, decision: Whole | Partial
) -> tuple[Response, Sequence[Span], AsyncGenerator[bytes, None]]:
    """The answer with its headers, which bytes of the content are in its body, and the body."""
    response = kind(status=200 if isinstance(decision, Whole) else 206, headers=content.headers)
    digest = content.headers.get("Repr-Digest")
    if digest and wants(request.headers.get("Want-Repr-Digest", "")) is False:
        del response.headers["Repr-Digest"]
    if isinstance(decision, Partial):
        spans = [(part.start, part.stop) for part in decision.ranges]
        return response, spans, _part(content, response, decision.ranges)
    if digest and wants(request.headers.get("Want-Content-Digest", "")):
        response.headers["Content-Digest"] = digest
    return response, [(0, content.facts.size)], _whole(request, content, response)


def _whole(request: web.Request, content: Content, response: web.StreamResponse) -> AsyncGenerator[bytes, None]:
    """Chunked on HTTP/1.1 unless told otherwise; HTTP/1.0 knows no chunks, and HEAD tells the length anyway."""
    if content.chunked and request.version >= HttpVersion11 and request.method != "HEAD":
        response.enable_chunked_encoding()
    else:
        response.content_length = content.facts.size
    return content.read(0, content.facts.size)


def _part(content: Content, response: web.StreamResponse, ranges: tuple[ByteRange, ...]) -> AsyncGenerator[bytes, None]:
    size = content.facts.size
    if len(ranges) == 1:
        response.headers["Content-Range"] = content_range(ranges[0], size)
        response.content_length = ranges[0].length
        return content.read(ranges[0].start, ranges[0].stop)
    layout = byteranges(ranges, size, content.headers["Content-Type"], token_hex(16))
    response.headers["Content-Type"] = layout.content_type
    response.content_length = layout.length
    return _parts(content.read, layout)


async def _parts(read: Reader, layout: Byteranges) -> AsyncGenerator[bytes, None]:
    for head, part in layout.parts:
        async with aclosing(read(part.start, part.stop)) as chunks:
            yield head + await anext(chunks)
            async for chunk in chunks:
                yield chunk
    yield layout.tail
