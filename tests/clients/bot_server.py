"""A Bot API server on a loopback port: getFile, sendDocument and the files, by its documentation, or as told."""

import asyncio
import hashlib
import re
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from aiohttp import web

from file_service.handlers.multipart import boundary_of, form_parts

TOKEN = "110201543:AAHdqTcvCH1vGWJxfSeofSAs0K5PALDsaw-LEAK_ME_NOT"
DATE = 1_700_000_000
DISPOSITION = re.compile(r'form-data; name="(\w+)"(?:; filename="((?:[^"\\]|\\.)*)")?')


@dataclass
class Call:
    """What came: a method, or the path of a file. `complete` says whether the request came to its end."""

    method: str
    headers: dict[str, str]
    fields: dict[str, str] = field(default_factory=dict)
    filename: str | None = None
    size: int = 0
    sha256: str = ""
    complete: bool = False


Behaviour = Callable[[web.Request, Call], Awaitable[web.StreamResponse]]


@dataclass
class BotServer:
    """Each request takes the next behaviour of `script`; when there is none, the server does what it should.

    `files` has contents by file path; the id of a file is its path with "id:" before it.
    """

    script: deque[Behaviour] = field(default_factory=deque)
    calls: list[Call] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)
    url: str = ""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Note the request and answer."""
        what = request.match_info["what"]
        call = Call(what, dict(request.headers))
        self.calls.append(call)
        if request.match_info["token"] != TOKEN:
            return error(401, "Unauthorized")
        behaviour = self.script.popleft() if self.script else self.behave
        return await behaviour(request, call)

    async def behave(self, request: web.Request, call: Call) -> web.StreamResponse:
        """What a good server does."""
        if request.method == "GET":
            content = self.files.get(call.method)
            return error(404, "Not Found") if content is None else web.Response(body=content)
        if request.content_type == "multipart/form-data":
            await read_form(request, call)
        else:
            call.fields = {key: str(value) for key, value in (await request.post()).items()}
            call.complete = True
        return {"getFile": self.get_file, "sendDocument": sent}[call.method](call)

    def get_file(self, call: Call) -> web.Response:
        """The File."""
        path = call.fields["file_id"].removeprefix("id:")
        if path not in self.files:
            return error(400, "Bad Request: invalid file_id")
        size = len(self.files[path])
        return result({"file_id": f"id:{path}", "file_unique_id": "u", "file_size": size, "file_path": path, "new": 1})


async def read_form(request: web.Request, call: Call) -> None:
    """Read multipart/form-data; names as tdlib's HttpReader does: backslashes, then percent-coding."""
    digest = hashlib.sha256()
    async for part in form_parts(request.content.iter_any(), boundary_of(request.headers["Content-Type"])):
        found = DISPOSITION.fullmatch(part.headers["content-disposition"])
        assert found, part.headers
        if found[2] is None:
            call.fields[found[1]] = await part.text()
            continue
        assert (found[1], part.headers["content-type"]) == ("document", "application/octet-stream")
        call.filename = unquote(re.sub(r"\\(.)", r"\1", found[2]))
        async for chunk in part.chunks():
            digest.update(chunk)
            call.size += len(chunk)
    call.sha256, call.complete = digest.hexdigest(), True


def sent(call: Call) -> web.Response:
    """The Message with the document."""
    document = {
        "file_id": f"id:{call.sha256}",
        "file_unique_id": "u",
        "file_name": call.filename,
        "file_size": call.size,
    }
    chat = {"id": int(call.fields["chat_id"]), "type": "private", "first_name": "Somebody"}
    message = {"message_id": 7, "date": DATE, "chat": chat, "document": document | {"file_size": call.size}}
    return result(message | ({"caption": call.fields["caption"]} if "caption" in call.fields else {}))


def result(value: object) -> web.Response:
    """A successful answer."""
    return web.json_response({"ok": True, "result": value})


def error(code: int, description: str, **parameters: int) -> web.Response:
    """An answer that says no."""
    envelope: dict[str, Any] = {"ok": False, "error_code": code, "description": description}
    return web.json_response(envelope | ({"parameters": parameters} if parameters else {}), status=code)


def says(make: Callable[[], web.Response]) -> Behaviour:
    """Answer at once, without reading."""

    async def answer(_: web.Request, __: Call) -> web.StreamResponse:
        return make()

    return answer


def reads_then(make: Callable[[], web.Response]) -> Behaviour:
    """Read the request to its end, then answer."""

    async def answer(request: web.Request, call: Call) -> web.StreamResponse:
        await request.read()
        call.complete = True
        return make()

    return answer


async def cuts(request: web.Request, _: Call) -> web.StreamResponse:
    """Close the connection without an answer."""
    assert request.transport
    request.transport.close()
    return web.Response()


async def stalls(_: web.Request, __: Call) -> web.StreamResponse:
    """Never answer."""
    await asyncio.Event().wait()
    return web.Response()


def gives(content: bytes, *, length: int | None, then: str = "end") -> Behaviour:
    """Send `content` under that Content-Length, or chunked; then end, cut the connection, or stall."""

    async def answer(request: web.Request, call: Call) -> web.StreamResponse:
        response = web.StreamResponse()
        if length is None:
            response.enable_chunked_encoding()
        else:
            response.content_length = length
        await response.prepare(request)
        await response.write(content)
        if then == "stall":
            return await stalls(request, call)
        if then == "cut":
            assert request.transport
            request.transport.close()
        return response

    return answer


@asynccontextmanager
async def bot_server() -> AsyncIterator[BotServer]:
    """The server, listening at its `url`."""
    server = BotServer()
    app = web.Application(client_max_size=1 << 60)
    app.router.add_route("*", "/bot{token:[^/]+}/{what}", server.handle)
    app.router.add_get("/file/bot{token:[^/]+}/{what:.+}", server.handle)
    runner = web.AppRunner(app, handler_cancellation=True, lingering_time=0.2, shutdown_timeout=0.1, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        server.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield server
    finally:
        await runner.cleanup()
