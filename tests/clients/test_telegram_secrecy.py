"""The bot's token shows in no error, log, trace or `repr`, whatever fails."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from file_service.client.errors import TransferError
from file_service.clients.telegram import TelegramClient, TelegramUnreachable
from tests.clients.acts import ACTS, CONTENT, NOWHERE, PATH, Act, download, get, html, send
from tests.clients.bot_server import TOKEN, Behaviour, BotServer, Call, cuts, error, gives, says, stalls
from tests.clients.conftest import LookOut

FAILURES: dict[str, Behaviour] = {
    "refused": says(lambda: error(400, "Bad Request")),
    "flood": says(lambda: error(429, "Too Many Requests", retry_after=0)),
    "gateway": says(lambda: html(502)),
    "garbage": says(lambda: web.Response(text="hello")),
    "echo": says(lambda: error(404, f"/bot{TOKEN}/getFile was not found")),
    "redirect": says(lambda: web.Response(status=307, headers={"Location": f"/bot{TOKEN}/elsewhere"})),
    "cut": cuts,
    "stall": stalls,
    "half": gives(b"{", length=100, then="cut"),
    "halted": gives(b"{", length=100, then="stall"),
    "bad header": says(lambda: web.Response(headers={"X": "y" * 100_000})),
    "bad length": gives(b"1234", length=2),
}
UNNOTICED = [(download, "garbage"), (download, "bad length")]  # what else than a file should it be?


@ACTS
@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("failure", FAILURES)
async def test_the_token_shows_nowhere_whatever_fails(
    server: BotServer, tmp_path: Path, act: Act, failure: str, look_out: LookOut
) -> None:
    server.script.extend([FAILURES[failure]] * 9)
    notices: list[str] = []
    client = TelegramClient(TOKEN, server.url, retries=1, idle=0.1, notice=notices.append)
    async with client:
        if (act, failure) in UNNOTICED:
            await act(client, tmp_path)
        else:
            with pytest.raises(TransferError) as raised:
                await act(client, tmp_path)
            look_out.note(raised.value)
    assert server.calls
    assert "127.0.0.1" in look_out.text()
    assert TOKEN not in look_out.text() + repr(notices) + repr(client) + repr(vars(client))


@ACTS
@pytest.mark.parametrize("url", [NOWHERE, "http://name.invalid", "https://127.0.0.1:{port}"])
async def test_the_token_shows_nowhere_when_there_is_no_connection(
    server: BotServer, tmp_path: Path, act: Act, url: str, look_out: LookOut
) -> None:
    url = url.format(port=server.url.rpartition(":")[2])
    async with TelegramClient(TOKEN, url, retries=1) as client:
        with pytest.raises(TelegramUnreachable) as raised:
            await act(client, tmp_path)
    look_out.note(raised.value)
    assert "name.invalid" in look_out.text() or "127.0.0.1" in look_out.text()
    assert TOKEN not in look_out.text()


async def test_the_token_shows_nowhere_when_a_request_is_cancelled_or_its_stream_fails(
    server: BotServer, look_out: LookOut
) -> None:
    async def failing() -> AsyncIterator[bytes]:
        yield CONTENT
        raise ZeroDivisionError

    async def waits(request: web.Request, call: Call) -> web.StreamResponse:
        arrived.set()
        return await stalls(request, call)

    arrived = asyncio.Event()
    server.script.append(waits)
    async with TelegramClient(TOKEN, server.url) as client:
        task = asyncio.create_task(client.get_file("a"))
        await arrived.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        with pytest.raises(ZeroDivisionError) as raised:
            await client.send_document(1, failing())
    look_out.note(raised.value)
    assert TOKEN not in look_out.text()


async def test_the_token_shows_nowhere_when_all_is_well(server: BotServer, tmp_path: Path, look_out: LookOut) -> None:
    server.files[PATH] = CONTENT
    async with TelegramClient(TOKEN, server.url) as client:
        for act in (get, download, send):
            await act(client, tmp_path)
    assert "/bot*secret*/getFile" in look_out.text()
    assert TOKEN not in look_out.text()
