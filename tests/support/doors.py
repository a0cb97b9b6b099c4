"""The doors in, as bytes on the wire: one upload through each of them, to be sent whole, cut or bent.

`about` are header lines that say something of the content: they stand in the head of the request or of the form's part.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import quote

import pytest

BOUNDARY = b"Bound-ary"
CHUNK = 40_000
Lines = Sequence[bytes]


@dataclass(frozen=True)
class Upload:
    """One request; `body` is framed as it goes over the wire."""

    head: bytes
    body: bytes

    def __bytes__(self) -> bytes:
        return self.head + self.body


class Door(Protocol):
    """A way to upload `content` under `name`."""

    def __call__(
        self, content: bytes, *, name: str | None = "a.bin", lines: Lines = (), about: Lines = ()
    ) -> Upload: ...


def request(method: bytes, path: bytes, lines: Iterable[bytes] = (), body: bytes | None = None) -> Upload:
    """Any request; with a body it has the Content-Length of it."""
    framing = [] if body is None else [b"Content-Length: %d" % len(body)]
    head = b"\r\n".join([method + b" " + path + b" HTTP/1.1", b"Host: 127.0.0.1", *lines, *framing, b"", b""])
    return Upload(head, body or b"")


def chunked(upload: Upload, size: int = CHUNK) -> Upload:
    """The same request in chunked framing (RFC 9112 section 7.1)."""
    lines = [line for line in upload.head.split(b"\r\n") if not line.startswith(b"Content-Length: ")]
    pieces = [upload.body[at : at + size] for at in range(0, len(upload.body), size)]
    body = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
    return Upload(b"\r\n".join([*lines[:-2], b"Transfer-Encoding: chunked", b"", b""]), body + b"0\r\n\r\n")


def raw(content: bytes, *, name: str | None = "a.bin", lines: Lines = (), about: Lines = ()) -> Upload:
    """POST /files with the bytes as they are."""
    named = [] if name is None else [b"Content-Disposition: attachment; filename*=UTF-8''" + quote(name, "").encode()]
    return request(b"POST", b"/files", [*named, *lines, *about], content)


def put(content: bytes, *, name: str | None = "a.bin", lines: Lines = (), about: Lines = ()) -> Upload:
    """PUT /files/{name}, as curl -T does."""
    return request(b"PUT", b"/files/" + quote(name or "..", "").encode(), [*lines, *about], content)


def part(content: bytes, name: str | None = "a.bin", about: Lines = (), field: bytes = b"file") -> bytes:
    """A file's part of a form, as a browser writes it; without its boundary line."""
    safe = (name or "..").replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A").encode()
    disposition = b'Content-Disposition: form-data; name="%b"; filename="%b"' % (field, safe)
    return b"\r\n".join([disposition, *about, b"", content])


def form(content: bytes, *, name: str | None = "a.bin", lines: Lines = (), about: Lines = ()) -> Upload:
    """POST /files of a form with one file."""
    return form_of(part(content, name, about), lines=lines)


def form_of(*parts: bytes, lines: Lines = (), end: bytes = b"--\r\n") -> Upload:
    """POST /files of a form with these parts."""
    body = b"".join(b"--%b\r\n%b\r\n" % (BOUNDARY, each) for each in parts) + b"--" + BOUNDARY + end
    return request(b"POST", b"/files", [b"Content-Type: multipart/form-data; boundary=" + BOUNDARY, *lines], body)


def raw_chunked(content: bytes, *, name: str | None = "a.bin", lines: Lines = (), about: Lines = ()) -> Upload:
    """`raw` without a length."""
    return chunked(raw(content, name=name, lines=lines, about=about))


def put_chunked(content: bytes, *, name: str | None = "a.bin", lines: Lines = (), about: Lines = ()) -> Upload:
    """`put` without a length, as `curl -T -` does."""
    return chunked(put(content, name=name, lines=lines, about=about))


def form_chunked(content: bytes, *, name: str | None = "a.bin", lines: Lines = (), about: Lines = ()) -> Upload:
    """`form` without a length."""
    return chunked(form(content, name=name, lines=lines, about=about))


DOORS: dict[str, Door] = {
    "raw": raw,
    "raw-chunked": raw_chunked,
    "put": put,
    "put-chunked": put_chunked,
    "form": form,
    "form-chunked": form_chunked,
}
WITH_LENGTH = {name: door for name, door in DOORS.items() if "chunked" not in name}
CHUNKED = {name: door for name, door in DOORS.items() if "chunked" in name}

every_door = pytest.mark.parametrize("door", DOORS.values(), ids=DOORS)
every_door_with_length = pytest.mark.parametrize("door", WITH_LENGTH.values(), ids=WITH_LENGTH)
every_chunked_door = pytest.mark.parametrize("door", CHUNKED.values(), ids=CHUNKED)
