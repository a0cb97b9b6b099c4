"""What a GET or HEAD of a stored file is answered with: the headers of the request against the facts of the file.

Pure. Order and meaning are those of RFC 9110 section 13.2.2. Nothing in a header can raise: a list of entity tags that
does not parse matches nothing (so If-Match fails and If-None-Match sends the file), a date that does not parse is
ignored, an invalid Range is ignored.
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TypeAlias

from multidict import CIMultiDict, CIMultiDictProxy

from file_service.handlers.ranges import ByteRange, parse_ranges

Headers: TypeAlias = CIMultiDictProxy[str] | CIMultiDict[str]

# entity-tag of RFC 9110 section 8.8.3; obs-text is whatever is not ASCII.
_TAG = r'(?:W/)?"[^\x00-\x20"\x7f]*"'
_TAGS = re.compile(_TAG)
# A list as section 5.6.1.2 has recipients take it, empty members and all. `*+` never gives back, which keeps it linear.
_TAG_LIST = re.compile(rf"[ \t,]*+(?:{_TAG}[ \t]*+(?:,[ \t,]*+|\Z))*")

_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_MONTH = rf"(?P<month>{'|'.join(_MONTHS)})"
_TIME = r"(?P<hour>[0-9]{2}):(?P<minute>[0-9]{2}):(?P<second>[0-5][0-9]|60)"
_DAY_NAME = r"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)"
_LONG_DAY_NAME = r"(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day"
_DATES = (
    re.compile(rf"{_DAY_NAME}, (?P<day>[0-9]{{2}}) {_MONTH} (?P<year>[0-9]{{4}}) {_TIME} GMT"),  # IMF-fixdate
    re.compile(rf"{_LONG_DAY_NAME}, (?P<day>[0-9]{{2}})-{_MONTH}-(?P<year>[0-9]{{2}}) {_TIME} GMT"),  # RFC 850
    re.compile(rf"{_DAY_NAME} {_MONTH} (?P<day>[ 0-9][0-9]) {_TIME} (?P<year>[0-9]{{4}})"),  # asctime()
)


@dataclass(frozen=True, slots=True)
class Facts:
    """The validators of a stored file: size in bytes, its strong entity tag in quotes, the second it was completed."""

    size: int
    etag: str
    last_modified: datetime

    def __post_init__(self) -> None:
        if not _TAGS.fullmatch(self.etag) or self.etag.startswith("W/"):
            raise ValueError(f"not a strong entity tag: {self.etag!r}")
        if self.last_modified.utcoffset() is None or self.last_modified.microsecond:
            raise ValueError(f"not an aware time in whole seconds: {self.last_modified!r}")


@dataclass(frozen=True, slots=True)
class Whole:
    """200 with all of the file."""


@dataclass(frozen=True, slots=True)
class Partial:
    """206: one range as such, several as multipart/byteranges; never none."""

    ranges: tuple[ByteRange, ...]


@dataclass(frozen=True, slots=True)
class NotModified:
    """304 without a body."""


@dataclass(frozen=True, slots=True)
class PreconditionFailed:
    """412."""


@dataclass(frozen=True, slots=True)
class Unsatisfiable:
    """416 with `unsatisfied_range(size)` as its Content-Range."""


Decision: TypeAlias = Whole | Partial | NotModified | PreconditionFailed | Unsatisfiable


def decide(method: str, headers: Headers, facts: Facts) -> Decision:
    """What to answer to a GET or HEAD. Never raises, whatever stands in the headers."""
    if not _is_the_expected_file(headers, facts):
        return PreconditionFailed()
    if _is_known_to_client(headers, facts):
        return NotModified()
    # "A server MUST ignore a Range header field received with a request method that is unrecognized or for which range
    # handling is not defined. For this specification, GET is the only method" (RFC 9110 section 14.2).
    wanted = _field(headers, "Range") if method == "GET" else None
    if wanted is None or not _is_range_wanted(headers, facts):
        return Whole()
    ranges = parse_ranges(wanted, facts.size)
    if ranges is None:
        return Whole()
    return Partial(ranges) if ranges else Unsatisfiable()


def is_ours_to_judge(headers: Headers, facts: Facts) -> bool:
    """Whether there is a condition that an object store, whose entity tags are others, could not judge as we do."""
    names = ("If-Match", "If-None-Match", "If-Range", "If-Modified-Since", "If-Unmodified-Since")
    values = [value for name in names if (value := _field(headers, name)) is not None]
    named = [[tag.removeprefix("W/") for tag in _tags(value)] for value in values]
    return any(not tags or facts.etag in tags for tags in named)


def parse_date(value: str, today: datetime | None = None) -> datetime | None:
    """An HTTP date in any of the three formats of RFC 9110 section 5.6.7 as aware UTC, None if it is none of them.

    The two-digit year of the second format is at most 49 years after that of `today`, by default the present day.
    """
    for pattern in _DATES:
        if match := pattern.fullmatch(value.strip(" \t")):
            break
    else:
        return None
    year, day, hour, minute, second = (int(match[name]) for name in ("year", "day", "hour", "minute", "second"))
    if len(match["year"]) == 2:  # noqa: PLR2004 - the two digits of the format
        latest = (today or datetime.now(UTC)).year + 49
        year = latest - (latest - year) % 100
    try:
        start = datetime(year, _MONTHS.index(match["month"]) + 1, day, hour, minute, tzinfo=UTC)
        return start + timedelta(seconds=second)  # added, because a leap second is a valid one
    except (ValueError, OverflowError):
        return None


def _is_the_expected_file(headers: Headers, facts: Facts) -> bool:
    """If-Match, in its absence If-Unmodified-Since (RFC 9110 sections 13.1.1 and 13.1.4)."""
    tags = _field(headers, "If-Match")
    if tags is not None:
        return tags == "*" or facts.etag in _tags(tags)
    date = _date(headers, "If-Unmodified-Since")
    return date is None or facts.last_modified <= date


def _is_known_to_client(headers: Headers, facts: Facts) -> bool:
    """If-None-Match, in its absence If-Modified-Since (RFC 9110 sections 13.1.2 and 13.1.3)."""
    tags = _field(headers, "If-None-Match")
    if tags is not None:
        return tags == "*" or facts.etag in {tag.removeprefix("W/") for tag in _tags(tags)}
    date = _date(headers, "If-Modified-Since")
    return date is not None and facts.last_modified <= date


def _is_range_wanted(headers: Headers, facts: Facts) -> bool:
    """If-Range (RFC 9110 section 13.1.5); a date counts as a strong validator, since a stored file never changes."""
    validator = _field(headers, "If-Range")
    return validator is None or validator == facts.etag or parse_date(validator) == facts.last_modified


def _tags(value: str) -> list[str]:
    """The entity tags of a list, as written; none if any of it is not a tag, for nothing may match by accident."""
    return _TAGS.findall(value) if _TAG_LIST.fullmatch(value) else []


def _date(headers: Headers, name: str) -> datetime | None:
    value = _field(headers, name)
    return None if value is None else parse_date(value)


def _field(headers: Headers, name: str) -> str | None:
    """The lines of a header as one (RFC 9110 section 5.3); where one value is allowed, two then fail to parse."""
    lines = headers.getall(name, [])
    return ", ".join(lines).strip(" \t") if lines else None
