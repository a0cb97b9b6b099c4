"""Holding storage and database against each other: bytes that no row owns, rows whose bytes are gone or cut.

Storage is listed first and the rows are read second: every byte has an owner row that was committed before it and is
removed after it. What then does not fit may have come or gone between the two looks, so both are looked at once more;
what still does not fit is wrong, however busy the service is meanwhile. Nothing is deleted: orphans are moved to
quarantine, damaged files are marked.

It goes by the first digit of the keys, so that a sixteenth of the books is in memory at a time, and asks the storage
for a single file only where the listing left a doubt.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar
from uuid import UUID

from file_service.db.files import Files
from file_service.errors import ServiceError
from file_service.model import Attempt, File
from file_service.storage.base import DIGITS, Found, Listed

T = TypeVar("T")
BATCH = 500  # keys looked up, rows read at once
AT_ONCE = 16  # files the storage is asked for at once
FEW = 100  # findings that are always believed
SHARE = 0.01  # of everything: more is taken for a wrong folder, bucket or database
STORED, DAMAGED, GONE = "stored", "damaged", "gone"


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
    for digit in DIGITS:
        found = [each async for each in storage.list(digit)]
        report.objects += len(found)
        report.orphans += await _orphans(files, storage, found)
        sizes = {each.key: each.size for each in found if not each.staged}
        doubtful: list[File] = []
        async for file in _visible(files, digit):
            report.rows += 1
            if (sizes.get(file.attempt) == file.size) == file.damaged:
                doubtful.append(file)
        for file in await _wrong(files, storage, doubtful):
            (report.whole_again if file.damaged else report.damaged).append(file)
    return report


async def repair(files: Files, storage: Listed, report: Report) -> None:
    """Move orphans to quarantine and mark the damaged, each after another look.

    Raises `Implausible`, and changes nothing, when more than 1 % and more than a hundred are wrong.
    """
    for wrong, total in ((report.orphans, report.objects), (report.damaged, report.rows)):
        if len(wrong) > max(FEW, SHARE * total):
            raise Implausible(f"{len(wrong)} of {total} are wrong: is this the right database and storage?")
    for found in report.orphans:
        if not _owned(found, await files.states({found.key})):
            await storage.quarantine(found)
    for file in report.damaged + report.whole_again:
        damaged = not _whole(file, await storage.find(file.attempt))
        await files.mark_damaged(Attempt(file.id, file.attempt), damaged=damaged)


async def _orphans(files: Files, storage: Listed, found: Sequence[Found]) -> list[Found]:
    """What of this nobody owns and is still there."""
    suspects: set[UUID] = set()
    states: dict[UUID, str] = {}
    for some in _slices(found, BATCH):
        known = await files.states({each.key for each in some})
        unowned = {each.key for each in some if not _owned(each, known)}
        suspects |= unowned
        states |= {key: known[key] for key in unowned & known.keys()}
    there = await _looked(storage, sorted(suspects))
    return [each for key in there for each in there[key] if not _owned(each, states)]


async def _wrong(files: Files, storage: Listed, doubtful: Sequence[File]) -> list[File]:
    """Those files whose bytes are other than their rows say, now and after another look at the rows."""
    there = await _looked(storage, [file.attempt for file in doubtful])
    wrong = [file for file in doubtful if _whole(file, there[file.attempt]) == file.damaged]
    states: dict[UUID, str] = {}
    for some in _slices(wrong, BATCH):
        states |= await files.states({file.attempt for file in some})
    return [file for file in wrong if states.get(file.attempt) == (DAMAGED if file.damaged else STORED)]


async def _looked(storage: Listed, keys: Sequence[UUID]) -> dict[UUID, Sequence[Found]]:
    """What stands under each of the keys now."""
    found: dict[UUID, Sequence[Found]] = {}
    for some in _slices(keys, AT_ONCE):
        found |= zip(some, await asyncio.gather(*map(storage.find, some)), strict=True)
    return found


async def _visible(files: Files, digit: str) -> AsyncIterator[File]:
    """The visible files with such keys, in an order that nothing that happens meanwhile changes."""
    first, last = UUID(digit + 31 * DIGITS[0]), UUID(digit + 31 * DIGITS[-1])
    while rows := await files.between(first, last, BATCH):
        for file in rows:
            yield file
        if rows[-1].attempt == last:
            return
        first = UUID(int=rows[-1].attempt.int + 1)


def _owned(found: Found, states: Mapping[UUID, str]) -> bool:
    """Whether the row of the key, if there is one, may have this: one that is stored has nothing staged any more."""
    state = states.get(found.key, GONE)
    return state != GONE and not (found.staged and state in (STORED, DAMAGED))


def _whole(file: File, found: Sequence[Found]) -> bool:
    return any(each.size == file.size for each in found if not each.staged)


def _slices(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    return (items[start : start + size] for start in range(0, len(items), size))
