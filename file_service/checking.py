"""The command `check`: what `service/check.py` finds, for people and scripts."""

import asyncio
import sys

from file_service.app import opened
from file_service.db.files import Files
from file_service.errors import ServiceError, StorageFailed
from file_service.service.check import Report, examine, repair
from file_service.settings import Settings
from file_service.storage.base import Found, Listed

CLEAN, FINDINGS, REFUSED = 0, 1, 2


def run_check(settings: Settings, *, repairing: bool) -> int:
    """Examine, print, repair when asked to; the exit status."""
    try:
        return asyncio.run(_check(settings, repairing=repairing))
    except (OSError, ServiceError) as error:
        sys.stderr.write(f"file-service: check refused: {error}\n")
        return REFUSED


async def _check(settings: Settings, *, repairing: bool) -> int:
    async with opened(settings, adopt=False) as (database, storage):
        files = Files(database)
        if not isinstance(storage, Listed):
            raise StorageFailed("This kind of storage cannot be listed, so it cannot be checked.")
        report = await examine(files, storage)
        sys.stdout.write(told(report))
        if repairing and not report.clean:
            await repair(files, storage, report)
            sys.stdout.write("repaired: orphans are in quarantine, damaged files are marked\n")
    return CLEAN if report.clean else FINDINGS


def told(report: Report) -> str:
    """The report as lines of text, one a finding."""
    lines = [
        *(f"orphan {_kind(found)} {found.key} {found.size} bytes" for found in report.orphans),
        *(f"damaged file {file.id} {file.size} bytes" for file in report.damaged),
        *(f"whole again file {file.id}" for file in report.whole_again),
        f"{report.objects} objects, {report.rows} files: {'nothing wrong' if report.clean else 'see above'}",
    ]
    return "".join(f"{line}\n" for line in lines)


def _kind(found: Found) -> str:
    return "staged" if found.staged else "object"
