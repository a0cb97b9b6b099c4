"""File names in and out. The numbered cases follow http://greenbytes.de/tech/tc2231/ and what real clients send."""

import asyncio
import re
import unicodedata
from collections.abc import Iterator
from contextlib import suppress

import pytest
from aiohttp import web
from aiohttp.multipart import content_disposition_filename, parse_content_disposition
from aiohttp.test_utils import TestServer
from hypothesis import given
from hypothesis import strategies as st

from file_service import names
from file_service.names import (
    BadDisposition,
    FormField,
    format_disposition,
    parse_disposition,
    parse_form_disposition,
    sanitize_name,
)

# (case, what follows "attachment; ", name)
VECTORS: list[tuple[str, str, str | None]] = [
    ("1 quoted", 'filename="foo.html"', "foo.html"),
    ("1 upper-case key, bare value", "FILENAME=foo.html", "foo.html"),
    ("2 quoted pair", r'filename="f\oo.html"', "foo.html"),
    ("3 escaped quotes", r'filename="\"quoting\" tested.html"', '"quoting" tested.html'),
    ("4 semicolon in quotes", 'filename="Here\'s a semicolon;.html"', "Here's a semicolon;.html"),
    ("5 two semicolons in quotes", 'filename="a;b;c.html"', "a;b;c.html"),
    ("6 blank before a last semicolon", "filename=foo.html ;", "foo.html"),
    ("6 empty parameters", "; ;filename=foo", "foo"),
    ("6 blanks around the equals sign", 'filename \t= "foo.html"', "foo.html"),
    ("7 bare with a blank", "filename=foo bar.html", "foo bar.html"),
    ("7 bare with brackets", "filename=foo[1](2).html", "foo[1](2).html"),
    ("7 bare with a comma", "filename=foo,bar.html", "foo,bar.html"),
    ("8 raw UTF-8", 'filename="foo-ä.html"', "foo-ä.html"),
    ("9 raw Latin-1", 'filename="foo-\udce4.html"', "foo-ä.html"),
    ("9 raw windows-1252", 'filename="\udc80uro.html"', "€uro.html"),
    ("9 raw Latin-1 control", 'filename="a\udc81\udce4.html"', "aä.html"),
    ("10 percent is literal", 'filename="foo-%41.html"', "foo-%41.html"),
    ("10 lone percent", 'filename="50%.html"', "50%.html"),
    ("11 extended UTF-8", "filename*=UTF-8''foo-%c3%a4-%e2%82%ac.html", "foo-ä-€.html"),
    ("11 with a language", "filename*=utf-8'en'%E2%82%AC%20rates.pdf", "€ rates.pdf"),
    ("11 raw octets in it", "filename*=UTF-8''foo bär.html", "foo bär.html"),
    ("12 extended Latin-1", "filename*=iso-8859-1''foo-%E4.html", "foo-ä.html"),
    ("13 octets that are not UTF-8", "filename*=utf-8''foo-%E4.html", None),
    ("14 unknown charset beside a plain name", "filename=\"ok.html\"; filename*=bogus''x", "ok.html"),
    ("15 extended last", "filename=\"foo-ae.html\"; filename*=UTF-8''foo-%c3%a4.html", "foo-ä.html"),
    ("15 extended first", "filename*=UTF-8''foo-%c3%a4.html; filename=\"foo-ae.html\"", "foo-ä.html"),
    ("16 one apostrophe", "filename*=UTF-8'foo", None),
    ("16 quoted extended value", "filename*=\"UTF-8''x\"", None),
    ("16 no charset", "filename*=''foo", None),
    ("17 percent at the end", "filename*=UTF-8''foo%", None),
    ("17 percent without digits", "filename*=UTF-8''f%oo", None),
    ("18 decoded once", "filename*=UTF-8''A-%2541.html", "A-%41.html"),
    ("19 utf-7", "filename*=utf-7''%2BADw-", None),
    ("19 utf-16", "filename*=utf-16''%00x", None),
    ("19 a letter that only looks like a charset", "filename*=i\u017fo-8859-1''x", None),
    ("20 extended path", "filename*=UTF-8''..%2F..%2Fetc%2Fpasswd", "passwd"),
    ("20 quoted path", 'filename="../../etc/passwd"', "passwd"),
    ("21 Windows path", r'filename="C:\Users\me\f.txt"', "f.txt"),
    ("21 Windows share", r'filename="\\server\share\f.txt"', "f.txt"),
    ("21 escaped Windows path", r'filename="C:\\Users\\me\\f.txt"', "f.txt"),
    ("21 bare Windows path", r"filename=C:\Users\me\f.txt", "f.txt"),
    ("22 NUL", "filename*=UTF-8''a%00b", "ab"),
    ("22 line break", "filename*=UTF-8''a%0D%0AX-Y:%20z", "aX-Y: z"),
    ("23 right-to-left override", "filename*=UTF-8''exe%E2%80%AEgpj.exe", "exegpj.exe"),
    ("24 coded surrogate", "filename*=UTF-8''%ED%A0%80", None),
    ("25 continued", 'filename*0="foo."; filename*1="html"', "foo.html"),
    ("25 out of order", 'filename*1="html"; filename*0="foo."', "foo.html"),
    ("25 coded and plain", "filename*0*=UTF-8''foo-%c3%a4; filename*1=\".html\"", "foo-ä.html"),
    ("25 character over two segments", "filename*0*=UTF-8''foo-%c3; filename*1*=%a4.html", "foo-ä.html"),
    ("25 bad segment beside a plain name", "filename*0*=UTF-8''a; filename*1*=%; filename=b", "b"),
    ("26 eleven segments", "; ".join(f"filename*{n}={n % 10}" for n in range(11)), "01234567890"),
    ("27 apostrophe in a segment", 'filename*0="it\'s"; filename*1=".html"', "it's.html"),
    ("27 continued beats plain", "filename=b; filename*0=a", "a"),
    ("27 extended beats continued", "filename*0=a; filename*=UTF-8''b", "b"),
    ("28 gap", 'filename*0="foo"; filename*2="bar"', "foo"),
    ("28 leading zero", 'filename*0="foo"; filename*01="bar"', "foo"),
    ("28 nothing to continue", 'filename*1="foo."; filename*2="html"', None),
    ("32 empty", 'filename=""', None),
    ("32 dot", 'filename="."', None),
    ("32 dots", 'filename="..."', None),
    ("32 blanks", 'filename="   "', None),
    ("32 bare and empty", "filename=", None),
    ("32 nothing usable in the first choice", "filename*=UTF-8''..; filename=ok.txt", "ok.txt"),
    ("34 long", f'filename="{"n" * 300}.tar.gz"', "n" * 252 + ".gz"),
    # Such a header does not pass aiohttp, see below; a part of a form or another server may bring it.
    ("34 8 KB", f'filename="{"ä" * 4096}.txt"', "ä" * 125 + ".txt"),
    ("35 encoded word", 'filename="=?ISO-8859-1?Q?foo-=E4.html?="', "=?ISO-8859-1?Q?foo-=E4.html?="),
    ("36 raw control", 'filename="a\x00\x01b"', "ab"),
    ("another parameter that contains one", 'example="filename=example.txt"', None),
    ("another parameter that ends like one", "xfilename=foo.html", None),
    ("dot file", 'filename=".bashrc"', ".bashrc"),
]

# (case, whole header, name)
WHOLE_HEADERS: list[tuple[str, str, str | None]] = [
    ("31 no type", "filename=foo.html", "foo.html"),
    ("31 quoted type", '"attachment"', None),
    ("31 quoted type with a semicolon", '"foo; filename=bar;baz"; filename=qux', "qux"),
    ("31 empty type", "; filename=foo.html", "foo.html"),
    ("31 type alone", "attachment", None),
    ("31 type and a semicolon", "attachment;", None),
    ("31 empty", "", None),
]

# (case, header lines, what the reason says)
REFUSED: list[tuple[str, list[str], str]] = [
    ("29 two names", ['attachment; filename="foo.html"; filename="bar.html"'], "two different values for filename;"),
    (
        "29 two extended",
        ["attachment; filename*=UTF-8''a; filename*=UTF-8''b"],
        r"two different values for filename\*;",
    ),
    ("29 joined lines", ["attachment; filename=a, attachment; filename=b"], "two different values"),
    ("30 text after the quote", ['attachment; filename="foo.html".txt'], r"""from 'filename="foo\.html"\.txt' on"""),
    ("30 no closing quote", ['attachment; filename="bar'], r"""from 'filename="bar' on"""),
    ("30 escaped closing quote", [r'attachment; filename="a\"'], r"""from 'filename="a\\\\"' on"""),
    ("33 two lines", ["attachment; filename=a", "attachment; filename=a"], "sent 2 times"),
    ("bare semicolon", ["attachment; filename=a;b.html"], r"from 'b\.html' on"),
    ("no semicolon", ["attachment filename=bar"], "from 'attachment filename=bar' on"),
    ("no value", ["attachment; filename"], "from 'filename' on"),
    ("no key", ["attachment; =foo"], "from '=foo' on"),
    ("raw octets where a key belongs", ["attachment; \udce4=1"], r"from '\\udce4=1' on"),
]


def cases(table: list[tuple[str, str, str | None]], prefix: str = "") -> Iterator[object]:
    for case, header, name in table:
        yield pytest.param(prefix + header, name, id=case)


@pytest.mark.parametrize(("header", "name"), [*cases(VECTORS, "attachment; "), *cases(WHOLE_HEADERS)])
def test_a_header_gives_its_name(header: str, name: str | None) -> None:
    assert parse_disposition([header]) == name


@pytest.mark.parametrize(("lines", "reason"), [pytest.param(*row[1:], id=row[0]) for row in REFUSED])
def test_an_unreadable_or_contradictory_header_is_refused_with_its_place(lines: list[str], reason: str) -> None:
    with pytest.raises(BadDisposition, match=reason) as refusal:
        parse_disposition(lines)
    assert str(refusal.value).isascii()
    assert str(refusal.value).isprintable()


@pytest.mark.parametrize(
    "header", ["a; !" + "\udce4" * 8000, "; ".join(f"filename*{'9' * 8000}={n}" for n in range(2))]
)
def test_a_refusal_stays_short(header: str) -> None:
    with pytest.raises(BadDisposition) as refusal:
        parse_disposition([header])
    assert len(str(refusal.value)) < 500


def test_no_header_gives_no_name() -> None:
    assert parse_disposition([]) is None


def test_the_same_name_twice_is_no_contradiction() -> None:
    assert parse_disposition(['attachment; filename="a.txt"; filename=a.txt; size=1; size=2']) == "a.txt"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        pytest.param("form-data; name=note", FormField("note", None, is_file=False, empty=False), id="text field"),
        pytest.param('form-data; name="f"; filename=""', FormField("f", None, is_file=True, empty=True), id="no file"),
        pytest.param(
            'form-data; name="f"; filename=".."', FormField("f", None, is_file=True, empty=False), id="unusable name"
        ),
        pytest.param(
            "form-data; name=\"f\"; filename*=bogus''x",
            FormField("f", None, is_file=True, empty=False),
            id="unreadable name",
        ),
        pytest.param(
            'form-data; name="f[%22]"; filename="a %22b%22%0D%0A%41%2e.txt"',
            FormField('f["]', 'a "b"%41%2e.txt', is_file=True, empty=False),
            id="browser",
        ),
        pytest.param(
            r'form-data; name="f"; filename="\"a\" b\c\d.txt"',
            FormField("f", "d.txt", is_file=True, empty=False),
            id="old curl",
        ),
        pytest.param(
            r'form-data; name="f"; filename="a \"b\".txt"',
            FormField("f", 'a "b".txt', is_file=True, empty=False),
            id="old quotes",
        ),
        pytest.param(
            r'form-data; name="dir\"; filename="a.txt"',
            FormField("dir\\", "a.txt", is_file=True, empty=False),
            id="field ends in \\",
        ),
        pytest.param(
            r'form-data; name="f"; filename="a\"', FormField("f", None, is_file=True, empty=False), id="path ends in \\"
        ),
        pytest.param(
            "form-data; name=\"f\"; filename*=utf-8''na%C3%AFve%2522.txt",
            FormField("f", "naïve%22.txt", is_file=True, empty=False),
            id="urllib3 1",
        ),
        pytest.param(
            'form-data; name="\udce4"; filename="\udce4.txt"',
            FormField("ä", "ä.txt", is_file=True, empty=False),
            id="Latin-1",
        ),
        pytest.param("form-data; name=f ; filename=a ;", FormField("f", "a", is_file=True, empty=False), id="bare"),
        pytest.param(
            "form-data; name=f; filename=\"\"; filename*=bogus''a",
            FormField("f", None, is_file=True, empty=False),
            id="empty beside unreadable",
        ),
        pytest.param(
            r"form-data; name=f; filename*=utf-8''a\"b",
            FormField("f", '"b', is_file=True, empty=False),
            id="coded, not escaped",
        ),
        pytest.param("form-data; filename=a", FormField(None, "a", is_file=True, empty=False), id="no field"),
    ],
)
def test_a_form_part_says_field_name_and_whether_it_is_a_file(value: str, expected: FormField) -> None:
    assert parse_form_disposition(value) == expected
    assert parse_disposition([value], form=True) == expected.filename


def test_form_rules_hold_for_forms_alone() -> None:
    header = r'attachment; filename="%22f\oo%22.html"'
    assert parse_disposition([header]) == "%22foo%22.html"
    assert parse_disposition([header], form=True) == 'oo".html'


@pytest.mark.parametrize(
    "value", ['form-data; name="a"; name="b"', 'form-data; name="f', 'form-data; name="f"; filename="a"; filename="b"']
)
def test_an_unreadable_form_part_is_refused(value: str) -> None:
    with pytest.raises(BadDisposition):
        parse_form_disposition(value)


@pytest.mark.parametrize(
    ("raw", "name"),
    [
        pytest.param("e\u0301.txt", "é.txt", id="NFC"),
        pytest.param("e\u202a\u0301", "é", id="NFC after what stood between is gone"),
        pytest.param("👩‍👩‍👧 שלום.txt", "👩‍👩‍👧 שלום.txt", id="joiners and right-to-left letters stay"),
        pytest.param("/etc/passwd", "passwd", id="absolute"),
        pytest.param("a/b\\c", "c", id="both separators"),
        pytest.param("photos/", None, id="no last segment"),
        pytest.param("\ufeffa\u2066b\u2069\u2028\x7f\x9f", "ab", id="invisible"),
        pytest.param("a\ud800\udc00\udce4\ufdd0\ufffe\U0010ffff", "a" + "\ufffd" * 6, id="no characters"),
        pytest.param(" \u3000. a. .\u00a0.", ". a", id="blanks and dots"),
        pytest.param("-rf", "-rf", id="leading dash"),
        pytest.param("CON", "CON", id="Windows device: only downloads rename it"),
        pytest.param("a" * 256, "a" * 255, id="no extension"),
        pytest.param("ä" * 127 + "x.txt", "ä" * 125 + ".txt", id="cut between characters"),
        pytest.param("€" * 86, "€" * 85, id="exact"),
        pytest.param("a" * 300 + "." + "b" * 33, "a" * 255, id="extension too long to be one"),
        pytest.param("." + "b" * 300, "." + "b" * 254, id="leading dot makes no extension"),
        pytest.param("." * 300 + "x", "." * 253 + ".x", id="dots and an extension"),
        pytest.param("." * 300 + "x" * 40, None, id="dots alone remain"),
        pytest.param("a" * 254 + " " + "b" * 50, "a" * 254, id="blank where it was cut"),
        pytest.param("e\u0301" * 5000 + ".txt", "é" * 125 + ".txt", id="far too long, decomposed"),
        pytest.param("\U0001d160" * 22 + "a.b", "\U0001d158\U0001d165\U0001d16e" * 21 + ".b", id="NFC grows"),
    ],
)
def test_a_name_is_made_safe_to_show(raw: str, name: str | None) -> None:
    assert sanitize_name(raw) == name


def test_a_name_of_255_bytes_is_kept_however_long_its_decomposed_form_is() -> None:
    """The cut that bounds the cost of normalizing must never reach a name that fits."""
    composed = ["ǖ" * 127, "ΐ" * 127, "ᾂ" * 85, "각" * 85, "é" * 125 + ".text"]
    assert [sanitize_name(unicodedata.normalize("NFD", name)) for name in composed] == composed


def test_every_blank_is_trimmed() -> None:
    blanks = {char for char in map(chr, range(0x110000)) if char.isspace()}
    assert {char for char in blanks if sanitize_name(f"{char}a{char}") != "a"} == set()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("plain name.txt", 'attachment; filename="plain name.txt"'),
        ("naïve €.txt", "attachment; filename=\"na_ve _.txt\"; filename*=UTF-8''na%C3%AFve%20%E2%82%AC.txt"),
        ('a"b%41;c.txt', "attachment; filename=\"a_b_41;c.txt\"; filename*=UTF-8''a%22b%2541%3Bc.txt"),
        ("a!#$&+-.^_`|~'()*b", 'attachment; filename="a!#$&+-.^_`|~\'()*b"'),
        (
            "ä!#$&+-.^_`|~'()*b",
            "attachment; filename=\"_!#$&+-.^_`|~'()*b\"; filename*=UTF-8''%C3%A4!#$&+-.^_`|~%27%28%29%2Ab",
        ),
        ("con", 'attachment; filename="_con"'),
        ("NUL.tar.gz", 'attachment; filename="_NUL.tar.gz"'),
        ("Aux .txt", 'attachment; filename="_Aux .txt"'),
        ("COM¹", "attachment; filename=\"_COM_\"; filename*=UTF-8''_COM%C2%B9"),
        ("console.log", 'attachment; filename="console.log"'),
        ("COM10", 'attachment; filename="COM10"'),
        ("../../x\r\nSet-Cookie: a=b", 'attachment; filename="xSet-Cookie: a=b"'),
        ("..", 'attachment; filename="file"'),
        ("\x00", 'attachment; filename="file"'),
    ],
)
def test_a_name_is_written_for_every_client(name: str, value: str) -> None:
    assert format_disposition(name) == value


def test_a_device_name_of_full_length_stays_within_the_limit() -> None:
    stem = "NUL." + "a" * 210
    assert format_disposition(stem + " " * 39 + "bc") == f'attachment; filename="_{stem}{" " * 39}b"'
    assert format_disposition(stem + " " * 40 + "b") == f'attachment; filename="_{stem}"'


def test_inline_is_possible_and_any_other_kind_is_a_mistake_of_the_caller() -> None:
    assert format_disposition("a.png", kind="inline") == 'inline; filename="a.png"'
    with pytest.raises(ValueError, match="kind must be"):
        format_disposition("a", kind="attachment\r\nX: y")


@pytest.mark.parametrize("name", ["plain.txt", "naïve €.txt", "日本語.pdf", 'it\'s 100% "so".txt', "a;b", "👩‍👧.jpg"])
def test_another_parser_reads_what_is_written(name: str) -> None:
    kind, parameters = parse_content_disposition(format_disposition(name))
    assert (kind, content_disposition_filename(parameters)) == ("attachment", name)


# Anything at all, and what looks enough like a header to reach the far corners of the grammar

anything = st.text(st.characters(), max_size=400)
pieces = [
    "filename",
    "name",
    "*",
    "*0",
    "*1",
    "=",
    ";",
    '"',
    "\\",
    "'",
    "%",
    "%22",
    "%C3",
    "%2F",
    "UTF-8''",
    "iso-8859-1''",
]
pieces += [
    " ",
    "\t",
    "/",
    ".",
    "..",
    "C:\\",
    "a",
    "ä",
    "\udce4",
    "\ud800",
    "\x00",
    "\r\n",
    "\u202e",
    "\u0301",
    "\uffff",
    "CON",
]
headers = st.lists(st.sampled_from(pieces), max_size=30).map("".join) | anything
values = st.lists(st.sampled_from([piece for piece in pieces if piece not in '"\\']), max_size=8).map("".join)
parameters = st.lists(
    st.tuples(st.sampled_from(["filename=", "filename*=UTF-8''", "filename*0=", "filename*1*="]), values), max_size=4
).map(
    lambda pairs: (
        "attachment; " + "; ".join(f'{key}"{value}"' if key[-1] == "=" else key + value for key, value in pairs)
    )
)


def is_safe(name: str | None) -> bool:
    """Whether `name` keeps every promise of the sanitizer; said again here, in other words."""
    if name is None:
        return True
    return (
        0 < len(name.encode()) <= 255  # encode() itself refuses surrogates
        and not re.search(r"[/\\\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ufeff\ufdd0-\ufdef]", name)
        and not any(ord(char) & 0xFFFE == 0xFFFE for char in name)
        and unicodedata.is_normalized("NFC", name)
        and name == name.strip()
        and not name.endswith(".")
    )


@given(anything)
def test_any_text_makes_a_safe_name_or_none(raw: str) -> None:
    name = sanitize_name(raw)
    assert is_safe(name)
    assert name is None or sanitize_name(name) == name


@given(st.lists(st.sampled_from([*pieces, "x" * 120, ".txt", "\u0327", "\u0315", "각"]), max_size=40).map("".join))
def test_a_safe_name_is_left_as_it_is(raw: str) -> None:
    name = sanitize_name(raw)
    assert is_safe(name)
    assert name is None or sanitize_name(name) == name


@given(headers | parameters, st.booleans())
def test_any_header_gives_a_safe_name_none_or_a_refusal(header: str, form: bool) -> None:
    with suppress(BadDisposition):
        assert is_safe(parse_disposition([header], form=form))


@given(headers | parameters)
def test_any_form_part_is_read_or_refused(header: str) -> None:
    with suppress(BadDisposition):
        part = parse_form_disposition(header)
        assert is_safe(part.filename)
        assert part.is_file or part.filename is None
        assert not (part.empty and part.filename)
        assert (part.field or "").encode().decode() == (part.field or "")


@given(headers)
def test_whatever_is_written_is_printable_ascii_and_comes_back(raw: str) -> None:
    value = format_disposition(raw)
    assert re.fullmatch(r"[ -~]+", value)
    name = sanitize_name(raw) or names.DEFAULT_NAME
    assert parse_disposition([value]) in {name, sanitize_name(f"_{name}")}


@given(st.text(max_size=80).map(sanitize_name).filter(bool))
def test_a_legal_name_makes_the_round_trip_unchanged(name: str) -> None:
    renamed = re.match(r"(?i)(con|prn|aux|nul|com.|lpt.|conin\$|conout\$) *(\.|$)", name)
    assert renamed or parse_disposition([format_disposition(name)]) == name


# At this size anything worse than linear time would take minutes.
MUCH = 1_000_000


@pytest.mark.timeout(20)
@pytest.mark.parametrize("form", [False, True])
@pytest.mark.parametrize(
    "hostile",
    [
        pytest.param('filename="' + "\\" * MUCH, id="escapes without an end"),
        pytest.param('filename="' + '\\"' * MUCH, id="escaped quotes without an end"),
        pytest.param('a="\\"; ' * (MUCH // 7), id="values that end in a backslash"),
        pytest.param('a="";' * (MUCH // 5), id="parameters"),
        pytest.param(" ;\t" * MUCH + "!", id="separators"),
        pytest.param("a" + " " * MUCH + "b", id="blanks in a type"),
        pytest.param("a;b" + " " * MUCH + "b", id="blanks after a key"),
        pytest.param("filename=a" + " " * MUCH + "b", id="blanks in a value"),
        pytest.param("filename=a" + " ." * MUCH + "b.", id="blanks and dots"),
        pytest.param("filename=" + "\u0315\u0300\u0327" * (MUCH // 12), id="combining marks"),
        pytest.param("filename*=UTF-8'" + "a" * MUCH, id="language without an end"),
        pytest.param("filename*=UTF-8''" + "%e4" * MUCH, id="octets that do not decode"),
        pytest.param(";".join(f"filename*{n}*=%" for n in range(MUCH // 20)), id="segments"),
        pytest.param("filename=" + "\udce4" * MUCH, id="raw octets"),
    ],
)
def test_a_hostile_header_takes_linear_time(hostile: str, form: bool) -> None:
    with suppress(BadDisposition):
        assert is_safe(parse_disposition([hostile], form=form))


# What aiohttp hands over, on a real connection


async def answer_with_name(request: web.Request) -> web.Response:
    try:
        name = parse_disposition(request.headers.getall("Content-Disposition", ()))
    except BadDisposition as refusal:
        return web.Response(status=422, text=str(refusal))
    return web.Response(text=repr(name))


@pytest.mark.parametrize(
    ("lines", "status", "body"),
    [
        pytest.param(b"", 200, "None", id="no header"),
        pytest.param(
            b'Content-Disposition: attachment; filename="foo-\xe4.html"\r\n', 200, "'foo-ä.html'", id="9 Latin-1"
        ),
        pytest.param('Content-Disposition: filename="foo-ä.html"\r\n'.encode(), 200, "'foo-ä.html'", id="8 UTF-8"),
        pytest.param(b"Content-Disposition: filename=a\r\n" * 2, 422, "sent 2 times", id="33 two lines"),
        pytest.param(b"Content-Disposition: filename=" + b"a" * 8500 + b"\r\n", 400, "", id="34 8 KB line"),
        pytest.param(b'Content-Disposition: attachment; filename="a\x00b"\r\n', 400, "", id="36 NUL"),
        pytest.param(b'Content-Disposition: attachment; filename="a\x01b"\r\n', 400, "", id="36 control"),
    ],
)
async def test_header_lines_arrive_as_the_parser_expects_them(lines: bytes, status: int, body: str) -> None:
    app = web.Application()
    app.router.add_post("/", answer_with_name)
    async with TestServer(app) as server:
        reader, writer = await asyncio.open_connection(server.host, server.port)
        writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nConnection: close\r\n" + lines + b"\r\n")
        answer = (await reader.read()).decode()
        writer.close()
        await writer.wait_closed()
    assert answer.split()[1] == str(status)
    assert body in answer
