"""A service that dies of SIGKILL exactly before one system call of an upload or a delete.

strace stops the thread on its way into the call and the signal takes the process before the kernel has done anything
(strace(1), inject=...:signal=). Death after a call is death before the next one.
"""

import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import psutil
import pytest

from tests.crash.checker import DATABASE, published, sqlite_rows, temporary
from tests.crash.steps import BLOCK, Step
from tests.support.doors import Upload, raw, request
from tests.support.process import Service
from tests.support.raw import Answer, connection, exchange, read_answer

PATIENCE = 20.0
SETTINGS = {"durable": True, "sweep_interval": 3600, "block_size": BLOCK, "database_pool_size": 1}
WRITING = "write,writev,pwrite64,pwritev,pwritev2,sendto,sendmsg,sendfile,splice,copy_file_range,ftruncate,fallocate"
SYNCING = "fsync,fdatasync,sync_file_range,syncfs,sync,msync"
NAMING = "open,openat,openat2,creat,link,linkat,unlink,unlinkat,rename,renameat,renameat2,mkdir,mkdirat,rmdir,symlinkat"
CALL = re.compile(r"^\d+ +(\w+)\((?:AT_FDCWD|\d+)<([^>]*)>")

needs_strace = pytest.mark.skipif(
    shutil.which("strace") is None or os.geteuid() != 0, reason="needs strace, and root to attach it"
)


def places(service: Service, key: str) -> dict[str, Path]:
    """The paths that steps name, for an attempt with this storage key; besides them there is `connection`."""
    root, first = service.data_dir, service.data_dir / "objects" / key[:2]
    return {
        "wal": root / f"{DATABASE}-wal",
        "tmp": root / "tmp",
        "file": root / "tmp" / key,
        "objects": root / "objects",
        "first": first,
        "shard": first / key[2:4],
    }


def eventually(holds: Callable[[], object]) -> None:
    """Return when `holds()`; AssertionError when it does not in time."""
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.002)


def receiving(service: Service, least: int, after: int) -> str:
    """Wait until `after` files are published and another one, being received, has `least` bytes; its key."""

    def begun() -> list[str]:
        done = published(service.data_dir)
        return [key for key, size in temporary(service.data_dir).items() if key not in done and size >= least]

    eventually(lambda: len(published(service.data_dir)) == after and begun())
    (key,) = begun()
    return key


def stored(service: Service, content: bytes) -> tuple[str, str]:
    """Store a file; its id and its storage key."""
    before = sqlite_rows(service.data_dir)
    answer = exchange(service.url, bytes(raw(content)))
    assert answer.status == 201
    # A copy of a database that is being written to may lack the end of its log.
    eventually(lambda: bool(set(sqlite_rows(service.data_dir)) - set(before)))
    (row,) = set(sqlite_rows(service.data_dir)) - set(before)
    return answer.body.decode(), row.attempt


def attempt(service: Service, step: Step, upload: Upload, *contents: bytes) -> Answer | None:
    """Send `upload`, which has these files, to a service that dies at the step; the answer, if there was one at all."""
    kept = len(published(service.data_dir))
    with connection(service.url) as sock:
        if step.sent == "nothing":
            with killed_before(service, step, key=""):
                sock.sendall(bytes(upload))
            return answer_of(sock)
        number = len(contents) - 1 if step.sent == "most" else 0
        length = 0 if step.sent == "head" else len(contents[number]) - BLOCK
        sent = upload.body.index(contents[number]) + length
        sock.sendall(upload.head + upload.body[:sent])
        # What the service still gathers is less than two blocks.
        key = receiving(service, length - 2 * BLOCK, after=kept + number)
        if step.where != "objects" or not (service.data_dir / "objects" / key[:2]).exists():
            with killed_before(service, step, key):
                sock.sendall(upload.body[sent:])
            return answer_of(sock)
    # By chance the first folder is there already.
    eventually(lambda: not temporary(service.data_dir))
    return attempt(service, step, upload, *contents)


def deletion(id_: str) -> bytes:
    """The request for it."""
    return bytes(request(b"DELETE", f"/files/{id_}/".encode(), [b"Connection: close"]))


def answer_of(sock: socket.socket) -> Answer | None:
    """The answer on a connection to a service that is dead now."""
    try:
        return read_answer(sock)
    except ConnectionError:
        return None


@contextmanager
def killed_before(service: Service, step: Step, key: str) -> Iterator[None]:
    """The service dies at the step while the block runs, or right after it."""
    path = _connection(service) if step.where == "connection" else str(places(service, key)[step.where])
    inject = f"inject={step.call}:signal=KILL:when={step.when}"
    _after_a_beat(service)
    with _attached(service, "-o", "/dev/null", "-P", path, "-e", f"trace={step.call}", "-e", inject):
        yield
        assert service.wait(PATIENCE) == -signal.SIGKILL


@contextmanager
def lying(service: Service, call: str, where: str, key: str) -> Iterator[None]:
    """Meanwhile the calls on that path do nothing and say that they did."""
    path = str(places(service, key)[where])
    with _attached(service, "-o", "/dev/null", "-P", path, "-e", f"trace={call}", "-e", f"inject={call}:retval=0"):
        yield


@contextmanager
def traced(service: Service, log: Path) -> Iterator[None]:
    """What the service does meanwhile to disks and connections is written to `log`, with paths (strace(1), -y)."""
    with _attached(service, "-y", "-o", str(log), "-e", f"trace={WRITING},{SYNCING},{NAMING}"):
        yield


def changes(service: Service, log: Path, *keys: str) -> set[tuple[str, str]]:
    """The calls in the log of `traced` that changed the data folder or a connection, each with its place.

    A place is named as in `places`, when it belongs to one of the storage keys; others stand there with their path.
    """
    names = {str(path): name for key in keys for name, path in places(service, key).items()}
    lines = [line for line in log.read_text().splitlines() if " open" not in line or "O_CREAT" in line]
    found = {(call[1], call[2]) for call in map(CALL.search, lines) if call}
    inside = {(call, names.get(path, path)) for call, path in found if path.startswith(f"{service.data_dir}/")}
    return inside | {(call, "connection") for call, path in found if path.startswith("socket:")}


@contextmanager
def _attached(service: Service, *options: str) -> Iterator[None]:
    with subprocess.Popen(["strace", "-fqq", *options, "-p", str(service.pid)]) as strace:
        try:
            eventually(lambda: _tracers(service.pid) == {strace.pid})
            yield
        finally:
            strace.terminate()


def _after_a_beat(service: Service) -> None:
    # The replica's own writes to the database must not be taken for the step's.
    beat = _lease(service)
    eventually(lambda: _lease(service) != beat)


def _lease(service: Service) -> str | None:
    with closing(sqlite3.connect(f"file:{service.data_dir}/{DATABASE}?mode=ro", uri=True, timeout=10)) as database:
        return str(database.execute("SELECT max(lease_until) FROM replica").fetchone()[0])


def _tracers(pid: int) -> set[int]:
    """The processes that trace the threads of `pid`; 0 for none (proc(5), TracerPid)."""
    status = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/status")]
    return {int(text.partition("TracerPid:")[2].split(maxsplit=1)[0]) for text in status}


def _connection(service: Service) -> str:
    """The one connection that the service has, as strace and /proc name it."""
    process = psutil.Process(service.pid)

    def accepted() -> list[int]:
        return [found.fd for found in process.net_connections("tcp") if found.status == "ESTABLISHED"]

    eventually(lambda: len(accepted()) == 1)
    return str(Path(f"/proc/{service.pid}/fd/{accepted()[0]}").readlink())
