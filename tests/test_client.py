"""The client sending, to servers that behave, misbehave and break off: what arrives, what is reported."""

import asyncio
import hashlib
import os
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from socket import SO_LINGER, SOL_SOCKET, socket

import pytest
from aiohttp import web
from multidict import CIMultiDict, CIMultiDictProxy
from tenacity import wait_none
from yarl import URL

from file_service.client import Client, DigestMismatch, LocalProblem, RefusedByServer, ServerFailed, ServerUnreachable
from file_service.client import client as client_module
from file_service.client.answers import content_range, offered_name, printable, repr_digest, retry_after
from file_service.client.sending import read_descriptor
from file_service.names import parse_disposition
from tests.support.odd_server import (
    OddServer,
    Request,
    description,
    go_on,
    odd_server,
    problem,
    raw_server,
    read,
    stored,
)

LARGE = 32 << 20  # bytes: more than sockets and streams can hold between two ends of the loopback


@pytest.fixture(autouse=True)
def _no_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "BACKOFF", wait_none())


@pytest.fixture
async def server() -> AsyncIterator[OddServer]:
    async with odd_server() as running:
        yield running


@pytest.fixture
def large(tmp_path: Path) -> Path:
    path = tmp_path / "large.bin"
    path.touch()
    os.truncate(path, LARGE)
    return path


def made(path: Path, content: bytes = b"content") -> Path:
    path.write_bytes(content)
    return path


async def blocks(*content: bytes, pause: float = 0) -> AsyncIterator[bytes]:
    """The blocks with a pause between them."""
    for number, block in enumerate(content):
        await asyncio.sleep(pause if number else 0)
        yield block


async def endless() -> AsyncIterator[bytes]:
    while True:
        yield bytes(65536)


# Sending


async def test_a_file_arrives_byte_for_byte_with_its_length_and_name(server: OddServer, tmp_path: Path) -> None:
    content = os.urandom(700_001)
    async with Client(server.url) as client:
        answer = await client.send(made(tmp_path / "report.pdf", content))
    (seen,) = server.requests
    assert (seen.body, seen.path) == (content, "/files")
    assert seen.headers["Content-Length"] == "700001"
    assert "Transfer-Encoding" not in seen.headers
    assert seen.headers["Accept"] == "application/json"
    assert seen.headers["Content-Disposition"] == 'attachment; filename="report.pdf"'
    assert answer.link == server.url + "/700001/"
    assert (answer.size, answer.sha256) == (len(content), hashlib.sha256(content).hexdigest())


@pytest.mark.parametrize("size", [0, 1, 4096, 4097, 3 << 20])
async def test_every_size_arrives_whole(server: OddServer, tmp_path: Path, size: int) -> None:
    content = os.urandom(size)
    async with Client(server.url, block_size=4096) as client:
        await client.send(made(tmp_path / "f", content))
    assert server.requests[0].sha256 == hashlib.sha256(content).hexdigest()
    assert server.requests[0].size == size


async def test_a_stream_is_sent_in_chunks_under_the_given_name(server: OddServer) -> None:
    async with Client(server.url) as client:
        await client.send(blocks(b"one", b"", b"two"), name="dump.sql")
        await client.send(blocks())
    first, second = server.requests
    assert first.body == b"onetwo"
    assert first.headers["Transfer-Encoding"] == "chunked"
    assert parse_disposition([first.headers["Content-Disposition"]]) == "dump.sql"
    assert (second.complete, second.size) == (True, 0)
    assert "Content-Disposition" not in second.headers


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (b"na\xc3\xafve \xe2\x98\x83.txt", "naïve ☃.txt"),
        (b'quo"te;%41.txt', 'quo"te;%41.txt'),
        (b"caf\xe9.txt", "caf\ufffd.txt"),
    ],
    ids=["unicode", "quotes", "undecodable"],
)
async def test_any_file_name_can_be_sent(server: OddServer, tmp_path: Path, name: bytes, expected: str) -> None:
    async with Client(server.url) as client:
        await client.send(made(tmp_path / os.fsdecode(name)))
    assert parse_disposition([server.requests[0].headers["Content-Disposition"]]) == expected


async def test_a_server_alone_means_its_files(server: OddServer, tmp_path: Path) -> None:
    async with Client(server.url.removesuffix("/files")) as client:
        await client.send(made(tmp_path / "f"))
    assert server.requests[0].path == "/files"


async def test_the_password_in_the_address_goes_to_the_server_only(server: OddServer, tmp_path: Path) -> None:
    server.script.append(problem(403, "No."))
    async with Client(server.url.replace("//", "//user:geheim@")) as client:
        with pytest.raises(RefusedByServer) as refused:
            await client.send(made(tmp_path / "f"))
    assert server.requests[0].headers["Authorization"].startswith("Basic ")
    assert "geheim" not in str(refused.value)


@pytest.mark.parametrize("url", ["localhost:8080/files", "ftp://host/", "http://", "//host/files", "files"])
def test_an_address_without_scheme_and_host_is_an_error(url: str) -> None:
    with pytest.raises(ValueError, match=r"address|host"):
        Client(url)


# Refusals


async def test_a_large_body_is_refused_before_its_first_byte(server: OddServer, large: Path) -> None:
    server.script.append(problem(413, "At most 10 bytes."))
    async with Client(server.url) as client:
        with pytest.raises(RefusedByServer) as refused:
            await client.send(large)
        assert (refused.value.status, refused.value.detail) == (413, "At most 10 bytes.")
        assert server.requests[0].headers["Expect"] == "100-continue"
        await client.send(large)
    assert [seen.size for seen in server.requests] == [0, LARGE]


async def test_a_small_body_does_not_wait_for_permission(server: OddServer, tmp_path: Path) -> None:
    async with Client(server.url) as client:
        await client.send(made(tmp_path / "f"))
    assert "Expect" not in server.requests[0].headers


async def test_a_server_that_never_says_continue_gets_the_file(large: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "PATIENCE", 0.3)
    requests = []

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        requests.append(await reader.readuntil(b"\r\n\r\n"))
        digest = hashlib.sha256(await reader.readexactly(LARGE)).hexdigest()
        body = b'{"url": "/files/1/", "sha256": "%s"}' % digest.encode()
        writer.write(b"HTTP/1.1 201 Created\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
        await writer.drain()

    async with raw_server(converse) as url, Client(url, retries=0) as client:
        await client.send(large)
        await client.send(large)
    first, second, third = requests
    assert b"Expect" in first
    assert b"Expect" not in second
    assert b"Expect" not in third, "it is asked once"


async def test_a_server_that_refuses_expectations_gets_the_file(server: OddServer, large: Path) -> None:
    server.script.append(problem(417, "What?"))
    async with Client(server.url, retries=0) as client:
        await client.send(large)
    assert ["Expect" in seen.headers for seen in server.requests] == [True, False]
    assert server.requests[1].size == LARGE


async def test_an_early_answer_is_reported_while_the_body_still_comes(server: OddServer) -> None:
    async def refuse_midway(request: web.Request, seen: Request) -> web.StreamResponse:
        await go_on(request)
        await request.content.readexactly(100_000)
        return await problem(413, "Enough.")(request, seen)

    server.script.append(refuse_midway)
    async with Client(server.url) as client:
        with pytest.raises(RefusedByServer, match="Enough") as refused:
            await client.send(endless())
    assert refused.value.status == 413


def answer_and_reset(listening: socket, times: int) -> None:
    """Take half a megabyte, answer, close: what else has come makes the close a reset. Blocking, in its own thread."""
    body = b'{"detail": "Enough."}'
    for _ in range(times):
        connection, _ = listening.accept()
        with connection:
            connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
            taken = 0
            while taken < 500_000:
                taken += len(connection.recv(65536))
            connection.sendall(b"HTTP/1.1 413 Too Large\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))


async def test_an_answer_is_reported_though_the_connection_is_reset_behind_it() -> None:
    """A failing write discards an answer that has come but was not read. That is a race, so this counts."""
    answers = 0
    with socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        serving = asyncio.create_task(asyncio.to_thread(answer_and_reset, listening, 30))
        async with Client(f"http://127.0.0.1:{listening.getsockname()[1]}", retries=0) as client:
            for _ in range(30):
                with suppress(ServerUnreachable):
                    try:
                        await client.send(endless())
                    except RefusedByServer as refused:
                        answers += refused.detail == "Enough."
        await serving
    assert answers >= 24


@pytest.mark.parametrize("status", [400, 404, 409, 422, 500, 501, 507])
async def test_a_lasting_refusal_is_not_repeated(server: OddServer, tmp_path: Path, status: int) -> None:
    server.script.append(problem(status, "Because."))
    async with Client(server.url) as client:
        with pytest.raises(RefusedByServer if status < 500 else ServerFailed, match="Because"):
            await client.send(made(tmp_path / "f"))
    assert len(server.requests) == 1


async def test_a_redirect_is_reported_and_not_followed(server: OddServer, tmp_path: Path) -> None:
    async def redirect(_: web.Request, __: Request) -> web.StreamResponse:
        return web.Response(status=308, headers={"Location": "https://elsewhere.example/files?token=geheim"})

    server.script.append(redirect)
    async with Client(server.url) as client:
        with pytest.raises(RefusedByServer, match=r"redirects to https://elsewhere\.example/files \(308\)"):
            await client.send(made(tmp_path / "f"))
    assert len(server.requests) == 1


async def test_words_of_the_server_cannot_command_a_terminal(server: OddServer, tmp_path: Path) -> None:
    server.script.append(problem(400, "a\x1b[2Jb\nc" + "x" * 10_000))
    async with Client(server.url) as client:
        with pytest.raises(RefusedByServer) as refused:
            await client.send(made(tmp_path / "f"))
    assert refused.value.detail.startswith("a\ufffd[2Jb\ufffdcxx")
    assert len(refused.value.detail) == 500


async def test_a_refusal_is_reported_though_its_words_are_cut_off(tmp_path: Path) -> None:
    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"content")
        writer.write(b'HTTP/1.1 413 Too Large\r\nContent-Length: 99\r\n\r\n{"detail": "At')

    async with raw_server(converse) as url, Client(url) as client:
        with pytest.raises(RefusedByServer) as refused:
            await client.send(made(tmp_path / "f"))
    assert refused.value.status == 413


async def test_an_answer_without_end_is_not_read_to_its_end(tmp_path: Path) -> None:
    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"content")
        writer.write(b"HTTP/1.1 201 Created\r\n\r\n")
        while True:
            writer.write(bytes(65536))
            await writer.drain()

    async with raw_server(converse) as url, Client(url) as client, asyncio.timeout(10):
        with pytest.raises(ServerFailed):
            await client.send(made(tmp_path / "f"))


# Trying again


async def test_a_passing_failure_is_tried_again_with_the_same_key(server: OddServer, large: Path) -> None:
    server.script.extend([problem(503, "Later.", Retry_After="0"), problem(429, "Slower.")])
    notices: list[str] = []
    async with Client(server.url, notice=notices.append) as client:
        await client.send(large)
        await client.send(large)
    *tries, other = [seen.headers["Idempotency-Key"] for seen in server.requests]
    assert len(tries) == 3
    assert len(set(tries)) == 1
    assert other != tries[0], "another file has another key"
    assert server.requests[2].size == LARGE
    assert [notice.partition(" Trying")[0] for notice in notices] == ["Later. (503)", "Slower. (429)"]


async def test_no_server_can_ask_for_a_day_of_patience(
    server: OddServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "MAX_WAIT", 0.1)
    server.script.append(problem(503, "Tomorrow.", Retry_After="86400"))
    async with Client(server.url) as client, asyncio.timeout(10):
        await client.send(made(tmp_path / "f"))


async def test_a_lost_answer_does_not_store_twice(server: OddServer, tmp_path: Path) -> None:
    async def store_and_vanish(request: web.Request, seen: Request) -> web.StreamResponse:
        await read(request, seen)
        assert request.transport
        request.transport.get_extra_info("socket").setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))
        request.transport.abort()
        return web.Response()

    server.script.append(store_and_vanish)
    async with Client(server.url) as client:
        await client.send(made(tmp_path / "f"))
    first, second = server.requests
    assert first.body == second.body == b"content"
    assert first.headers["Idempotency-Key"] == second.headers["Idempotency-Key"]


async def test_the_number_of_tries_is_bounded(server: OddServer, tmp_path: Path) -> None:
    server.script.extend([problem(503, "Never.")] * 9)
    async with Client(server.url, retries=2) as client:
        with pytest.raises(ServerFailed, match="Never") as failed:
            await client.send(made(tmp_path / "f"))
    assert failed.value.status == 503
    assert len(server.requests) == 3


async def test_a_stream_is_tried_again_only_while_nothing_of_it_was_read(server: OddServer) -> None:
    async def fail_after_reading(request: web.Request, seen: Request) -> web.StreamResponse:
        await read(request, seen)
        return await problem(503, "Later.")(request, seen)

    server.script.extend([problem(503, "Not yet."), fail_after_reading])
    async with Client(server.url) as client:
        with pytest.raises(ServerFailed, match="Later"):
            await client.send(blocks(b"once"))
    assert [seen.body for seen in server.requests] == [b"", b"once"]


async def test_a_connection_that_went_stale_between_two_files_costs_nothing(server: OddServer, tmp_path: Path) -> None:
    async def store_then_close(request: web.Request, seen: Request) -> web.StreamResponse:
        await read(request, seen)
        assert request.transport
        asyncio.get_running_loop().call_later(0.1, request.transport.close)
        return stored(seen)

    server.script.append(store_then_close)
    async with Client(server.url) as client:
        await client.send(made(tmp_path / "f"))
        await asyncio.sleep(0.2)
        await client.send(blocks(b"stream"))
    assert server.requests[-1].body == b"stream"


async def test_nobody_listening_is_reported_without_the_password(tmp_path: Path) -> None:
    with socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        async with Client(f"http://user:geheim@127.0.0.1:{port}/?key=geheim", retries=1) as client:
            with pytest.raises(ServerUnreachable) as failed:
                await client.send(made(tmp_path / "f"))
    assert str(failed.value) == f"No connection to 127.0.0.1:{port}: Connection refused."


@pytest.mark.parametrize(
    "answer", [b"", b"SSH-2.0-OpenSSH\r\n\r\n", b"HTTP/1.1 201 Created\r\nContent-Length: 99\r\n\r\n{"]
)
async def test_an_answer_that_is_none_is_reported_without_the_address(tmp_path: Path, answer: bytes) -> None:
    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"content")
        writer.write(answer)

    async with raw_server(converse) as url, Client(url + "?key=geheim", retries=0) as client:
        with pytest.raises(ServerUnreachable) as failed:
            await client.send(made(tmp_path / "f"))
    assert "geheim" not in str(failed.value)


# Waiting


async def test_a_server_that_takes_nothing_is_given_up(server: OddServer, large: Path) -> None:
    async def stall(request: web.Request, _: Request) -> web.StreamResponse:
        await go_on(request)
        await asyncio.sleep(60)
        return web.Response()

    server.script.append(stall)
    async with Client(server.url, retries=0, idle=0.3) as client:
        with pytest.raises(ServerUnreachable, match="took nothing"):
            await client.send(large)


async def test_an_upload_may_take_longer_than_the_idle_time(server: OddServer, large: Path) -> None:
    """What aiohttp calls sock_read would end this one: its clock starts with 100 Continue."""

    async def read_slowly_and_think(request: web.Request, seen: Request) -> web.StreamResponse:
        await go_on(request)
        for _ in range(8):
            await asyncio.sleep(0.15)
            seen.size += len(await request.content.readexactly(LARGE // 8))
        await asyncio.sleep(1)
        return web.json_response({"url": "/1/", "sha256": hashlib.sha256(bytes(LARGE)).hexdigest()}, status=201)

    server.script.append(read_slowly_and_think)
    async with Client(server.url, retries=0, idle=0.6) as client:
        await client.send(large)
    assert server.requests[0].size == LARGE


async def test_a_slow_source_is_not_a_stalled_server(server: OddServer) -> None:
    async with Client(server.url, retries=0, idle=0.2) as client:
        await client.send(blocks(b"one", b"two", pause=0.6))
    assert server.requests[0].body == b"onetwo"


async def test_a_server_that_dies_while_the_source_is_silent_is_noticed(server: OddServer) -> None:
    async def die(request: web.Request, _: Request) -> web.StreamResponse:
        await go_on(request)
        await request.content.readany()
        assert request.transport
        request.transport.abort()
        return web.Response()

    server.script.append(die)
    async with Client(server.url, retries=0) as client, asyncio.timeout(5):
        with pytest.raises(ServerUnreachable):
            await client.send(blocks(b"one", b"two", pause=60))


# The two ends do not agree


@pytest.mark.parametrize(
    ("record", "headers"),
    [
        ({"url": "/1/", "sha256": "00" * 32}, {}),
        ({"url": "/1/"}, description(b"other")),
        ({"url": "/1/", "sha256": hashlib.sha256(b"content").hexdigest()}, description(b"other")),
    ],
    ids=["record", "header", "one of both"],
)
async def test_another_digest_is_an_error(
    server: OddServer, tmp_path: Path, record: dict[str, str], headers: dict[str, str]
) -> None:
    async def answer(request: web.Request, seen: Request) -> web.StreamResponse:
        await read(request, seen)
        return web.json_response(record, status=201, headers=headers)

    server.script.append(answer)
    async with Client(server.url) as client:
        with pytest.raises(DigestMismatch):
            await client.send(made(tmp_path / "f"))
    assert len(server.requests) == 1


async def test_location_and_repr_digest_will_do(server: OddServer, tmp_path: Path) -> None:
    async def answer(request: web.Request, seen: Request) -> web.StreamResponse:
        await read(request, seen)
        return web.Response(status=201, text="7", headers={"Location": "7/", **description(b"content")})

    server.script.append(answer)
    async with Client(server.url + "/") as client:
        assert (await client.send(made(tmp_path / "f"))).link == server.url + "/7/"


@pytest.mark.parametrize(
    "text", ["", "[]", '{"url": "/1/"}', '{"sha256": "00"}', '{"url": 5, "sha256": []}', "[" * 99999]
)
async def test_a_success_that_proves_nothing_is_an_error(server: OddServer, tmp_path: Path, text: str) -> None:
    async def answer(request: web.Request, seen: Request) -> web.StreamResponse:
        await read(request, seen)
        return web.Response(status=201, text=text)

    server.script.append(answer)
    async with Client(server.url) as client:
        with pytest.raises(ServerFailed, match="is this a file service"):
            await client.send(made(tmp_path / "f"))


async def test_a_success_before_the_end_of_the_body_is_an_error(server: OddServer, large: Path) -> None:
    async def answer(request: web.Request, _: Request) -> web.StreamResponse:
        await go_on(request)
        await request.content.readany()
        return web.json_response({"url": "/1/", "sha256": hashlib.sha256(bytes(LARGE)).hexdigest()}, status=201)

    server.script.append(answer)
    async with Client(server.url) as client:
        with pytest.raises(ServerFailed, match="before it had the whole body"):
            await client.send(large)


# This end fails


def overwrite(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(b"x")


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda path: os.truncate(path, LARGE // 2), id="shrinks"),
        pytest.param(lambda path: os.truncate(path, LARGE + 1), id="grows"),
        pytest.param(overwrite, id="is written to"),
    ],
)
async def test_a_file_that_changes_while_it_is_sent_is_not_stored(
    server: OddServer, large: Path, change: Callable[[Path], None]
) -> None:
    async def change_midway(request: web.Request, seen: Request) -> web.StreamResponse:
        await go_on(request)
        await request.content.readany()
        change(large)
        await read(request, seen)
        return stored(seen)

    server.script.append(change_midway)
    async with Client(server.url) as client:
        with pytest.raises(LocalProblem, match="changed while it was being sent"):
            await client.send(large)
    await asyncio.sleep(0.05)
    assert [seen.complete for seen in server.requests] == [False]


async def test_what_is_no_regular_file_is_an_error(server: OddServer, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    async with Client(server.url) as client:
        for path, words in [
            (tmp_path, "folder"),
            (tmp_path / "fifo", "not a regular file"),
            (tmp_path / "missing", "missing: No such file or directory"),
        ]:
            with pytest.raises(LocalProblem, match=words):
                await client.send(path)
    assert server.requests == []


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no /proc")
async def test_a_file_that_only_claims_to_be_empty_is_an_error(server: OddServer) -> None:
    async with Client(server.url) as client:
        with pytest.raises(LocalProblem, match="changed"):
            await client.send("/proc/self/status")


async def test_a_stream_that_fails_fails_as_itself(server: OddServer) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"one"
        raise ZeroDivisionError

    async with Client(server.url) as client:
        with pytest.raises(ZeroDivisionError):
            await client.send(broken())
    await asyncio.sleep(0.05)
    assert [seen.complete for seen in server.requests] == [False]


async def test_a_descriptor_is_read_to_its_end_whatever_it_is(tmp_path: Path) -> None:
    async def everything(descriptor: int) -> bytes:
        return b"".join([block async for block in read_descriptor(descriptor, 4)])

    reading, writing = os.pipe()
    os.write(writing, b"0123456789")
    os.close(writing)
    assert await everything(reading) == b"0123456789"
    os.close(reading)
    for path, content in [(made(tmp_path / "f", b"0123456789"), b"0123456789"), (Path(os.devnull), b"")]:
        descriptor = os.open(path, os.O_RDONLY)
        assert await everything(descriptor) == content
        os.close(descriptor)


async def test_waiting_for_a_silent_descriptor_can_be_cancelled() -> None:
    reading, writing = os.pipe()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await anext(read_descriptor(reading, 4))
    os.write(writing, b"late")
    assert await anext(read_descriptor(reading, 4)) == b"late"
    os.close(reading)
    os.close(writing)


# What an answer says


@pytest.mark.parametrize(
    ("field", "seconds"),
    [("0", 0), ("120", 120), (" 5 ", 5), ("", None), ("soon", None), ("-1", None), ("1.5", None), ("1" * 10, None)],
)
def test_retry_after_in_seconds(field: str, seconds: float | None) -> None:
    assert retry_after(field) == seconds


def test_retry_after_as_a_date() -> None:
    now = datetime.now(UTC)
    assert retry_after(format_datetime(now + timedelta(seconds=90), usegmt=True)) == pytest.approx(90, abs=2)
    assert retry_after(format_datetime(now - timedelta(seconds=90), usegmt=True)) == 0


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        ("bytes 5-9/10", (5, 10)),
        ("bytes 5-9/*", (5, None)),
        ("bytes */10", (-1, None)),
        ("items 5-9/10", (-1, None)),
        ("bytes 5-9/" + "9" * 19, (-1, None)),
        ("", (-1, None)),
    ],
)
def test_content_range(field: str, expected: tuple[int, int | None]) -> None:
    assert content_range(header("Content-Range", field)) == expected


def test_repr_digest_is_found_among_others() -> None:
    field = description(b"x")["Repr-Digest"]
    digest = hashlib.sha256(b"x").digest()
    assert repr_digest(header("Repr-Digest", f"md5=:AAAA:, {field}")) == digest
    assert repr_digest(header("Repr-Digest", field.replace("sha-256", "sha-512"))) is None
    assert repr_digest(header("Repr-Digest", "sha-256=:AAAA:")) is None
    assert repr_digest(header("Digest", field)) is None


@pytest.mark.parametrize(
    ("url", "disposition", "name"),
    [
        ("http://h/files/1/", 'attachment; filename="a.txt"', "a.txt"),
        ("http://h/files/1/", "attachment; filename=a; filename=b", "1"),
        ("http://h/files/1/", "", "1"),
        ("http://h/files/b%20c.txt?d=e", "", "b c.txt"),
        ("http://h/", "", ""),
    ],
)
def test_the_name_is_the_servers_or_that_of_the_link(url: str, disposition: str, name: str) -> None:
    assert offered_name(URL(url), header("Content-Disposition", disposition)) == name


def test_printable_leaves_one_line() -> None:
    assert printable("naïve ☃\r\n\x1b[0m\u202e\udcff") == "naïve ☃\ufffd\ufffd\ufffd[0m\ufffd\ufffd"


def header(name: str, value: str) -> CIMultiDictProxy[str]:
    return CIMultiDictProxy(CIMultiDict({name: value} if value else {}))
