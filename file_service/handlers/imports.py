"""POST /imports, GET and DELETE /imports/{id}: files from other servers."""

import json
from typing import Any
from uuid import UUID

from aiohttp import web

from file_service.errors import BadRequest, TooLarge
from file_service.handlers.body import announced_length, body
from file_service.handlers.keys import IMPORTS, RULES
from file_service.model import Import

MAX_REQUEST = 64 << 10  # bytes
EXPECTED = 'Send a JSON object: {"url": "https://...", "name": "..."}; the name may be left out.'


async def add(request: web.Request) -> web.Response:
    """202: queued. 422: not a URL that is imported."""
    url, name = wanted(await _read(request))
    added = await request.app[IMPORTS].add(url, name)
    return _answer(added, status=202, location=f"/imports/{added.id}")


async def get(request: web.Request) -> web.Response:
    """How far it is."""
    return _answer(await request.app[IMPORTS].get(import_id(request)))


async def cancel(request: web.Request) -> web.Response:
    """204: it will never be a file. 409: it is one already, or has failed."""
    await request.app[IMPORTS].cancel(import_id(request))
    return web.Response(status=204)


def import_id(request: web.Request) -> UUID:
    """The id in the path; the route lets only canonical ones through."""
    return UUID(request.match_info["id"])


def wanted(content: bytes) -> tuple[str, str | None]:
    """The URL and the name that a request asks for; `BadRequest` unless they are strings in a JSON object."""
    try:
        asked = json.loads(content)
    except (ValueError, RecursionError):
        raise BadRequest(EXPECTED) from None
    url, name = (asked.get("url"), asked.get("name")) if isinstance(asked, dict) else (None, None)
    if not isinstance(url, str) or not isinstance(name, str | None):
        raise BadRequest(EXPECTED)
    return url, name


def record(found: Import) -> dict[str, Any]:
    """The import record; `rate` is bytes a second."""
    return {
        "id": str(found.id),
        "url": found.url,
        "state": found.state,
        "bytes": found.bytes,
        "total": found.total,
        "rate": found.rate and round(found.rate),
        "file_id": found.file_id and str(found.file_id),
        "error": found.error,
    }


async def _read(request: web.Request) -> bytes:
    content = bytearray()
    if (announced_length(request) or 0) <= MAX_REQUEST:
        async for chunk in body(request, request.app[RULES].body_idle):
            content += chunk
            if len(content) > MAX_REQUEST:
                break
        else:
            return bytes(content)
    raise TooLarge(f"The request for an import has {MAX_REQUEST} bytes at most.")


def _answer(found: Import, *, status: int = 200, location: str | None = None) -> web.Response:
    headers = {"Cache-Control": "no-store"}  # it changes, and the URL may be a secret
    if location is not None:
        headers["Location"] = location
    return web.json_response(record(found), status=status, headers=headers)
