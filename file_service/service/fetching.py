"""Fetching a URL that a stranger gave us: where it leads, what is there, and its bytes as they stand on the wire.

Nothing is decoded, and no cookie, credential or referrer is sent. What goes wrong is told without the URL, whose query
may be a secret.
"""

import asyncio
import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import urljoin

import aiohttp
from aiohttp.http_exceptions import HttpProcessingError
from yarl import URL

from file_service.content_types import content_type
from file_service.errors import BodyIdle, UrlFailed, UrlRefused
from file_service.names import BadDisposition, parse_disposition, sanitize_name
from file_service.service.outside import CONNECT_SECONDS, NOBODY, Outside
from file_service.service.streams import progressing

MAX_URL = 8000  # characters; RFC 9110 section 4.1 asks for so many at least
MAX_HOPS = 5
REDIRECTS = (301, 302, 303, 307, 308)
HEADERS = {"Accept-Encoding": "identity", "User-Agent": "file-service"}
URI = re.compile(r"(?:[\w.~:/?#\[\]@!$&'()*+,;=-]|%[0-9a-f]{2})*", re.ASCII | re.IGNORECASE)  # RFC 3986 appendix A
TOO_SLOW = "The other server sent nothing, or next to nothing, for too long."
BROKEN = "The body broke off, or its framing is broken."
REASONS: tuple[tuple[type[Exception] | tuple[type[Exception], ...], str], ...] = (
    (aiohttp.ClientConnectorCertificateError, "The other server's certificate does not prove who it is."),
    (aiohttp.ClientSSLError, "The other server does not speak TLS as we do."),
    ((aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, aiohttp.InvalidURL), NOBODY),
    ((TimeoutError, BodyIdle), TOO_SLOW),
    (aiohttp.ServerDisconnectedError, "The other server closed the connection without an answer."),
    ((aiohttp.ClientPayloadError, HttpProcessingError), BROKEN),
    (aiohttp.ClientResponseError, "What the other server sends is not proper HTTP."),
)


@dataclass(frozen=True, slots=True)
class Fetched:
    """An answer whose body is still to come: `size` bytes, None where that is not told.

    Reading `chunks` raises `UrlFailed` unless all of them come.
    """

    name: str | None
    content_type: str
    size: int | None
    chunks: AsyncIterator[bytes]


def parse(text: str, base: str = "") -> URL:
    """The URL, to be asked for exactly as it is given; `UrlRefused` for anything but plain http and https.

    It may be relative to `base` (RFC 9110 section 10.2.2).
    """
    if len(text) > MAX_URL or not text.isprintable():
        raise UrlRefused("This is not a URL.")
    try:
        text = urljoin(base, text)
        url = URL(text, encoded=URI.fullmatch(text) is not None)  # else yarl quotes it, and some signatures are lost
        known = url.scheme in ("http", "https") and url.host and url.port is not None
    except ValueError:
        raise UrlRefused("This is not a URL.") from None
    if not known:
        raise UrlRefused("Only http:// and https:// URLs are imported.")
    if url.raw_user is not None or url.raw_password is not None:
        raise UrlRefused("A URL with a user name or a password is not imported.")
    return url


@asynccontextmanager
async def fetched(outside: Outside, url: str, idle: float) -> AsyncIterator[Fetched]:
    """The answer to a GET, redirects followed; it ends with the block. `idle` is seconds without progress.

    Raises `UrlRefused` for a redirect to what is not imported, `UrlFailed` for everything that goes wrong on the way.
    """
    async with outside.session() as session, await _follow(session, parse(url), CONNECT_SECONDS + idle) as answer:
        check = _checker(answer)  # before anybody waits for anything, and the connection is lost
        kind = content_type(answer.headers.get("Content-Type"))
        yield Fetched(_name(answer), kind, answer.content_length, _chunks(answer, idle, check))


async def _follow(session: aiohttp.ClientSession, url: URL, patience: float) -> aiohttp.ClientResponse:
    for _ in range(MAX_HOPS + 1):
        with _told():
            async with asyncio.timeout(patience):
                answer = await session.get(url, headers=HEADERS, allow_redirects=False)
        if answer.status == HTTPStatus.OK:
            return answer
        answer.close()
        if answer.status not in REDIRECTS or "Location" not in answer.headers:
            raise UrlFailed(f"The other server answered {answer.status}.")
        url = parse(answer.headers["Location"], str(url))
    raise UrlFailed(f"The other server redirects more than {MAX_HOPS} times.")


async def _chunks(
    answer: aiohttp.ClientResponse, idle: float, check: Callable[[], None]
) -> AsyncGenerator[bytes, None]:
    if answer.headers.get("Transfer-Encoding", "chunked").strip().lower() != "chunked":
        raise UrlFailed("The other server uses a transfer coding that it was not offered.")
    with _told():
        try:
            async for chunk in progressing(answer.content.iter_any(), idle, check):
                yield chunk
        except RuntimeError:  # what aiohttp raises for a body that waits on a connection that is no more
            check()
            raise
        check()


def _checker(answer: aiohttp.ClientResponse) -> Callable[[], None]:
    """What looks for the errors of which aiohttp 3.14 tells the connection, and not the body.

    They are a broken chunk, bytes after the end of the body, and a reset where the connection's end is the body's.
    """
    protocol = answer.connection.protocol if answer.connection is not None else None  # None: all of it is here

    def check() -> None:
        error = protocol.exception() if protocol is not None else None
        if isinstance(error, (HttpProcessingError, aiohttp.ClientOSError)):
            raise error

    return check


@contextmanager
def _told() -> Iterator[None]:
    """Turn what aiohttp raises, whose text holds the URL, into `UrlFailed`."""
    try:
        yield
    except (aiohttp.ClientError, HttpProcessingError, BodyIdle, OSError) as error:
        reason = next((reason for kind, reason in REASONS if isinstance(error, kind)), "The connection broke.")
        raise UrlFailed(reason) from None


def _name(answer: aiohttp.ClientResponse) -> str | None:
    """The name that the other server gives, else the end of the path that the redirects led to."""
    try:
        name = parse_disposition(answer.headers.getall("Content-Disposition", []))
    except BadDisposition:
        name = None
    return name or sanitize_name(answer.url.name)
