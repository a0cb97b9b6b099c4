"""Byte ranges: what a Range header asks for, and how the parts of a multipart answer are laid out.

Sources: RFC 9110 sections 14.1.1, 14.1.2, 14.2, 14.4 and 14.6, RFC 2046 section 5.1.1.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

MAX_RANGES = 16
"""More parts than this are not worth their heads; the whole file is sent instead (RFC 9110 section 14.2 allows it)."""

# int() can be configured to refuse more digits, never to refuse 640; a longer number makes the header invalid.
_SPEC = re.compile(r"([0-9]{0,640})-([0-9]{0,640})")
# Token characters only, so that the boundary needs no quotes in its parameter.
_BOUNDARY = re.compile(r"[0-9A-Za-z'+_.-]{1,70}")
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class ByteRange:
    """The bytes [start, stop) of a file; 0 <= start < stop <= size."""

    start: int
    stop: int

    @property
    def length(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True, slots=True)
class Byteranges:
    """A multipart/byteranges body to be: for each part its head then its range of the file, and the tail at the end."""

    content_type: str
    length: int
    parts: tuple[tuple[bytes, ByteRange], ...]
    tail: bytes


def parse_ranges(value: str, size: int) -> tuple[ByteRange, ...] | None:
    """The ranges of a file of `size` bytes that a Range header asks for; clamped, disjoint, in the order asked for.

    None: the header is to be ignored, since its unit is unknown, its syntax or one of its ranges is invalid, more than
    `MAX_RANGES` parts would be left, or the file is empty. An empty tuple: valid, but nothing of it lies in the file.
    Ranges that overlap or touch become one. Never raises. RFC 9110 sections 14.1.1, 14.1.2 and 15.3.7.2.
    """
    unit, _, range_set = value.partition("=")
    specs = [spec for member in range_set.split(",") if (spec := member.strip(" \t"))]
    if unit.lower() != "bytes" or not specs or size == 0:
        return None
    wanted: list[ByteRange] = []
    for spec in specs:
        bounds = _bounds(spec, size)
        if bounds is None:
            return None
        start, stop = bounds
        if start < stop:
            wanted.append(ByteRange(start, stop))
    ranges = _coalesced(wanted)
    return ranges if len(ranges) <= MAX_RANGES else None


def content_range(part: ByteRange, size: int) -> str:
    """The Content-Range of a 206 or of one part of it (RFC 9110 section 14.4)."""
    return f"bytes {part.start}-{part.stop - 1}/{size}"


def unsatisfied_range(size: int) -> str:
    """The Content-Range of a 416 (RFC 9110 section 15.5.17)."""
    return f"bytes */{size}"


def byteranges(ranges: Iterable[ByteRange], size: int, content_type: str, boundary: str) -> Byteranges:
    """Lay out a multipart/byteranges body (RFC 9110 section 14.6); its length is exact.

    `content_type` is that of the file, `boundary` 1 to 70 random letters, digits or `'+_.-`; ValueError for others.
    """
    if not _BOUNDARY.fullmatch(boundary):
        raise ValueError(f"not a boundary: {boundary!r}")
    if _CONTROL.search(content_type):
        raise ValueError(f"not a content type: {content_type!r}")
    parts: list[tuple[bytes, ByteRange]] = []
    for part in ranges:
        head = f"--{boundary}\r\nContent-Type: {content_type}\r\nContent-Range: {content_range(part, size)}\r\n\r\n"
        parts.append(((f"\r\n{head}" if parts else head).encode("utf-8", "surrogateescape"), part))
    tail = f"\r\n--{boundary}--\r\n".encode()
    length = sum(len(head) + part.length for head, part in parts) + len(tail)
    return Byteranges(f"multipart/byteranges; boundary={boundary}", length, tuple(parts), tail)


def _bounds(spec: str, size: int) -> tuple[int, int] | None:
    """Start and stop of one range-spec, an empty span when it is unsatisfiable, None when it is invalid."""
    match = _SPEC.fullmatch(spec)
    if match is None or spec == "-":
        return None
    first, last = match.groups()
    if not first:
        return max(size - int(last), 0), size
    if last and int(last) < int(first):
        return None
    return int(first), min(int(last) + 1, size) if last else size


def _coalesced(ranges: list[ByteRange]) -> tuple[ByteRange, ...]:
    """Merge what overlaps or touches; each result stands where its first member was asked for."""
    merged: list[tuple[int, ByteRange]] = []
    for place, part in sorted(enumerate(ranges), key=lambda item: item[1].start):
        if merged and part.start <= merged[-1][1].stop:
            first, before = merged[-1]
            merged[-1] = min(first, place), ByteRange(before.start, max(before.stop, part.stop))
        else:
            merged.append((place, part))
    return tuple(part for _, part in sorted(merged, key=lambda item: item[0]))
