"""The commands `send` and `fetch`; the client is imported when one of them runs."""

import sys
from pathlib import Path

import click
from click.core import ParameterSource

DASH = Path("-")
PARTS = ("protocol", "host", "port", "url")
ANY_PATH = click.Path(path_type=Path, readable=False, allow_dash=True)  # what is wrong with one is that file's failure
EXIT_STATUS = """\b
Exit status: that of the first file that failed, else 0.
  2    wrong usage
  3    the server refused (status 3xx or 4xx)
  4    the server or the network failed, also when tried again
  5    the bytes at the other end are not the same: their SHA-256 differs
  6    a file here cannot be read or written, or changed while it was sent
  130  interrupted (143 by SIGTERM)
"""

retries_option = click.option(
    "--retries", type=click.IntRange(0, 100), default=3, show_default=True, help="More tries after a passing failure."
)
timeout_option = click.option(
    "--timeout",
    type=click.FloatRange(0.1, 86400),
    default=60,
    show_default=True,
    metavar="SECONDS",
    help="End a try when nothing moves for so long.",
)
quiet_option = click.option("-q", "--quiet", is_flag=True, help="Say nothing but errors.")


@click.command(epilog=EXIT_STATUS)
@click.argument("files", nargs=-1, type=ANY_PATH, metavar="FILE...")
@click.option("--path", "paths", multiple=True, type=ANY_PATH, metavar="FILE", help="The same as FILE; repeatable.")
@click.option("--to", metavar="URL", help="Where to send, in place of the next four; a server alone means its /files.")
@click.option("--protocol", type=click.Choice(["http", "https"]), default="http", show_default=True)
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", type=click.IntRange(1, 65535), default=8080, show_default=True)
@click.option("--url", default="/files", show_default=True, metavar="PATH", help="Path on the server.")
@click.option("--name", help="Name to store under, for standard input or a single file.")
@click.option(
    "--chunk-size",
    type=click.IntRange(4096, 64 << 20),
    default=256 << 10,
    show_default=True,
    metavar="BYTES",
    help="Read and send so much at once.",
)
@retries_option
@timeout_option
@quiet_option
@click.pass_context
def send(
    ctx: click.Context,
    *,
    files: tuple[Path, ...],
    paths: tuple[Path, ...],
    to: str | None,
    protocol: str,
    host: str,
    port: int,
    url: str,
    name: str | None,
    chunk_size: int,
    retries: int,
    timeout: float,
    quiet: bool,
) -> None:
    """Send FILEs, `-` for standard input, and print the link of each.

    The server's SHA-256 is compared with that of the bytes sent. A file is tried again without being stored twice;
    standard input is not, once something of it was read.
    """
    from file_service.client import console  # noqa: PLC0415
    from file_service.client.client import Client  # noqa: PLC0415

    sources = files + paths
    _check(sources, name)
    if to and any(ctx.get_parameter_source(part) is ParameterSource.COMMANDLINE for part in PARTS):
        raise click.UsageError("--to says it all: leave out --protocol, --host, --port and --url.")
    screen = console.Console(quiet=quiet)
    try:
        client = Client(
            to or _address(protocol, host, port, url),
            retries=retries,
            idle=timeout,
            block_size=chunk_size,
            notice=screen.notice,
        )
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    sys.exit(console.run(client, console.send_all(client, screen, sources, name, chunk_size)))


@click.command(epilog=EXIT_STATUS)
@click.argument("link")
@click.option(
    "-o",
    "--output",
    type=ANY_PATH,
    metavar="PATH",
    help="File or folder; `-` for standard output. Without it the server names the file.",
)
@click.option("--force", is_flag=True, help="Replace a file that is there.")
@retries_option
@timeout_option
@quiet_option
def fetch(*, link: str, output: Path | None, force: bool, retries: int, timeout: float, quiet: bool) -> None:
    """Download LINK and print the path of the file, which appears only when it is whole and its SHA-256 is right.

    A broken connection is resumed. What went to standard output is out: there, look at the exit status.
    """
    from file_service.client import console  # noqa: PLC0415
    from file_service.client.client import Client  # noqa: PLC0415

    screen = console.Console(quiet=quiet)
    try:
        client = Client(link, retries=retries, idle=timeout, notice=screen.notice)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    work = console.fetch(client, screen, link, output, replace=force)
    sys.exit(console.run(client, work, leaves=output != DASH))


def _check(sources: tuple[Path, ...], name: str | None) -> None:
    if not sources:
        raise click.UsageError("Name at least one FILE, or - for standard input.")
    if name and len(sources) > 1:
        raise click.UsageError("--name is for one file.")
    if sources.count(DASH) > 1:
        raise click.UsageError("Standard input can be sent once.")
    if DASH in sources and sys.stdin is None:
        raise click.UsageError("Standard input is closed.")


def _address(protocol: str, host: str, port: int, path: str) -> str:
    host = f"[{host}]" if ":" in host else host
    return f"{protocol}://{host}:{port}/{path.lstrip('/')}"
