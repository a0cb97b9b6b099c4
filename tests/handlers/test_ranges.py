import re
import time
from email import message_from_bytes
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from file_service.handlers.ranges import (
    MAX_RANGES,
    ByteRange,
    byteranges,
    content_range,
    parse_ranges,
    unsatisfied_range,
)

BOUNDARY = "3d6b6a416f9b5"


def assembled(data: bytes, ranges: tuple[ByteRange, ...], content_type: str = "text/plain") -> tuple[bytes, str]:
    plan = byteranges(ranges, len(data), content_type, BOUNDARY)
    body = b"".join(head + data[part.start : part.stop] for head, part in plan.parts) + plan.tail
    assert len(body) == plan.length
    return body, plan.content_type


# --- parse_ranges, by table: header, size, [start, stop) pairs; None is "ignore", () is "nothing satisfiable"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        pytest.param("bytes=0-9", ((0, 10),), id="first ten"),
        pytest.param("bytes=0-0", ((0, 1),), id="first byte"),
        pytest.param("bytes=99-99", ((99, 100),), id="last byte"),
        pytest.param("bytes=0-", ((0, 100),), id="open from the start"),
        pytest.param("bytes=5-99999", ((5, 100),), id="last-pos clamped"),
        pytest.param("bytes=0-99", ((0, 100),), id="exactly all"),
        pytest.param("bytes=-1", ((99, 100),), id="suffix of one"),
        pytest.param("bytes=-30", ((70, 100),), id="suffix"),
        pytest.param("bytes=-99999", ((0, 100),), id="suffix longer than the file"),
        pytest.param("bytes=-0", (), id="suffix of nothing"),
        pytest.param("bytes=100-", (), id="starts at the end"),
        pytest.param("bytes=100-100", (), id="the byte after the last"),
        pytest.param("bytes=9223372036854775808-", (), id="starts at 2^63"),
        pytest.param("bytes=0-9223372036854775808", ((0, 100),), id="ends at 2^63"),
        pytest.param(f"bytes=0-{'9' * 40}", ((0, 100),), id="40 digits clamped"),
        pytest.param(f"bytes={'9' * 40}-", (), id="40 digits unsatisfiable"),
        pytest.param(f"bytes=-{'9' * 40}", ((0, 100),), id="40 digits suffix"),
        pytest.param(f"bytes={'0' * 60}1-{'0' * 60}2", ((1, 3),), id="leading zeros"),
        pytest.param(f"bytes=0-{'9' * 640}", ((0, 100),), id="640 digits"),
        pytest.param(f"bytes=0-{'9' * 8000}", None, id="8000 digits"),
        pytest.param("bytes=9-5", None, id="backwards"),
        pytest.param("bytes=900-500", None, id="backwards beyond the end"),
        pytest.param(f"bytes={'9' * 41}-{'9' * 40}", None, id="backwards in 41 digits"),
        pytest.param("bytes=abc", None, id="no digits"),
        pytest.param("bytes=", None, id="empty set"),
        pytest.param("bytes=,", None, id="only empty members"),
        pytest.param("bytes= , ,\t", None, id="only blank members"),
        pytest.param("bytes=-", None, id="lone hyphen"),
        pytest.param("bytes=--5", None, id="two hyphens"),
        pytest.param("bytes=0-5-9", None, id="three positions"),
        pytest.param("bytes=5", None, id="no hyphen"),
        pytest.param("bytes=+1-5", None, id="sign"),
        pytest.param("bytes=1_0-20", None, id="underscore"),
        pytest.param("bytes=0x1-5", None, id="hexadecimal"),
        pytest.param("bytes=0 - 9", None, id="blanks inside"),
        pytest.param("bytes=0-9;q=1", None, id="parameter"),
        pytest.param("bytes=\u0661-\u0665", None, id="arabic-indic digits"),
        pytest.param("bytes=0-\uff19", None, id="fullwidth digit"),
        pytest.param("bytes=\u00b2-5", None, id="superscript digit"),
        pytest.param("bytes=0-9\n", None, id="line feed"),
        pytest.param("bytes=\xa00-9", None, id="no-break space"),
        pytest.param("bytes=0-\udcff", None, id="lone surrogate"),
        pytest.param("items=0-9", None, id="unknown unit"),
        pytest.param("0-9", None, id="no unit"),
        pytest.param("=0-9", None, id="empty unit"),
        pytest.param("bytes 0-9", None, id="no equals sign"),
        pytest.param("bytes =0-9", None, id="blank after the unit"),
        pytest.param("bytes==0-9", None, id="two equals signs"),
        pytest.param("", None, id="empty"),
        pytest.param("BYTES=0-9", ((0, 10),), id="unit in capitals"),
        pytest.param("bytes= 0-9, 20-29", ((0, 10), (20, 30)), id="two with blanks"),
        pytest.param("bytes=0-9\t,\t20-29 ", ((0, 10), (20, 30)), id="tabs"),
        pytest.param("bytes=,0-9,,20-29,", ((0, 10), (20, 30)), id="empty members"),
        pytest.param("bytes=20-29,0-9", ((20, 30), (0, 10)), id="order kept"),
        pytest.param("bytes=50-59,500-,0-9", ((50, 60), (0, 10)), id="unsatisfiable one left out"),
        pytest.param("bytes=500-,-0", (), id="none satisfiable"),
        pytest.param("bytes=0-9,9-5", None, id="one backwards spoils all"),
        pytest.param("bytes=0-9,abc", None, id="one malformed spoils all"),
        pytest.param("bytes=500-,abc", None, id="malformed beats unsatisfiable"),
        pytest.param("bytes=0-1, bytes=4-5", None, id="two header lines joined"),
        pytest.param("bytes=0-9,5-19", ((0, 20),), id="overlap"),
        pytest.param("bytes=0-9,10-19", ((0, 20),), id="touching"),
        pytest.param("bytes=0-9,11-19", ((0, 10), (11, 20)), id="a gap of one byte stays"),
        pytest.param("bytes=10-19,0-9", ((0, 20),), id="touching backwards"),
        pytest.param("bytes=0-99,5-6", ((0, 100),), id="one inside the other"),
        pytest.param("bytes=80-89,0-9,85-95,5-14", ((80, 96), (0, 15)), id="merged at the place of the first"),
        pytest.param(
            "bytes=15-19,50-59,10-16", ((10, 20), (50, 60)), id="merged at the place of the first, not the lowest"
        ),
        pytest.param("bytes=-10,50-,0-0", ((50, 100), (0, 1)), id="suffix and open overlap"),
        pytest.param("bytes=0-9,20-29,10-19", ((0, 30),), id="bridged"),
    ],
)
def test_a_range_header_means(value: str, expected: tuple[tuple[int, int], ...] | None) -> None:
    assert parse_ranges(value, 100) == (None if expected is None else tuple(ByteRange(*pair) for pair in expected))


@pytest.mark.parametrize("value", ["bytes=0-0", "bytes=0-", "bytes=-1", "bytes=-0", "bytes=5-9", "bytes=0-0,-1"])
def test_ranges_of_an_empty_file_are_ignored(value: str) -> None:
    assert parse_ranges(value, 0) is None


def spaced(count: int) -> str:
    return "bytes=" + ",".join(f"{2 * n}-{2 * n}" for n in range(count))


def test_sixteen_parts_are_served_and_seventeen_are_not() -> None:
    assert parse_ranges(spaced(MAX_RANGES), 1000) == tuple(ByteRange(2 * n, 2 * n + 1) for n in range(MAX_RANGES))
    assert parse_ranges(spaced(MAX_RANGES + 1), 1000) is None


def test_any_number_of_ranges_is_served_when_they_coalesce() -> None:
    assert parse_ranges("bytes=" + ",".join(f"{n}-{n}" for n in range(1000)), 5000) == (ByteRange(0, 1000),)
    assert parse_ranges("bytes=" + ",".join(["0-"] * 1000), 5000) == (ByteRange(0, 5000),)


def test_unsatisfiable_ranges_do_not_count_as_parts() -> None:
    assert parse_ranges("bytes=" + ",".join(["5000-"] * 1000 + ["1-2"]), 5000) == (ByteRange(1, 3),)


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(spaced(100_000), id="many parts"),
        pytest.param("bytes=" + ",".join(f"{n}-" for n in range(100_000, 0, -1)), id="many nested parts"),
        pytest.param("bytes=" + "," * 1_000_000, id="empty members"),
        pytest.param("bytes=" + " " * 1_000_000 + "x", id="blanks"),
        pytest.param("bytes=" + "9" * 1_000_000, id="digits"),
        pytest.param("bytes=" + ("9" * 600 + "-,") * 1000, id="long numbers"),
    ],
)
def test_the_cost_of_a_hostile_header_is_linear(value: str) -> None:
    started = time.process_time()
    parse_ranges(value, 10**12)
    # A hundred times what one header can hold takes well under a second; quadratic work would take minutes.
    assert time.process_time() - started < 5


# --- parse_ranges, against a model that writes every byte position out

positions = st.integers(0, 45)
int_specs = st.builds(lambda first, more: (first, first + more), positions, positions)
specs_ = int_specs | st.tuples(positions, st.none()) | st.tuples(st.none(), positions)
blanks = st.sampled_from(["", " ", "\t", " , ", ",,"])
Spec = tuple[int | None, int | None]


def text_of(spec: Spec) -> str:
    first, last = ("" if bound is None else str(bound) for bound in spec)
    return f"{first}-{last}"


def positions_of(spec: Spec, size: int) -> set[int]:
    first, last = spec
    if first is None:
        assert last is not None
        return set(list(range(size))[-last:]) if last else set()
    return {n for n in range(size) if n >= first and (last is None or n <= last)}


def runs(wanted: set[int]) -> set[tuple[int, int]]:
    starts = sorted(n for n in wanted if n - 1 not in wanted)
    ends = sorted(n + 1 for n in wanted if n + 1 not in wanted)
    return set(zip(starts, ends, strict=True))


@given(st.lists(st.tuples(specs_, blanks), min_size=1, max_size=40), st.integers(1, 80))
@example([((2 * n, 2 * n), "") for n in range(MAX_RANGES + 1)], 80)
@example([((15, 19), ""), ((50, 59), ""), ((10, 16), "")], 80)
def test_ranges_are_the_runs_of_bytes_asked_for_in_the_order_asked(members: list[tuple[Spec, str]], size: int) -> None:
    value = "bytes=" + ",".join(f"{blank}{text_of(spec)}{blank}" for spec, blank in members)
    asked = [positions_of(spec, size) for spec, _ in members]
    expected = runs(set().union(*asked))

    found = parse_ranges(value, size)

    if len(expected) > MAX_RANGES:
        assert found is None
        return
    assert found is not None
    assert {(part.start, part.stop) for part in found} == expected
    assert len(found) == len(expected)
    first_asked = [
        min(n for n, wanted in enumerate(asked) if part.start <= min(wanted, default=-1) < part.stop) for part in found
    ]
    assert all(earlier < later for earlier, later in pairwise(first_asked))


@given(st.text(), st.integers(0, 10**20))
def test_no_text_makes_the_parser_raise(value: str, size: int) -> None:
    for text in (value, f"bytes={value}"):
        for part in parse_ranges(text, size) or ():
            assert 0 <= part.start < part.stop <= size


@given(st.text(alphabet="0123456789-, \tbytes=\u0663"), st.integers(0, 1000))
def test_no_near_miss_makes_the_parser_raise(value: str, size: int) -> None:
    for part in parse_ranges(f"bytes={value}", size) or ():
        assert 0 <= part.start < part.stop <= size


# --- header values


def test_content_range_names_the_last_byte_and_the_size() -> None:
    assert content_range(ByteRange(0, 10), 100) == "bytes 0-9/100"
    assert content_range(ByteRange(99, 100), 100) == "bytes 99-99/100"


def test_the_content_range_of_a_416_names_the_size() -> None:
    assert unsatisfied_range(100) == "bytes */100"


# --- multipart/byteranges


def test_a_multipart_body_is_laid_out_as_in_the_rfc() -> None:
    body, content_type = assembled(b"0123456789", (ByteRange(7, 9), ByteRange(0, 3)), "application/pdf")

    assert content_type == f"multipart/byteranges; boundary={BOUNDARY}"
    assert body == (
        b"--3d6b6a416f9b5\r\nContent-Type: application/pdf\r\nContent-Range: bytes 7-8/10\r\n\r\n78\r\n"
        b"--3d6b6a416f9b5\r\nContent-Type: application/pdf\r\nContent-Range: bytes 0-2/10\r\n\r\n012\r\n"
        b"--3d6b6a416f9b5--\r\n"
    )


def test_the_standard_library_reads_the_multipart_body() -> None:
    data = b"first line\r\n--almost a boundary\r\n\r\nlast \xff\x00 line"
    ranges = (ByteRange(10, 14), ByteRange(0, 6), ByteRange(20, len(data)))
    body, content_type = assembled(data, ranges, "text/plain; charset=utf-8")

    message = message_from_bytes(f"Content-Type: {content_type}\r\n\r\n".encode() + body)

    parts = [part for part in message.walk() if not part.is_multipart()]
    assert [part["Content-Range"] for part in parts] == [content_range(part, len(data)) for part in ranges]
    assert {part["Content-Type"] for part in parts} == {"text/plain; charset=utf-8"}
    assert [part.get_payload(decode=True) for part in parts] == [data[part.start : part.stop] for part in ranges]
    assert not message.defects


@given(st.lists(st.sampled_from([b"\r", b"\n", b"-", b"--", b"x", b"\0"]), min_size=1, max_size=80), st.data())
def test_every_part_of_a_multipart_body_has_exactly_its_bytes(pieces: list[bytes], draw: st.DataObject) -> None:
    data = b"".join(pieces)
    starts = draw.draw(st.lists(st.integers(0, len(data) - 1), min_size=1, max_size=6))
    ranges = tuple(ByteRange(start, draw.draw(st.integers(start + 1, len(data)))) for start in starts)

    body, _ = assembled(data, ranges)

    opening, *parts, closing = (b"\r\n" + body).split(b"\r\n--" + BOUNDARY.encode())
    assert (opening, closing) == (b"", b"--\r\n")
    assert len(parts) == len(ranges)
    for part, found in zip(ranges, parts, strict=True):
        head, payload = found.split(b"\r\n\r\n", 1)
        match = re.search(rb"Content-Range: bytes (\d+)-(\d+)/(\d+)$", head)
        assert match is not None
        assert [int(number) for number in match.groups()] == [part.start, part.stop - 1, len(data)]
        assert payload == data[part.start : part.stop]


def test_the_length_of_a_huge_multipart_body_is_exact_without_its_bytes() -> None:
    size = 5 * 10**13
    plan = byteranges((ByteRange(0, size - 10), ByteRange(size - 5, size)), size, "video/mp4", BOUNDARY)
    assert plan.length == sum(len(head) for head, _ in plan.parts) + len(plan.tail) + size - 5


def test_a_content_type_outside_ascii_is_sent_as_it_came() -> None:
    raw = "text/plain; name=é".encode() + b"\xe4"
    body, _ = assembled(b"x", (ByteRange(0, 1),), raw.decode("utf-8", "surrogateescape"))
    assert raw in body


@pytest.mark.parametrize("boundary", ["", "a b", "a\r\nb", "a;b", 'a"b', "é", "x" * 71, "ok\n"])
def test_a_boundary_that_would_break_the_framing_is_refused(boundary: str) -> None:
    with pytest.raises(ValueError, match="not a boundary"):
        byteranges((ByteRange(0, 1),), 1, "text/plain", boundary)


@pytest.mark.parametrize("content_type", ["text/plain\r\nX-Y: z", "text/plain\n", "text/\0plain", "text/plain\x7f"])
def test_a_content_type_that_would_break_the_framing_is_refused(content_type: str) -> None:
    with pytest.raises(ValueError, match="not a content type"):
        byteranges((ByteRange(0, 1),), 1, content_type, BOUNDARY)
