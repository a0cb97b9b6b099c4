"""GET /archive.zip?id=...&id=...: the files as one zip, with a length, an entity tag and ranges."""

import re
from base64 import urlsafe_b64encode
from datetime import UTC
from email.utils import format_datetime
from functools import partial
from uuid import UUID

from aiohttp import web

from file_service.errors import BadRequest, NotFound
from file_service.handlers.conditions import Facts
from file_service.handlers.content import Content, answer_with
from file_service.handlers.keys import ARCHIVES
from file_service.handlers.records import CANONICAL


async def archive(request: web.Request) -> web.StreamResponse:
    """The archive of the files named by the query, in its order; a file named twice is in it twice."""
    ids = request.query.getall("id", [])
    if not ids:
        raise BadRequest("Name the files: /archive.zip?id=...&id=...")
    if not all(re.fullmatch(CANONICAL, id_) for id_ in ids):
        raise NotFound
    archives = request.app[ARCHIVES]
    zip_file = await archives.open([UUID(id_) for id_ in ids])
    modified = max(file.created_at for file in zip_file.files).astimezone(UTC).replace(microsecond=0)
    tag = f'"zip-{urlsafe_b64encode(zip_file.digest).decode().rstrip("=")}"'
    headers = {
        "ETag": tag,
        "Last-Modified": format_datetime(modified, usegmt=True),
        "Content-Type": "application/zip",
        "Content-Disposition": 'attachment; filename="archive.zip"',
        "Accept-Ranges": "bytes",
    }
    facts = Facts(zip_file.archive.length, tag, modified)
    return await answer_with(request, Content(facts, headers, partial(archives.read, zip_file), chunked=False))
