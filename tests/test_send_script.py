"""`scripts/send.py` and `file-service send | fetch` as programs: output, exit statuses, signals, memory."""

import asyncio
import os
import pty
import re
import shutil
import signal
import ssl
import subprocess
import sys
import termios
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from aiohttp import web

from file_service.names import parse_disposition
from tests.support.odd_server import Behaviour, OddServer, Request, description, go_on, odd_server, problem, read

ROOT = Path(__file__).parent.parent
SCRIPT = [sys.executable, str(ROOT / "scripts" / "send.py")]
COMMANDS = "import sys; sys.path.insert(0, {root!r}); from file_service.commands import fetch, send; {command}()"
CONTENT = os.urandom(1_000_000)


class Outcome(NamedTuple):
    status: int
    out: bytes
    err: str


def command(name: str, *arguments: object) -> list[str]:
    code = COMMANDS.format(root=str(ROOT), command=name)
    return [sys.executable, "-c", code, *map(str, arguments)]


async def run(*arguments: object, given: bytes | None = None, cwd: Path | None = None, **environment: str) -> Outcome:
    """Run to the end; `given` is standard input."""
    process = await asyncio.create_subprocess_exec(
        *map(os.fspath, map(str, arguments)),
        stdin=subprocess.DEVNULL if given is None else subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=cwd,
        env={**os.environ, **environment},
    )
    out, err = await process.communicate(given)
    assert process.returncode is not None
    return Outcome(process.returncode, out, err.decode())


@pytest.fixture
async def server() -> AsyncIterator[OddServer]:
    async with odd_server() as running:
        running.content = CONTENT
        running.headers["Content-Disposition"] = 'attachment; filename="data.bin"'
        yield running


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "data.bin"
    path.write_bytes(CONTENT)
    return path


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# send


async def test_the_script_sends_by_flags_and_prints_the_link_alone(server: OddServer, file: Path) -> None:
    port = server.url.split(":")[2].split("/")[0]
    flags = ["--protocol", "http", "--host", "127.0.0.1", "--port", port, "--url", "/files", "--chunk-size", "65536"]
    outcome = await run(*SCRIPT, *flags, "--path", file, cwd=file.parent)
    assert outcome == (0, f"{server.url}/1000000/\n".encode(), "")
    assert server.requests[0].body == CONTENT


async def test_the_script_sends_to_an_address(server: OddServer, file: Path) -> None:
    assert await run(*SCRIPT, "data.bin", "--to", server.url, cwd=file.parent) == (
        0,
        f"{server.url}/1000000/\n".encode(),
        "",
    )


async def test_several_files_are_sent_and_the_first_failure_counts(server: OddServer, file: Path) -> None:
    missing = file.parent / "missing"
    server.script.append(problem(413, "Too much."))
    outcome = await run(*SCRIPT, "--to", server.url, file, missing, file, "--path", file.parent)
    assert (outcome.status, outcome.out) == (3, f"{server.url}/1000000/\n".encode())
    assert outcome.err.splitlines() == [
        f"file-service: {file}: Too much. (413)",
        f"file-service: {missing}: {missing}: No such file or directory.",
        f"file-service: {file.parent}: It is a folder.",
    ]


@pytest.mark.parametrize("redirected", [False, True], ids=["pipe", "file"])
async def test_standard_input_is_sent_in_chunks(server: OddServer, file: Path, redirected: bool) -> None:
    arguments = [*SCRIPT, "--to", server.url, "-", "--name", "dump ☃.sql"]
    if redirected:
        arguments = ["/bin/sh", "-c", f'exec "$@" < {file}', "sh", *arguments]
    assert (await run(*arguments, given=None if redirected else CONTENT)).status == 0
    (seen,) = server.requests
    assert seen.body == CONTENT
    assert seen.headers["Transfer-Encoding"] == "chunked"
    assert parse_disposition([seen.headers["Content-Disposition"]]) == "dump ☃.sql"


async def test_a_file_is_sent_again_and_standard_input_is_not(server: OddServer, file: Path) -> None:
    async def read_and_fail(request: web.Request, seen: Request) -> web.StreamResponse:
        await read(request, seen)
        return await problem(503, "Later.", Retry_After="0")(request, seen)

    server.script.append(read_and_fail)
    outcome = await run(*SCRIPT, "--to", server.url, file)
    assert (outcome.status, outcome.err) == (0, f"file-service: {file}: Later. (503) Trying again in 0.0 s.\n")
    server.script.append(read_and_fail)
    outcome = await run(*SCRIPT, "--to", server.url, "-", given=CONTENT)
    assert (outcome.status, outcome.err) == (4, "file-service: -: Later. (503)\n")
    assert len(server.requests) == 3


async def wrong_digest(request: web.Request, seen: Request) -> web.StreamResponse:
    await read(request, seen)
    return web.json_response({"url": "/1/", "sha256": "00" * 32}, status=201)


@pytest.mark.parametrize(
    ("behaviour", "status", "words"),
    [
        (problem(404, "No such place."), 3, "No such place. (404)"),
        (problem(507, "Full."), 4, "Full. (507)"),
        (wrong_digest, 5, "SHA-256"),
    ],
)
async def test_the_exit_status_tells_what_failed(
    server: OddServer, file: Path, behaviour: Behaviour, status: int, words: str
) -> None:
    server.script.append(behaviour)
    outcome = await run(*SCRIPT, "--to", server.url, file)
    assert (outcome.status, outcome.out) == (status, b"")
    assert words in outcome.err
    assert outcome.err.count("\n") == 1


async def test_no_server_is_a_failure_of_the_network(file: Path) -> None:
    outcome = await run(*SCRIPT, "--port", "1", "--retries", "0", file)
    assert (outcome.status, outcome.err) == (
        4,
        f"file-service: {file}: No connection to 127.0.0.1:1: Connection refused.\n",
    )


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["-", "-"],
        ["a", "b", "--name", "c"],
        ["a", "--to", "http://h", "--port", "1"],
        ["a", "--to", "localhost:8080"],
        ["a", "--to", "http://h:99999/"],
        ["a", "--port", "0"],
        ["a", "--chunk-size", "1"],
        ["a", "--protocol", "ftp"],
    ],
)
async def test_wrong_usage_is_status_2(arguments: list[str]) -> None:
    outcome = await run(*SCRIPT, *arguments)
    assert (outcome.status, outcome.out) == (2, b"")
    assert outcome.err.startswith("Usage: ")
    assert "Error: " in outcome.err


@pytest.mark.parametrize("name", ["send", "fetch"])
async def test_the_help_names_the_exit_statuses(name: str) -> None:
    outcome = await run(*command(name, "--help"))
    assert outcome.status == 0
    for status in (b"2", b"3", b"4", b"5", b"6", b"130"):
        assert re.search(rb"^  +%s +[a-z]" % status, outcome.out, re.MULTILINE)


@pytest.mark.parametrize(("flags", "expected"), [([], True), (["--quiet"], False)], ids=["loud", "quiet"])
async def test_progress_is_for_terminals(server: OddServer, file: Path, flags: list[str], expected: bool) -> None:
    async def read_slowly(request: web.Request, seen: Request) -> web.StreamResponse:
        await go_on(request)
        for _ in range(4):
            await asyncio.sleep(0.15)
            await request.content.readexactly(size // 4)
        return await wrong_digest(request, seen)

    size = 32 << 20
    os.truncate(file, size)
    server.script.append(read_slowly)
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 100))
    arguments = [*SCRIPT, "--to", server.url, str(file), *flags]
    process = await asyncio.create_subprocess_exec(*arguments, stdout=subprocess.DEVNULL, stderr=theirs)
    assert await process.wait() == 5
    os.write(theirs, b"the end")
    shown = b""
    while not shown.endswith(b"the end"):
        shown += os.read(ours, 65536)
    os.close(theirs)
    os.close(ours)
    assert bool(re.search(rb"data\.bin: +\d+%.*/32\.0M \[\d\d:\d\d<\d\d:\d\d, .*B/s\]", shown)) is expected
    assert b"SHA-256" in shown


@pytest.mark.skipif(not shutil.which("openssl"), reason="no openssl to make a certificate with")
async def test_https_proves_who_the_server_is(file: Path, tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    make = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    assert (await run(*make, *subject, "-keyout", key, "-out", certificate)).status == 0
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    async with odd_server(context) as server:
        outcome = await run(*SCRIPT, "--to", server.url, file)
        assert (outcome.status, outcome.err) == (
            4,
            f"file-service: {file}: The server's certificate does not prove who it is.\n",
        )
        outcome = await run(*SCRIPT, "--to", server.url, file, SSL_CERT_FILE=str(certificate))
        assert outcome == (0, f"{server.url}/1000000/\n".encode(), "")
        assert server.requests[0].body == CONTENT


# fetch


async def test_fetch_prints_the_path_of_the_file(server: OddServer, tmp_path: Path) -> None:
    assert await run(*command("fetch", server.url + "/1/"), cwd=tmp_path) == (0, b"data.bin\n", "")
    assert (tmp_path / "data.bin").read_bytes() == CONTENT
    outcome = await run(*command("fetch", server.url + "/1/?key=geheim"), cwd=tmp_path)
    assert (outcome.status, outcome.err) == (6, f"file-service: {server.url}/1/: data.bin exists already.\n")
    outcome = await run(*command("fetch", server.url + "/1/", "-o", "data.bin", "--force"), cwd=tmp_path)
    assert outcome == (0, b"data.bin\n", "")
    assert left(tmp_path) == ["data.bin"]


async def test_fetch_writes_to_standard_output(server: OddServer, tmp_path: Path) -> None:
    assert await run(*command("fetch", server.url + "/1/", "-o", "-"), cwd=tmp_path) == (0, CONTENT, "")
    server.headers["Repr-Digest"] = description(b"other")["Repr-Digest"]
    outcome = await run(*command("fetch", server.url + "/1/", "-o", "-"), cwd=tmp_path)
    assert (outcome.status, outcome.out) == (5, CONTENT)
    assert left(tmp_path) == []


async def test_fetch_reports_a_refusal(server: OddServer, tmp_path: Path) -> None:
    server.script.append(problem(404, "No such file."))
    outcome = await run(*command("fetch", server.url + "/1/"), cwd=tmp_path)
    assert outcome == (3, b"", f"file-service: {server.url}/1/: No such file. (404)\n")
    assert left(tmp_path) == []


# Signals


async def stall(request: web.Request, _: Request) -> web.StreamResponse:
    response = web.StreamResponse()
    response.content_length = 100_000_000
    await response.prepare(request)
    await response.write(bytes(1_000_000))
    await asyncio.sleep(60)
    return response


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_an_interrupted_download_leaves_nothing(
    server: OddServer, tmp_path: Path, number: signal.Signals
) -> None:
    server.script.append(stall)
    process = await started(*command("fetch", server.url + "/1/"), cwd=tmp_path)
    await until(lambda: [path for path in map(tmp_path.joinpath, left(tmp_path)) if path.stat().st_size])
    process.send_signal(number)
    _, err = await process.communicate()
    assert (process.returncode, err) == (128 + number, b"file-service: interrupted\n")
    assert left(tmp_path) == []


async def test_interrupting_an_upload_from_a_silent_pipe_ends_it(server: OddServer) -> None:
    async def wait_for_it(request: web.Request, seen: Request) -> web.StreamResponse:
        await go_on(request)
        seen.body = await request.content.readany()
        await asyncio.sleep(60)
        return web.Response()

    server.script.append(wait_for_it)
    process = await started(*SCRIPT, "--to", server.url, "-")
    assert process.stdin
    process.stdin.write(b"begun")
    await until(lambda: server.requests and server.requests[0].body)
    process.send_signal(signal.SIGINT)
    assert await asyncio.wait_for(process.wait(), 5) == 130
    process.stdin.close()


async def test_interrupting_a_download_into_a_full_pipe_ends_it(server: OddServer) -> None:
    reading, writing = os.pipe()
    arguments = command("fetch", server.url + "/1/", "-o", "-")
    process = await asyncio.create_subprocess_exec(*arguments, stdout=writing, stderr=subprocess.PIPE)
    os.close(writing)
    await until(lambda: server.requests)
    await asyncio.sleep(0.3)
    process.send_signal(signal.SIGINT)
    await asyncio.wait_for(process.communicate(), 5)
    assert process.returncode == -signal.SIGINT  # a shell calls it 130
    os.close(reading)


async def started(*arguments: object, cwd: Path | None = None) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *map(str, arguments), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=cwd
    )


async def until(happened: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not happened():  # noqa: ASYNC110  another process makes it happen
            await asyncio.sleep(0.01)


# Cost

MEASURED = """
import atexit, pathlib, re, sys
peak = lambda: re.search(r"VmHWM:\\s+(\\d+)", pathlib.Path("/proc/self/status").read_text())[1]
atexit.register(lambda: print("peak", peak(), file=sys.stderr))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no /proc to read the peak from")
async def test_memory_does_not_grow_with_the_file(server: OddServer, tmp_path: Path) -> None:
    async def measured(*arguments: str) -> int:
        arguments = (arguments[0], arguments[1], MEASURED + arguments[2], *arguments[3:])
        outcome = await run(*arguments, cwd=tmp_path)
        assert outcome.status == 0, outcome.err
        return int(outcome.err.rpartition(" ")[2])

    peaks = []
    for number, size in enumerate((64 << 20, 1 << 30)):
        path = tmp_path / str(number)
        path.touch()
        os.truncate(path, size)
        peaks.append(await measured(*command("send", "--to", server.url, path)))
        assert server.requests[-1].size == size
    assert peaks[1] - peaks[0] < 8 << 10, "KiB"
    server.script.extend([zeros(16 << 20), zeros(512 << 20)])
    peaks = [await measured(*command("fetch", server.url + "/1/", "-o", name)) for name in ("small", "large")]
    assert (tmp_path / "large").stat().st_size == 512 << 20
    assert peaks[1] - peaks[0] < 8 << 10, "KiB"


def zeros(size: int) -> Behaviour:
    async def answer(request: web.Request, __: Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in range(size >> 20):
            await response.write(bytes(1 << 20))
        return response

    return answer


async def test_help_loads_no_client_and_the_client_no_server() -> None:
    loaded = "print([m for m in sys.modules if m.split('.')[0] in {!r} or m in {!r}])"
    code = "import sys; sys.path.insert(0, {!r}); import file_service.{}; " + loaded
    heavy, server_parts = ["aiohttp", "aiofile", "tqdm", "tenacity"], ["file_service.service", "file_service.settings"]
    for module, packages in (("commands", heavy), ("client.console", ["sqlalchemy", "pydantic", "alembic", "uvloop"])):
        outcome = await run(sys.executable, "-c", code.format(str(ROOT), module, packages, server_parts))
        assert outcome == (0, b"[]\n", "")
