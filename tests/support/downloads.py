"""Downloads as they stand on the wire: every byte up to the end of the connection is looked at."""

import hashlib
import socket
from base64 import b64encode, urlsafe_b64encode
from contextlib import suppress

from tests.support.raw import Answer, connection


class Cut(Exception):
    """An answer that a client can see is not whole; `content` is what came of its body."""

    def __init__(self, where: str, content: bytes = b"") -> None:
        super().__init__(where)
        self.content = content


def get(id_: str, *lines: bytes, method: bytes = b"GET", version: bytes = b"1.1", query: bytes = b"") -> bytes:
    """A request for a file."""
    first = b"%b /files/%b/%b HTTP/%b" % (method, id_.encode(), query, version)
    return b"\r\n".join([first, b"Host: 127.0.0.1", *lines, b"", b""])


def ask(
    url: str, id_: str, *lines: bytes, method: bytes = b"GET", version: bytes = b"1.1", query: bytes = b""
) -> Answer:
    """The answer to `get`, alone on its connection; `Cut` when it is not whole, ConnectionResetError for a reset."""
    with connection(url) as sock:
        sock.sendall(get(id_, b"Connection: close", *lines, method=method, version=version, query=query))
        answer, rest = take(read_to_end(sock), method)
    assert rest == b"", "bytes after the end of the answer"
    return answer


def read_to_end(sock: socket.socket) -> bytes:
    """All that comes until the peer closes."""
    data = bytearray()
    while more := sock.recv(1 << 20):
        data += more
    return bytes(data)


def read_to_reset(sock: socket.socket) -> bytes:
    """All that comes until the peer resets the connection; AssertionError when it closes it in order instead."""
    data = bytearray()
    with suppress(ConnectionResetError):
        while more := sock.recv(1 << 20):
            data += more
        raise AssertionError("closed in order, not reset")
    return bytes(data)


def take(data: bytes, method: bytes = b"GET") -> tuple[Answer, bytes]:
    """The first answer in `data`, its body out of its framing (RFC 9112 section 6.3), and what follows it."""
    head, end, rest = data.partition(b"\r\n\r\n")
    if not end:
        raise Cut("in its head")
    status_line, *lines = head.decode("latin-1").split("\r\n")
    status = int(status_line.split()[1])
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    assert len(headers) == len(lines), f"a field stands there twice: {lines}"
    if method == b"HEAD" or status in (204, 304):
        body = b""
    elif "transfer-encoding" in headers:
        assert "content-length" not in headers
        body, rest = dechunked(rest)
    else:
        length = int(headers["content-length"])
        body, rest = rest[:length], rest[length:]
        if len(body) < length:
            raise Cut(f"after {len(body)} of {length} bytes", body)
    return Answer(status, headers, body), rest


def dechunked(data: bytes) -> tuple[bytes, bytes]:
    """The content of a chunked body (RFC 9112 section 7.1) and what follows it."""
    content, at, size = bytearray(), 0, -1
    while size:
        line = data.find(b"\r\n", at)
        if line < 0:
            raise Cut("before a chunk", bytes(content))
        size = int(data[at:line], 16)
        at = line + 2 + size + 2
        if len(data) < at:
            raise Cut("in a chunk", bytes(content) + data[line + 2 : at - 2])
        assert data[at - 2 : at] == b"\r\n"
        content += data[line + 2 : at - 2]
    return bytes(content), data[at:]


def repr_digest(content: bytes) -> str:
    """The Repr-Digest of a file (RFC 9530 section 3)."""
    return f"sha-256=:{b64encode(hashlib.sha256(content).digest()).decode()}:"


def entity_tag(content: bytes) -> str:
    """Its ETag."""
    return f'"sha256-{urlsafe_b64encode(hashlib.sha256(content).digest()).decode().rstrip("=")}"'
