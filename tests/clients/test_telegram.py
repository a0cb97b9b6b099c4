"""The Telegram client against a server that speaks the Bot API: what comes, what arrives, what is not even tried."""

import hashlib
import os
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from file_service.client.errors import LocalProblem
from file_service.clients import telegram
from file_service.clients.telegram import (
    Document,
    File,
    TelegramClient,
    TelegramRefused,
    TelegramUnreachable,
    TooLarge,
)
from tests.clients.acts import CONTENT, PATH, blocks, made, names
from tests.clients.bot_server import DATE, TOKEN, Behaviour, BotServer, cuts, gives, result, says, stalls


def methods(server: BotServer) -> list[str]:
    return [call.method for call in server.calls]


# getFile


async def test_a_file_has_the_fields_of_the_documentation(server: BotServer, client: TelegramClient) -> None:
    server.files[PATH] = CONTENT
    assert await client.get_file(f"id:{PATH}") == File(
        file_id=f"id:{PATH}", file_unique_id="u", file_size=len(CONTENT), file_path=PATH
    )
    assert server.calls[0].fields == {"file_id": f"id:{PATH}"}


@pytest.mark.parametrize("size", [None, 0, 2**31 + 1, 2**52 - 1])
async def test_a_file_may_be_without_size_and_path_or_very_large(
    server: BotServer, client: TelegramClient, size: int | None
) -> None:
    fields: dict[str, Any] = {"file_id": "a", "file_unique_id": "b"} | ({} if size is None else {"file_size": size})
    server.script.append(says(lambda: result(fields)))
    file = await client.get_file("a")
    assert (file.file_size, file.file_path) == (size, None)
    with pytest.raises(ValueError, match="frozen"):
        file.file_size = 3


# Downloads


async def test_a_download_is_the_file_and_replaces_what_was_there(
    server: BotServer, client: TelegramClient, tmp_path: Path
) -> None:
    server.files[PATH] = CONTENT
    target = made(tmp_path / "here.pdf", b"old")
    seen: list[int] = []
    path = await client.download_file(PATH, str(target), size=len(CONTENT), progress=lambda done, _: seen.append(done))
    assert (path, target.read_bytes()) == (target, CONTENT)
    assert seen[-1] == len(CONTENT)
    assert names(tmp_path) == ["here.pdf"]


async def test_a_download_into_a_folder_keeps_the_name_it_has_there(
    server: BotServer, client: TelegramClient, tmp_path: Path
) -> None:
    server.files["documents/Отчёт 1#?.pdf"] = CONTENT
    path = await client.download_file("documents/Отчёт 1#?.pdf", tmp_path)
    assert (path.name, path.read_bytes()) == ("Отчёт 1#?.pdf", CONTENT)


async def test_an_empty_file_can_be_downloaded(server: BotServer, client: TelegramClient, tmp_path: Path) -> None:
    server.files[PATH] = b""
    assert (await client.download_file(PATH, tmp_path / "f", size=0)).read_bytes() == b""


@pytest.mark.parametrize(
    ("behaviour", "size"),
    [
        (gives(CONTENT, length=None), len(CONTENT) + 1),
        (gives(CONTENT, length=None), len(CONTENT) - 1),
        (gives(CONTENT, length=len(CONTENT)), len(CONTENT) + 1),
        (gives(CONTENT[:-1], length=len(CONTENT), then="cut"), None),
        (gives(CONTENT[:-1], length=None, then="cut"), None),
        (gives(CONTENT, length=None, then="stall"), None),
        (gives(b"", length=len(CONTENT), then="stall"), None),
        (cuts, None),
        (stalls, None),
    ],
)
async def test_a_download_that_is_not_whole_is_tried_again_and_leaves_nothing(
    server: BotServer, tmp_path: Path, behaviour: Behaviour, size: int | None
) -> None:
    target = made(tmp_path / "file", b"old")
    server.script.extend([behaviour] * 9)
    async with TelegramClient(TOKEN, server.url, retries=1, idle=0.2) as client:
        with pytest.raises(TelegramUnreachable):
            await client.download_file(PATH, target, size=size)
    assert len(server.calls) in (2, 4)  # aiohttp repeats a GET that got no answer of its own accord
    assert (target.read_bytes(), names(tmp_path)) == (b"old", ["file"])


async def test_a_download_that_broke_begins_again_and_is_whole(
    server: BotServer, client: TelegramClient, tmp_path: Path
) -> None:
    server.files[PATH] = CONTENT
    server.script.append(gives(os.urandom(500_000), length=len(CONTENT), then="cut"))
    assert (await client.download_file(PATH, tmp_path / "file")).read_bytes() == CONTENT


@pytest.mark.parametrize("behaviour", [gives(CONTENT, length=len(CONTENT)), gives(CONTENT, length=None, then="stall")])
async def test_no_more_than_the_limit_is_downloaded(server: BotServer, tmp_path: Path, behaviour: Behaviour) -> None:
    server.script.append(behaviour)
    async with TelegramClient(TOKEN, server.url, download_limit=len(CONTENT) - 1) as client:
        with pytest.raises(TooLarge) as raised:
            await client.download_file(PATH, tmp_path / "file")
    assert raised.value.limit == len(CONTENT) - 1
    assert (methods(server), names(tmp_path)) == ([PATH], [])


@pytest.mark.parametrize("limit", [len(CONTENT), None])
async def test_a_file_of_the_limit_is_downloaded(server: BotServer, tmp_path: Path, limit: int | None) -> None:
    server.files[PATH] = CONTENT
    async with TelegramClient(TOKEN, server.url, download_limit=limit) as client:
        assert (await client.download_file(PATH, tmp_path / "file")).read_bytes() == CONTENT


async def test_an_expired_path_is_refused(client: TelegramClient, tmp_path: Path) -> None:
    with pytest.raises(TelegramRefused, match="Not Found") as raised:
        await client.download_file(PATH, tmp_path / "file")
    assert raised.value.code == 404
    assert names(tmp_path) == []


@pytest.mark.parametrize("path", ["/var/lib/file", "../bot1/logOut", "a/../../b", "a//b", ".", ""])
async def test_a_path_that_leads_elsewhere_is_not_asked_for(
    server: BotServer, client: TelegramClient, tmp_path: Path, path: str
) -> None:
    with pytest.raises(LocalProblem):
        await client.download_file(path, tmp_path / "file")
    assert server.calls == []


async def test_a_disk_problem_is_ours_and_is_not_tried_again(
    server: BotServer, client: TelegramClient, tmp_path: Path
) -> None:
    server.files[PATH] = CONTENT
    with pytest.raises(LocalProblem, match="No such file"):
        await client.download_file(PATH, tmp_path / "missing" / "file")
    assert server.calls == []


async def test_an_error_of_the_reader_is_raised_as_it_is(server: BotServer, client: TelegramClient) -> None:
    server.files[PATH] = CONTENT

    async def reader(_: AsyncIterator[bytes]) -> None:
        raise TimeoutError("the reader's own")

    with pytest.raises(TimeoutError, match="the reader's own"):
        await client.read_file(PATH, reader)
    assert methods(server) == [PATH]


# Sending


async def test_a_document_arrives_byte_for_byte(server: BotServer, client: TelegramClient, tmp_path: Path) -> None:
    path = made(tmp_path / "report.pdf")
    message = await client.send_document(-1001234, path, caption='Подпись "1"\r\n--x')
    (call,) = server.calls
    assert (call.size, call.sha256, call.filename) == (len(CONTENT), hashlib.sha256(CONTENT).hexdigest(), "report.pdf")
    assert call.fields == {
        "chat_id": "-1001234",
        "disable_content_type_detection": "true",
        "caption": 'Подпись "1"\r\n--x',
    }
    assert int(call.headers["Content-Length"]) > len(CONTENT)
    assert (message.message_id, message.chat.id, message.caption) == (7, -1001234, 'Подпись "1"\r\n--x')
    assert message.date == datetime.fromtimestamp(DATE, UTC)
    assert message.document == Document(
        file_id=f"id:{call.sha256}", file_unique_id="u", file_name="report.pdf", file_size=len(CONTENT)
    )


@pytest.mark.parametrize("size", [None, len(CONTENT)])
async def test_a_stream_is_sent_with_its_length_where_that_is_known(
    server: BotServer, client: TelegramClient, size: int | None
) -> None:
    await client.send_document(1, blocks(CONTENT[:5], b"", CONTENT[5:]), filename="stored.bin", size=size)
    (call,) = server.calls
    assert (call.sha256, call.filename) == (hashlib.sha256(CONTENT).hexdigest(), "stored.bin")
    assert ("Content-Length" in call.headers) == (size is not None)


async def test_an_empty_document_is_sent(server: BotServer, client: TelegramClient, tmp_path: Path) -> None:
    await client.send_document(1, made(tmp_path / "empty", b""))
    await client.send_document(1, blocks())
    assert [(call.size, call.filename) for call in server.calls] == [(0, "empty"), (0, "file")]


@pytest.mark.parametrize(
    ("given", "arrives"),
    [
        ("Отчёт за год.pdf", "Отчёт за год.pdf"),
        ("测试 🎉.txt", "测试 🎉.txt"),
        ('a";b=c; filename="evil.txt', 'a";b=c; filename="evil.txt'),
        ("100% %41.txt", "100% %41.txt"),
        ("a\r\nX: y\r\n\r\nz.txt", "aX: yz.txt"),
        ("../../etc/passwd", "passwd"),
        ("C:\\dir\\file.txt", "file.txt"),
        ("\ud800.txt", "\ufffd.txt"),
        ("/", "file"),
    ],
)
async def test_the_name_arrives_as_it_is_and_harms_nobody(
    server: BotServer, client: TelegramClient, given: str, arrives: str
) -> None:
    await client.send_document(1, blocks(b"x"), filename=given)
    assert (server.calls[0].filename, server.calls[0].size) == (arrives, 1)


@pytest.mark.parametrize("size", [len(CONTENT) - 1, len(CONTENT) + 1])
async def test_a_stream_of_another_size_than_announced_is_never_complete(
    server: BotServer, client: TelegramClient, size: int
) -> None:
    with pytest.raises(LocalProblem, match=str(size)):
        await client.send_document(1, blocks(CONTENT[:5], CONTENT[5:]), size=size)
    assert not any(call.complete for call in server.calls)


async def test_a_failing_stream_is_never_complete_and_raises_its_own_error(
    server: BotServer, client: TelegramClient
) -> None:
    async def failing() -> AsyncIterator[bytes]:
        yield CONTENT
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await client.send_document(1, failing())
    assert not any(call.complete for call in server.calls)


async def test_what_is_over_the_limit_is_refused_here(server: BotServer, tmp_path: Path) -> None:
    async with TelegramClient(TOKEN, server.url, upload_limit=len(CONTENT) - 1) as client:
        with pytest.raises(TooLarge):
            await client.send_document(1, made(tmp_path / "file"))
        with pytest.raises(TooLarge):
            await client.send_document(1, blocks(CONTENT), size=len(CONTENT))
        assert server.calls == []
        with pytest.raises(TooLarge):
            await client.send_document(1, blocks(CONTENT[:5], CONTENT[5:]))
    assert not any(call.complete for call in server.calls)


@pytest.mark.parametrize("limit", [len(CONTENT), None])
async def test_what_is_at_the_limit_is_sent(server: BotServer, tmp_path: Path, limit: int | None) -> None:
    async with TelegramClient(TOKEN, server.url, upload_limit=limit) as client:
        await client.send_document(1, made(tmp_path / "file"))
    assert server.calls[0].size == len(CONTENT)


def test_the_limits_are_those_of_the_public_server() -> None:
    assert (telegram.DOWNLOAD_LIMIT, telegram.UPLOAD_LIMIT) == (20 * 1024 * 1024, 50 * 1024 * 1024)


async def test_a_missing_file_and_a_folder_are_not_sent(
    server: BotServer, client: TelegramClient, tmp_path: Path
) -> None:
    with pytest.raises(LocalProblem, match="No such file"):
        await client.send_document(1, tmp_path / "missing")
    with pytest.raises(LocalProblem, match="folder"):
        await client.send_document(1, tmp_path)
    assert server.calls == []
