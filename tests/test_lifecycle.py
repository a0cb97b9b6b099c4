"""Starting and stopping: what runs is finished, what takes too long is cut, what cannot start says why."""

import json
import os
import re
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from random import Random
from typing import Any

import psutil
import pytest

from tests.support.doors import Upload, form, raw, raw_chunked, request
from tests.support.postgres import Postgres
from tests.support.process import Service, free_port
from tests.support.raw import Answer, connection, exchange, read_answer
from tests.support.store import Store, eventually, stored

Spawn = Callable[..., Service]
CONTENT = Random(1).randbytes(3_000_000)
HALF = len(CONTENT) // 2
DRAIN = 20.0  # longer than any of these tests
PAST_DRAIN = 5.0  # seconds after it within which the process has ended
START = 10.0  # seconds within which a service that cannot start has said so
READY = bytes(request(b"GET", b"/health/ready"))
ACCESS = re.compile(
    r"127\.0\.0\.1 (?P<method>[A-Z]+) (?P<path>/\S*) (?P<status>\d{3}) (?P<sent>\d+) (?P<seconds>\d+\.\d{3})"
)
GET_FILE = "GET /files/{}/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


@contextmanager
def uploading(service: Service, upload: Upload) -> Iterator[socket.socket]:
    """An upload of which the service has the first half."""
    with connection(service.url) as sock:
        sock.sendall(upload.head + upload.body[:HALF])
        eventually(lambda: any((service.data_dir / "tmp").iterdir()), 10)
        yield sock


@contextmanager
def downloading(service: Service, id_: str) -> Iterator[socket.socket]:
    """A download whose reader has stopped for the moment; the service waits for it."""
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.settimeout(20)
        sock.connect(("127.0.0.1", service.port))
        sock.sendall(GET_FILE.format(id_).encode())
        assert sock.recv(12) == b"HTTP/1.1 200"
        yield sock


def rest(sock: socket.socket) -> bytes:
    """Everything up to the end of the connection, whichever way it ends."""
    received = b""
    try:
        while more := sock.recv(1 << 20):
            received += more
    except ConnectionResetError:
        pass
    return received


def unchunked(received: bytes) -> bytes | None:
    """The content of a chunked answer, None when it does not come to its end (RFC 9112 section 7.1)."""
    body, content = received.partition(b"\r\n\r\n")[2], b""
    while body:
        size, _, body = body.partition(b"\r\n")
        if int(size, 16) == 0:
            return content
        content, body = content + body[: int(size, 16)], body[int(size, 16) + 2 :]
    return None


# Stopping


@pytest.mark.parametrize(
    ("door", "number"),
    [(raw, signal.SIGTERM), (raw_chunked, signal.SIGTERM), (form, signal.SIGTERM), (raw, signal.SIGINT)],
)
def test_what_runs_is_finished(spawn: Spawn, door: Callable[[bytes], Upload], number: signal.Signals) -> None:
    service = spawn(drain_timeout=DRAIN)
    kept = stored(exchange(service.url, bytes(raw(CONTENT))))
    upload = door(CONTENT)
    with uploading(service, upload) as sending, downloading(service, kept) as reading:
        service.signal(number)
        eventually(lambda: "stopping" in service.output())
        sending.sendall(upload.body[HALF:])
        id_ = stored(read_answer(sending))
        assert unchunked(rest(reading)) == CONTENT
    assert service.wait(PAST_DRAIN) == 0, service.output()
    again = Store(service.start())
    assert again.get(id_) == CONTENT


def test_readiness_ends_with_the_signal_and_the_port_closes(spawn: Spawn) -> None:
    service = spawn(drain_timeout=DRAIN)
    upload = raw(CONTENT)
    with uploading(service, upload) as sending, connection(service.url) as kept, connection(service.url) as other:
        kept.sendall(READY)
        assert read_answer(kept).status == 200
        other.sendall(READY)
        assert read_answer(other).status == 200
        service.signal(signal.SIGTERM)
        eventually(lambda: "stopping" in service.output())
        kept.sendall(READY)
        answer = read_answer(kept)
        assert (answer.status, b"shutting down" in answer.body) == (503, True)
        assert answer.headers["connection"] == "close"
        assert rest(kept) == b""
        other.sendall(bytes(raw(b"one more")))
        stored(read_answer(other))
        with pytest.raises(ConnectionRefusedError), connection(service.url):
            pass
        sending.sendall(upload.body[HALF:])
        stored(read_answer(sending))
    assert service.wait(PAST_DRAIN) == 0, service.output()


@pytest.mark.parametrize("drain", [0, 0.5])
def test_what_takes_longer_than_the_drain_is_cut_and_leaves_nothing(spawn: Spawn, drain: float) -> None:
    service = spawn(drain_timeout=drain)
    kept = stored(exchange(service.url, bytes(raw(CONTENT))))
    with uploading(service, raw(CONTENT)) as sending, downloading(service, kept) as reading:
        start = time.monotonic()
        assert service.terminate() == 0
        assert drain <= time.monotonic() - start < drain + PAST_DRAIN
        assert rest(sending) == b""
        assert unchunked(rest(reading)) is None
    store = Store(service.start())
    assert [row.state for row in store._rows()] == ["stored"]
    assert store.unfinished() == set()
    assert len(store.published()) == 1
    assert "Traceback" not in service.output()


def test_an_idle_service_stops_at_once(spawn: Spawn) -> None:
    service = spawn(drain_timeout=DRAIN)
    with connection(service.url) as kept:
        kept.sendall(READY)
        read_answer(kept)
        start = time.monotonic()
        assert service.terminate() == 0
        assert time.monotonic() - start < PAST_DRAIN


# Starting


def refusal(service: Service) -> str:
    """What a service prints that must not start: one reason, in a line, and no traceback."""
    assert service.wait(START) == 1
    output = service.output()
    assert "Traceback" not in output
    (reason,) = {line for line in output.splitlines() if line.startswith("file-service: could not start: ")}
    return reason


@pytest.mark.parametrize("workers", [1, 2])
def test_a_port_in_use_is_told(spawn: Spawn, workers: int, tmp_path: Path) -> None:
    first = spawn()
    second = spawn(wait=False, port=first.port, data_dir=tmp_path / "other", workers=workers)
    reason = refusal(second)
    assert str(first.port) in reason
    assert "in use" in reason
    assert exchange(first.url, READY).status == 200


def test_storage_of_another_database_is_refused(spawn: Spawn, tmp_path: Path) -> None:
    for name in ("one", "two"):
        assert spawn(data_dir=tmp_path / name).terminate() == 0
    database = f"sqlite+aiosqlite:///{tmp_path}/one/file_service.db"
    assert "belongs to another database" in refusal(spawn(wait=False, data_dir=tmp_path / "two", database_url=database))
    assert "no marker" in refusal(spawn(wait=False, data_dir=tmp_path / "empty", database_url=database))
    assert [*(tmp_path / "empty").iterdir()] == []


def test_a_data_folder_that_cannot_be_made_is_told(spawn: Spawn, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "file" in refusal(spawn(wait=False, data_dir=tmp_path / "file" / "data"))


def test_a_database_that_is_away_is_told_without_its_password(spawn: Spawn) -> None:
    url = f"postgresql+asyncpg://user:s3cret@127.0.0.1:{free_port()}/files"
    service = spawn(wait=False, database_url=url)
    assert "database" in refusal(service)
    assert "s3cret" not in service.output()


@pytest.mark.parametrize(
    ("name", "value"),
    [("port", "http"), ("block_size", "1"), ("database_url", "mysql://user:s3cret@h/d"), ("workers", 0)],
)
def test_a_setting_that_cannot_be_used_is_named(spawn: Spawn, name: str, value: Any) -> None:
    service = spawn(wait=False, **{name: value})
    assert service.wait(START) == 1
    output = service.output()
    assert f"FILE_SERVICE_{name.upper()}" in output
    assert "Traceback" not in output
    assert "s3cret" not in output


# Running


def test_health_tells_what_is_wrong_and_when_it_is_over(spawn: Spawn, tmp_path: Path) -> None:
    service = spawn()
    live, ready = (bytes(request(b"GET", path)) for path in (b"/health/live", b"/health/ready"))
    for check in (live, ready):
        answer = exchange(service.url, check)
        assert (answer.status, json.loads(answer.body)["status"]) == (200, "ok")
    (service.data_dir / ".file-service").rename(tmp_path / "marker")
    answer = exchange(service.url, ready)
    assert (answer.status, {*json.loads(answer.body)["failing"]}) == (503, {"storage"})
    assert exchange(service.url, live).status == 200
    (tmp_path / "marker").rename(service.data_dir / ".file-service")
    assert exchange(service.url, ready).status == 200


def test_readiness_names_a_database_that_is_away(spawn: Spawn) -> None:
    with Postgres() as server:
        service = spawn(database_url=server.create_database("files"), database_timeout=0.5)
        assert exchange(service.url, READY).status == 200
        server.stop("immediate")
        answer = exchange(service.url, READY)
        assert (answer.status, {*json.loads(answer.body)["failing"]}) == (503, {"database"})
        server.start()
        eventually(lambda: exchange(service.url, READY).status == 200, 10)
        assert service.terminate() == 0


def test_a_request_is_one_line_of_the_log(spawn: Spawn) -> None:
    store = Store(spawn())
    path = f"/files/{stored(store.send(raw(b'hello')))}/".encode()
    forged = b"/files/nothing%0d%0aINFO%20forged?secret=%ff%00"
    requests = [
        request(b"GET", path),
        request(b"GET", forged),
        request(b"PROPFIND", b"/files"),
        request(b"DELETE", path, [b"Connection: close"]),
    ]
    statuses = [store.send(each).status for each in requests]
    assert store.send(request(b"NO METHOD", b"/files")).status == 400
    eventually(lambda: len(store.log().splitlines()) == 1 + len(requests) + 1)
    lines = [ACCESS.fullmatch(line) for line in store.access()]
    assert [int(line["status"]) for line in lines if line] == [201, *statuses]
    assert "not HTTP" in store.log().splitlines()[-1]
    assert "secret" not in store.log()
    assert store.complaints() == ""


# Several processes


def worker_pids(service: Service) -> list[int]:
    """The processes below the supervisor."""
    return [child.pid for child in psutil.Process(service.pid).children()]


def serving(service: Service) -> set[int]:
    """The workers that hold connections of clients."""
    held = {pid: psutil.Process(pid).net_connections("tcp") for pid in worker_pids(service)}
    return {pid for pid, found in held.items() if any(each.status == "ESTABLISHED" for each in found)}


@contextmanager
def clients(service: Service, count: int) -> Iterator[list[Answer]]:
    """So many clients at once, each with an answer and its connection."""
    with ExitStack() as stack:
        socks = [stack.enter_context(connection(service.url)) for _ in range(count)]
        for sock in socks:
            sock.sendall(READY)
        yield [read_answer(sock) for sock in socks]


def test_workers_share_the_port_and_are_replaced(spawn: Spawn) -> None:
    service = spawn(workers=2, drain_timeout=1)
    eventually(lambda: len(listening(service)) == 2, START)
    before = worker_pids(service)
    with clients(service, 40) as answers:
        assert {answer.status for answer in answers} == {200}
        assert serving(service) == {*before}
    os.kill(before[0], signal.SIGKILL)
    eventually(lambda: len(listening(service)) == 2 and before[0] not in worker_pids(service), START)
    with clients(service, 40) as answers:
        assert {answer.status for answer in answers} == {200}
        assert serving(service) == {*worker_pids(service)}
    workers = worker_pids(service)
    assert service.terminate() == 0
    assert [pid for pid in workers if psutil.pid_exists(pid)] == []


def listening(service: Service) -> set[int]:
    """The workers that accept connections."""
    held = {pid: psutil.Process(pid).net_connections("tcp") for pid in worker_pids(service)}
    return {pid for pid, found in held.items() if any(each.status == "LISTEN" for each in found)}


def test_workers_may_be_stopped_while_they_start(spawn: Spawn) -> None:
    service = spawn(wait=False, workers=2)
    eventually(lambda: len(worker_pids(service)) == 2, START)
    workers = worker_pids(service)
    assert service.terminate() == 0, service.output()
    assert [pid for pid in workers if psutil.pid_exists(pid)] == []


def test_no_worker_outlives_a_supervisor_that_was_killed(spawn: Spawn) -> None:
    service = spawn(workers=2)
    eventually(lambda: len(listening(service)) == 2, START)
    workers = worker_pids(service)
    os.kill(service.pid, signal.SIGKILL)
    eventually(lambda: not any(psutil.pid_exists(pid) for pid in workers), PAST_DRAIN)


def test_workers_finish_what_runs(spawn: Spawn) -> None:
    service = spawn(workers=2, drain_timeout=DRAIN)
    upload = raw(CONTENT)
    with uploading(service, upload) as sending:
        service.signal(signal.SIGTERM)
        eventually(lambda: "stopping" in service.output())
        sending.sendall(upload.body[HALF:])
        stored(read_answer(sending))
    assert service.wait(PAST_DRAIN) == 0, service.output()
