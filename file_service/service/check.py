"""Holding storage and database against each other: bytes that no row owns, rows whose bytes are gone or cut.

Storage is listed first and the rows are read second. Every byte has an owner row that was committed before it and is
removed after it, so a key that was listed and has no row later is an orphan, however busy the service is meanwhile.
Nothing is deleted: orphans are moved to quarantine, damaged files are marked.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from uuid import UUID

from file_service.db.files import Files
from file_service.errors import ServiceError
from file_service.model import Attempt, File
from file_service.storage.base import Found, Listed

BATCH = 500  # keys looked up, rows read at once
FEW = 100  # findings that are always believed
SHARE = 0.01  # of everything: more is taken for a wrong folder, bucket or database


class Implausible(ServiceError):
    """So much is wrong that the storage and the database do not seem to belong together."""


@dataclass(slots=True)
class Report:
    """What was found. `objects` and `rows` are counts; the others name what is wrong."""

    objects: int = 0
    rows: int = 0
    orphans: list[Found] = field(default_factory=list)
    damaged: list[File] = field(default_factory=list)
    whole_again: list[File] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        """Whether nothing is wrong."""
        return not (self.orphans or self.damaged or self.whole_again)


async def examine(files: Files, storage: Listed) -> Report:
    """Compare everything; nothing is changed."""
    report = Report()
    async for batch in _batches(storage):
        report.objects += len(batch)
        known = await files.known({found.key for found in batch})
        report.orphans += [found for found in batch if found.key not in known]
    async for file in _visible(files):
        report.rows += 1
        whole = await storage.size(file.attempt) == file.size
        if whole == file.damaged:
            (report.whole_again if whole else report.damaged).append(file)
    return report


async def repair(files: Files, storage: Listed, report: Report) -> None:
    """Move orphans to quarantine and mark the damaged, each after another look.

    Raises `Implausible`, and changes nothing, when more than 1 % and more than a hundred are wrong.
    """
    for wrong, total in ((report.orphans, report.objects), (report.damaged, report.rows)):
        if len(wrong) > max(FEW, SHARE * total):
            raise Implausible(f"{len(wrong)} of {total} are wrong: is this the right database and storage?")
    for found in report.orphans:
        if not await files.known({found.key}):
            await storage.quarantine(found.key)
    for file in report.damaged + report.whole_again:
        damaged = await storage.size(file.attempt) != file.size
        await files.mark_damaged(Attempt(file.id, file.attempt), damaged=damaged)


async def _batches(storage: Listed) -> AsyncIterator[list[Found]]:
    batch: list[Found] = []
    async for found in storage.list():
        batch.append(found)
        if len(batch) == BATCH:
            yield batch
            batch = []
    yield batch


async def _visible(files: Files) -> AsyncIterator[File]:
    """All visible files in the order of their ids, which nothing that happens meanwhile changes."""
    last = UUID(int=0)
    while rows := await files.after(last, BATCH):
        for file in rows:
            yield file
        last = rows[-1].id
