"""The command `import`; the client is imported when it runs."""

import sys

import click

from file_service.commands import EXIT_STATUS, quiet_option, retries_option, timeout_option


@click.command("import", epilog=EXIT_STATUS)
@click.argument("url")
@click.option(
    "--to",
    default="http://127.0.0.1:8080",
    show_default=True,
    metavar="SERVER",
    help="The file service; a server alone means its /imports.",
)
@click.option("--name", help="Name to store under. Without it the other server names the file.")
@retries_option
@timeout_option
@quiet_option
def import_(*, url: str, to: str, name: str | None, retries: int, timeout: float, quiet: bool) -> None:
    """Have the server fetch and store what is at URL, wait for it, and print the link.

    The bytes do not pass through here. Ctrl-C cancels the import.
    """
    from file_service.client import console  # noqa: PLC0415
    from file_service.client.client import Client, address  # noqa: PLC0415

    screen = console.Console(quiet=quiet)
    try:
        client = Client(str(address(to, "/imports")), retries=retries, idle=timeout, notice=screen.notice)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    sys.exit(console.run(client, console.import_(client, screen, url, name)))
