"""Ranges over the wire: which bytes come, in which answer, at which cost, and what a slow or broken one becomes."""

import socket
import sqlite3
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from email import message_from_bytes
from email.policy import HTTP
from email.utils import format_datetime, parsedate_to_datetime
from random import Random

import psutil
import pytest

from tests.support.doors import raw
from tests.support.downloads import Cut, ask, entity_tag, get, read_to_reset, repr_digest, take
from tests.support.places import LocalPlace
from tests.support.process import Service
from tests.support.raw import Answer, connection, exchange, reset
from tests.support.store import SECURITY, Store, eventually, refused, stored

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
SIZE = 600_000
CONTENT = Random(0).randbytes(SIZE)
BIG = Random(1).randbytes(24 * MIB)
TAG = entity_tag(CONTENT).encode()
Spawn = Callable[..., Service]


@pytest.fixture
def id_(store: Store) -> str:
    return stored(store.send(raw(CONTENT, about=[b"Content-Type: application/x-typed"])))


def parts_of(answer: Answer) -> list[tuple[str, bytes]]:
    """The Content-Range and the bytes of every part, as the standard library's reader of MIME sees them."""
    head = f"Content-Type: {answer.headers['content-type']}\r\n\r\n".encode()
    message = message_from_bytes(head + answer.body, policy=HTTP)
    assert message.get_content_type() == "multipart/byteranges"
    assert not message.defects
    parts = list(message.iter_parts())
    assert {part["Content-Type"] for part in parts} == {"application/x-typed"}
    boundary = message.get_boundary("").encode()
    contents = [piece.partition(b"\r\n\r\n")[2][:-2] for piece in answer.body.split(b"--" + boundary)[1:-1]]
    return [(part["Content-Range"], content) for part, content in zip(parts, contents, strict=True)]


# One range (RFC 9110 section 14)

SINGLE: dict[bytes, tuple[int, int] | int] = {
    b"bytes=0-9": (0, 10),
    b"bytes=0-0": (0, 1),
    b"bytes=0-": (0, SIZE),
    b"bytes=5-99999999": (5, SIZE),
    b"bytes=262143-262144": (262_143, 262_145),
    b"bytes=599999-": (SIZE - 1, SIZE),
    b"bytes=-500": (SIZE - 500, SIZE),
    b"bytes=-1": (SIZE - 1, SIZE),
    b"bytes=-99999999": (0, SIZE),
    b"BYTES=0-9": (0, 10),
    b"bytes= 0-9": (0, 10),
    b"bytes=,0-9,": (0, 10),
    b"bytes=0-4,5-9": (0, 10),
    b"bytes=0-9,700000-": (0, 10),
    b"bytes=0-" + b"9" * 40: (0, SIZE),
    b"bytes=-" + b"9" * 40: (0, SIZE),
    b"bytes=-0": 416,
    b"bytes=600000-": 416,
    b"bytes=600000-700000": 416,
    b"bytes=" + b"9" * 40 + b"-": 416,
    b"bytes=" + b"9" * 40 + b"-" + b"9" * 41: 416,
    b"bytes=700000-,-0": 416,
    b"bytes=9-5": 200,
    b"bytes=abc": 200,
    b"bytes=": 200,
    b"bytes": 200,
    b"bytes=-": 200,
    b"bytes=--1": 200,
    b"bytes=1-2-3": 200,
    b"bytes=0-9;5-6": 200,
    b"bytes=0x0-0x9": 200,
    b"bytes=1.0-2": 200,
    b"bytes=+1-2": 200,
    b"bytes=0 - 9": 200,
    b"bytes=0-9,abc": 200,
    b"bytes=\xb2-\xb3": 200,
    b"bytes=\xd9\xa1-\xd9\xa2": 200,  # digits, but Arabic ones
    b"items=0-9": 200,
    b"byte=0-9": 200,
    b"=0-9": 200,
    b"": 200,
}


@pytest.mark.parametrize(("value", "expected"), SINGLE.items(), ids=lambda value: str(value)[:40])
def test_a_range_is_served_refused_or_ignored(
    store: Store, id_: str, value: bytes, expected: tuple[int, int] | int
) -> None:
    answer = ask(store.url, id_, b"Range: " + value)
    whole = ask(store.url, id_, method=b"HEAD")
    if isinstance(expected, tuple):
        start, stop = expected
        assert answer.status == 206
        assert answer.body == CONTENT[start:stop]
        assert answer.headers["content-range"] == f"bytes {start}-{stop - 1}/{SIZE}"
        assert answer.headers["content-length"] == str(stop - start)
        same = whole.headers.keys() - {"date", "content-length"}
        assert {name: answer.headers[name] for name in same} == {name: whole.headers[name] for name in same}
        assert answer.headers.keys() - whole.headers.keys() == {"content-range"}
    elif expected == 416:
        refused(answer, 416)
        assert answer.headers["content-range"] == f"bytes */{SIZE}"
    else:
        assert (answer.status, answer.body) == (200, CONTENT)
        assert "content-range" not in answer.headers


@pytest.mark.parametrize("value", [b"bytes=0-0", b"bytes=0-", b"bytes=-1", b"bytes=5-", b"bytes=0-0,2-2"])
def test_an_empty_file_has_no_ranges(store: Store, value: bytes) -> None:
    id_ = stored(store.send(raw(b"")))
    answer = ask(store.url, id_, b"Range: " + value)
    assert (answer.status, answer.body) == (200, b"")


def test_a_range_has_a_length_on_http_1_0(store: Store, id_: str) -> None:
    answer = ask(store.url, id_, b"Range: bytes=1-300000", version=b"1.0")
    assert (answer.status, answer.body) == (206, CONTENT[1:300_001])


IF_RANGE: dict[bytes, int] = {
    TAG: 206,
    b" " + TAG + b" ": 206,
    b"W/" + TAG: 200,
    b'"other"': 200,
    TAG.strip(b'"'): 200,
    b"*": 200,
    TAG + b", " + TAG: 200,
    b"{modified}": 206,
    b"{later}": 200,
    b"{earlier}": 200,
    b"yesterday": 200,
    b"\xff": 200,
    b"": 200,
}


@pytest.mark.parametrize(("value", "status"), IF_RANGE.items(), ids=lambda value: str(value)[:30])
def test_if_range_sends_the_part_only_of_the_same_file(store: Store, id_: str, value: bytes, status: int) -> None:
    modified = parsedate_to_datetime(ask(store.url, id_, method=b"HEAD").headers["last-modified"])
    for name, year in ((b"{modified}", 0), (b"{later}", 1), (b"{earlier}", -1)):
        moment = modified.replace(year=modified.year + year, day=min(modified.day, 28) if year else modified.day)
        value = value.replace(name, format_datetime(moment, usegmt=True).encode())
    for wanted in (b"bytes=1-2", b"bytes=99999999-"):
        answer = ask(store.url, id_, b"If-Range: " + value, b"Range: " + wanted)
        if status == 200:
            assert (answer.status, answer.body) == (200, CONTENT)
        else:
            assert answer.status == (206 if wanted == b"bytes=1-2" else 416)


# Several ranges

SEVERAL: dict[bytes, list[tuple[int, int]]] = {
    b"bytes=0-9, 20-29": [(0, 10), (20, 30)],
    b"bytes=20-29,0-9": [(20, 30), (0, 10)],
    b"bytes=0-0,-1": [(0, 1), (SIZE - 1, SIZE)],
    b"bytes=0-300000,300002-": [(0, 300_001), (300_002, SIZE)],
    b"bytes=5-9,0-5,100-,900000-": [(0, 10), (100, SIZE)],
    b"bytes=" + b",".join(b"%d-%d" % (n, n) for n in range(0, 32, 2)): [(n, n + 1) for n in range(0, 32, 2)],
}


@pytest.mark.parametrize(("value", "spans"), SEVERAL.items(), ids=lambda value: str(value)[:40])
def test_several_ranges_are_parts_of_an_exact_length(
    store: Store, id_: str, value: bytes, spans: list[tuple[int, int]]
) -> None:
    answer = ask(store.url, id_, b"Range: " + value)
    assert answer.status == 206
    assert "content-range" not in answer.headers
    assert answer.headers["content-length"] == str(len(answer.body))
    expected = [(f"bytes {start}-{stop - 1}/{SIZE}", CONTENT[start:stop]) for start, stop in spans]
    assert parts_of(answer) == expected
    assert answer.headers["etag"].encode() == TAG
    assert answer.headers["repr-digest"] == repr_digest(CONTENT)
    assert answer.headers.items() >= SECURITY.items()


def test_every_multipart_answer_has_a_boundary_of_its_own(store: Store, id_: str) -> None:
    """A boundary that could be foreseen could stand in a file."""
    types = {ask(store.url, id_, b"Range: bytes=0-0,2-2").headers["content-type"] for _ in range(3)}
    assert len(types) == 3


@pytest.mark.parametrize(
    "value",
    [
        b",".join(b"%d-%d" % (n, n) for n in range(0, 34, 2)),
        b",".join(b"%d-%d" % (n, n) for n in range(0, 1700, 2)),
        b",".join(b"%d-" % n for n in range(1000)) + b",x",
        b"0-0," * 2000 + b"-",
        b"," * 8000,
        b"-" * 8000,
        b"9" * 8000 + b"-",
    ],
    ids=["seventeen", "hundreds", "overlapping, invalid", "the same", "commas", "dashes", "a long number"],
)
def test_too_many_ranges_and_worse_are_answered_with_the_file(store: Store, id_: str, value: bytes) -> None:
    answer = ask(store.url, id_, b"Range: bytes=" + value)
    assert (answer.status, answer.body) == (200, CONTENT)


def test_a_thousand_ranges_are_more_than_is_read_of_a_header(store: Store, id_: str) -> None:
    value = b",".join(b"%d-%d" % (n, n) for n in range(0, 2000, 2))
    refused(ask(store.url, id_, b"Range: bytes=" + value), 400)


def test_ranges_that_overlap_multiply_nothing(store: Store, id_: str) -> None:
    """CVE-2011-3192: hundreds of overlapping ranges made servers send and keep many times the file."""
    value = b",".join(b"%d-" % n for n in range(1300))
    answer = ask(store.url, id_, b"Range: bytes=" + value)
    assert (answer.status, answer.body) == (206, CONTENT)


def hostile(random: Random) -> bytes:
    """Header lines that nobody should send."""
    digits = [b"0", b"1", b"9" * 40, b"9" * 90, b"-1", b"", b"600000", b"0x1", b"\xff", b"1e5"]
    units = [b"bytes", b"bytes ", b"items", b"\x80", b""]
    times = [b"Sun, 06 Nov 1994 08:49:37 GMT", b"Sun, 99 Nov 9999 99:99:99 GMT", b"\xff", b"0" * 3000, b"Thu, "]
    tags = [TAG, b'"', b'W/"', b"*", b"*, *", b'"a"' * 500, b",,,", b'"\xff"', b"W/" * 1000]
    member = b"%b-%b" % (random.choice(digits), random.choice(digits))
    ranges = b"%b=%b" % (random.choice(units), b",".join([member] * random.choice([1, 2, 40])))
    lines = {
        b"Range": ranges,
        b"If-Range": random.choice(tags + times),
        b"If-Match": random.choice([b"*", TAG]),
        b"If-None-Match": random.choice(tags),
        b"If-Modified-Since": random.choice(times),
        b"If-Unmodified-Since": random.choice(times),
        b"Want-Repr-Digest": random.choice(digits + tags),
        b"User-Agent": random.choice(digits + tags),
    }
    chosen = random.sample(sorted(lines), random.randrange(1, len(lines)))
    return b"\r\n".join(name + b": " + lines[name] for name in chosen)


def test_no_header_makes_a_download_fail(store: Store) -> None:
    once = stored(store.send(raw(b"small", lines=[b"Max-Downloads: 99999999"])))
    id_ = stored(store.send(raw(CONTENT[:1000])))
    random = Random(2)
    statuses = set()
    before = store.service.rss()
    for number in range(600):
        lines = hostile(random)
        answer = ask(store.url, once if number % 2 else id_, lines, method=random.choice([b"GET", b"HEAD"]))
        statuses.add(answer.status)
        assert answer.status in (200, 206, 304, 412, 416), (answer.status, lines)
    assert statuses >= {200, 206, 304, 416}
    assert store.service.rss() - before < 8 * MIB


# Cost


def test_a_range_in_the_middle_of_a_huge_file_costs_its_bytes(spawn: Spawn) -> None:
    """Counted by the kernel: what the service read of anything while it answered (proc(5), rchar)."""
    store = Store(spawn())
    id_ = stored(store.send(raw(b"x", about=[b"Content-Type: application/x-typed"])))
    middle = 5 * GIB // 2
    path = LocalPlace(store.service.data_dir).path(store.key_of(id_))
    with path.open("r+b") as file:
        file.truncate(5 * GIB)
        file.seek(middle)
        file.write(CONTENT)
    with closing(sqlite3.connect(store.service.data_dir / "file_service.db")) as database, database:
        database.execute("UPDATE file SET size = ?", (5 * GIB,))
    ask(store.url, id_, b"Range: bytes=0-0")
    before, start = psutil.Process(store.service.pid).io_counters().read_chars, time.monotonic()
    answer = ask(store.url, id_, b"Range: bytes=%d-%d" % (middle, middle + SIZE - 1))
    cost = psutil.Process(store.service.pid).io_counters().read_chars - before
    assert (answer.status, answer.body) == (206, CONTENT)
    assert answer.headers["content-range"] == f"bytes {middle}-{middle + SIZE - 1}/{5 * GIB}"
    assert cost < SIZE + 256 * KIB
    assert time.monotonic() - start < 2
    parts = parts_of(ask(store.url, id_, b"Range: bytes=0-0,%d-%d,-1" % (middle, middle + 9)))
    assert [content for _, content in parts] == [b"x", CONTENT[:10], b"\0"]
    assert ask(store.url, id_, method=b"HEAD").headers["content-length"] == str(5 * GIB)


# Readers that are slow, stop, or leave


def slow_reader(stack: ExitStack, service: Service) -> socket.socket:
    """A connection with a receive buffer of a few kilobytes."""
    sock = stack.enter_context(socket.socket())
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.settimeout(20)
    sock.connect(("127.0.0.1", service.port))
    return sock


@pytest.fixture(scope="module")
def _impatient(start: Spawn) -> Service:
    return start(send_idle_timeout=2)


@pytest.fixture
def impatient(_impatient: Service) -> Iterator[Store]:
    """A service that waits two seconds for a reader."""
    store = Store(_impatient)
    yield store
    store.forget()


def test_fifty_readers_that_stop_cost_little_and_are_cut(impatient: Store, storage: str) -> None:
    most = 2 * MIB if storage.startswith("s3") else MIB  # a connection to the bucket has buffers, too
    service = impatient.service
    id_ = stored(impatient.send(raw(BIG)))
    assert len(impatient.get(id_)) == len(BIG)
    rss, descriptors = service.rss(), impatient.descriptors()
    with ExitStack() as stack:
        socks = [slow_reader(stack, service) for _ in range(50)]
        for number, sock in enumerate(socks):
            lines = [b"Range: bytes=1-"] if number % 2 else []
            sock.sendall(get(id_, *lines))
        eventually(lambda: impatient.descriptors() >= descriptors + 50, 5)
        start = time.monotonic()
        assert impatient.get(id_) == BIG  # the others are served meanwhile
        assert time.monotonic() - start < 2
        assert service.rss() - rss < 50 * most
        eventually(lambda: impatient.log().count("the client stopped reading") == 50, 10)
        eventually(lambda: impatient.descriptors() <= descriptors, 2)
        for sock in socks:
            with pytest.raises(Cut):
                take(read_to_reset(sock))
    eventually(lambda: sum(" 499 " in line for line in impatient.access()) == 50)


def test_a_reader_that_stops_within_a_single_chunk_is_cut(spawn: Spawn) -> None:
    store = Store(spawn(send_idle_timeout=0.5, chunk_size=32 * MIB))
    id_ = stored(store.send(raw(BIG)))
    with ExitStack() as stack:
        socks = [slow_reader(stack, store.service) for _ in range(2)]
        socks[0].sendall(get(id_))
        socks[1].sendall(get(id_, b"Range: bytes=1-"))
        eventually(lambda: store.log().count("the client stopped reading") == 2, 4)
        for sock in socks:
            with pytest.raises(Cut):
                take(read_to_reset(sock))


def test_a_slow_reader_that_goes_on_is_not_cut(impatient: Store) -> None:
    """Its last bytes leave the service long before they arrive."""
    content = BIG[: 3 * MIB]
    id_ = stored(impatient.send(raw(content, lines=[b"Max-Downloads: 1"])))
    with ExitStack() as stack:
        sock = stack.enter_context(socket.socket())
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 256 * KIB)
        sock.connect(("127.0.0.1", impatient.service.port))
        sock.sendall(get(id_, b"Connection: close"))
        data = bytearray()
        while more := sock.recv(200 * KIB):
            data += more
            time.sleep(0.2)
    assert take(bytes(data))[0].body == content
    eventually(lambda: len(impatient.access()) == 2)
    assert ask(impatient.url, id_).status == 410


@pytest.mark.parametrize("lines", [(), (b"Range: bytes=0-",), (b"Range: bytes=0-99,200-",)])
def test_a_client_that_leaves_costs_no_descriptor(store: Store, lines: tuple[bytes, ...]) -> None:
    id_ = stored(store.send(raw(BIG[:MIB])))
    ask(store.url, id_)
    before = store.descriptors()
    for _ in range(10):
        with connection(store.url) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.sendall(get(id_, *lines))
            sock.recv(10)
            reset(sock)
    eventually(lambda: store.descriptors() <= before)
    eventually(lambda: len(store.access()) == 12)


# A transfer that breaks after its headers


@pytest.fixture(scope="module")
def _broken(start: Spawn) -> Service:
    return start()


@pytest.fixture
def broken(_broken: Service) -> Store:
    """A service whose files the test cuts while they are sent."""
    return Store(_broken)


CUTS: dict[str, tuple[bytes, tuple[bytes, ...]]] = {
    "chunked": (b"1.1", ()),
    "1.0": (b"1.0", ()),
    "a range": (b"1.1", (b"Range: bytes=1-",)),
    "ranges": (b"1.1", (b"Range: bytes=0-0,2-",)),
}


@pytest.mark.parametrize(("version", "lines"), CUTS.values(), ids=CUTS)
def test_a_file_that_is_cut_while_it_is_sent_ends_in_a_reset(
    broken: Store, version: bytes, lines: tuple[bytes, ...]
) -> None:
    id_ = stored(broken.send(raw(BIG)))
    place, key = broken.service.place, broken.key_of(id_)
    with ExitStack() as stack:
        sock = slow_reader(stack, broken.service)
        sock.sendall(get(id_, *lines, version=version))
        head = sock.recv(4096)
        place.put(key, BIG[: len(BIG) // 2])
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, MIB)
        data = head + read_to_reset(sock)
    with pytest.raises(Cut):
        take(data)
    assert [row.state for row in broken.rows()] == ["damaged"]
    assert "cut: The stored bytes of this file are damaged." in broken.log()
    assert any(" 500 " in line for line in broken.access())
    assert "Traceback" not in broken.log()
    place.put(key, BIG)
    assert ask(broken.url, id_).body == BIG


def test_a_service_that_is_killed_resets_what_it_was_sending(spawn: Spawn) -> None:
    """wget takes an orderly close within a chunk for the end of the file."""
    service = spawn()
    id_ = stored(exchange(service.url, bytes(raw(BIG))))
    with ExitStack() as stack:
        socks = [stack.enter_context(connection(service.url)) for _ in CUTS]
        for sock, (version, lines) in zip(socks, CUTS.values(), strict=True):
            sock.sendall(get(id_, *lines, version=version))
            assert sock.recv(1, socket.MSG_PEEK)
        service.kill()
        for sock in socks:
            with pytest.raises(Cut):
                take(read_to_reset(sock))


@pytest.mark.parametrize("version", [b"1.1", b"1.0"])
def test_a_deletion_meanwhile_gives_the_old_bytes_or_a_cut(store: Store, version: bytes) -> None:
    content = BIG[:MIB]

    def download(id_: str) -> str:
        try:
            answer = ask(store.url, id_, version=version)
        except (Cut, ConnectionResetError):
            return "cut"
        assert answer.status == 404 or answer.body == content
        return str(answer.status)

    outcomes = set()
    random = Random(3)
    with ThreadPoolExecutor(4) as threads:
        for _ in range(25):
            id_ = stored(store.send(raw(content)))
            running = [threads.submit(download, id_) for _ in range(4)]
            time.sleep(random.random() / 100)
            assert ask(store.url, id_, method=b"DELETE").status == 204
            outcomes |= {download.result() for download in running}
            assert download(id_) == "404"
    assert outcomes <= {"200", "404", "cut"}
    assert "200" in outcomes
