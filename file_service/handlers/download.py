"""The door out: GET and HEAD /files/{id}/."""

from dataclasses import replace
from functools import partial
from hashlib import sha256

from aiohttp import web

from file_service.handlers.conditions import is_ours_to_judge
from file_service.handlers.content import Content, answer_with
from file_service.handlers.files import file_id
from file_service.handlers.keys import DELIVERIES, FILES, RULES
from file_service.handlers.representation import described


async def download(request: web.Request) -> web.StreamResponse:
    """The file, a part of it, or the reason why not."""
    service = request.app[FILES]
    file = await service.get(file_id(request))
    facts, headers = described(file, "inline" in request.query)
    if request.method == "GET" and not is_ours_to_judge(request.headers, facts):
        link = await service.link(file, {**headers, "Cache-Control": "private"})
        if link is not None:
            return web.Response(status=307, headers={"Location": link, "Cache-Control": "no-store"})
    content = Content(facts, headers, partial(service.read, file), request.app[RULES].chunked)
    if file.max_downloads is not None:
        content = replace(content, delivery=partial(request.app[DELIVERIES].delivery, file, client(request)))
    return await answer_with(request, content)


def client(request: web.Request) -> str:
    """Who the pieces of a download go to: an address and a program are as much as is known of a client."""
    known = f"{request.remote} {request.headers.get('User-Agent', '')}"
    return sha256(known.encode("utf-8", "surrogateescape")).hexdigest()
