"""The command line. Every command imports what it needs when it runs, so that `--help` and `send` start fast."""

import sys
from typing import TYPE_CHECKING

import click

from file_service import __version__
from file_service.clients.commands import telegram
from file_service.commands import fetch, send
from file_service.import_command import import_

if TYPE_CHECKING:
    from file_service.settings import Settings


class ServeCommand(click.Command):
    """A command whose help ends with the table of settings."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the table."""
        from file_service.settings import table  # noqa: PLC0415

        with formatter.section("Environment (sizes in bytes, times in seconds)"):
            formatter.write_dl([(name, f"{meaning} [{default}]") for name, default, meaning in table()])


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(__version__, prog_name="file-service")
def main() -> None:
    """A streaming file store: upload, keep, download files of any size."""


main.add_command(send)
main.add_command(fetch)
main.add_command(import_)
main.add_command(telegram)


@main.command(cls=ServeCommand)
@click.option("--worker", is_flag=True, hidden=True, help="one of several processes that share the port")
def serve(worker: bool) -> None:
    """Run the service until SIGTERM. It brings the database to the newest schema by itself."""
    from file_service.workers import serve_alone, supervise  # noqa: PLC0415

    settings = _settings()
    sys.exit(serve_alone(settings, reuse_port=True) if worker else supervise(settings))


@main.command()
def migrate() -> None:
    """Bring the database to the newest schema."""
    from file_service.db.migrate import migrate as upgrade  # noqa: PLC0415
    from file_service.errors import ServiceError  # noqa: PLC0415

    settings = _settings()
    settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        upgrade(settings.database)
    except ServiceError as error:
        raise click.ClickException(error.detail) from None


@main.command()
@click.option("--repair", "repairing", is_flag=True, help="Move orphans to quarantine and mark damaged files.")
def check(repairing: bool) -> None:
    """Compare storage and database. Exit status: 0 nothing wrong, 1 something is, 2 refused to repair."""
    from file_service.checking import run_check  # noqa: PLC0415

    sys.exit(run_check(_settings(), repairing=repairing))


def _settings() -> "Settings":
    from file_service.settings import BadSettings, from_environment  # noqa: PLC0415

    try:
        return from_environment()
    except BadSettings as error:
        raise click.ClickException(str(error)) from None
