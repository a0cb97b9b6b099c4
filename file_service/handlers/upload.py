"""The doors in: POST /files raw or as a form, PUT /files/{name}."""

from aiohttp import web

from file_service.digests import expected_digests
from file_service.errors import BadRequest, NotFound
from file_service.handlers.body import announced_length, body, content_type, retry_key
from file_service.handlers.keys import FILES, RULES
from file_service.handlers.multipart import FormPart, boundary_of, form_parts
from file_service.handlers.records import path, prefers_json, record, validators
from file_service.model import File
from file_service.names import parse_disposition, parse_form_disposition, sanitize_name
from file_service.service.files import Batch
from file_service.service.streams import Hashes, hashed

DIGEST_FIELDS = ("content-digest", "repr-digest", "content-md5")


async def post(request: web.Request) -> web.Response:
    """Store the body, or every file of a form."""
    length = announced_length(request)
    if request.content_type == "multipart/form-data":
        await request.app[FILES].check_room(length)
        return answer(request, await _form(request))
    await request.app[FILES].admit(length)
    return answer(request, [await _raw(request, None)])


async def put(request: web.Request) -> web.Response:
    """What `curl -T` sends: the name stands in the path, unless Content-Disposition has a better one."""
    if request.method != "PUT":
        raise NotFound("No such resource.")
    await request.app[FILES].admit(announced_length(request))
    return answer(request, [await _raw(request, request.match_info["name"])])


async def _raw(request: web.Request, path_name: str | None) -> File:
    name = parse_disposition(request.headers.getall("Content-Disposition", []))
    return await request.app[FILES].store(
        name or (sanitize_name(path_name) if path_name else None),
        content_type(request.headers.get("Content-Type")),
        body(request, request.app[RULES].body_idle),
        expected=expected_digests(_joined(request, *DIGEST_FIELDS)),
        key=retry_key(request),
    )


async def _form(request: web.Request) -> list[File]:
    """All files of the form or none; the digests in the request's headers are those of the whole body."""
    expected = expected_digests(_joined(request, "content-digest", "content-md5"))
    hashes = Hashes(expected)
    boundary = boundary_of(request.headers.get("Content-Type", ""))
    chunks = hashed(body(request, request.app[RULES].body_idle), hashes)
    async with request.app[FILES].batch(retry_key(request)) as batch:
        count = 0
        async for part in form_parts(chunks, boundary):
            count += await _part(part, batch)
        hashes.verify(expected)
        if not count:
            raise BadRequest("The form has no file.")
    return batch.files


async def _part(part: FormPart, batch: Batch) -> bool:
    """Take a part in when it is a file; browsers send an empty, nameless one for a field left empty."""
    field = parse_form_disposition(part.headers["content-disposition"])
    if not field.is_file or field.empty:
        await part.read()
        return False
    expected = expected_digests({name: part.headers[name] for name in DIGEST_FIELDS if name in part.headers})
    await batch.add(field.filename, content_type(part.headers.get("content-type")), part.chunks(), expected)
    return True


def _joined(request: web.Request, *names: str) -> dict[str, str]:
    """The named fields, each with its lines put together (RFC 9110 section 5.3)."""
    return {name: ", ".join(request.headers.getall(name)) for name in names if name in request.headers}


def answer(request: web.Request, files: list[File]) -> web.Response:
    """201: the ids as plain text, one a line, or the records when the client prefers JSON."""
    headers = {"Location": path(files[0].id), **validators(files[0])} if len(files) == 1 else {}
    if not prefers_json(request.headers.get("Accept", "")):
        return web.Response(status=201, headers=headers, text="\n".join(str(file.id) for file in files))
    records = [record(file, request) for file in files]
    form = request.method == "POST" and request.content_type == "multipart/form-data"
    return web.json_response({"files": records} if form else records[0], status=201, headers=headers)
