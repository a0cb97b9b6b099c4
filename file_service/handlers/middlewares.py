"""Errors to answers, in one table; one log line a request; the headers every answer carries.

Problem details are RFC 9457; the digest types are those of draft-ietf-httpapi-digest-fields-problem-types-06.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from http import HTTPStatus

from aiohttp import web

from file_service import errors
from file_service.digests import InvalidDigest, UnsupportedDigest
from file_service.handlers.body import WAITING, BrokenFraming
from file_service.handlers.keys import STATE
from file_service.handlers.metrics import METRICS
from file_service.names import BadDisposition

log = logging.getLogger("file_service.access")
failures = logging.getLogger("file_service.failures")
CLIENT_LEFT = 499  # nginx's number for it; only ever seen in the log
RETRY_AFTER = "5"
DRAFT = "https://iana.org/assignments/http-problem-types#digest-"

STATUSES: dict[type[Exception], int] = {
    errors.BadRequest: 400,
    BadDisposition: 400,
    errors.Forbidden: 403,
    errors.NotFound: 404,
    errors.BodyIdle: 408,
    errors.Superseded: 409,
    errors.ImportEnded: 409,
    errors.Gone: 410,
    errors.LengthRequired: 411,
    errors.TooLarge: 413,
    errors.UnsupportedEncoding: 415,
    errors.KeyReused: 422,
    errors.UrlRefused: 422,
    errors.Damaged: 500,
    errors.StorageFailed: 500,
    errors.UrlFailed: 502,
    errors.Unavailable: 503,
    errors.StorageFull: 507,
}
TYPES: dict[type[Exception], str] = {
    errors.DigestMismatch: f"{DRAFT}mismatched-values",
    InvalidDigest: f"{DRAFT}invalid-values",
    UnsupportedDigest: f"{DRAFT}unsupported-algorithms",
}
# Links are secrets, downloads never run in our origin, and types are what the uploader said they are.
SECURITY = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; sandbox; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-site",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "private",
}
SERVER = "file-service"  # and no version, which only helps those who look for one

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@web.middleware
async def answering(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn what a handler raises into an answer, count the request and log it in one line."""
    request.app[STATE].running += 1
    loop = asyncio.get_running_loop()
    start, status = loop.time(), CLIENT_LEFT
    try:
        response = await _answer(request, handler)
        if WAITING in request and request.can_read_body:
            response.force_close()  # nobody asked for the body, so it may come or not (RFC 9110 section 10.1.1)
        status = response.status
        return response
    finally:
        request.app[STATE].running -= 1
        seconds, size = loop.time() - start, request.writer.output_size
        request.app[METRICS].answered(request.method, status, seconds, size)
        if log.isEnabledFor(logging.INFO):
            who = request.remote or "-"  # nobody knows it any more once the client has left
            log.info("%s %s %s %d %d %.3f", who, request.method, _printable(request), status, size, seconds)


async def _answer(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except web.HTTPException as error:
        headers = {name: value for name, value in error.headers.items() if not name.startswith("Content-T")}
        return problem(error.status, _detail(error), headers)
    except ConnectionError:
        return web.Response(status=CLIENT_LEFT)  # nobody is there to read it; aiohttp drops it with the connection
    except (errors.ServiceError, BadDisposition) as error:
        request.app[METRICS].failed(type(error).__name__)
        return _refusal(error)
    except Exception:  # noqa: BLE001 - the one place that answers for the unexpected
        request.app[METRICS].failed("unexpected")
        failures.exception("%s %s failed", request.method, _printable(request))
        return problem(500, "The service failed; the reason is in its log.")


def _refusal(error: Exception) -> web.Response:
    status = next(STATUSES[kind] for kind in type(error).__mro__ if kind in STATUSES)
    kind = next((TYPES[kind] for kind in type(error).__mro__ if kind in TYPES), "about:blank")
    headers = {"Retry-After": RETRY_AFTER} if status in (503, 507) else {}
    response = problem(status, str(error), headers, kind)
    if isinstance(error, (errors.BodyIdle, BrokenFraming)):
        response.force_close()  # what comes now cannot be told from the rest of the body
    return response


def _detail(error: web.HTTPException) -> str:
    """A sentence also where it is aiohttp's router that refuses."""
    if isinstance(error, web.HTTPMethodNotAllowed):
        return f"This resource takes {', '.join(sorted(error.allowed_methods))}."
    if isinstance(error, web.HTTPNotFound):
        return "No such resource."
    return error.text or error.reason


def problem(status: int, detail: str, headers: dict[str, str] | None = None, kind: str = "about:blank") -> web.Response:
    """An RFC 9457 answer."""
    body = {"type": kind, "title": HTTPStatus(status).phrase, "status": status, "detail": detail}
    return web.json_response(body, status=status, headers=headers, content_type="application/problem+json")


async def secure(request: web.Request, response: web.StreamResponse) -> None:
    """Add the headers of `SECURITY` to every answer (a signal of aiohttp, sent before the headers are).

    While the service drains, every answer is the last one of its connection.
    """
    protect(response)
    if request.app[STATE].draining:
        response.force_close()
        response.headers["Connection"] = "close"


def protect(response: web.StreamResponse) -> None:
    """Add the headers of `SECURITY`, and our name for aiohttp's."""
    for name, value in SECURITY.items():
        response.headers.setdefault(name, value)
    response.headers["Server"] = SERVER


def _printable(request: web.Request) -> str:
    return request.rel_url.raw_path.encode("unicode_escape").decode("ascii")
