"""The doors in: POST /files raw or as a form, PUT /files/{name}."""

import re
from collections.abc import Mapping

from aiohttp import web

from file_service.content_types import content_type
from file_service.digests import expected_digests
from file_service.errors import BadRequest
from file_service.handlers.body import announced_length, body, retry_key
from file_service.handlers.keys import FILES, RULES
from file_service.handlers.multipart import FormPart, boundary_of, form_parts
from file_service.handlers.records import path, prefers_json, receipt_record, validators
from file_service.model import Receipt, Terms
from file_service.names import parse_disposition, parse_form_disposition, sanitize_name
from file_service.service.batch import Batch
from file_service.service.streams import Hashes, hashed

TERM_FIELDS = {"expires_in": "Expires-In", "max_downloads": "Max-Downloads"}  # form field -> header
NUMBER = re.compile(r"[1-9][0-9]{0,8}")
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
    await request.app[FILES].admit(announced_length(request))
    return answer(request, [await _raw(request, request.match_info["name"])])


async def _raw(request: web.Request, path_name: str | None) -> Receipt:
    files = request.app[FILES]
    name = parse_disposition(request.headers.getall("Content-Disposition", []))
    return await files.store(
        name or (sanitize_name(path_name) if path_name else None),
        content_type(request.headers.get("Content-Type")),
        body(request, request.app[RULES].body_idle),
        expected=expected_digests(_joined(request, *DIGEST_FIELDS)),
        length=announced_length(request),
        key=retry_key(request),
        terms=files.agree(parse_terms(_joined(request, *TERM_FIELDS.values()))),
    )


async def _form(request: web.Request) -> list[Receipt]:
    """All files of the form or none; the digests in the request's headers are those of the whole body."""
    files = request.app[FILES]
    expected = expected_digests(_joined(request, *DIGEST_FIELDS))
    hashes = Hashes(expected)
    boundary = boundary_of(request.headers.get("Content-Type", ""))
    chunks = hashed(body(request, request.app[RULES].body_idle), hashes)
    fields = _joined(request, *TERM_FIELDS.values())
    async with files.batch(retry_key(request), files.agree(parse_terms(fields))) as batch:
        count = 0
        async for part in form_parts(chunks, boundary):
            count += await _part(part, batch, fields)
        hashes.verify(expected)
        if not count:
            raise BadRequest("The form has no file.")
        batch.terms = files.agree(parse_terms(fields))
    return batch.receipts


async def _part(part: FormPart, batch: Batch, fields: dict[str, str]) -> bool:
    """Take a part in when it is a file; browsers send an empty, nameless one for an input left empty."""
    field = parse_form_disposition(part.headers["content-disposition"])
    if not field.is_file or field.empty:
        value = (await part.read()).strip()
        if field.field in TERM_FIELDS and value:  # an input left empty asks for nothing
            fields[TERM_FIELDS[field.field]] = value.decode("ascii", "replace")
        return False
    expected = expected_digests({name: part.headers[name] for name in DIGEST_FIELDS if name in part.headers})
    await batch.add(field.filename, content_type(part.headers.get("content-type")), part.chunks(), expected)
    return True


def parse_terms(fields: Mapping[str, str]) -> Terms:
    """`Expires-In: seconds` and `Max-Downloads: n`, both whole numbers from 1; `BadRequest` for anything else."""
    for name in TERM_FIELDS.values():
        if name in fields and not NUMBER.fullmatch(fields[name].strip()):
            raise BadRequest(f"{name} must be a whole number from 1 to 999999999.")
    expires_in, downloads = (fields.get(name) for name in TERM_FIELDS.values())
    return Terms(float(expires_in) if expires_in else None, int(downloads) if downloads else None)


def _joined(request: web.Request, *names: str) -> dict[str, str]:
    """The named fields, each with its lines put together (RFC 9110 section 5.3)."""
    return {name: ", ".join(request.headers.getall(name)) for name in names if name in request.headers}


def answer(request: web.Request, receipts: list[Receipt]) -> web.Response:
    """201: the ids as plain text, one a line, or the records when the client prefers JSON."""
    headers: dict[str, str] = {}
    if len(receipts) == 1:
        file, token = receipts[0].file, receipts[0].delete_token
        headers = {"Location": path(file.id), **validators(file), "Delete-Token": token}
    if not prefers_json(request.headers.get("Accept", "")):
        return web.Response(status=201, headers=headers, text="\n".join(str(receipt.file.id) for receipt in receipts))
    records = [receipt_record(receipt, request) for receipt in receipts]
    form = request.method == "POST" and request.content_type == "multipart/form-data"
    return web.json_response({"files": records} if form else records[0], status=201, headers=headers)
