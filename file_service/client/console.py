"""The client at a terminal or in a script: progress, one line for an error, exit statuses.

Links and paths go to standard output, everything else to standard error.
"""

import asyncio
import signal
import sys
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager
from pathlib import Path
from typing import Any

import click
from tqdm import tqdm

from file_service.client.answers import printable
from file_service.client.client import Client
from file_service.client.errors import DigestMismatch, LocalProblem, RefusedByServer, TransferError
from file_service.client.fetching import DescriptorSink
from file_service.client.importing import import_url
from file_service.client.progress import Progress
from file_service.client.sending import read_descriptor

STDIN, STDOUT = 0, 1
DASH = Path("-")
EXIT_STATUSES: dict[type[TransferError], int] = {
    RefusedByServer: 3,
    TransferError: 4,
    DigestMismatch: 5,
    LocalProblem: 6,
}


class Console:
    """What a command tells its user about the transfer that `label` names."""

    def __init__(self, *, quiet: bool) -> None:
        self.label = ""
        self._quiet = quiet

    def notice(self, text: str) -> None:
        """Something worth knowing."""
        if not self._quiet:
            self._say(text)

    def failed(self, error: TransferError) -> int:
        """The one line of a transfer that failed, and the exit status it stands for."""
        self._say(str(error))
        return next(EXIT_STATUSES[kind] for kind in type(error).__mro__ if kind in EXIT_STATUSES)

    @contextmanager
    def progress(self) -> Iterator[Progress]:
        """A progress bar, if somebody looks at it."""
        name = self.label.rstrip("/").rpartition("/")[2]
        disable = True if self._quiet else None  # None: unless standard error is a terminal
        with tqdm(desc=name, unit="B", unit_scale=True, unit_divisor=1024, leave=False, disable=disable) as bar:

            def show(done: int, total: int | None) -> None:
                bar.total = total
                bar.update(done - bar.n)

            yield show

    def _say(self, text: str) -> None:
        tqdm.write(f"file-service: {self.label}: {text}", file=sys.stderr)


async def send_all(client: Client, console: Console, sources: Sequence[Path], name: str | None, block_size: int) -> int:
    """Send one after the other and print the links; the exit status of the first that failed, or 0."""
    statuses = [await _send(client, console, source, name, block_size) for source in sources]
    return next(filter(None, statuses), 0)


async def _send(client: Client, console: Console, path: Path, name: str | None, block_size: int) -> int:
    console.label = printable(name or str(path))
    source = read_descriptor(STDIN, block_size) if path == DASH else path
    try:
        with console.progress() as progress:
            stored = await client.send(source, name=name, progress=progress)
    except TransferError as error:
        return console.failed(error)
    click.echo(stored.link)
    return 0


async def fetch(client: Client, console: Console, link: str, path: Path | None, *, replace: bool) -> int:
    """Download and print the path, or download to standard output; the exit status."""
    console.label = printable(link.partition("?")[0].rpartition("@")[2])  # without signature, without password
    try:
        with console.progress() as progress:
            if path == DASH:
                await client.fetch_into(link, DescriptorSink(STDOUT), progress=progress)
                return 0
            target = await client.fetch(link, path, replace=replace, progress=progress)
    except TransferError as error:
        return console.failed(error)
    click.echo(target)
    return 0


async def import_(client: Client, console: Console, url: str, name: str | None) -> int:
    """Have the server import, and print the link; the exit status."""
    console.label = printable(url.partition("?")[0].rpartition("@")[2])
    try:
        with console.progress() as progress:
            link = await import_url(client, url, name=name, progress=progress)
    except TransferError as error:
        return console.failed(error)
    click.echo(link)
    return 0


def run(client: AbstractAsyncContextManager[Any], work: Coroutine[Any, Any, int], *, leaves: bool = True) -> int:
    """The exit status of `work`. If it `leaves` anything behind when killed, SIGINT and SIGTERM cancel it instead."""

    async def main() -> int:
        async with client:
            task = asyncio.ensure_future(work)
            if leaves:
                asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
            return await task

    if not leaves:  # then it may be writing to a pipe that nobody empties, where no handler would be heard
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        return asyncio.run(main())
    except KeyboardInterrupt:
        number = signal.SIGINT
    except asyncio.CancelledError:
        number = signal.SIGTERM
    click.echo("file-service: interrupted", err=True)
    return 128 + number
