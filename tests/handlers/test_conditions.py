import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from email.utils import format_datetime
from random import Random

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from multidict import CIMultiDict, CIMultiDictProxy

from file_service.handlers.conditions import (
    Decision,
    Facts,
    NotModified,
    Partial,
    PreconditionFailed,
    Unsatisfiable,
    Whole,
    decide,
    parse_date,
)
from file_service.handlers.ranges import ByteRange

TAG = '"sha256-abc,def"'  # a comma inside the quotes is no separator
MODIFIED = datetime(1994, 11, 6, 8, 49, 37, tzinfo=UTC)
FACTS = Facts(1000, TAG, MODIFIED)
EMPTY = Facts(0, TAG, MODIFIED)

SAME = "Sun, 06 Nov 1994 08:49:37 GMT"
EARLIER = "Sun, 06 Nov 1994 08:49:36 GMT"
LATER = "Sun, 06 Nov 1994 08:49:38 GMT"
FIRST_TEN = Partial((ByteRange(0, 10),))

Lines = list[tuple[str, str]]


def headers(lines: Lines) -> CIMultiDictProxy[str]:
    return CIMultiDictProxy(CIMultiDict(lines))


def answer(*lines: tuple[str, str], method: str = "GET", facts: Facts = FACTS) -> Decision:
    return decide(method, headers(list(lines)), facts)


# --- ranges


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        pytest.param("bytes=0-9", FIRST_TEN, id="first ten"),
        pytest.param("bytes=0-", Partial((ByteRange(0, 1000),)), id="open"),
        pytest.param("bytes=5-99999", Partial((ByteRange(5, 1000),)), id="clamped"),
        pytest.param("bytes=-500", Partial((ByteRange(500, 1000),)), id="suffix"),
        pytest.param("bytes=-99999", Partial((ByteRange(0, 1000),)), id="suffix longer than the file"),
        pytest.param("bytes=-0", Unsatisfiable(), id="suffix of nothing"),
        pytest.param("bytes=1000-", Unsatisfiable(), id="at the end"),
        pytest.param("bytes=9223372036854775808-", Unsatisfiable(), id="2^63"),
        pytest.param(f"bytes={'9' * 40}-", Unsatisfiable(), id="40 digits"),
        pytest.param(f"bytes=0-{'9' * 40}", Partial((ByteRange(0, 1000),)), id="40 digits clamped"),
        pytest.param("bytes=9-5", Whole(), id="backwards"),
        pytest.param("bytes=abc", Whole(), id="no digits"),
        pytest.param("bytes=", Whole(), id="empty set"),
        pytest.param("items=0-9", Whole(), id="unknown unit"),
        pytest.param("bytes= 0-9, 20-29", Partial((ByteRange(0, 10), ByteRange(20, 30))), id="two"),
        pytest.param("bytes=0-9,2000-", FIRST_TEN, id="two, one satisfiable"),
        pytest.param("bytes=0-5,3-9", FIRST_TEN, id="overlapping"),
        pytest.param("bytes=" + ",".join(f"{n}-{n}" for n in range(0, 34, 2)), Whole(), id="seventeen"),
        pytest.param(
            "bytes=" + ",".join(["0-0,2-2"] * 500), Partial((ByteRange(0, 1), ByteRange(2, 3))), id="thousand"
        ),
    ],
)
def test_a_range_is_answered_with(value: str, expected: Decision) -> None:
    assert answer(("Range", value)) == expected


@pytest.mark.parametrize("value", ["bytes=0-0", "bytes=-1", "bytes=-0", "bytes=0-"])
def test_a_range_of_an_empty_file_is_answered_with_all_of_it(value: str) -> None:
    assert answer(("Range", value), facts=EMPTY) == Whole()


@pytest.mark.parametrize("value", ["bytes=0-9", "bytes=0-9,20-29", "bytes=5000-"])
def test_head_ignores_ranges(value: str) -> None:
    assert answer(("Range", value), method="HEAD") == Whole()
    assert answer(("Range", value), ("If-Range", TAG), method="HEAD") == Whole()


def test_two_range_lines_are_not_one_range() -> None:
    assert answer(("Range", "bytes=0-9"), ("Range", "bytes=20-29")) == Whole()


def test_header_names_are_case_insensitive() -> None:
    assert answer(("rAnGe", "bytes=0-9")) == FIRST_TEN


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_request_without_conditions_is_answered_with_the_file(method: str) -> None:
    assert answer(method=method) == Whole()


# --- If-Range


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        pytest.param(TAG, FIRST_TEN, id="strong tag"),
        pytest.param(f" {TAG}\t", FIRST_TEN, id="strong tag in blanks"),
        pytest.param('"other"', Whole(), id="other tag"),
        pytest.param(f"W/{TAG}", Whole(), id="weak tag"),
        pytest.param(f'{TAG}, "other"', Whole(), id="a list is no validator"),
        pytest.param("*", Whole(), id="a star is no validator"),
        pytest.param("", Whole(), id="empty"),
        pytest.param(TAG.strip('"'), Whole(), id="tag without quotes"),
        pytest.param(SAME, FIRST_TEN, id="exact date"),
        pytest.param("Sun Nov  6 08:49:37 1994", FIRST_TEN, id="exact date in asctime form"),
        pytest.param(EARLIER, Whole(), id="earlier date"),
        pytest.param(LATER, Whole(), id="later date"),
        pytest.param("yesterday", Whole(), id="garbage"),
    ],
)
def test_if_range_decides_about_the_range(value: str, expected: Decision) -> None:
    assert answer(("If-Range", value), ("Range", "bytes=0-9")) == expected


def test_if_range_without_range_means_nothing() -> None:
    assert answer(("If-Range", TAG)) == Whole()
    assert answer(("If-Range", '"other"')) == Whole()


def test_two_if_range_lines_match_nothing() -> None:
    assert answer(("If-Range", TAG), ("If-Range", TAG), ("Range", "bytes=0-9")) == Whole()


def test_an_unsatisfiable_range_is_refused_only_if_it_counts() -> None:
    assert answer(("If-Range", TAG), ("Range", "bytes=1000-")) == Unsatisfiable()
    assert answer(("If-Range", '"other"'), ("Range", "bytes=1000-")) == Whole()


# --- preconditions


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        pytest.param("If-None-Match", TAG, NotModified(), id="none-match: ours"),
        pytest.param("If-None-Match", f"W/{TAG}", NotModified(), id="none-match: ours, weak"),
        pytest.param("If-None-Match", "*", NotModified(), id="none-match: star"),
        pytest.param("If-None-Match", f'"a,b", W/"c" ,\t{TAG}', NotModified(), id="none-match: in a list"),
        pytest.param("If-None-Match", f",, {TAG} ,", NotModified(), id="none-match: empty members"),
        pytest.param("If-None-Match", f'"\u00e4\udcff",{TAG}', NotModified(), id="none-match: obs-text in a list"),
        pytest.param("If-None-Match", '"other"', Whole(), id="none-match: other"),
        pytest.param("If-None-Match", '"sha256-abc", "def"', Whole(), id="none-match: halves of ours"),
        pytest.param("If-None-Match", f"w/{TAG}", Whole(), id="none-match: small w"),
        pytest.param("If-None-Match", TAG.upper(), Whole(), id="none-match: other case"),
        pytest.param("If-None-Match", TAG.strip('"'), Whole(), id="none-match: no quotes"),
        pytest.param("If-None-Match", f"junk {TAG}", Whole(), id="none-match: junk before"),
        pytest.param("If-None-Match", f'{TAG} "other"', Whole(), id="none-match: no comma"),
        pytest.param("If-None-Match", f"{TAG}, *", Whole(), id="none-match: star in a list"),
        pytest.param("If-None-Match", f'{TAG}, "open', Whole(), id="none-match: open quote"),
        pytest.param("If-None-Match", '"', Whole(), id="none-match: lone quote"),
        pytest.param("If-None-Match", "", Whole(), id="none-match: empty"),
        pytest.param("If-Modified-Since", SAME, NotModified(), id="modified-since: same"),
        pytest.param("If-Modified-Since", LATER, NotModified(), id="modified-since: later"),
        pytest.param("If-Modified-Since", EARLIER, Whole(), id="modified-since: earlier"),
        pytest.param(
            "If-Modified-Since", "Sunday, 06-Nov-94 08:49:37 GMT", NotModified(), id="modified-since: RFC 850"
        ),
        pytest.param("If-Modified-Since", "Sun Nov  6 08:49:37 1994", NotModified(), id="modified-since: asctime"),
        pytest.param("If-Modified-Since", "tomorrow", Whole(), id="modified-since: garbage"),
        pytest.param("If-Modified-Since", f"{LATER}, {LATER}", Whole(), id="modified-since: list"),
        pytest.param("If-Modified-Since", "", Whole(), id="modified-since: empty"),
        pytest.param("If-Match", TAG, Whole(), id="match: ours"),
        pytest.param("If-Match", "*", Whole(), id="match: star"),
        pytest.param("If-Match", f'"x", {TAG}', Whole(), id="match: in a list"),
        pytest.param("If-Match", '"other"', PreconditionFailed(), id="match: other"),
        pytest.param("If-Match", f"W/{TAG}", PreconditionFailed(), id="match: weak"),
        pytest.param("If-Match", "junk", PreconditionFailed(), id="match: garbage"),
        pytest.param("If-Match", f"junk, {TAG}", PreconditionFailed(), id="match: garbage beside ours"),
        pytest.param("If-Match", "", PreconditionFailed(), id="match: empty"),
        pytest.param("If-Unmodified-Since", SAME, Whole(), id="unmodified-since: same"),
        pytest.param("If-Unmodified-Since", LATER, Whole(), id="unmodified-since: later"),
        pytest.param("If-Unmodified-Since", EARLIER, PreconditionFailed(), id="unmodified-since: earlier"),
        pytest.param("If-Unmodified-Since", "once", Whole(), id="unmodified-since: garbage"),
        pytest.param("If-Unmodified-Since", f"{EARLIER}, {EARLIER}", Whole(), id="unmodified-since: list"),
    ],
)
def test_a_precondition_is_answered_with(method: str, name: str, value: str, expected: Decision) -> None:
    assert answer((name, value), method=method) == expected


@pytest.mark.parametrize("name", ["If-None-Match", "If-Match"])
def test_tags_on_several_lines_are_one_list(name: str) -> None:
    several = answer((name, '"a"'), (name, TAG), (name, '"b"'))
    assert several == answer((name, TAG)) != answer((name, '"a"'))


@pytest.mark.parametrize("name", ["If-Modified-Since", "If-Unmodified-Since"])
def test_dates_on_several_lines_are_ignored(name: str) -> None:
    assert answer((name, SAME), (name, SAME)) == Whole()
    assert answer((name, EARLIER), (name, EARLIER)) == Whole()


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        pytest.param([("If-Match", TAG), ("If-Unmodified-Since", EARLIER)], Whole(), id="match hides unmodified-since"),
        pytest.param(
            [("If-Match", '"x"'), ("If-Unmodified-Since", LATER)], PreconditionFailed(), id="match alone decides"
        ),
        pytest.param([("If-Match", '"x"'), ("If-None-Match", TAG)], PreconditionFailed(), id="match before none-match"),
        pytest.param([("If-Match", TAG), ("If-None-Match", TAG)], NotModified(), id="match true, none-match false"),
        pytest.param(
            [("If-Unmodified-Since", EARLIER), ("If-None-Match", TAG)],
            PreconditionFailed(),
            id="unmodified-since before none-match",
        ),
        pytest.param(
            [("If-Unmodified-Since", EARLIER), ("If-Modified-Since", LATER)],
            PreconditionFailed(),
            id="unmodified-since before modified-since",
        ),
        pytest.param(
            [("If-None-Match", '"x"'), ("If-Modified-Since", LATER)], Whole(), id="none-match hides modified-since"
        ),
        pytest.param(
            [("If-None-Match", "junk"), ("If-Modified-Since", LATER)], Whole(), id="even an unparsable none-match does"
        ),
        pytest.param(
            [("If-None-Match", TAG), ("If-Modified-Since", EARLIER)], NotModified(), id="none-match alone decides"
        ),
        pytest.param([("If-None-Match", TAG), ("Range", "bytes=0-9")], NotModified(), id="none-match before range"),
        pytest.param([("If-Modified-Since", SAME), ("Range", "bytes=5000-")], NotModified(), id="304 before 416"),
        pytest.param([("If-Match", '"x"'), ("Range", "bytes=5000-")], PreconditionFailed(), id="412 before 416"),
        pytest.param([("If-Match", TAG), ("Range", "bytes=0-9")], FIRST_TEN, id="range after a true match"),
        pytest.param([("If-Match", TAG), ("Range", "bytes=5000-")], Unsatisfiable(), id="416 after a true match"),
        pytest.param(
            [("If-None-Match", TAG), ("If-Range", TAG), ("Range", "bytes=0-9")],
            NotModified(),
            id="none-match before if-range",
        ),
        pytest.param(
            [("If-Match", TAG), ("If-Range", '"x"'), ("Range", "bytes=0-9")], Whole(), id="if-range after a true match"
        ),
    ],
)
def test_precedence(lines: Lines, expected: Decision) -> None:
    assert answer(*lines) == expected


# --- against the steps of RFC 9110 section 13.2.2, written out as a table of what each header value means

VERDICTS: dict[str, dict[str, bool]] = {
    "If-Match": {TAG: True, "*": True, f'"x",{TAG}': True, '"x"': False, f"W/{TAG}": False, "junk": False},
    "If-Unmodified-Since": {SAME: True, LATER: True, EARLIER: False, "junk": True},
    "If-None-Match": {'"x"': True, "junk": True, TAG: False, f"W/{TAG}": False, "*": False},
    "If-Modified-Since": {EARLIER: True, "junk": True, SAME: False, LATER: False},
    "If-Range": {TAG: True, SAME: True, '"x"': False, f"W/{TAG}": False, EARLIER: False, LATER: False, "junk": False},
}
RANGES: dict[str, Decision] = {"bytes=0-9": FIRST_TEN, "bytes=1000-": Unsatisfiable(), "items=0-9": Whole()}


def by_the_steps(method: str, sent: dict[str, str]) -> Decision:
    verdict = {name: VERDICTS[name][value] for name, value in sent.items() if name != "Range"}
    if not verdict.get("If-Match", True):
        return PreconditionFailed()
    if "If-Match" not in verdict and not verdict.get("If-Unmodified-Since", True):
        return PreconditionFailed()
    if not verdict.get("If-None-Match", True):
        return NotModified()
    if "If-None-Match" not in verdict and not verdict.get("If-Modified-Since", True):
        return NotModified()
    if method == "GET" and "Range" in sent and verdict.get("If-Range", True):
        return RANGES[sent["Range"]]
    return Whole()


choices = {name: st.sampled_from(list(values)) for name, values in VERDICTS.items()}
choices["Range"] = st.sampled_from(list(RANGES))


@given(st.sampled_from(["GET", "HEAD"]), st.fixed_dictionaries({}, optional=choices), st.randoms())
def test_every_combination_follows_the_steps_of_the_rfc(method: str, sent: dict[str, str], random: Random) -> None:
    lines = list(sent.items())
    random.shuffle(lines)
    assert decide(method, headers(lines), FACTS) == by_the_steps(method, sent)


# --- entity tags, against a reader that goes character by character

etagc = st.characters(min_codepoint=0x21, max_codepoint=0x17F, exclude_characters='"\x7f')
tags = st.builds(lambda weak, text: f'{weak}"{text}"', st.sampled_from(["", "W/"]), st.text(etagc, max_size=4))
separators = st.sampled_from([",", ", ", " ,", ",,", "\t, ,"])


def listed(value: str) -> list[str]:
    found, current, quoted = [], "", False
    for char in value + ",":
        if char == "," and not quoted:
            found.append(current.strip(" \t"))
            current = ""
        else:
            quoted ^= char == '"'
            current += char
    return [tag for tag in found if tag]


@given(st.lists(st.tuples(tags | st.just(TAG), separators), max_size=8))
def test_a_list_of_tags_matches_what_stands_in_it(members: list[tuple[str, str]]) -> None:
    value = "".join(tag + separator for tag, separator in members)
    found = listed(value)
    assert found == [tag for tag, _ in members]
    assert answer(("If-Match", value)) == (Whole() if TAG in found else PreconditionFailed())
    known = TAG in found or f"W/{TAG}" in found
    assert answer(("If-None-Match", value)) == (NotModified() if known else Whole())


# --- dates

MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]


def rfc850(moment: datetime) -> str:
    day = f"{moment.day:02}-{MONTHS[moment.month - 1]}-{moment.year % 100:02}"
    return f"{DAYS[moment.weekday()]}, {day} {moment:%H:%M:%S} GMT"


def asctime(moment: datetime) -> str:
    return f"{DAYS[moment.weekday()][:3]} {MONTHS[moment.month - 1]} {moment.day:2} {moment:%H:%M:%S} {moment.year:04}"


def imf_fixdate(moment: datetime) -> str:
    return format_datetime(moment, usegmt=True)


seconds = st.datetimes(timezones=st.just(UTC)).map(lambda moment: moment.replace(microsecond=0))


@given(seconds, st.sampled_from([imf_fixdate, asctime]))
def test_a_date_is_read_back(moment: datetime, form: Callable[[datetime], str]) -> None:
    assert parse_date(form(moment)) == moment


@given(st.datetimes(min_value=datetime(1976, 1, 1), max_value=datetime(2075, 12, 31)))  # noqa: DTZ001 - as hypothesis asks
@example(datetime(1976, 1, 1))  # noqa: DTZ001
@example(datetime(2075, 12, 31))  # noqa: DTZ001
def test_a_year_of_two_digits_is_never_fifty_years_ahead(naive: datetime) -> None:
    moment = naive.replace(tzinfo=UTC, microsecond=0)
    assert parse_date(rfc850(moment), today=datetime(2026, 6, 1, tzinfo=UTC)) == moment


def test_a_year_of_two_digits_is_read_as_of_the_present_day() -> None:
    now = datetime.now(UTC).replace(microsecond=0)
    assert parse_date(rfc850(now)) == now


def test_a_leap_second_is_the_second_after() -> None:
    assert parse_date("Sat, 31 Dec 2016 23:59:60 GMT") == datetime(2017, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    "value",
    [
        "",
        "0",
        "Sun, 06 Nov 1994 08:49:37",
        "Sun, 06 Nov 1994 08:49:37 UTC",
        "Sun, 06 Nov 1994 08:49:37 +0000",
        "Sun, 06 Nov 1994 08:49:37 GMT; length=5",
        "Sun, 6 Nov 1994 08:49:37 GMT",
        "06 Nov 1994 08:49:37 GMT",
        "sun, 06 nov 1994 08:49:37 gmt",
        "Sun, 31 Feb 1994 08:49:37 GMT",
        "Sun, 00 Nov 1994 08:49:37 GMT",
        "Sun, 06 Nov 0000 08:49:37 GMT",
        "Sun, 06 Nov 1994 24:00:00 GMT",
        "Sun, 06 Nov 1994 08:60:00 GMT",
        "Sun, 06 Nov 1994 08:49:61 GMT",
        "Fri, 31 Dec 9999 23:59:60 GMT",
        "Sun, \u0660\u0666 Nov 1994 08:49:37 GMT",
        "Sun, 06 Nov 1994 08:49:37 GMT\n",
        "Sun Nov 6 08:49:37 1994",
        "Sun, 06-Nov-94 08:49:37 GMT",
        "1994-11-06T08:49:37Z",
        "\udcff",
    ],
)
def test_what_is_no_http_date_is_none(value: str) -> None:
    assert parse_date(value) is None


# --- nothing in a header raises, and nothing in a header is expensive

texts = (
    st.text()
    | st.text(alphabet='"W/*, \t\\x\u00e9\udcff')
    | st.from_regex(r"(bytes=)?[0-9,\- ]{0,30}", fullmatch=True)
    | st.from_regex(r"[A-Z][a-z]{2}, [0-9]{2} [A-Z][a-z]{2} [0-9]{4} [0-9]{2}:[0-9]{2}:[0-9]{2} GMT", fullmatch=True)
    | st.builds(
        "{}, {:02} Nov {:04} {:02}:59:60 GMT".format, st.sampled_from(["Sun", "Mon"]), *[st.integers(0, 99)] * 3
    )
)
names = st.sampled_from([*VERDICTS, "Range"])


@given(
    st.sampled_from(["GET", "HEAD"]), st.lists(st.tuples(names, texts), max_size=10), st.sampled_from([FACTS, EMPTY])
)
def test_no_header_makes_the_decision_raise(method: str, lines: Lines, facts: Facts) -> None:
    decision = decide(method, headers(lines), facts)
    if isinstance(decision, Partial):
        assert decision.ranges
        assert all(0 <= part.start < part.stop <= facts.size for part in decision.ranges)


@pytest.mark.parametrize("name", [*VERDICTS, "Range"])
@pytest.mark.parametrize(
    "value",
    [
        pytest.param(" " * 500_000 + "x", id="blanks"),
        pytest.param('"a"' + " " * 500_000 + "x", id="blanks after a tag"),
        pytest.param("," * 500_000 + "x", id="commas"),
        pytest.param(" ," * 250_000 + "x", id="blanks and commas"),
        pytest.param('"' * 500_001, id="quotes"),
        pytest.param('"a",' * 150_000 + "x", id="tags"),
        pytest.param('W/"' * 150_000, id="open tags"),
    ],
)
def test_the_cost_of_a_hostile_header_is_linear(name: str, value: str) -> None:
    started = time.process_time()
    answer((name, value), ("Range", "bytes=0-9"))
    # Sixty times what one header can hold takes a fraction of a second; quadratic work would take minutes.
    assert time.process_time() - started < 5


# --- facts


@pytest.mark.parametrize("etag", ["", "abc", 'W/"abc"', '"a"b"', '"a b"', '"a\r\n"', '"abc'])
def test_facts_refuse_what_is_no_strong_tag(etag: str) -> None:
    with pytest.raises(ValueError, match="not a strong entity tag"):
        Facts(1, etag, MODIFIED)


@pytest.mark.parametrize("moment", [MODIFIED.replace(tzinfo=None), MODIFIED.replace(microsecond=1)])
def test_facts_refuse_a_time_that_no_header_can_carry(moment: datetime) -> None:
    with pytest.raises(ValueError, match="not an aware time in whole seconds"):
        Facts(1, TAG, moment)


def test_the_time_zone_of_the_facts_does_not_matter() -> None:
    elsewhere = Facts(1000, TAG, MODIFIED.astimezone(timezone(timedelta(hours=5, minutes=30))))
    assert answer(("If-Range", SAME), ("Range", "bytes=0-9"), facts=elsewhere) == FIRST_TEN
    assert answer(("If-Modified-Since", EARLIER), facts=elsewhere) == Whole()
