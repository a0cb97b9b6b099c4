"""The records of files: meta, list, delete."""

import base64
import binascii
import struct
from datetime import UTC, datetime, timedelta
from uuid import UUID

from aiohttp import web

from file_service.errors import BadRequest, NotFound
from file_service.handlers.keys import FILES
from file_service.handlers.records import record
from file_service.model import File

DEFAULT_LIMIT, MAX_LIMIT = 100, 1000
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
CURSOR = struct.Struct(">q16s")  # microseconds since the epoch, id


async def meta(request: web.Request) -> web.Response:
    """The file record."""
    return web.json_response(record(await request.app[FILES].get(file_id(request)), request))


async def list_(request: web.Request) -> web.Response:
    """A page of records, newest first, and the cursor of the next page."""
    limit, cursor = request.query.get("limit", str(DEFAULT_LIMIT)), request.query.get("cursor")
    if not limit.isascii() or not limit.isdigit() or not 1 <= int(limit[:9]) <= MAX_LIMIT:
        raise BadRequest(f"limit must be a number from 1 to {MAX_LIMIT}.")
    page = await request.app[FILES].page(int(limit), parse_cursor(cursor) if cursor else None)
    following = format_cursor(page.files[-1]) if page.more else None
    return web.json_response({"files": [record(file, request) for file in page.files], "next": following})


async def missing(_: web.Request) -> web.Response:
    """404, not 405, for what no file can be called, although PUT takes it for a name."""
    raise NotFound("No such resource.")


async def delete(request: web.Request) -> web.Response:
    """Remove the file for good; a Delete-Token that is sent must be the file's."""
    await request.app[FILES].delete(file_id(request), request.headers.get("Delete-Token"))
    return web.Response(status=204)


def file_id(request: web.Request) -> UUID:
    """The id in the path; the route lets only canonical ones through."""
    return UUID(request.match_info["id"])


def format_cursor(file: File) -> str:
    """The position right after `file`, opaque to clients."""
    position = CURSOR.pack((file.created_at - EPOCH) // timedelta(microseconds=1), file.id.bytes)
    return base64.urlsafe_b64encode(position).decode()


def parse_cursor(cursor: str) -> tuple[datetime, UUID]:
    """The position that `format_cursor` wrote; `BadRequest` for anything else."""
    try:
        microseconds, id_ = CURSOR.unpack(base64.b64decode(cursor.encode(), altchars=b"-_", validate=True))
        return EPOCH + timedelta(microseconds=microseconds), UUID(bytes=id_)
    except (binascii.Error, struct.error, OverflowError, UnicodeEncodeError):
        raise BadRequest("This cursor is not one of ours.") from None
