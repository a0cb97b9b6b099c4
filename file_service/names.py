"""File names as HTTP carries them: read from Content-Disposition, made safe to show, written back.

A name is data. It is shown to people and sent back to clients; it is never a path, a key or part of one.
Everything here is pure and runs in time linear in its input.

Sources: RFC 6266 (the header), RFC 8187 (`filename*`), RFC 2231 section 3 (`filename*0`), RFC 7578 section 4.2 and
the HTML standard's "multipart/form-data encoding algorithm" (form parts), http://greenbytes.de/tech/tc2231/ (cases).
"""

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple
from urllib.parse import quote, unquote_to_bytes

MAX_NAME_BYTES = 255  # in UTF-8: the longest name that most file systems can store
DEFAULT_NAME = "file"  # of a download that has no usable name


class BadDisposition(ValueError):
    """Content-Disposition cannot be read, or gives two different names; the message says what to change."""


@dataclass(frozen=True, slots=True)
class FormField:
    """What the Content-Disposition of one multipart/form-data part says.

    `field` is the form's own text, as sent: any characters, line breaks included. `filename` is safe to store.
    `empty` marks a file input in which nothing was chosen: a browser then sends `filename=""`.
    """

    field: str | None
    filename: str | None
    is_file: bool
    empty: bool


def parse_disposition(values: Sequence[str], *, form: bool = False) -> str | None:
    """Name in the Content-Disposition lines of one request, or None where they give none that is usable.

    `values` are the lines as aiohttp hands them over, UTF-8 with surrogateescape. `form` reads them by the rules of a
    multipart/form-data part. Raises BadDisposition for a second line, an unreadable one, or two different names.
    """
    if len(values) > 1:
        raise BadDisposition(f"Content-Disposition was sent {len(values)} times; send it once")
    return _filename(_parameters(values[0], form=form)) if values else None


def parse_form_disposition(value: str) -> FormField:
    """Content-Disposition of a multipart/form-data part (RFC 7578 section 4.2). Raises BadDisposition."""
    parameters = _parameters(value, form=True)
    names = [parameter.text for key, parameter in parameters.items() if _is_filename(key)]
    return FormField(
        field=_joined([parameters["name"]]) if "name" in parameters else None,
        filename=_filename(parameters),
        is_file=bool(names),
        empty=bool(names) and not any(names),
    )


def format_disposition(name: str, *, kind: str = "attachment") -> str:
    """Header value that offers `name`, printable ASCII whatever the name is (RFC 6266 section 4, appendix D).

    Gives `filename` for every client and `filename*` (RFC 8187) where that can say more. Names that Windows keeps for
    devices get a `_` in front. Raises ValueError unless `kind` is "attachment" or "inline".
    """
    if kind not in ("attachment", "inline"):
        raise ValueError(f"kind must be 'attachment' or 'inline', not {kind!a}")
    name = sanitize_name(name) or DEFAULT_NAME
    if _WINDOWS_DEVICE.match(name):
        name = _trimmed(_shortened(f"_{name}"))
    fallback = _NOT_IN_FALLBACK.sub("_", name)
    value = f'{kind}; filename="{fallback}"'
    return value if fallback == name else f"{value}; filename*=UTF-8''{quote(name, safe=_ATTR_CHAR)}"


def sanitize_name(raw: str) -> str | None:
    """Name to show for whatever a client sent, or None where nothing is left; its own result it leaves as it is.

    The last segment of a path, in NFC, at most 255 UTF-8 bytes with the extension kept; without controls, bidirectional
    overrides and byte order marks, without blanks around it or dots after it; U+FFFD for what is no character.
    """
    name = _trimmed(raw.translate(_REPAIRS).replace("\\", "/").rpartition("/")[2])
    if len(name) > _WORTH_NORMALIZING:
        name = name[: _WORTH_NORMALIZING - _TAIL] + name[-_TAIL:]
    return _trimmed(_shortened(unicodedata.normalize("NFC", name))) or None


# Making a name safe

_REPAIRS: dict[int, str | None] = {
    # C0, DEL and C1; line and paragraph separator; bidirectional embeddings, overrides and isolates; byte order mark
    **dict.fromkeys([*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029]),
    **dict.fromkeys([*range(0x202A, 0x202F), *range(0x2066, 0x206A), 0xFEFF]),
    # Replaced, not dropped (Unicode Technical Report 36 section 3.5): lone surrogates and noncharacters
    **dict.fromkeys([*range(0xD800, 0xE000), *range(0xFDD0, 0xFDF0)], "\ufffd"),
    **dict.fromkeys([plane | low for plane in range(0, 0x110000, 0x10000) for low in (0xFFFE, 0xFFFF)], "\ufffd"),
}
# str.isspace() without the controls dropped above: one pass trims blanks and dots however they alternate.
_BLANKS = " \u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000"
_MAX_EXTENSION_BYTES = 32
# Normalizing a run of combining marks takes quadratic time. A name of 255 bytes in NFC has at most 383 characters in
# any other form; of anything far longer only the start and the extension can come to be in the result.
_WORTH_NORMALIZING, _TAIL = 1024, 64


def _trimmed(name: str) -> str:
    return name.strip(_BLANKS).rstrip(_BLANKS + ".")


def _shortened(name: str) -> str:
    if len(name.encode()) <= MAX_NAME_BYTES:
        return name
    stem, dot, extension = (part.encode() for part in name.rpartition("."))
    if len(extension) > _MAX_EXTENSION_BYTES:
        stem, dot, extension = name.encode(), b"", b""
    room = MAX_NAME_BYTES - len(dot + extension)
    return stem[:room].decode(errors="ignore") + (dot + extension).decode()


# Writing the header

_ATTR_CHAR = "!#$&+-.^_`|~"  # RFC 8187 section 3.2.1, beside letters and digits
_NOT_IN_FALLBACK = re.compile(r'[^ -~]|["\\%/]')
_WINDOWS_DEVICE = re.compile(r"(?:CON|PRN|AUX|NUL|CONIN\$|CONOUT\$|(?:COM|LPT)[0-9¹²³]) *(?:\.|\Z)", re.IGNORECASE)


# Reading the header


class _Parameter(NamedTuple):
    """One `key=text`; the text is unescaped unless it is percent-coded."""

    text: str
    quoted: bool
    coded: bool


def _parameter_pattern(quoted: str) -> re.Pattern[str]:
    """Quotes are read first, so that they may hold semicolons; a bare value may hold anything but a semicolon."""
    key = r"[!#$%&'*+.^_`|~0-9A-Za-z-]++"
    value = rf'"(?P<quoted>{quoted})"[ \t]*+(?=;|\Z)|(?!")(?P<bare>[^;]*+)'
    return re.compile(rf"[ \t;]*+(?P<key>{key})[ \t]*+=[ \t]*+(?:{value})", re.DOTALL)


_TYPE = re.compile(r'[ \t]*+(?:"(?:[^"\\]|\\.)*+"|[^;="]*+)[ \t]*+(?=;|\Z)', re.DOTALL)
_PARAMETER = _parameter_pattern(r'(?:[^"\\]|\\.)*+')
# A form sends backslashes as they are, so `"dir\"` may be a whole value.
_FORM_PARAMETER = _parameter_pattern(r'(?:[^"\\]|\\.)*+|[^"]*+')
_NOTHING = re.compile(r"[ \t;]*+")
_NO_OCTET = re.compile(r"[\ud800-\udc7f\udd00-\udfff]")  # surrogates that surrogateescape never makes
_QUOTED_PAIR = re.compile(r"\\(.)", re.DOTALL)
_WINDOWS_PATH = re.compile(r"(?:[A-Za-z]:|\\)\\")
_FORM_ESCAPE = re.compile(r'\\"|%22|%0D|%0A', re.IGNORECASE)
_FORM_ESCAPED = {'\\"': '"', "%22": '"', "%0d": "\r", "%0a": "\n"}
_CHARSET = re.compile(r"(utf-?8|iso-8859-1)'[^']*'", re.IGNORECASE | re.ASCII)
_BAD_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")
_UNDECLARED = ("utf-8", "cp1252", "latin-1")  # what browsers send, what older clients send, what fits any octets


def _is_filename(key: str) -> bool:
    return key.partition("*")[0] == "filename"


def _parameters(header: str, *, form: bool) -> dict[str, _Parameter]:
    """Parameters by lower-case key, the first of each. Raises BadDisposition."""
    found: dict[str, _Parameter] = {}
    for key, parameter in _tokens(_NO_OCTET.sub("\ufffd", header), form=form):
        known = found.setdefault(key, parameter)
        if known.text != parameter.text and (_is_filename(key) or key == "name"):
            raise BadDisposition(f"Content-Disposition gives two different values for {key[:40]}; send one")
    return found


def _tokens(header: str, *, form: bool) -> Iterator[tuple[str, _Parameter]]:
    pattern = _FORM_PARAMETER if form else _PARAMETER
    disposition_type = _TYPE.match(header)
    at = disposition_type.end() if disposition_type else 0
    while not _NOTHING.fullmatch(header, at):
        match = pattern.match(header, at)
        if not match:
            unread = header[at : at + 40].strip(" \t;")
            raise BadDisposition(
                f"Content-Disposition cannot be read from {unread!a} on; "
                'write the name as filename="name", after a semicolon and with all of it between the quotes'
            )
        yield match["key"].lower(), _parameter(match, form=form)
        at = match.end()


def _parameter(match: re.Match[str], *, form: bool) -> _Parameter:
    coded, quoted = match["key"].endswith("*"), match["quoted"] is not None
    text = match["quoted"] if quoted else match["bare"].rstrip(" \t")
    if form and not coded:
        text = _FORM_ESCAPE.sub(lambda escape: _FORM_ESCAPED[escape[0].lower()], text)
    elif quoted and _WINDOWS_PATH.match(text):
        text = text.replace('\\"', '"')  # its sender did not escape the separators
    elif quoted:
        text = _QUOTED_PAIR.sub(r"\1", text)
    return _Parameter(text, quoted, coded)


def _filename(parameters: Mapping[str, _Parameter]) -> str | None:
    """The first usable name of `filename*`, `filename*0` with its continuations, `filename`."""
    single = {key: [parameter] for key, parameter in parameters.items()}
    given = (single.get("filename*"), list(_continuations(parameters)), single.get("filename"))
    texts = (_joined(segments) for segments in given if segments)
    return next((name for text in texts if text and (name := sanitize_name(text))), None)


def _continuations(parameters: Mapping[str, _Parameter]) -> Iterator[_Parameter]:
    number = 0
    while segment := parameters.get(f"filename*{number}*") or parameters.get(f"filename*{number}"):
        yield segment
        number += 1


def _joined(segments: Sequence[_Parameter]) -> str | None:
    """Text of one value given in segments (RFC 2231 section 4.1), None where RFC 8187 section 3.2 makes no sense of it.

    Octets are joined before they are decoded: a character may be spread over two segments.
    """
    charsets: tuple[str, ...] = _UNDECLARED
    first, *rest = segments
    if first.coded:
        declared = _CHARSET.match(first.text)
        if not declared:
            return None
        charsets, first = (declared[1],), first._replace(text=first.text[declared.end() :])
    if any(segment.coded and (segment.quoted or _BAD_PERCENT.search(segment.text)) for segment in (first, *rest)):
        return None
    return _decoded(b"".join(map(_octets, (first, *rest))), charsets)


def _octets(segment: _Parameter) -> bytes:
    on_the_wire = segment.text.encode("utf-8", "surrogateescape")
    return unquote_to_bytes(on_the_wire) if segment.coded else on_the_wire


def _decoded(octets: bytes, charsets: Sequence[str]) -> str | None:
    for charset in charsets:
        with suppress(UnicodeDecodeError):
            return octets.decode(charset)
    return None
