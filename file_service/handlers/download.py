"""The door out: GET and HEAD /files/{id}/."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from secrets import token_hex

from aiohttp import HttpVersion11, web

from file_service.digests import wants
from file_service.handlers.conditions import NotModified, Partial, PreconditionFailed, Unsatisfiable, Whole, decide
from file_service.handlers.files import file_id
from file_service.handlers.keys import FILES, RULES
from file_service.handlers.ranges import Byteranges, byteranges, content_range, unsatisfied_range
from file_service.handlers.representation import described
from file_service.handlers.sending import Download, send
from file_service.model import File
from file_service.service.files import FileService

VALIDATORS = ("ETag", "Last-Modified")


async def download(request: web.Request) -> web.StreamResponse:
    """The file, a part of it, or the reason why not; HEAD has the headers of GET and no body."""
    service = request.app[FILES]
    file = await service.get(file_id(request))
    facts, headers = described(file, "inline" in request.query)
    match decide(request.method, request.headers, facts):
        case NotModified():
            return web.Response(status=304, headers={name: headers[name] for name in VALIDATORS})
        case PreconditionFailed():
            raise web.HTTPPreconditionFailed(text="A precondition of the request does not hold.")
        case Unsatisfiable():
            raise web.HTTPRequestRangeNotSatisfiable(
                headers={"Content-Range": unsatisfied_range(file.size)}, text="No part of that range is in the file."
            )
        case decision:
            return await _content(request, service, file, decision, headers)


async def _content(
    request: web.Request, service: FileService, file: File, decision: Whole | Partial, headers: dict[str, str]
) -> web.StreamResponse:
    response = Download(status=200 if isinstance(decision, Whole) else 206, headers=headers)
    match decision:
        case Whole():
            chunks = service.read(file)
            _frame(request, response, file.size)
            if wants(request.headers.get("Want-Content-Digest", "")) is True:
                response.headers["Content-Digest"] = headers["Repr-Digest"]
        case Partial(ranges=(only,)):
            response.headers["Content-Range"] = content_range(only, file.size)
            response.content_length = only.length
            chunks = service.read(file, only.start, only.stop)
        case Partial(ranges=several):
            layout = byteranges(several, file.size, file.content_type, token_hex(16))
            response.headers["Content-Type"] = layout.content_type
            response.content_length = layout.length
            chunks = _parts(service, file, layout)
    if wants(request.headers.get("Want-Repr-Digest", "")) is False:
        del response.headers["Repr-Digest"]
    if request.method == "HEAD":
        await response.prepare(request)
        return response
    async with aclosing(chunks):
        return await send(request, response, chunks, request.app[RULES].send_idle)


async def _parts(service: FileService, file: File, layout: Byteranges) -> AsyncGenerator[bytes, None]:
    for head, part in layout.parts:
        async with aclosing(service.read(file, part.start, part.stop)) as chunks:
            first = await anext(chunks)
            yield head + first
            async for chunk in chunks:
                yield chunk
    yield layout.tail


def _frame(request: web.Request, response: web.StreamResponse, size: int) -> None:
    """Chunked on HTTP/1.1 unless told otherwise; HTTP/1.0 knows no chunks, and HEAD tells the length anyway."""
    if request.app[RULES].chunked and request.version >= HttpVersion11 and request.method != "HEAD":
        response.enable_chunked_encoding()
    else:
        response.content_length = size
