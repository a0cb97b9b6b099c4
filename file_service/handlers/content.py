"""Answering with bytes that are known before they are read: whole, a range, several ranges, or why not."""

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, nullcontext
from dataclasses import dataclass
from secrets import token_hex

from aiohttp import HttpVersion11, web

from file_service.digests import wants
from file_service.handlers.arrival import Arrival
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


def uncounted(_: Sequence[Span]) -> AbstractAsyncContextManager[Delivery | None]:
    """The delivery of what may be downloaded as often as anybody likes."""
    return nullcontext(None)


@dataclass(frozen=True, slots=True)
class Content:
    """What can be sent: `facts` for conditions and ranges, the `headers` of every answer with its bytes, its bytes.

    `chunked` false makes whole answers say their length; `delivery` is entered with the bytes to be sent.
    """

    facts: Facts
    headers: Mapping[str, str]
    read: Reader
    chunked: bool
    delivery: Callable[[Sequence[Span]], AbstractAsyncContextManager[Delivery | None]] = uncounted


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
    response = Download(status=200 if isinstance(decision, Whole) else 206, headers=content.headers)
    if isinstance(decision, Whole):
        spans, chunks = [(0, content.facts.size)], _whole(request, content, response)
    else:
        spans, chunks = [(part.start, part.stop) for part in decision.ranges], _part(content, response, decision.ranges)
    if wants(request.headers.get("Want-Repr-Digest", "")) is False:
        response.headers.pop("Repr-Digest", None)
    if request.method == "HEAD":
        await response.prepare(request)
        return response
    idle = request.app[RULES].send_idle
    async with aclosing(chunks), content.delivery(spans) as delivery:
        if delivery is None:
            await send(request, response, chunks, idle)
            return response
        with Arrival(request) as arrival:
            await send(request, response, chunks, idle)
            delivery.done = await arrival.complete(idle)
    return response


def _whole(request: web.Request, content: Content, response: web.StreamResponse) -> AsyncGenerator[bytes, None]:
    """Chunked on HTTP/1.1 unless told otherwise; HTTP/1.0 knows no chunks, and HEAD tells the length anyway."""
    if content.chunked and request.version >= HttpVersion11 and request.method != "HEAD":
        response.enable_chunked_encoding()
    else:
        response.content_length = content.facts.size
    digest = content.headers.get("Repr-Digest")
    if digest and wants(request.headers.get("Want-Content-Digest", "")):
        response.headers["Content-Digest"] = digest
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
