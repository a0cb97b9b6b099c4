"""The request body: what its headers must say, and its bytes as they come."""

import re
from collections.abc import AsyncIterator

from aiohttp import HttpVersion11, web
from aiohttp.http_exceptions import HttpProcessingError

from file_service.errors import BadRequest, LengthRequired, UnsupportedEncoding
from file_service.service.streams import progressing

QUOTED = re.compile(r'"((?:[^"\\]|\\["\\])*)"')
KEY = re.compile(r"[\x21-\x7e]{1,255}")
WAITING = web.RequestKey("waiting", bool)  # there while the client waits for 100 Continue


class BrokenFraming(BadRequest):
    """Where the body ends cannot be told, nor where the next request of the connection begins."""

    def __init__(self) -> None:
        super().__init__("The framing of the body is broken.")


async def expect(request: web.Request) -> None:
    """aiohttp's hook for `Expect`: nothing is sent yet, the handler may still refuse (RFC 9110 section 10.1.1)."""
    if request.version >= HttpVersion11:
        request[WAITING] = True


def announced_length(request: web.Request) -> int | None:
    """The body's length in bytes, None when chunked.

    Raises `LengthRequired`, `UnsupportedEncoding`, `BadRequest` for Content-Range, which asks for a partial PUT
    (RFC 9110 section 14.5), and what `_refuse_unknown` raises.
    """
    _refuse_unknown(request)
    if "Content-Range" in request.headers:
        raise BadRequest("Content-Range is not accepted on an upload.")
    coding = request.headers.get("Content-Encoding", "identity")
    if coding.strip().lower() not in ("identity", ""):
        raise UnsupportedEncoding(coding)
    length = request.content_length
    if length is None and "Transfer-Encoding" not in request.headers:
        raise LengthRequired
    return length


def _refuse_unknown(request: web.Request) -> None:
    """501 for transfer codings besides chunked, which aiohttp passes on undone (RFC 9112 section 6.1), 417 likewise.

    Raises `BrokenFraming` for any of them on HTTP/1.0, which knows none.
    """
    transfer = request.headers.get("Transfer-Encoding")
    if transfer is not None and request.version < HttpVersion11:
        raise BrokenFraming
    if transfer is not None and transfer.strip().lower() != "chunked":
        raise web.HTTPNotImplemented(text="Of the transfer codings only chunked is known.")
    if WAITING in request and request.headers["Expect"].lower() != "100-continue":
        raise web.HTTPExpectationFailed(text="Only Expect: 100-continue is known.")


def retry_key(request: web.Request) -> str | None:
    """The Idempotency-Key: a structured-field string or a bare token, up to 255 visible characters."""
    fields = request.headers.getall("Idempotency-Key", [])
    if not fields:
        return None
    field = ", ".join(fields).strip()
    quoted = QUOTED.fullmatch(field)
    value = re.sub(r"\\(.)", r"\1", quoted[1]) if quoted else field
    if not KEY.fullmatch(value) or (field.startswith('"') and not quoted):
        raise BadRequest("An Idempotency-Key has 1 to 255 visible ASCII characters.")
    return value


async def body(request: web.Request, idle: float) -> AsyncIterator[bytes]:
    """The bytes of the body as they come; whoever asks for the first one thereby accepts the upload.

    Raises `BodyIdle` (see `progressing`), `BrokenFraming`, and ConnectionResetError when the client leaves.
    """
    await _continue(request)

    def check() -> None:
        if _unparsable(request):
            raise BrokenFraming

    try:
        async for chunk in progressing(request.content.iter_any(), idle, check):
            yield chunk
    except (web.RequestPayloadError, HttpProcessingError):
        raise BrokenFraming from None


def _unparsable(request: web.Request) -> bool:
    # aiohttp 3.14 queues a broken chunk's error as the next request of the connection and leaves the body waiting for
    # ever; while a body is incomplete nothing else can stand in that queue.
    return bool(getattr(request.protocol, "_messages", ()))


async def _continue(request: web.Request) -> None:
    if request.pop(WAITING, False):
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        # aiohttp takes a writer that has put out bytes for an answer already begun.
        request.writer.output_size = 0
