"""HTTP as bytes on a socket, for what no client library would send."""

import socket
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit


@dataclass(frozen=True)
class Answer:
    """What came back: status, headers by lower-case name, the raw body as it stood on the wire."""

    status: int
    headers: dict[str, str]
    body: bytes
    interim: tuple[int, ...] = ()


@contextmanager
def connection(url: str, timeout: float = 20) -> Iterator[socket.socket]:
    """A TCP connection to the service at `url`."""
    where = urlsplit(url)
    with socket.create_connection((where.hostname or "", where.port or 80), timeout=timeout) as sock:
        yield sock


def exchange(url: str, request: bytes, timeout: float = 20) -> Answer:
    """Send `request` as it is and read one answer; ConnectionError when the service closed without one."""
    with connection(url, timeout) as sock:
        sock.sendall(request)
        return read_answer(sock)


def read_answer(sock: socket.socket) -> Answer:
    """One final answer, with the numbers of the interim ones before it; the body to its end or the connection's."""
    interim: list[int] = []
    data = b""
    while True:
        while b"\r\n\r\n" not in data:
            if not (more := sock.recv(65536)):
                raise ConnectionError(f"closed after {data!r}")
            data += more
        head, _, data = data.partition(b"\r\n\r\n")
        status_line, *lines = head.decode("latin-1").split("\r\n")
        status = int(status_line.split()[1])
        if status >= 200:
            break
        interim.append(status)
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    length = headers.get("content-length")
    while length is None or len(data) < int(length):
        if "chunked" in headers.get("transfer-encoding", "") and data.endswith(b"0\r\n\r\n"):
            break
        if not (more := sock.recv(65536)):
            break
        data += more
    return Answer(status, headers, data, tuple(interim))


def reset(sock: socket.socket) -> None:
    """Close with RST (socket(7), SO_LINGER)."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def is_closed(sock: socket.socket, within: float) -> bool:
    """Whether the peer ends the connection within so many seconds; what it still sends is dropped."""
    deadline = time.monotonic() + within
    try:
        while (left := deadline - time.monotonic()) > 0:
            sock.settimeout(left)
            if not sock.recv(65536):
                return True
    except TimeoutError:
        return False
    except ConnectionError:
        return True
    return False
