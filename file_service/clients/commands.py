"""The commands `telegram send` and `telegram import`; the clients are imported when one of them runs."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from file_service.commands import ANY_PATH, DASH, EXIT_STATUS, quiet_option, retries_option, timeout_option

if TYPE_CHECKING:
    from file_service.clients.telegram import TelegramClient

TOKEN = "FILE_SERVICE_TELEGRAM_TOKEN"

token_option = click.option(
    "--token-file", type=click.Path(path_type=Path), metavar="PATH", help=f"Read the token here, not in ${TOKEN}."
)
api_option = click.option(
    "--api", metavar="URL", help="A Bot API server of your own.  [default: https://api.telegram.org]"
)


@click.group()
def telegram() -> None:
    """Send files to Telegram, and store files from there, as a bot.

    The bot's token is in the variable FILE_SERVICE_TELEGRAM_TOKEN or in a file; there is no option for it, since
    everybody on the machine can read a command line.
    """


@telegram.command(epilog=EXIT_STATUS)
@click.argument("files", nargs=-1, required=True, type=ANY_PATH, metavar="FILE...")
@click.option("--chat", required=True, metavar="ID", help="A chat's number, or @ and the name of a public channel.")
@click.option("--name", help="Name to send under, for standard input or a single file.")
@click.option("--caption", help="Text below each file, up to 1024 characters.")
@click.option(
    "--limit",
    type=click.IntRange(0),
    metavar="BYTES",
    help="Largest file that the server takes, 0 for any.  [default: 50 MiB, what Telegram's own does]",
)
@token_option
@api_option
@retries_option
@timeout_option
@quiet_option
def send(
    *,
    files: tuple[Path, ...],
    chat: str,
    name: str | None,
    caption: str | None,
    limit: int | None,
    quiet: bool,
    **options: Any,
) -> None:
    """Send FILEs, `-` for standard input, to a chat, and print the file id of each.

    A file is sent again after a passing failure, and may arrive twice when only the answer was lost.
    """
    from file_service.client.console import Console, run  # noqa: PLC0415
    from file_service.clients.console import send_all  # noqa: PLC0415

    _check_name(files, name)
    if files.count(DASH) > 1:
        raise click.UsageError("Standard input can be sent once.")
    screen = Console(quiet=quiet)
    if limit is not None:
        options["upload_limit"] = limit or None
    client = _client(**options, notice=screen.notice)
    work = send_all(client, screen, files, chat=chat, name=name, caption=caption)
    sys.exit(run(client, work))


@telegram.command("import", epilog=EXIT_STATUS)
@click.argument("ids", nargs=-1, required=True, metavar="FILE_ID...")
@click.option(
    "--to", default="http://127.0.0.1:8080", show_default=True, metavar="URL", help="The file service to store it in."
)
@click.option("--name", help="Name to store under, for a single file; else that which Telegram made for it.")
@click.option(
    "--limit",
    type=click.IntRange(0),
    metavar="BYTES",
    help="Largest file that the server gives, 0 for any.  [default: 20 MiB, what Telegram's own does]",
)
@token_option
@api_option
@retries_option
@timeout_option
@quiet_option
def import_(*, ids: tuple[str, ...], to: str, name: str | None, limit: int | None, quiet: bool, **options: Any) -> None:
    """Store the files with these ids, and print the link of each. The bytes pass through, no disk between."""
    from file_service.client.client import Client  # noqa: PLC0415
    from file_service.client.console import Console, run  # noqa: PLC0415
    from file_service.clients.console import import_all  # noqa: PLC0415

    _check_name(ids, name)
    screen = Console(quiet=quiet)
    if limit is not None:
        options["download_limit"] = limit or None
    source = _client(**options, notice=screen.notice)
    try:
        client = Client(to, retries=options["retries"], idle=options["timeout"], notice=screen.notice)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    sys.exit(run(client, import_all(source, client, screen, ids, name)))


def _client(*, token_file: Path | None, api: str | None, timeout: float, **options: Any) -> TelegramClient:
    from file_service.clients.telegram import TelegramClient  # noqa: PLC0415

    if api:
        options["base_url"] = api
    try:
        return TelegramClient(_token(token_file), idle=timeout, **options)
    except ValueError as error:
        raise click.UsageError(str(error)) from None


def _token(path: Path | None) -> str:
    if path is None and TOKEN not in os.environ:
        raise click.UsageError(f"The bot's token is missing: set {TOKEN}, or name a file with --token-file.")
    try:
        return (os.environ[TOKEN] if path is None else path.read_text("ascii")).strip()
    except UnicodeDecodeError:
        raise click.UsageError(f"{path} has no token in it.") from None
    except OSError as error:
        raise click.UsageError(f"{path}: {error.strerror}.") from None


def _check_name(named: tuple[object, ...], name: str | None) -> None:
    if name and len(named) > 1:
        raise click.UsageError("--name is for one file.")
