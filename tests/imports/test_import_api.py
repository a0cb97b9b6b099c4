"""POST, GET and DELETE of imports: what is asked, what is answered, on both databases."""

import asyncio
import re
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import aiohttp
import pytest

from file_service.handlers.middlewares import SECURITY
from file_service.service import imports
from file_service.settings import BadSettings, from_environment, table
from tests.imports.conftest import Importer, eventually, kept
from tests.imports.upstream import Upstream, Visit
from tests.support.process import Service

FIELDS = {"id", "url", "state", "bytes", "total", "rate", "file_id", "error"}
HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n"


@pytest.fixture
async def either(importing: Callable[..., Any], database_url: str) -> Importer:
    """A service over either database."""
    return await importing(database_url=database_url)  # type: ignore[no-any-return]


async def half(visit: Visit) -> None:
    """Send the first half of a file, and wait for the client to leave."""
    await visit.say(HEAD, b"x" * 50_000)
    await visit.until_left()


def is_half(record: dict[str, Any]) -> bool:
    """Whether what `half` sends has come."""
    return bool(record["bytes"] == 50_000)


# The good way


async def test_an_import_becomes_a_file(either: Importer, upstream: Upstream) -> None:
    headers = ("Content-Type: text/plain; charset=utf-8", "Content-Disposition: attachment; filename=a.txt")
    url = upstream.says(lambda visit: visit.answer(b"hello", *headers), "/x?secret=1")
    status, queued = await either.ask("POST", "/imports", json={"url": url})
    assert status == 202
    assert queued == {
        "id": queued["id"],
        "url": url,
        "state": "pending",
        "bytes": 0,
        "total": None,
        "rate": None,
        "file_id": None,
        "error": None,
    }
    record = await either.ended(f"/imports/{queued['id']}")
    assert record.keys() == FIELDS
    assert (record["state"], record["bytes"], record["total"], record["error"]) == ("done", 5, 5, None)
    assert record["url"] == url
    assert record["rate"] > 0
    _, file = await either.ask("GET", f"/files/{record['file_id']}/meta")
    assert (file["name"], file["size"]) == ("a.txt", 5)
    assert file["content_type"] == "text/plain; charset=utf-8"
    assert await either.content(record) == b"hello"
    assert await either.files() == [file]


async def test_the_answers_have_the_headers_they_should(importer: Importer, upstream: Upstream) -> None:
    async with importer._client.post(f"{importer.url}/imports/", json={"url": upstream.url}) as answer:
        location = answer.headers["Location"]
        assert answer.status == 202
        assert re.fullmatch(r"/imports/[0-9a-f-]{36}", location)
        assert answer.headers["Cache-Control"] == "no-store"
    await importer.ended(location)
    async with importer._client.get(f"{importer.url}{location}/") as answer:
        assert answer.content_type == "application/json"
        assert {**SECURITY, "Cache-Control": "no-store"}.items() <= dict(answer.headers).items()


@pytest.mark.parametrize(
    ("path", "headers", "asked", "name"),
    [
        ("/a/b.txt?c.txt", (), None, "b.txt"),
        ("/%C3%A9%2F..%2Fx.txt", (), None, "x.txt"),
        ("/a/b.txt", ("Content-Disposition: attachment; filename=c.txt",), None, "c.txt"),
        ("/a/b.txt", ("Content-Disposition: attachment; filename=c.txt",), "d.txt", "d.txt"),
        ("/a/b.txt", ("Content-Disposition: attachment; filename*=UTF-8''%E2%82%AC.txt",), None, "€.txt"),
        ("/a/b.txt", ("Content-Disposition: attachment; filename=../../etc/passwd",), None, "passwd"),
        ("/a/b.txt", ("Content-Disposition: =;;",), None, "b.txt"),
        ("/a/b.txt", ("Content-Disposition: a; filename=1", "Content-Disposition: a; filename=2"), None, "b.txt"),
        ("/a/b.txt", (), "../x\r\ny\u202e.txt", "xy.txt"),
        ("/a/b.txt", (), "", "b.txt"),
    ],
)
async def test_the_name(
    importer: Importer, upstream: Upstream, *, path: str, headers: tuple[str, ...], asked: str | None, name: str
) -> None:
    url = upstream.says(lambda visit: visit.answer(b"hello", *headers), path)
    await importer.run(url, asked)
    assert [file["name"] for file in await importer.files()] == [name]


async def test_a_file_without_any_name_is_called_by_its_id(importer: Importer, upstream: Upstream) -> None:
    record = await importer.run(upstream.url)
    assert (await importer.files())[0]["name"] == record["file_id"]


@pytest.mark.parametrize(
    "header", ["", "text/html; a=é", "text", "t\u00ebxt/plain", ";;;", "a/b\x01", "x/" + "y" * 300]
)
async def test_a_type_that_is_none_is_not_kept(importer: Importer, upstream: Upstream, header: str) -> None:
    record = await importer.run(upstream.says(lambda visit: visit.answer(b"hello", f"Content-Type: {header}")))
    assert (await importer.files())[0]["content_type"] == "application/octet-stream"
    assert await importer.content(record) == b"hello"


async def test_an_import_is_kept_no_longer_than_an_upload(importing: Callable[..., Any], upstream: Upstream) -> None:
    importer: Importer = await importing(max_expiry=1000.0)
    await importer.run(upstream.url)
    assert (await importer.files())[0]["expires_at"] is not None


# Requests that make no sense


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b'"http://8.8.8.8/"',
        b"null",
        b"{}",
        b'{"url": 1}',
        b'{"url": null}',
        b'{"url": ["http://8.8.8.8/"]}',
        b'{"url": "http://8.8.8.8/", "name": 1}',
        b'{"name": "x"}',
        b"\xff\xfe{",
        b"[" * 60_000,
        b'{"url": ' * 5000,
        b"url=http://8.8.8.8/",
    ],
)
async def test_a_request_that_cannot_be_read_is_a_400(importer: Importer, body: bytes) -> None:
    status, problem = await importer.ask("POST", "/imports", data=body)
    assert status == 400
    assert problem["detail"].startswith("Send a JSON object")


async def test_a_long_request_is_a_413(importer: Importer) -> None:
    async def chunks() -> Any:
        for _ in range(66):
            yield b" " * 1024

    for data in (b" " * 65_537, chunks()):
        assert (await importer.ask("POST", "/imports", data=data))[0] == 413


async def test_a_request_that_never_comes_is_a_408(importing: Callable[..., Any], upstream: Upstream) -> None:
    importer: Importer = await importing(body_idle_timeout=0.2)
    reader, writer = await asyncio.open_connection("127.0.0.1", int(importer.url.rpartition(":")[2]))
    writer.write(b"POST /imports HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
    assert (await reader.readline()).startswith(b"HTTP/1.1 408 ")
    writer.close()


NO_IMPORT = ["x", "0" * 36, "6d8ab2f4-5c57-4c3a-9f06-0d2f4f6cf1c2/x", "6D8AB2F4-5C57-4C3A-9F06-0D2F4F6CF1C2", "..%2f.."]


@pytest.mark.parametrize("path", NO_IMPORT)
async def test_what_is_no_import_is_a_404(importer: Importer, path: str) -> None:
    for method in ("GET", "DELETE"):
        assert (await importer.ask(method, f"/imports/{path}"))[0] == 404


async def test_an_unknown_import_is_a_404(importer: Importer) -> None:
    for method in ("GET", "DELETE"):
        status, problem = await importer.ask(method, f"/imports/{uuid4()}")
        assert (status, problem["detail"]) == (404, "No such import.")


async def test_other_methods_are_a_405(importer: Importer) -> None:
    assert (await importer.ask("GET", "/imports"))[0] == 405
    assert (await importer.ask("PUT", f"/imports/{uuid4()}"))[0] == 405


# Progress and cancelling


async def test_progress_shows_while_it_runs(either: Importer, upstream: Upstream) -> None:
    path = await either.post(upstream.says(half))
    record = await either.until(path, is_half)
    assert (record["state"], record["total"], record["file_id"]) == ("running", 100_000, None)
    assert record["rate"] > 0


async def test_a_running_import_is_cancelled(either: Importer, upstream: Upstream) -> None:
    left = asyncio.Event()

    async def conversation(visit: Visit) -> None:
        await half(visit)
        left.set()

    path = await either.post(upstream.says(conversation))
    await either.until(path, is_half)
    assert await either.ask("DELETE", path) == (204, b"")
    record = await either.get(path)
    assert (record["state"], record["bytes"], record["error"]) == ("cancelled", 50_000, None)
    async with asyncio.timeout(5):
        await left.wait()  # the connection is not kept for the sake of an import that nobody wants
    assert await either.files() == []
    status, problem = await either.ask("DELETE", path)
    assert (status, problem["detail"]) == (409, "This import is cancelled already.")


async def test_nothing_is_left_of_a_cancelled_import(
    importing: Callable[..., Any], upstream: Upstream, tmp_path: Any
) -> None:
    importer: Importer = await importing()
    path = await importer.post(upstream.says(half))
    await importer.until(path, is_half)
    assert kept(tmp_path / "data")
    await importer.ask("DELETE", path)
    await eventually(lambda: not kept(tmp_path / "data"))


async def test_an_import_is_cancelled_on_another_replica(
    either: Importer, importing: Callable[..., Any], database_url: str, upstream: Upstream
) -> None:
    left = asyncio.Event()

    async def conversation(visit: Visit) -> None:
        await half(visit)
        left.set()

    path = await either.post(upstream.says(conversation))
    await either.until(path, is_half)
    other: Importer = await importing(database_url=database_url)
    assert await other.get(path) == await either.get(path)
    assert (await other.ask("DELETE", path))[0] == 204
    assert (await either.get(path))["state"] == "cancelled"
    async with asyncio.timeout(5):
        await left.wait()


async def test_an_import_is_cancelled_before_it_is_begun(either: Importer, upstream: Upstream) -> None:
    paths = [await either.post(upstream.says(half)) for _ in range(8)]
    for path in paths:
        await either.until(path, is_half)
    waiting = await either.post(upstream.url + "/waiting")
    assert (await either.get(waiting))["state"] == "pending"
    assert (await either.ask("DELETE", waiting))[0] == 204
    record = await either.get(waiting)
    assert (record["state"], record["rate"]) == ("cancelled", None)
    for path in paths:
        await either.ask("DELETE", path)
    assert (await either.run(upstream.url + "/next"))["state"] == "done"
    assert not [head for head in upstream.heads if b"/waiting" in head]


async def test_what_comes_after_a_cancel_is_not_stored(
    importing: Callable[..., Any], upstream: Upstream, tmp_path: Any
) -> None:
    """Also when there was nothing to withdraw yet, and the whole file comes before the replica hears of it."""
    importer: Importer = await importing()
    asked, cancelled = asyncio.Event(), asyncio.Event()

    async def conversation(visit: Visit) -> None:
        asked.set()
        await cancelled.wait()
        await visit.answer(b"hello")
        await visit.until_left()
        asked.clear()

    path = await importer.post(upstream.says(conversation))
    await asked.wait()
    assert (await importer.ask("DELETE", path))[0] == 204
    cancelled.set()
    await eventually(lambda: not asked.is_set())
    await eventually(lambda: not kept(tmp_path / "data"))
    assert await importer.files() == []
    assert (await importer.get(path))["state"] == "cancelled"


async def test_what_is_over_cannot_be_cancelled(either: Importer, upstream: Upstream) -> None:
    done = f"/imports/{(await either.run(upstream.url))['id']}"
    failed = f"/imports/{(await either.run(upstream.says(lambda visit: visit.answer(status=404))))['id']}"
    for path, state in ((done, "done"), (failed, "failed")):
        status, problem = await either.ask("DELETE", path)
        assert (status, problem["detail"]) == (409, f"This import is {state} already.")
        assert (await either.get(path))["state"] == state
    assert len(await either.files()) == 1


# Secrets and their end


async def test_the_url_is_never_logged(spawn: Callable[..., Service], upstream: Upstream) -> None:
    """Of imports that succeed, fail, are cancelled or refused, by a service that says all there is to say."""
    service = spawn(import_allow="127.0.0.1", log_level="debug")
    secret = "?signature=s3cret"
    async with aiohttp.ClientSession() as client:
        importer = Importer(service.url, client)
        await importer.run(upstream.url + "/good" + secret)
        await importer.run(upstream.says(lambda visit: visit.answer(status=403), "/bad" + secret))
        await importer.run(upstream.sends(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello", path="/short" + secret))
        await importer.run(upstream.sends(b"s3cret", path="/garbage" + secret))
        await importer.run("http://127.0.0.1:1/" + secret)
        await importer.run(upstream.says(lambda visit: visit.redirect("http://10.0.0.1/" + secret), "/to" + secret))
        path = await importer.post(upstream.says(half, "/half" + secret))
        await importer.until(path, is_half)
        await importer.ask("DELETE", path)
        assert (await importer.ask("POST", "/imports", json={"url": "http://10.0.0.1/" + secret}))[0] == 422
        assert (await importer.ask("POST", "/imports", json={"url": "http://s3cret@8.8.8.8/"}))[0] == 422
    assert service.terminate() == 0
    assert service.output().count("POST /imports") == 9
    assert "DEBUG" in service.output()
    assert "s3cret" not in service.output()


async def test_not_even_a_fault_of_our_own_tells_the_url(
    importer: Importer, upstream: Upstream, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fault(url: str) -> None:
        raise LookupError(url)

    path = await importer.post(upstream.says(half, "/half?s3cret"))
    await importer.until(path, is_half)
    monkeypatch.setattr("file_service.service.fetching.parse", fault)
    record = await importer.run(upstream.url + "/?s3cret")
    assert (record["state"], record["error"]) == ("failed", "The service failed; the reason is in its log.")
    (logged,) = (line for line in caplog.records if line.levelname == "ERROR")
    assert logged.getMessage().startswith(f"import {record['id']} failed: LookupError\n")
    assert "in fault" in logged.getMessage()
    assert "s3cret" not in caplog.text
    assert (await importer.get(path))["state"] == "running"  # the others go on
    caplog.clear()


async def test_an_import_that_is_over_is_forgotten_in_the_end(
    importing: Callable[..., Any], upstream: Upstream, monkeypatch: pytest.MonkeyPatch, database_url: str
) -> None:
    monkeypatch.setattr(imports, "RETENTION", 0.5)
    importer: Importer = await importing(database_url=database_url, sweep_interval=0.1)
    running = await importer.post(upstream.says(half))
    await importer.until(running, is_half)
    record = await importer.run(upstream.url)

    async def forgotten() -> bool:
        return bool((await importer.ask("GET", f"/imports/{record['id']}"))[0] == 404)

    await eventually(forgotten)
    assert await importer.content(record) == b"hello"
    assert is_half(await importer.get(running))


# The setting


def test_networks_to_open_are_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FILE_SERVICE_IMPORT_ALLOW", "10.0.0.0/8, fd00::/8,192.168.1.1")
    assert [str(network) for network in from_environment().import_allow] == ["10.0.0.0/8", "fd00::/8", "192.168.1.1/32"]
    monkeypatch.setenv("FILE_SERVICE_IMPORT_ALLOW", "")
    assert from_environment().import_allow == ()
    assert ("FILE_SERVICE_IMPORT_ALLOW", "") in [row[:2] for row in table()]


@pytest.mark.parametrize("value", ["x", "10.0.0.1/8", "10.0.0.0/33", "10.0.0.0/8;fd00::/8", "localhost"])
def test_a_network_that_is_none_stops_the_start_by_its_name(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("FILE_SERVICE_IMPORT_ALLOW", value)
    with pytest.raises(BadSettings, match=r"^FILE_SERVICE_IMPORT_ALLOW: "):
        from_environment()
