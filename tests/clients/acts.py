"""What one does with the Telegram client, and what goes wrong: parts that several test modules share."""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from aiohttp import web

from file_service.clients.telegram import TelegramClient

CONTENT = os.urandom(700_001)
PATH = "documents/file_0.pdf"
NOWHERE = "http://127.0.0.1:1"

Act = Callable[[TelegramClient, Path], Awaitable[object]]


async def get(client: TelegramClient, _: Path) -> object:
    return await client.get_file(f"id:{PATH}")


async def download(client: TelegramClient, folder: Path) -> object:
    return await client.download_file(PATH, folder / "downloaded")


async def send(client: TelegramClient, folder: Path) -> object:
    return await client.send_document(1, made(folder / "sent"))


ACTS = pytest.mark.parametrize("act", [get, download, send])


async def blocks(*content: bytes) -> AsyncIterator[bytes]:
    """The blocks, each after a turn of the loop."""
    for block in content:
        await asyncio.sleep(0)
        yield block


def made(path: Path, content: bytes = CONTENT) -> Path:
    """A file."""
    path.write_bytes(content)
    return path


def names(folder: Path) -> list[str]:
    """What is in the folder."""
    return [path.name for path in folder.iterdir()]


def html(status: int) -> web.Response:
    """The answer of a proxy that has no other."""
    return web.Response(status=status, text="<html><h1>nginx</h1></html>", content_type="text/html")
