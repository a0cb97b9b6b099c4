"""Many transfers at once that cost their client nothing: bodies from a sparse file, readers that take little."""

import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.support.doors import request
from tests.support.process import Service
from tests.support.raw import connection, read_answer

MIB = 1 << 20
CHUNK = 16 * MIB
RECEIVED = 4096  # bytes that a reader's side of a connection holds, about


def sparse(path: Path, size: int) -> Path:
    """A file of zeros that takes no room."""
    with path.open("wb") as file:
        file.truncate(size)
    return path


def upload(service: Service, path: Path) -> str:
    """Send a file (sendfile(2)); the id."""
    head = b"POST /files HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % path.stat().st_size
    with connection(service.url, timeout=600) as sock, path.open("rb") as file:
        sock.sendall(head)
        sock.sendfile(file)
        answer = read_answer(sock)
    assert answer.status == 201, answer
    return answer.body.decode()


def upload_in_chunks(service: Service, path: Path) -> str:
    """Send a file without telling its length; the id."""
    size = path.stat().st_size
    with connection(service.url, timeout=600) as sock, path.open("rb") as file:
        sock.sendall(b"POST /files HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        for offset in range(0, size, CHUNK):
            length = min(CHUNK, size - offset)
            sock.sendall(b"%x\r\n" % length)
            sock.sendfile(file, offset, length)
            sock.sendall(b"\r\n")
        sock.sendall(b"0\r\n\r\n")
        answer = read_answer(sock)
    assert answer.status == 201, answer
    return answer.body.decode()


def upload_at_once(service: Service, path: Path, count: int, send: Callable[..., str] = upload) -> list[str]:
    """The same file so many times; the ids."""
    with ThreadPoolExecutor(count) as clients:
        return list(clients.map(lambda _: send(service, path), range(count)))


@contextmanager
def readers(service: Service, id_: str, count: int) -> Iterator[list[socket.socket]]:
    """So many downloads of one file, begun and not read any further."""
    with ExitStack() as stack:
        socks = [stack.enter_context(socket.socket()) for _ in range(count)]
        for sock in socks:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVED)
            sock.settimeout(60)
            sock.connect(("127.0.0.1", service.port))
            sock.sendall(bytes(request(b"GET", f"/files/{id_}/".encode(), [b"Connection: close"])))
        for sock in socks:
            assert sock.recv(12) == b"HTTP/1.1 200"
        yield socks


def read_slowly(socks: list[socket.socket], rate: int, seconds: float) -> int:
    """Take `rate` bytes a second from each of these downloads of zeros; how many zeros came, from all together.

    ConnectionError when the service has ended one of them.
    """
    start, taken, zeros = time.monotonic(), 0, 0
    while (passed := time.monotonic() - start) < seconds:
        due = int(passed * rate) - taken
        zeros += sum(_zeros(sock, due) for sock in socks)
        taken += due
        time.sleep(0.02)
    return zeros


def read_to_the_end(sock: socket.socket) -> int:
    """Take the rest of a download of zeros; how many came. AssertionError when it ends before its end."""
    zeros, last = 0, b""
    while received := sock.recv(MIB):
        zeros += received.count(0)
        last = (last + received)[-5:]
    assert last == b"0\r\n\r\n"
    return zeros


def _zeros(sock: socket.socket, count: int) -> int:
    zeros = 0
    while count > 0:
        received = sock.recv(min(count, 65536))
        if not received:
            raise ConnectionError("the service has ended the download")
        zeros += received.count(0)
        count -= len(received)
    return zeros


def peak(service: Service) -> int:
    """The most memory since `forget_peak`, in bytes."""
    return service.rss("VmHWM")


def forget_peak(service: Service) -> int:
    """Begin anew to watch the peak (proc(5), clear_refs); what is resident now, in bytes."""
    Path(f"/proc/{service.pid}/clear_refs").write_text("5")
    return service.rss()
