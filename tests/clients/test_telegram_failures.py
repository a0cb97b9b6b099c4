"""The Telegram client when the Bot API refuses, asks to wait, breaks off or is not there."""

import asyncio
import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from aiohttp import web
from tenacity import wait_fixed

from file_service.clients import bot_session
from file_service.clients.telegram import (
    ChatMigrated,
    FloodWait,
    TelegramClient,
    TelegramError,
    TelegramRefused,
    TelegramUnreachable,
)
from tests.clients.acts import ACTS, CONTENT, NOWHERE, PATH, Act, blocks, get, html, send
from tests.clients.bot_server import TOKEN, BotServer, cuts, error, reads_then, result, says, stalls


@ACTS
async def test_after_too_many_requests_the_seconds_asked_for_are_waited(
    server: BotServer, tmp_path: Path, act: Act
) -> None:
    server.files[PATH] = CONTENT
    server.script.append(reads_then(lambda: error(429, "Too Many Requests: retry after 1", retry_after=1)))
    notices: list[str] = []
    clock = asyncio.get_running_loop().time
    started = clock()
    async with TelegramClient(TOKEN, server.url, notice=notices.append) as client:
        await act(client, tmp_path)
    assert clock() - started >= 1
    assert notices == ["Too Many Requests: retry after 1 (429) Trying again in 1.0 s."]
    assert len(server.calls) == 2


@ACTS
async def test_a_wait_that_is_too_long_is_the_callers(
    server: BotServer, client: TelegramClient, tmp_path: Path, act: Act
) -> None:
    server.script.append(reads_then(lambda: error(429, "Too Many Requests: retry after 3600", retry_after=3600)))
    with pytest.raises(FloodWait) as raised:
        await act(client, tmp_path)
    assert (raised.value.retry_after, raised.value.code, len(server.calls)) == (3600, 429, 1)


@ACTS
@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (lambda: error(429, "Too Many Requests: retry after 0", retry_after=0), FloodWait),
        (lambda: html(429), TelegramRefused),
        (lambda: error(500, "Internal Server Error"), TelegramError),
        (lambda: html(502), TelegramError),
        (lambda: error(504, "Gateway Timeout"), TelegramError),
    ],
)
async def test_passing_failures_are_tried_again_and_no_more_than_told(
    server: BotServer, tmp_path: Path, act: Act, answer: Callable[[], web.Response], kind: type[TelegramError]
) -> None:
    server.files[PATH] = CONTENT
    server.script.extend([reads_then(answer)] * 2)
    async with TelegramClient(TOKEN, server.url, retries=2) as client:
        await act(client, tmp_path)
        assert len(server.calls) == 3
        server.script.extend([reads_then(answer)] * 9)
        with pytest.raises(kind) as raised:
            await act(client, tmp_path)
    assert type(raised.value) is kind
    assert raised.value.code == answer().status
    assert len(server.calls) == 6


@ACTS
async def test_a_broken_connection_is_tried_again(
    server: BotServer, client: TelegramClient, tmp_path: Path, act: Act
) -> None:
    server.files[PATH] = CONTENT
    server.script.extend([cuts, cuts])
    await act(client, tmp_path)
    assert len(server.calls) == 3


@ACTS
async def test_a_silent_server_is_given_up(server: BotServer, tmp_path: Path, act: Act, hasty: None) -> None:
    server.script.append(stalls)
    async with TelegramClient(TOKEN, server.url, retries=0, idle=0.1) as client:
        with pytest.raises(TelegramUnreachable, match="too long"):
            await act(client, tmp_path)


@ACTS
async def test_a_server_that_is_not_there_is_said_so(tmp_path: Path, act: Act) -> None:
    notices: list[str] = []
    async with TelegramClient(TOKEN, NOWHERE, retries=1, notice=notices.append) as client:
        with pytest.raises(TelegramUnreachable, match=r"No connection to 127.0.0.1:1: Connection refused\."):
            await act(client, tmp_path)
    assert len(notices) == 1


@ACTS
@pytest.mark.parametrize(
    "refusal",
    [(400, "Bad Request: chat not found"), (401, "Unauthorized"), (403, "Forbidden: bot was blocked by the user")],
)
async def test_a_refusal_is_raised_at_once_in_the_servers_words(
    server: BotServer, client: TelegramClient, tmp_path: Path, act: Act, refusal: tuple[int, str]
) -> None:
    code, description = refusal
    server.script.append(reads_then(lambda: error(code, description)))
    with pytest.raises(TelegramRefused) as raised:
        await act(client, tmp_path)
    assert (raised.value.code, raised.value.description, str(raised.value)) == (
        code,
        description,
        f"{description} ({code})",
    )
    assert len(server.calls) == 1


async def test_a_refusal_before_the_body_is_read_is_heard(server: BotServer, tmp_path: Path) -> None:
    large = tmp_path / "large"
    large.touch()
    os.truncate(large, 32 << 20)
    server.script.append(says(lambda: error(413, "Request Entity Too Large")))
    async with TelegramClient(TOKEN, server.url, retries=0) as client:
        with pytest.raises(TelegramRefused, match="Too Large"):
            await client.send_document(1, large)


async def test_a_group_that_moved_has_its_new_id(server: BotServer, client: TelegramClient, tmp_path: Path) -> None:
    description = "Bad Request: group chat was upgraded to a supergroup chat"
    server.script.append(reads_then(lambda: error(400, description, migrate_to_chat_id=-1009)))
    with pytest.raises(ChatMigrated) as raised:
        await send(client, tmp_path)
    assert (raised.value.chat_id, raised.value.description) == (-1009, description)


@pytest.mark.parametrize("act", [get, send])
@pytest.mark.parametrize(
    "answer",
    [
        lambda: web.Response(text="hello"),
        web.Response,
        lambda: web.Response(text="[" * 100_000),
        lambda: web.json_response([1]),
        lambda: web.json_response({"ok": "true", "result": {}}),
        lambda: web.json_response({"ok": True}),
        lambda: result([]),
        lambda: result({"file_id": 3, "message_id": "x"}),
        lambda: web.Response(body=b"x" * (3 << 20)),
        lambda: web.Response(status=302, headers={"Location": NOWHERE}),
    ],
)
async def test_what_is_no_answer_of_the_api_is_an_error(
    server: BotServer, client: TelegramClient, tmp_path: Path, act: Act, answer: Callable[[], web.Response]
) -> None:
    server.script.append(reads_then(answer))
    with pytest.raises(TelegramError, match="no answer of the Bot API"):
        await act(client, tmp_path)
    assert len(server.calls) == 1


async def test_a_stream_of_which_something_was_read_is_not_sent_again(
    server: BotServer, client: TelegramClient
) -> None:
    server.script.append(reads_then(lambda: html(502)))
    with pytest.raises(TelegramError):
        await client.send_document(1, blocks(CONTENT))
    assert len(server.calls) == 1


async def test_a_stream_of_which_nothing_was_read_is_sent_when_the_server_comes_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bot_session, "BACKOFF", wait_fixed(0.1))
    server = BotServer()
    app = web.Application(client_max_size=1 << 60)
    app.router.add_post("/bot{token}/{what}", server.handle)
    runner = web.AppRunner(app)
    await runner.setup()
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        starting: list[asyncio.Task[None]] = []

        def start(_: str) -> None:
            starting.append(asyncio.create_task(web.SockSite(runner, listener).start()))

        async with TelegramClient(TOKEN, url, notice=start) as client:
            await client.send_document(1, blocks(CONTENT))
        await runner.cleanup()
    assert [call.size for call in server.calls] == [len(CONTENT)]
    assert len(starting) == 1


@pytest.mark.parametrize("token", ["", "a b", "a/b", "1:a\n", "1:a?", "1:é", "%31"])
def test_what_is_no_token_is_refused_and_not_repeated(token: str) -> None:
    with pytest.raises(ValueError, match="token has letters") as raised:
        TelegramClient(token)
    assert not token or token not in str(raised.value)


@pytest.mark.parametrize("address", ["ftp://h", "api.telegram.org", "http://", ""])
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(ValueError, match="must begin with http"):
        TelegramClient(TOKEN, address)
