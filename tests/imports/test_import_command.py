"""`file-service import` as a process of its own: what it prints, where, and how it ends."""

import asyncio
import os
import pty
import signal
import sqlite3
import sys
import termios
from collections.abc import AsyncIterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from aiohttp import web
from tenacity import wait_none

from file_service.client import Client, RefusedByServer
from file_service.client import client as client_module
from file_service.client import importing as importing_module
from file_service.client.errors import ImportFailed, ServerFailed, ServerUnreachable
from file_service.client.importing import import_url
from tests.imports.conftest import Importer, eventually
from tests.imports.upstream import Upstream, Visit

HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n"


async def half(visit: Visit) -> None:
    """Send the first half of a file, and wait for the client to leave."""
    await visit.say(HEAD, b"x" * 50_000)
    await visit.until_left()


async def start(*arguments: str, stderr: int = asyncio.subprocess.PIPE) -> asyncio.subprocess.Process:
    """The command as a shell would start it."""
    line = (sys.executable, "-m", "file_service", "import", *arguments)
    return await asyncio.create_subprocess_exec(*line, stdout=asyncio.subprocess.PIPE, stderr=stderr)


async def run(*arguments: str) -> tuple[int | None, str, str]:
    """Exit status, standard output, standard error."""
    process = await start(*arguments)
    out, err = await process.communicate()
    return process.returncode, out.decode(), err.decode()


async def test_it_prints_the_link(importer: Importer, upstream: Upstream) -> None:
    status, out, err = await run(upstream.url + "/a.txt?s3cret", "--to", importer.url)
    (file,) = await importer.files()
    assert (status, out, err) == (0, file["url"] + "\n", "")
    assert file["name"] == "a.txt"
    assert await importer.ask("GET", out.strip().removeprefix(importer.url)) == (200, b"hello")


async def test_name_and_whole_address(importer: Importer, upstream: Upstream) -> None:
    assert (await run(upstream.url, "--to", f"{importer.url}/imports", "--name", "b.txt"))[0] == 0
    assert [file["name"] for file in await importer.files()] == ["b.txt"]


async def test_the_progress_is_shown_on_a_terminal(importer: Importer, upstream: Upstream) -> None:
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (25, 80))
    go_on = asyncio.Event()

    async def conversation(visit: Visit) -> None:
        await visit.say(HEAD, b"x" * 50_000)
        await go_on.wait()
        await visit.say(b"x" * 50_000)

    process = await start(upstream.says(conversation, "/big.bin?s3cret"), "--to", importer.url, stderr=theirs)
    os.close(theirs)
    os.set_blocking(ours, False)
    shown = bytearray()

    def read() -> bool:
        try:
            shown.extend(os.read(ours, 65536))
        except (BlockingIOError, OSError):
            return False
        return b"50%" in shown

    await eventually(read)
    go_on.set()
    out, _ = await process.communicate()
    os.close(ours)
    assert process.returncode == 0
    assert out.decode().startswith(importer.url)
    assert b"big.bin" in shown
    assert b"48.8k/97.7k" in shown
    assert b"s3cret" not in shown


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (("http://127.0.0.2/x?s3cret",), 3, "127.0.0.2/x: There is no public server at this address. (422)"),
        (("http://u:s3cret@8.8.8.8/x",), 3, "8.8.8.8/x: A URL with a user name or a password is not imported. (422)"),
        (("{upstream}/missing?s3cret",), 4, "/missing: The other server answered 404."),
        (("http://127.0.0.1:1/",), 4, "There is no public server at this address."),
        (("{upstream}", "--to", "http://127.0.0.1:1", "--retries", "0"), 4, "No connection to 127.0.0.1:1"),
        (("{upstream}", "--to", "{service}/nothing"), 3, "No such resource. (404)"),
        (("{upstream}", "--to", "{upstream}"), 4, "(200)"),
        (("{upstream}", "--to", "nowhere"), 2, "must begin with http://"),
        ((), 2, "Missing argument 'URL'"),
    ],
)
async def test_failures(
    importer: Importer, upstream: Upstream, arguments: tuple[str, ...], status: int, says: str
) -> None:
    upstream.says(lambda visit: visit.answer(status=404), "/missing")
    filled = [each.format(upstream=upstream.url, service=importer.url) for each in arguments]
    if arguments and "--to" not in arguments:
        filled += ["--to", importer.url]
    code, out, err = await run(*filled)
    assert (code, out) == (status, "")
    assert says in err
    assert "s3cret" not in err
    assert "Traceback" not in err


async def test_quiet_says_nothing_but_errors(importer: Importer, upstream: Upstream) -> None:
    assert (await run("-q", upstream.url, "--to", importer.url))[2] == ""
    assert "404" in (await run("-q", upstream.url, "--to", f"{importer.url}/nothing"))[2]


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
async def test_interrupting_cancels_the_import(
    importer: Importer, upstream: Upstream, tmp_path: Path, *, number: signal.Signals, status: int
) -> None:
    process = await start(upstream.says(half), "--to", importer.url)
    await eventually(lambda: upstream.heads)
    await asyncio.sleep(0.3)  # until it has heard of its import
    process.send_signal(number)
    out, err = await process.communicate()
    assert (process.returncode, out, err) == (status, b"", b"file-service: interrupted\n")
    assert [(await importer.get(path))["state"] for path in paths(tmp_path)] == ["cancelled"]


def paths(folder: Path) -> list[str]:
    """The imports of the service on this folder."""
    with closing(sqlite3.connect(f"file:{folder}/data/file_service.db?mode=ro", uri=True, timeout=10)) as database:
        return [f"/imports/{UUID(id_)}" for (id_,) in database.execute("SELECT id FROM import")]


async def test_an_import_that_somebody_else_cancels_is_a_failure(
    importer: Importer, upstream: Upstream, tmp_path: Path
) -> None:
    process = await start(upstream.says(half), "--to", importer.url)
    await eventually(lambda: upstream.heads)
    assert (await importer.ask("DELETE", paths(tmp_path)[0]))[0] == 204
    _, err = await process.communicate()
    assert (process.returncode, b"The import was cancelled." in err) == (4, True)


# The client alone, at a server of which we know what it says


@dataclass
class Service:
    """A file service that knows one import; `script` has the answers to GET, the last of them for ever."""

    url: str = ""
    script: list[web.Response | dict[str, Any]] = field(default_factory=list)
    seen: list[str] = field(default_factory=list)
    headers: list[str | None] = field(default_factory=list)
    hesitates: asyncio.Event | None = None

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Note the request and answer."""
        self.seen.append(f"{request.method} {request.path}")
        self.headers.append(request.headers.get("Authorization"))
        if request.method == "POST":
            if self.hesitates:
                await self.hesitates.wait()
            return web.json_response({}, status=202, headers={"Location": "/imports/7"})
        if request.method == "DELETE":
            return web.Response(status=204)
        answer = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        return answer if isinstance(answer, web.Response) else web.json_response(answer)


RUNNING = {"state": "running", "bytes": 1, "total": None}
DONE = {"state": "done", "bytes": 2, "total": 2, "file_id": "9"}


@pytest.fixture
async def service(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Service]:
    monkeypatch.setattr(client_module, "BACKOFF", wait_none())
    monkeypatch.setattr(importing_module, "POLL", 0.01)
    service, app = Service(), web.Application()
    app.router.add_route("*", "/{path:.*}", service.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    service.url = f"http://127.0.0.1:{runner.addresses[0][1]}/imports"
    yield service
    await runner.cleanup()


async def imported(service: Service, **options: Any) -> str:
    """What the client makes of it."""
    async with Client(service.url, **options) as client:
        return await import_url(client, "http://example.com/")


async def test_it_waits_for_the_end(service: Service) -> None:
    service.script = [{"state": "pending"}, RUNNING, RUNNING, DONE]
    told: list[tuple[int, int | None]] = []
    async with Client(service.url) as client:
        link = await import_url(client, "http://example.com/", progress=lambda *now: told.append(now))
    assert link == service.url.replace("/imports", "/files/9/")
    assert told == [(0, None), (1, None), (1, None), (2, 2)]
    assert service.seen == ["POST /imports", *["GET /imports/7"] * 4]


async def test_a_look_that_fails_for_a_passing_reason_is_repeated(service: Service) -> None:
    service.script = [RUNNING, web.Response(status=503), DONE]
    assert await imported(service)


async def test_a_request_that_may_have_been_heard_is_not_repeated(service: Service) -> None:
    """There would be two imports, and one of them unknown to us."""
    service.hesitates = asyncio.Event()
    with pytest.raises(ServerUnreachable):
        await imported(service, idle=0.1 - client_module.CONNECT)
    assert service.seen == ["POST /imports"]


@pytest.mark.parametrize(
    ("answer", "error", "text"),
    [
        ({"state": "failed", "error": "It\nbroke\x1b."}, ImportFailed, "It\ufffdbroke\ufffd."),
        ({"state": "failed"}, ImportFailed, "The import was failed."),
        ({"state": "cancelled", "error": None}, ImportFailed, "The import was cancelled."),
        ({"state": "done"}, ServerFailed, "makes no sense"),
        ({"state": "done", "file_id": 9}, ServerFailed, "makes no sense"),
        ({"state": "odd", "bytes": "x", "total": []}, ServerFailed, "makes no sense"),
        ({}, ServerFailed, "makes no sense"),
        (web.Response(status=404), RefusedByServer, "404"),
        (web.Response(status=200, text="hello"), ServerFailed, "makes no sense"),
    ],
)
async def test_what_a_server_may_say(service: Service, answer: Any, error: type[Exception], text: str) -> None:
    service.script = [answer]
    with pytest.raises(error, match=text):
        await imported(service)


@pytest.mark.parametrize("early", [True, False])
async def test_a_wait_that_is_cancelled_cancels_the_import(service: Service, early: bool) -> None:
    """Also when the server has not yet told where it is."""
    service.script = [RUNNING]
    service.hesitates = asyncio.Event()
    waiting = asyncio.create_task(imported(service))
    await eventually(lambda: service.seen)
    if not early:
        service.hesitates.set()
        await eventually(lambda: len(service.seen) > 2)
    waiting.cancel()
    await asyncio.sleep(0.02)
    service.hesitates.set()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert service.seen[-1] == "DELETE /imports/7"


async def test_a_server_that_does_not_cancel_keeps_nobody_waiting(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importing_module, "CANCEL_PATIENCE", 0.1)
    service.hesitates = asyncio.Event()
    waiting = asyncio.create_task(imported(service))
    await eventually(lambda: service.seen)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_credentials_in_the_servers_address_are_used_and_not_shown(service: Service) -> None:
    service.script = [RUNNING, DONE]
    service.url = service.url.replace("http://", "http://user:s3cret@")
    assert "s3cret" not in await imported(service)
    assert len(service.headers) == 3
    assert None not in service.headers
