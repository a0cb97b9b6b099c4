"""Zip archives of stored files, laid out before a byte is read: name, size, CRC-32 and time of each are known.

An archive is, for each entry, a local header and the file as it is; then the central directory, one record an entry;
then the end records. Entries are stored, not compressed, and sizes and CRC-32 stand in the local headers: no data
descriptors, so that the archive can also be unpacked while it arrives. ZIP64 forms appear where a number does not fit
and nowhere else. The same entries always give the same bytes, so a download can be resumed at any offset.

Sources: PKWARE APPNOTE 6.3.10 (sections in brackets below), Info-ZIP's extrafld.txt for the extended timestamp,
Unicode 16 section 3.13 D145 for names that differ in case or normalization only.
"""

import re
import struct
import unicodedata
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import accumulate

FORMAT = 1  # belongs in an archive's entity tag: raised whenever the same entries would give other bytes than before
MAX_NAME_BYTES = 255  # in UTF-8: the longest name that most file systems can store
_NUMBER_BYTES = 16  # room for " (n)"; fixed, so that long names cut to the same stem share one row of numbers
_EXTENSION = re.compile(r"(?<=.)\.[^.]{1,32}\Z", re.DOTALL)

_FULL_16, _FULL_32 = 0xFFFF, 0xFFFFFFFF  # in a 16 or 32 bit field: the number stands in its ZIP64 twin
_MADE_BY = 3 << 8 | 63  # [4.4.2] Unix, whose modes the external attributes hold; 6.3 is the first with UTF-8 names
_NEEDS_STORED, _NEEDS_ZIP64 = 10, 45  # [4.4.3.2]
_UTF8_NAME = 1 << 11  # [4.4.4]
_REGULAR_0644 = 0o100644 << 16  # [4.4.15] st_mode in the upper half, no MS-DOS attributes
_BLOCK = 64 * 1024  # bytes that headers are gathered to before they are handed out
# [4.3.7], [4.3.12]: from version needed to length of extra fields, which local headers and central records have alike
_COMMON = struct.Struct("<5H3I2H")
_RECORD_TAIL = struct.Struct("<3H2I")  # [4.3.12] comment length, disk, two attributes, offset
_END_64, _LOCATOR_64 = struct.Struct("<4sQ2H2I4Q"), struct.Struct("<4sIQI")  # [4.3.14], [4.3.15]
_END = struct.Struct("<4s4H2IH")  # [4.3.16]

_DOS_FIRST, _DOS_LAST = datetime(1980, 1, 1, tzinfo=UTC), datetime(2107, 12, 31, 23, 59, 58, tzinfo=UTC)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DRIVE = re.compile(r"\A([A-Za-z]):")
# Separators, NUL, a drive, nothing, the folder itself and the folder above: what could leave the folder of extraction.
_UNSAFE = re.compile(rf"[/\\\0]|{_DRIVE.pattern}|\A\.{{0,2}}\Z")


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of an archive: its bare name, size in bytes, CRC-32 of its bytes, and aware time of last change.

    Raises ValueError for what no entry can have, above all for a name that could mean another folder.
    """

    name: str
    size: int
    crc32: int
    modified: datetime

    def __post_init__(self) -> None:
        if _UNSAFE.search(self.name) or len(self.name.encode()) > MAX_NAME_BYTES:
            raise ValueError(f"{self.name!a} is no name for an archive's entry")
        if self.size < 0 or not 0 <= self.crc32 <= _FULL_32:
            raise ValueError(f"size {self.size} or CRC-32 {self.crc32:#x} of {self.name!a} is out of range")
        if self.modified.utcoffset() is None:
            raise ValueError(f"the time of {self.name!a} has no zone")


@dataclass(frozen=True, slots=True)
class Piece:
    """The bytes [start, stop) of the file of entry number `index`; never empty."""

    index: int
    start: int
    stop: int


class Archive:
    """Where each byte of an archive comes from; `length` is its exact size in bytes.

    Holds 16 bytes an entry beside the entries themselves; headers are made when they are asked for.
    """

    def __init__(self, entries: Iterable[Entry]) -> None:
        self._entries = tuple(entries)
        # Offsets of the local headers, then of the directory; of the directory's records, then of the end records.
        self._headers = array("Q", accumulate(map(_stored_length, self._entries), initial=0))
        directory = self._headers[-1]
        self._records = array("Q", accumulate(map(_record_length, self._entries, self._headers), initial=directory))
        self._end = _end_records(len(self._entries), directory, self._records[-1])
        self.length: int = self._records[-1] + len(self._end)

    def segments(self, start: int, stop: int) -> Iterator[bytes | Piece]:
        """The bytes [start, stop) of the archive, in order: bytes to send as they are, and pieces of the files.

        Raises ValueError at once unless 0 <= start <= stop <= length.
        """
        if not 0 <= start <= stop <= self.length:
            raise ValueError(f"[{start}, {stop}) is no range of an archive of {self.length} bytes")
        return _gathered(self._clipped(start, stop))

    def _clipped(self, start: int, stop: int) -> Iterator[bytes | Piece]:
        for at, length, part in self._parts(start):
            if at >= stop:
                return
            first, last = max(start - at, 0), min(stop - at, length)
            if first < last:
                yield part[first:last] if isinstance(part, bytes) else Piece(part.index, first, last)

    def _parts(self, start: int) -> Iterator[tuple[int, int, bytes | Piece]]:
        """Offset, length and content of each part from the one around `start`, or a header before it, to the end."""
        for index in range(bisect_right(self._headers, start) - 1, len(self._entries)):
            at, entry = self._headers[index], self._entries[index]
            header = _local_header(entry)
            yield at, len(header), header
            yield at + len(header), entry.size, Piece(index, 0, entry.size)
        for index in range(max(bisect_right(self._records, start) - 1, 0), len(self._entries)):
            record = _record(self._entries[index], self._headers[index])
            yield self._records[index], len(record), record
        yield self._records[-1], len(self._end), self._end


def layout(entries: Iterable[Entry]) -> Archive:
    """The archive of these entries, in their order; their names should come from `unique_names`."""
    return Archive(entries)


def _gathered(segments: Iterable[bytes | Piece]) -> Iterator[bytes | Piece]:
    """The same with neighbouring bytes joined: a record an entry would be as many small writes to a socket."""
    block = bytearray()
    for segment in segments:
        if isinstance(segment, bytes):
            block += segment
            if len(block) < _BLOCK:
                continue
        if block:
            yield bytes(block)
            block.clear()
        if isinstance(segment, Piece):
            yield segment
    if block:
        yield bytes(block)


# Names that live in one folder


def unique_names(names: Sequence[str]) -> list[str]:
    """The same names with a number in those that an earlier one equals: `a.txt`, `a (2).txt`.

    Case and normalization do not tell names apart, as on macOS and Windows. A numbered name equals no other name
    given, keeps its extension and has at most 255 UTF-8 bytes, as the names given must. `C:x`, which Windows takes for
    a path, becomes `C_x`. Runs in time linear in the number of names.
    """
    names = [_DRIVE.sub(r"\1_", name) for name in names]
    taken, seen = set(map(_folded, names)), set[str]()
    numbers: dict[tuple[str, str], int] = {}
    unique = []
    for name in names:
        first = (key := _folded(name)) not in seen
        seen.add(key)
        unique.append(name if first else _numbered(name, taken, numbers))
    return unique


def _folded(name: str) -> str:
    return unicodedata.normalize("NFD", unicodedata.normalize("NFD", name).casefold())


def _numbered(name: str, taken: set[str], numbers: dict[tuple[str, str], int]) -> str:
    """A free variant of `name`, now in `taken`; `numbers` keeps the last number that each stem came to."""
    extension = match[0] if (match := _EXTENSION.search(name)) else ""
    room = MAX_NAME_BYTES - _NUMBER_BYTES - len(extension.encode())
    stem = name.removesuffix(extension).encode()[:room].decode(errors="ignore")
    row = _folded(stem), _folded(extension)
    while True:
        numbers[row] = numbers.get(row, 1) + 1
        variant = f"{stem} ({numbers[row]}){extension}"
        if (key := _folded(variant)) not in taken:
            taken.add(key)
            return variant


# The parts of the format


def _stored_length(entry: Entry) -> int:
    return 4 + _COMMON.size + len(entry.name.encode()) + len(_local_extra(entry)) + entry.size


def _record_length(entry: Entry, offset: int) -> int:
    return 6 + _COMMON.size + _RECORD_TAIL.size + len(entry.name.encode()) + len(_central_extra(entry, offset))


def _local_header(entry: Entry) -> bytes:
    extra = _local_extra(entry)
    return b"PK\3\4" + _common(entry, entry.size, extra) + entry.name.encode() + extra


def _record(entry: Entry, offset: int) -> bytes:
    """Central directory record of an entry whose local header is at `offset`."""
    extra = _central_extra(entry, offset)
    head = b"PK\1\2" + struct.pack("<H", _MADE_BY) + _common(entry, max(entry.size, offset), extra)
    return head + _RECORD_TAIL.pack(0, 0, 0, _REGULAR_0644, min(offset, _FULL_32)) + entry.name.encode() + extra


def _common(entry: Entry, largest: int, extra: bytes) -> bytes:
    """The fields that begin both headers; `largest` is the greatest number that the header has to hold."""
    needed = _NEEDS_ZIP64 if largest >= _FULL_32 else _NEEDS_STORED
    flags, stored = 0 if entry.name.isascii() else _UTF8_NAME, 0
    size, lengths = min(entry.size, _FULL_32), (len(entry.name.encode()), len(extra))
    return _COMMON.pack(needed, flags, stored, *_dos_time(entry.modified), entry.crc32, size, size, *lengths)


def _local_extra(entry: Entry) -> bytes:
    # [4.5.3] "This entry in the Local header MUST include BOTH original and compressed file size fields."
    return _zip64_extra([entry.size] * 2 if entry.size >= _FULL_32 else []) + _time_extra(entry.modified)


def _central_extra(entry: Entry, offset: int) -> bytes:
    # [4.5.3] Each field appears only if the field of the record that it stands for is full; their order is fixed.
    numbers = [number for number in (entry.size, entry.size, offset) if number >= _FULL_32]
    return _zip64_extra(numbers) + _time_extra(entry.modified)


def _zip64_extra(numbers: Sequence[int]) -> bytes:
    return struct.pack(f"<2H{len(numbers)}Q", 0x0001, 8 * len(numbers), *numbers) if numbers else b""


def _time_extra(modified: datetime) -> bytes:
    """Extended timestamp: seconds since 1970 in UTC, of the last change alone; none where 32 signed bits end."""
    seconds = (modified - _EPOCH) // timedelta(seconds=1)
    return struct.pack("<2HBi", 0x5455, 5, 1, seconds) if -(1 << 31) <= seconds < 1 << 31 else b""


def _dos_time(modified: datetime) -> tuple[int, int]:
    """[4.4.6] MS-DOS time and date in UTC, in steps of two seconds; the nearest there is before 1980 and after 2107."""
    moment = min(max(modified, _DOS_FIRST), _DOS_LAST).astimezone(UTC)
    time = moment.hour << 11 | moment.minute << 5 | moment.second // 2
    return time, (moment.year - 1980) << 9 | moment.month << 5 | moment.day


def _end_records(count: int, directory: int, end: int) -> bytes:
    """What follows a directory of `count` records at the offsets [directory, end)."""
    size, zip64 = end - directory, b""
    if count >= _FULL_16 or max(size, directory) >= _FULL_32:
        # [4.3.14.1] The size of the record leaves out its signature and itself, which are 12 bytes.
        versions, counts = (_MADE_BY, _NEEDS_ZIP64), (0, 0, count, count)
        zip64 = _END_64.pack(b"PK\6\6", _END_64.size - 12, *versions, *counts, size, directory)
        zip64 += _LOCATOR_64.pack(b"PK\6\7", 0, end, 1)
    counts = 0, 0, min(count, _FULL_16), min(count, _FULL_16)
    return zip64 + _END.pack(b"PK\5\6", *counts, min(size, _FULL_32), min(directory, _FULL_32), 0)
