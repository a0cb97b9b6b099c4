"""What the commands of `telegram` do. Ids and links go to standard output, everything else to standard error."""

from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import click

from file_service.client import Client, TransferError
from file_service.client.answers import Stored, printable
from file_service.client.console import DASH, STDIN, Console
from file_service.client.sending import read_descriptor
from file_service.clients.telegram import BLOCK_SIZE, TelegramClient


async def send_all(
    telegram: TelegramClient,
    console: Console,
    sources: Sequence[Path],
    *,
    chat: str,
    name: str | None = None,
    caption: str | None = None,
) -> int:
    """Send one after the other and print the file ids; the exit status of the first that failed, or 0."""
    statuses = [await _send(telegram, console, source, chat=chat, name=name, caption=caption) for source in sources]
    return next(filter(None, statuses), 0)


async def _send(
    telegram: TelegramClient, console: Console, path: Path, *, chat: str, name: str | None, caption: str | None
) -> int:
    console.label = printable(name or str(path))
    source = read_descriptor(STDIN, BLOCK_SIZE) if path == DASH else path
    try:
        with console.progress() as progress:
            message = await telegram.send_document(chat, source, filename=name, caption=caption, progress=progress)
    except TransferError as error:
        return console.failed(error)
    if message.document is None:
        console.notice(f"Telegram made something else than a document of it, in message {message.message_id}.")
        return 0
    click.echo(message.document.file_id)
    return 0


async def import_all(
    telegram: TelegramClient, client: Client, console: Console, ids: Sequence[str], name: str | None
) -> int:
    """Store one after the other and print the links; the exit status of the first that failed, or 0."""
    async with telegram:
        statuses = [await _import(telegram, client, console, file_id, name) for file_id in ids]
    return next(filter(None, statuses), 0)


async def _import(telegram: TelegramClient, client: Client, console: Console, file_id: str, name: str | None) -> int:
    console.label = printable(name or file_id)
    try:
        with console.progress() as progress:
            file = await telegram.get_file(file_id)
            path = file.file_path or ""

            async def store(blocks: AsyncIterator[bytes]) -> Stored:
                return await client.send(blocks, name=name or path.rpartition("/")[2], progress=progress)

            stored = await telegram.read_file(path, store, size=file.file_size)
    except TransferError as error:
        return console.failed(error)
    click.echo(stored.link)
    return 0
