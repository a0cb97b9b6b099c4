"""`telegram send` and `telegram import` as processes, between a Bot API server and the real service."""

import asyncio
import hashlib
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from click.testing import CliRunner

from file_service.clients.commands import telegram
from tests.clients.acts import CONTENT, NOWHERE, PATH, made
from tests.clients.bot_server import TOKEN, BotServer, cuts, error, gives, reads_then

ROOT = Path(__file__).parent.parent.parent
COMMAND = [sys.executable, "-c", "from file_service.clients.commands import telegram; telegram()"]
VARIABLE = {"FILE_SERVICE_TELEGRAM_TOKEN": TOKEN}


@dataclass
class Done:
    """How a command ended."""

    status: int
    out: str
    err: str


async def run(*arguments: object, variables: dict[str, str] = VARIABLE, given: bytes = b"") -> Done:
    """Run `telegram` with the arguments; `given` is its standard input."""
    environment = os.environ | variables | {"PYTHONPATH": str(ROOT)}
    process = await asyncio.create_subprocess_exec(
        *COMMAND,
        *map(str, arguments),
        env=environment,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate(given)
    assert TOKEN not in (out + err).decode()
    return Done(process.returncode or 0, out.decode(), err.decode())


async def stored(url: str) -> list[dict[str, Any]]:
    """The records of all files in the service."""
    async with aiohttp.ClientSession() as session, session.get(f"{url}/files") as answer:
        return list((await answer.json())["files"])


async def test_files_are_sent_and_their_ids_printed(server: BotServer, tmp_path: Path) -> None:
    first, second = made(tmp_path / "Отчёт.pdf"), made(tmp_path / "b", b"b")
    done = await run("send", first, second, "--chat", "-100", "--caption", "Привет", "--api", server.url)
    assert (done.status, done.err) == (0, "")
    assert done.out.split() == [f"id:{hashlib.sha256(content).hexdigest()}" for content in (CONTENT, b"b")]
    assert [(call.filename, call.fields["chat_id"]) for call in server.calls] == [("Отчёт.pdf", "-100"), ("b", "-100")]
    assert server.calls[0].fields["caption"] == "Привет"


async def test_standard_input_is_sent_and_the_token_read_from_a_file(server: BotServer, tmp_path: Path) -> None:
    token = made(tmp_path / "token", f"{TOKEN}\n".encode())
    options = ["--chat", 1, "--name", "log.txt", "--api", server.url, "--token-file", token]
    done = await run("send", "-", *options, variables={}, given=CONTENT)
    assert done.status == 0, done.err
    assert [(call.filename, call.size) for call in server.calls] == [("log.txt", len(CONTENT))]


async def test_the_first_failure_is_the_exit_status_and_the_rest_is_sent(server: BotServer, tmp_path: Path) -> None:
    path = made(tmp_path / "file")
    server.script.append(reads_then(lambda: error(403, "Forbidden: bot was kicked")))
    done = await run("send", path, tmp_path / "missing", path, "--chat", 1, "--api", server.url)
    assert (done.status, len(done.out.split())) == (3, 1)
    assert f"file-service: {path}: Forbidden: bot was kicked (403)\n" in done.err
    assert "No such file" in done.err


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["--api", NOWHERE, "--retries", 0], 4, "No connection"),
        (["--limit", 3], 3, "more than 3 bytes"),
        (["--token-file", "/nowhere"], 2, "/nowhere: No such file"),
        (["--token-file", "/dev/null"], 2, "token has letters"),
        (["--api", "ftp://h"], 2, "must begin with http"),
    ],
)
async def test_what_goes_wrong_is_said_in_a_line(
    tmp_path: Path, arguments: list[object], status: int, words: str
) -> None:
    done = await run("send", made(tmp_path / "file"), "--chat", 1, *arguments)
    assert (done.status, done.out) == (status, "")
    assert words in done.err
    assert "Traceback" not in done.err


async def test_the_limit_can_be_lifted(server: BotServer, tmp_path: Path) -> None:
    large = tmp_path / "large"
    large.touch()
    os.truncate(large, (50 << 20) + 1)
    arguments = ["send", large, "--chat", 1, "--api", server.url]
    assert (await run(*arguments)).status == 3
    assert server.calls == []
    assert (await run(*arguments, "--limit", 0)).status == 0
    assert server.calls[0].size == (50 << 20) + 1


@pytest.mark.parametrize("arguments", [["send", "file", "--chat", "1"], ["import", "id"]])
def test_without_a_token_nothing_is_tried(arguments: list[str]) -> None:
    done = CliRunner().invoke(telegram, arguments)
    assert (done.exit_code, done.stdout) == (2, "")
    assert "FILE_SERVICE_TELEGRAM_TOKEN" in done.stderr


async def test_a_file_is_imported_into_the_service(server: BotServer, serve: Callable[..., Any]) -> None:
    url = await serve()
    server.files |= {PATH: CONTENT, "documents/Отчёт.pdf": b""}
    done = await run("import", f"id:{PATH}", "id:documents/Отчёт.pdf", "--to", url, "--api", server.url)
    assert (done.status, done.err) == (0, "")
    assert all(link.startswith(f"{url}/files/") for link in done.out.split())
    second, first = await stored(url)
    assert (first["name"], first["sha256"]) == ("file_0.pdf", hashlib.sha256(CONTENT).hexdigest())
    assert (second["name"], second["size"]) == ("Отчёт.pdf", 0)
    assert [link.rpartition("/files/")[2] for link in done.out.split()] == [f"{first['id']}/", f"{second['id']}/"]


async def test_an_import_that_breaks_off_begins_again_and_is_stored_once(
    server: BotServer, serve: Callable[..., Any]
) -> None:
    url = await serve()
    server.files[PATH] = CONTENT
    good = server.behave
    server.script.extend([good, gives(CONTENT[:-1], length=len(CONTENT), then="cut"), good])
    done = await run("import", f"id:{PATH}", "--to", url, "--api", server.url, "--name", "mine.pdf")
    assert done.status == 0, done.err
    assert "Trying again" in done.err
    assert [(file["name"], file["size"]) for file in await stored(url)] == [("mine.pdf", len(CONTENT))]


async def test_an_import_that_stays_broken_stores_nothing(server: BotServer, serve: Callable[..., Any]) -> None:
    url = await serve()
    server.files[PATH] = CONTENT
    server.script.extend([server.behave, *[gives(CONTENT[:-1], length=None)] * 2, *[cuts] * 9])
    done = await run("import", f"id:{PATH}", "--to", url, "--api", server.url, "--retries", 1, "--quiet")
    assert (done.status, done.out) == (4, "")
    assert done.err == f"file-service: id:{PATH}: Telegram did not send the {len(CONTENT)} bytes of the file.\n"
    assert await stored(url) == []


async def test_an_import_that_the_service_refuses_is_not_fetched_again(
    server: BotServer, serve: Callable[..., Any]
) -> None:
    url = await serve(max_file_size=5)
    server.files[PATH] = CONTENT
    done = await run("import", f"id:{PATH}", "--to", url, "--api", server.url)
    assert (done.status, done.out) == (3, "")
    assert "413" in done.err
    assert len(server.calls) == 2


async def test_an_import_over_the_limit_is_refused(server: BotServer, serve: Callable[..., Any]) -> None:
    url = await serve()
    server.files[PATH] = CONTENT
    done = await run("import", f"id:{PATH}", "--to", url, "--api", server.url, "--limit", 5)
    assert (done.status, await stored(url)) == (3, [])


@pytest.mark.parametrize(
    "arguments",
    [
        ["send", "-", "-", "--chat", "1"],
        ["send", "a", "b", "--chat", "1", "--name", "n"],
        ["import", "a", "b", "--name", "n"],
        ["import", "a", "--to", "ftp://h"],
        ["send", "a"],
        ["import"],
    ],
)
def test_wrong_usage_is_said(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FILE_SERVICE_TELEGRAM_TOKEN", TOKEN)
    done = CliRunner().invoke(telegram, arguments)
    assert (done.exit_code, done.stdout) == (2, "")
    assert "Error: " in done.stderr
    assert TOKEN not in done.output
