"""The doors in, abused: cut, stalled, over-long, bent, lied to. Nothing of it is stored, and the service goes on."""

import re
import select
import shutil
import socket
import subprocess
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import unquote

import pytest

from tests.support.doors import (
    BOUNDARY,
    CHUNK,
    CHUNKED,
    DOORS,
    Door,
    Upload,
    chunked,
    every_chunked_door,
    every_door,
    form,
    form_chunked,
    form_of,
    part,
    put,
    raw,
    raw_chunked,
    request,
)
from tests.support.nginx import nginx_before
from tests.support.process import Service
from tests.support.raw import Answer, connection, exchange, is_closed, read_answer, reset
from tests.support.store import Store, eventually, refused, stored

MIB = 1 << 20
POOL = 15  # descriptors of five connections to SQLite, which opens them when they are needed
CONTENT = Random(0).randbytes(150_000)
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"


def good_request_works(store: Store) -> str:
    """Upload and download on new connections; the id."""
    id_ = stored(store.send(raw(b"good")))
    assert store.get(id_) == b"good"
    return id_


# Cut


def shut(sock: socket.socket) -> None:
    """End what is sent, and wait for the answer that cannot come."""
    sock.shutdown(socket.SHUT_WR)
    assert is_closed(sock, 2)


@every_door
@pytest.mark.parametrize("end", [shut, socket.socket.close, reset], ids=["fin", "close", "reset"])
@pytest.mark.parametrize("where", ["before the content", "after a byte", "half way", "before the last byte"])
def test_a_cut_upload_leaves_nothing_but_a_line_in_the_log(
    store: Store, door: Door, end: Callable[[socket.socket], None], where: str
) -> None:
    upload = door(CONTENT)
    start = upload.body.index(CONTENT[:8])
    cuts = {"before the content": start, "after a byte": start + 1, "half way": len(upload.body) // 2}
    with connection(store.url) as sock:
        sock.sendall(upload.head + upload.body[: cuts.get(where, -1)])
        # Until more of a form has come, its part may still turn out to have no content.
        if BOUNDARY not in upload.body or cuts.get(where, len(upload.body)) > start + len(BOUNDARY) + 4:
            eventually(lambda: [row.state for row in store.rows()] == ["receiving"], 5)
        end(sock)
        store.holds()
    eventually(lambda: bool(store.access()))
    (line,) = store.access()
    assert re.fullmatch(r"(127\.0\.0\.1|-) (POST /files|PUT /files/a\.bin) 499 \d+ [\d.]+", line)
    assert len(store.log().splitlines()) == 1


@pytest.mark.parametrize("door", [raw, form])
def test_a_chunked_body_is_whole_with_its_last_byte_and_not_before(store: Store, door: Door) -> None:
    upload = chunked(door(b"hello"), 1000)
    body = upload.body
    for cut in range(len(body)):
        with connection(store.url) as sock:
            sock.sendall(upload.head + body[:cut])
            shut(sock)
    eventually(lambda: len(store.access()) == len(body))
    assert {line.split()[3] for line in store.access()} == {"499"}
    store.holds()
    assert store.get(stored(store.send(upload))) == b"hello"


def test_cuts_cost_no_descriptors(store: Store) -> None:
    good_request_works(store)
    before = store.descriptors()
    for _ in range(5):
        for door in DOORS.values():
            with connection(store.url) as sock:
                upload = door(CONTENT)
                sock.sendall(bytes(upload)[:-1])
                reset(sock)
    eventually(lambda: store.descriptors() <= before + POOL, 5, lambda: (before, store.descriptors()))
    eventually(lambda: sum(" 499 " in line for line in store.access()) == 5 * len(DOORS), 5)
    good_request_works(store)


# Too large


@pytest.mark.parametrize("door", [raw, put])
def test_a_declared_length_beyond_the_limit_is_413_before_the_first_byte(store: Store, door: Door) -> None:
    head = door(b"").head.replace(b"Content-Length: 0", b"Content-Length: 10737418240")
    with connection(store.url) as sock:
        sock.sendall(head)
        assert "1048576" in refused(read_answer(sock), 413)
    store.holds()


@every_door
def test_a_client_that_sends_it_all_still_hears_413(store: Store, door: Door) -> None:
    upload = door(bytes(8 * MIB))
    with connection(store.url) as sock:
        sock.sendall(bytes(upload))
        refused(read_answer(sock), 413)
        store.holds()
        sock.sendall(bytes(raw(b"next")))
        assert store.get(stored(read_answer(sock))) == b"next"


@every_chunked_door
def test_a_chunked_body_is_413_as_soon_as_it_is_too_long(store: Store, door: Door) -> None:
    upload = door(bytes(MIB + 1))
    with connection(store.url) as sock:
        sock.sendall(upload.head + upload.body[: -len("0\r\n\r\n")].removesuffix(b"--Bound-ary--\r\n"))
        refused(read_answer(sock), 413)
        store.holds()


@every_door
def test_the_limit_itself_is_no_file_too_large(store: Store, door: Door) -> None:
    id_ = stored(store.send(door(bytes(MIB))))
    assert store.meta(id_)["size"] == MIB
    refused(store.send(door(bytes(MIB + 1))), 413)
    store.holds(id_)


def test_curl_hears_413_for_ten_gigabytes_at_once(store: Store, tmp_path: Path) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    with (tmp_path / "sparse").open("wb") as sparse:
        sparse.truncate(10 << 30)
    command = ["curl", "-sS", "-m", "10", "--noproxy", "*", "-w", "%{http_code} %{size_upload}", "-o", "/dev/null"]
    done = subprocess.run([*command, "-T", tmp_path / "sparse", f"{store.url}/files/"], capture_output=True, check=True)
    assert done.stdout.split() == [b"413", b"0"]
    store.holds()


# Coded


@every_door
@pytest.mark.parametrize("coding", ["gzip", "GZIP", "deflate", "br", "zstd", "identity, gzip", "nonsense"])
def test_a_coded_body_is_415(store: Store, door: Door, coding: str) -> None:
    for content in (zlib.compress(b"hello", wbits=31), b"not coded at all"):
        refused(store.send(door(content, lines=[b"Content-Encoding: " + coding.encode()])), 415)
    store.holds()


@every_chunked_door
@pytest.mark.parametrize("coding", [b"gzip, chunked", b"deflate,chunked", b"chunked, chunked", b"identity, chunked"])
def test_a_transfer_coding_that_would_be_kept_is_refused(store: Store, door: Door, coding: bytes) -> None:
    upload = door(zlib.compress(b"hello", wbits=31))
    answer = store.send(bytes(upload).replace(b"coding: chunked", b"coding: " + coding))
    refused(answer, 501 if answer.status == 501 else 400)
    store.holds()


def bomb() -> bytes:
    """Half a megabyte of gzip that would be half a gigabyte."""
    packer = zlib.compressobj(9, wbits=31)
    first = packer.compress(bytes(MIB)) + packer.flush(zlib.Z_FULL_FLUSH)
    again = packer.compress(bytes(MIB)) + packer.flush(zlib.Z_FULL_FLUSH)
    return first + again * 511 + packer.flush()


def test_bombs_and_floods_cost_no_memory(store_with: Callable[..., Store]) -> None:
    store = store_with()
    kept = [good_request_works(store)]
    before = store.service.rss("VmHWM")
    flood = bytes(48 * MIB)
    field = b'Content-Disposition: form-data; name="text"\r\n\r\n' + flood
    refused(store.send(raw(bomb(), lines=[b"Content-Encoding: gzip"])), 415)
    refused(store.send(request(b"POST", b"/health/live", [b"Content-Type: application/json"], flood)), 405)
    refused(store.send(raw_chunked(flood)), 413)
    refused(store.send(form_of(field)), 413)
    refused(store.send(form_of(b"X: " + flood + b"\r\n\r\n")), 400)
    refused(store.send(request(b"POST", b"/files", [b"Content-Type: multipart/form-data; boundary=b"], flood)), 400)
    kept.append(good_request_works(store))
    assert store.service.rss("VmHWM") - before < 16 * MIB
    store.holds(*kept)


# Bent framing: where the next request begins would be anybody's guess

LIES = {
    "both lengths": [b"Content-Length: 5", b"Transfer-Encoding: chunked"],
    "both lengths, turned": [b"Transfer-Encoding: chunked", b"Content-Length: 5"],
    "two lengths": [b"Content-Length: 5", b"Content-Length: 60"],
    "two equal lengths": [b"Content-Length: 5", b"Content-Length: 5"],
    "a list of lengths": [b"Content-Length: 5, 5"],
    "a negative length": [b"Content-Length: -5"],
    "a signed length": [b"Content-Length: +5"],
    "a hexadecimal length": [b"Content-Length: 0x5"],
    "a length with a blank": [b"Content-Length: 5 0"],
    "an empty length": [b"Content-Length:"],
    "an endless length": [b"Content-Length: 99999999999999999999"],
    "an unknown coding": [b"Transfer-Encoding: xchunked"],
    "a coding after chunked": [b"Transfer-Encoding: chunked, gzip"],
    "two codings": [b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"],
    "a blank before the colon": [b"Content-Length : 5"],
    "a folded header": [b"X: a", b" Content-Length: 5"],
    "a NUL in a header": [b"X: a\0b", b"Content-Length: 5"],
    "a bare CR in a header": [b"X: a\rContent-Length: 5", b"Content-Length: 60"],
    "a second host": [b"Host: example.org", b"Content-Length: 5"],
    "a header without a name": [b": a", b"Content-Length: 5"],
    "a header of nine kilobytes": [b"X: " + b"a" * 9000, b"Content-Length: 5"],
    "two hundred headers": [*(b"X-%d: a" % n for n in range(200)), b"Content-Length: 5"],
}
METHODS = [b"POST /files", b"PUT /files/a.bin"]


def bent(method: bytes, lines: list[bytes], body: bytes) -> bytes:
    """A request as it is written here, whatever it means."""
    return b"\r\n".join([method + b" HTTP/1.1", b"Host: 127.0.0.1", *lines, b"", b""]) + body + SMUGGLED


def refused_and_closed(store: Store, words: bytes) -> None:
    """Assert that the words are answered by 400 and the end of the connection, and that nothing after them is read."""
    with connection(store.url) as sock:
        sock.sendall(words)
        refused(read_answer(sock), 400)
        assert is_closed(sock, 2)
    store.holds()
    assert "/smuggled" not in store.log()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("lines", LIES.values(), ids=LIES)
def test_an_ambiguous_length_is_400_and_the_end_of_the_connection(
    store: Store, method: bytes, lines: list[bytes]
) -> None:
    refused_and_closed(store, bent(method, lines, b"0\r\n\r\n"))


def test_bare_line_feeds_are_400_and_the_end_of_the_connection(store: Store) -> None:
    refused_and_closed(store, bytes(raw(b"hello")).replace(b"\r\n", b"\n"))
    refused_and_closed(store, raw(b"hello").head.replace(b"\r\n", b"\n", 1) + b"hello")


def test_a_request_without_a_host_is_400_and_the_end_of_the_connection(store: Store) -> None:
    refused_and_closed(store, bytes(raw(b"hello")).replace(b"Host: 127.0.0.1\r\n", b""))


def test_http_1_0_knows_no_chunks(store: Store) -> None:
    refused_and_closed(store, bytes(raw_chunked(b"hello")).replace(b"HTTP/1.1", b"HTTP/1.0"))


BROKEN_CHUNKS = {
    "no size": b"hello\r\n",
    "a negative size": b"-5\r\nhello\r\n",
    "a size with a sign": b"+5\r\nhello\r\n",
    "a size as C writes it": b"0x5\r\nhello\r\n",
    "a size too small": b"2\r\nhello\r\n0\r\n\r\n",
    "a size too large": b"7\r\nhello\r\n0\r\n\r\n",
    "a size without end": b"fffffffffffffffff\r\nhello",
    "line feeds alone": b"5\nhello\n0\n\n",
    "a line feed after the size": b"5\nhello\r\n0\r\n\r\n",
    "a carriage return after the content": b"5\r\nhello\r0\r\n\r\n",
    "a trailer without a colon": b"5\r\nhello\r\n0\r\nX y\r\n\r\n",
}


@every_chunked_door
@pytest.mark.parametrize("chunk", BROKEN_CHUNKS.values(), ids=BROKEN_CHUNKS)
def test_a_broken_chunk_is_400_and_the_end_of_the_connection(store: Store, door: Door, chunk: bytes) -> None:
    refused_and_closed(store, door(b"").head + chunk + SMUGGLED)


def test_chunks_that_break_later_do_not_hang(store: Store) -> None:
    with ExitStack() as stack:
        broken = []
        for chunk in BROKEN_CHUNKS.values():
            for upload in (door(CONTENT) for door in CHUNKED.values()):
                sock = stack.enter_context(connection(store.url))
                sock.sendall(upload.head + upload.body[: upload.body.index(b"\r\n", CHUNK) + 2])
                broken.append((sock, chunk))
        eventually(lambda: store.begun() == len(broken), 10)
        for sock, chunk in broken:
            sock.sendall(chunk + SMUGGLED)
        start = time.monotonic()
        for sock, _ in broken:
            refused(read_answer(sock), 400)
        assert all(is_closed(sock, 3) for sock, _ in broken)
        assert time.monotonic() - start < 6
    store.holds()
    assert "/smuggled" not in store.log()


def test_a_client_that_sends_on_after_a_broken_chunk_hears_400(store: Store) -> None:
    upload = raw_chunked(CONTENT)
    with connection(store.url) as sock:
        sock.sendall(upload.head + upload.body[:40_009])
        eventually(lambda: bool(store.rows()))
        while not select.select([sock], [], [], 0.01)[0]:
            sock.send(b"nonsense" * 100)
        refused(read_answer(sock), 400)
    store.holds()


@every_door
def test_an_upgrade_is_not_made_and_hides_nothing(store: Store, door: Door) -> None:
    upload = door(b"hello", lines=[b"Connection: Upgrade, keep-alive", b"Upgrade: websocket"])
    with connection(store.url) as sock:
        sock.sendall(bytes(upload))
        assert store.get(stored(read_answer(sock))) == b"hello"
        sock.sendall(bytes(raw(b"next")))
        assert store.get(stored(read_answer(sock))) == b"next"


def test_what_follows_a_short_length_is_not_in_the_file(store: Store) -> None:
    with connection(store.url) as sock:
        sock.sendall(bytes(raw(b"he")))
        assert store.get(stored(read_answer(sock))) == b"he"
        sock.sendall(b"llo\r\n\r\n")
        refused(read_answer(sock), 400)
        assert is_closed(sock, 1)


# The same through nginx


@pytest.fixture(scope="module")
def proxy_folder(storage: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("nginx")
    folder.chmod(0o755)
    folder.parent.chmod(0o755)
    return folder


@pytest.fixture(scope="module")
def proxy(service: Service, proxy_folder: Path) -> Iterator[str]:
    """nginx before the service that `store` watches."""
    with nginx_before(service.port, proxy_folder) as url:
        yield url


@pytest.mark.parametrize("door", [raw, put, form])
def test_nginx_passes_uploads_on(store: Store, proxy: str, door: Door) -> None:
    with connection(proxy) as sock:
        for upload in (door(CONTENT), chunked(door(CONTENT)), door(CONTENT, lines=[b"Expect: 100-continue"])):
            sock.sendall(bytes(upload))
            assert store.get(stored(read_answer(sock))) == CONTENT


def test_nginx_passes_a_second_request_on(store: Store, proxy: str) -> None:
    """What the tests below look for in vain can be found."""
    with connection(proxy) as sock:
        sock.sendall(bytes(raw(b"hello")) + SMUGGLED)
        eventually(lambda: "GET /smuggled 404" in store.log())


@pytest.fixture
def none_smuggled(store: Store, proxy: str, proxy_folder: Path) -> Iterator[None]:
    """Afterwards the service must have got no request that nginx had not taken for one, and passed on, itself.

    nginx is lenient in places, with bare line feeds in chunks for one, and passes on in strict form what it has read.
    """
    passed = (proxy_folder / "access.log").read_text
    before = passed().count("/smuggled")
    yield
    eventually(lambda: not store.begun(), 4)
    eventually(lambda: store.log().count("/smuggled") <= passed().count("/smuggled") - before)


@pytest.mark.usefixtures("none_smuggled")
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("lines", LIES.values(), ids=LIES)
def test_an_ambiguous_length_smuggles_nothing_through_nginx(proxy: str, method: bytes, lines: list[bytes]) -> None:
    for body in (b"0\r\n\r\n", b"5\r\nhello\r\n0\r\n\r\n"):
        with connection(proxy) as sock:
            sock.sendall(bent(method, lines, body))
            is_closed(sock, 0.05)


@pytest.mark.usefixtures("none_smuggled")
@every_chunked_door
@pytest.mark.parametrize("chunk", BROKEN_CHUNKS.values(), ids=BROKEN_CHUNKS)
def test_a_broken_chunk_smuggles_nothing_through_nginx(proxy: str, door: Door, chunk: bytes) -> None:
    with connection(proxy) as sock:
        sock.sendall(door(b"").head + chunk + SMUGGLED)
        is_closed(sock, 0.05)


@every_door
def test_an_upload_cut_before_nginx_stores_nothing(store: Store, proxy: str, door: Door) -> None:
    upload = door(CONTENT)
    with connection(proxy) as sock:
        sock.sendall(bytes(upload)[:-1])
        eventually(lambda: bool(store.rows()), 5)
    store.holds()


# Asked before sending

REFUSALS: dict[str, tuple[int, Upload]] = {
    "too large": (413, Upload(b"Content-Length: 99999999", b"")),
    "coded": (415, Upload(b"Content-Encoding: gzip\r\nContent-Length: 5", b"")),
    "no length": (411, Upload(b"X: y", b"")),
    "a bad digest": (400, Upload(b"Content-Digest: nonsense\r\nContent-Length: 5", b"")),
    "an unknown digest": (400, Upload(b"Repr-Digest: crc32c=:AAAAAA==:\r\nContent-Length: 5", b"")),
    "a bad key": (400, Upload(b"Idempotency-Key: a b\r\nContent-Length: 5", b"")),
    "a bad name": (400, Upload(b"Content-Disposition: a; filename=a; filename=b\r\nContent-Length: 5", b"")),
    "a piece": (400, Upload(b"Content-Range: bytes 0-4/9\r\nContent-Length: 5", b"")),
    "a transfer coding": (501, Upload(b"Transfer-Encoding: gzip, chunked", b"")),
    "another expectation": (417, Upload(b"Expect: 200-ok\r\nContent-Length: 5", b"")),
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("status", "lines"), REFUSALS.values(), ids=REFUSALS)
def test_an_upload_that_waits_is_refused_without_100(store: Store, method: bytes, status: int, lines: Upload) -> None:
    expectation = b"" if b"Expect" in lines.head else b"Expect: 100-continue\r\n"
    head = method + b" HTTP/1.1\r\nHost: x\r\n" + expectation + lines.head + b"\r\n\r\n"
    with connection(store.url) as sock:
        sock.sendall(head)
        answer = read_answer(sock)
        assert answer.status == status
        assert answer.interim == ()
        assert answer.headers.get("connection") == (None if status == 411 else "close")
    store.holds()


def test_a_refused_client_that_waits_is_not_waited_for(store: Store) -> None:
    with connection(store.url) as sock:
        sock.sendall(raw(b"hello", lines=[b"Expect: 100-continue", b"Content-MD5: x"]).head)
        assert read_answer(sock).status == 400
        assert is_closed(sock, 3)


@pytest.mark.parametrize(
    ("status", "lines"),
    [
        (400, b"Content-Type: multipart/form-data\r\nContent-Length: 5"),
        (400, b"Content-Type: multipart/form-data; boundary=" + b"b" * 71 + b"\r\nContent-Length: 5"),
        (400, b"Content-Type: multipart/form-data; boundary=b\r\nContent-Digest: sha-256=:AAAA:\r\nContent-Length: 5"),
        (415, b"Content-Type: multipart/form-data; boundary=b\r\nContent-Encoding: gzip\r\nContent-Length: 5"),
    ],
)
def test_a_form_that_waits_is_refused_without_100(store: Store, status: int, lines: bytes) -> None:
    kind = "https://iana.org/assignments/http-problem-types#digest-invalid-values" if b"Digest" in lines else None
    assert "retry-after" not in refused_while_it_waits(store, lines, status, *([kind] if kind else [])).headers


def test_a_form_of_more_than_the_disk_holds_is_507_before_the_first_byte(store: Store) -> None:
    lines = b"Content-Type: multipart/form-data; boundary=b\r\nContent-Length: 900000000000000000"
    assert "retry-after" in refused_while_it_waits(store, lines, 507).headers


def refused_while_it_waits(store: Store, lines: bytes, *refusal: Any) -> Answer:
    answer = store.send(b"POST /files HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n" + lines + b"\r\n\r\n")
    refused(answer, *refusal)
    assert answer.interim == ()
    store.holds()
    return answer


def test_more_than_the_disk_holds_is_507_before_the_first_byte(store_with: Callable[..., Store]) -> None:
    store = store_with(max_file_size="")
    head = raw(b"", lines=[b"Expect: 100-continue"]).head.replace(b"Length: 0", b"Length: 900000000000000000")
    answer = store.send(head)
    refused(answer, 507)
    assert (answer.interim, "retry-after" in answer.headers) == ((), True)
    store.holds()


@every_door
def test_without_storage_an_upload_is_503_and_not_asked_for(store: Store, door: Door) -> None:
    folder = store.service.data_dir / "tmp"
    away = folder.rename(folder.with_name("away"))
    try:
        answer = store.send(door(b"hello", lines=[b"Expect: 100-continue"]).head)
    finally:
        away.rename(folder)
    refused(answer, 503)
    assert (answer.interim, "retry-after" in answer.headers) == ((), True)
    store.holds(good_request_works(store))


# Stalled


def test_two_hundred_stalled_bodies_end_with_408_and_a_healthy_one_does_not(store_with: Callable[..., Store]) -> None:
    store = store_with(body_idle_timeout=3)
    good = good_request_works(store)
    before = store.descriptors()
    doors = [*DOORS.values()]
    with ExitStack() as stack:
        socks = [stack.enter_context(connection(store.url)) for _ in range(200)]
        for n, sock in enumerate(socks):
            upload = doors[n % len(doors)](CONTENT[:5000])
            sock.sendall(upload.head + upload.body[: n * 20])
        eventually(lambda: store.descriptors() >= before + 200, 3)
        healthy = slowly(store, raw(bytes(15 * 8192)), 8192, 0.1)
        for sock in socks:
            refused(read_answer(sock), 408)
        assert all(is_closed(sock, 3) for sock in socks)
    eventually(lambda: store.descriptors() <= before + POOL, 5)
    store.holds(good, healthy)


def slowly(store: Store, upload: Upload, size: int, pause: float) -> str:
    """Upload in pieces with pauses; the id."""
    with connection(store.url) as sock:
        sock.sendall(upload.head)
        for at in range(0, len(upload.body), size):
            sock.sendall(upload.body[at : at + size])
            time.sleep(pause)  # the pause is what is tested
        return stored(read_answer(sock))


def test_a_trickle_of_bytes_ends_with_408(store_with: Callable[..., Store]) -> None:
    store = store_with(body_idle_timeout=0.8)
    start = time.monotonic()
    with ExitStack() as stack:
        waiting = {}
        for door in DOORS.values():
            sock = stack.enter_context(connection(store.url))
            upload = door(CONTENT)
            sock.sendall(upload.head)
            waiting[sock] = iter(upload.body)
        while waiting:
            assert time.monotonic() - start < 10
            answered, _, _ = select.select([*waiting], [], [], 0.02)
            for sock in answered:
                refused(read_answer(sock), 408)
                del waiting[sock]
            for sock, rest in waiting.items():
                sock.send(bytes([next(rest)]))
    assert time.monotonic() - start >= 0.8
    store.holds()


# Names that are meant to do something

HOSTILE_NAMES = {
    "../../etc/passwd": "passwd",
    "/etc/passwd": "passwd",
    "..\\..\\boot.ini": "boot.ini",
    "C:\\Users\\me\\f.txt": "f.txt",
    "\\\\host\\share\\f.txt": "f.txt",
    ".": None,
    "..": None,
    "...": None,
    "   ": None,
    "/": None,
    "name.": "name",
    "name. . ": "name",
    " name ": "name",
    "a\r\nX-Evil: 1\r\n\r\n<script>": "aX-Evil: 1<script>",
    "a\nb": "ab",
    "a\x1b[31mb": "a[31mb",
    "a\x7f\x85b": "ab",
    "exe\u202egpj.exe": "exegpj.exe",
    "a\u2066b\u2069": "ab",
    "line\u2028end": "lineend",
    "\ufeffa": "a",
    "non\uffffcharacter": "non\ufffdcharacter",
    "e\u0301.txt": "\u00e9.txt",
    "a" * 3000 + ".txt": "a" * 251 + ".txt",
    "\u00e9" * 600 + ".txt": "\u00e9" * 125 + ".txt",
    "😀" * 300: "😀" * 63,
    "%2e%2e%2fx": "%2e%2e%2fx",
    "${jndi:ldap://x}": "x}",
    "'; DROP TABLE file; --": "'; DROP TABLE file; --",
}


@every_door
@pytest.mark.parametrize(("sent", "shown"), HOSTILE_NAMES.items())
def test_a_hostile_name_is_data(store: Store, door: Door, sent: str, shown: str | None) -> None:
    id_ = stored(store.send(door(b"x", name=sent)))
    assert store.meta(id_)["name"] == (shown or id_)
    store.holds(id_)
    answer = store.send(request(b"GET", b"/files/%s/" % id_.encode(), [b"Connection: close"]))
    assert answer.status == 200
    assert "x-evil" not in answer.headers
    assert answer.body.endswith(b"x\r\n0\r\n\r\n")
    offered = re.fullmatch(
        r'attachment; filename="([^"\\\r\n]*)"(; filename\*=UTF-8\'\'([!-~]+))?', answer.headers["content-disposition"]
    )
    assert offered
    assert unquote(offered[3] or offered[1]) == unquote(shown or id_) or "%" in sent


@pytest.mark.parametrize("door", [raw, put])
def test_a_nul_in_a_name_is_dropped(store: Store, door: Door) -> None:
    assert store.meta(stored(store.send(door(b"x", name="a\0b"))))["name"] == "ab"


def test_a_nul_in_a_form_is_refused(store: Store) -> None:
    refused(store.send(form(b"x", name="a\0b")), 400)
    store.holds()


@pytest.mark.parametrize(
    "line",
    [
        b"Content-Disposition: attachment; filename*=UTF-8''%ED%A0%80.txt",
        b"Content-Disposition: attachment; filename*=UTF-8''a%FF.txt",
        b"Content-Disposition: attachment; filename*=utf-7''%2BADw-script",
        b"Content-Disposition: attachment; filename*=UTF-8''a%",
    ],
)
def test_a_coded_name_that_is_no_text_is_ignored(store: Store, line: bytes) -> None:
    id_ = stored(store.send(raw(b"x", name=None, lines=[line])))
    assert store.meta(id_)["name"] == id_


@pytest.mark.parametrize(
    "upload",
    [
        raw(b"x", name=None, lines=[b"Content-Disposition: attachment; filename*=UTF-8''a%0D%0ASet-Cookie:%20b=c"]),
        form_of(b"Content-Disposition: form-data; name=f; filename*=UTF-8''a%0D%0ASet-Cookie:%20b=c\r\n\r\nx"),
        put(b"x", name="a\r\nSet-Cookie: b=c"),
        raw(b"x", name="a\r\nSet-Cookie: b=c"),
        form(b"x", name="a\r\nSet-Cookie: b=c"),
    ],
)
def test_a_line_break_in_a_name_splits_no_answer(store: Store, upload: Upload) -> None:
    answer = store.send(upload)
    id_ = stored(answer)
    for got in (answer, store.send(request(b"GET", b"/files/%s/" % id_.encode(), [b"Connection: close"]))):
        assert "set-cookie" not in got.headers
    assert store.meta(id_)["name"] == "aSet-Cookie: b=c"


def test_a_line_break_in_a_type_splits_no_answer(store: Store) -> None:
    head = b"Content-Disposition: form-data; name=f; filename=a\r\nContent-Type: text/plain\rX: y"
    body = b"--%b\r\n" + head + b"\r\n\r\nx\r\n--%b--"
    upload = request(
        b"POST", b"/files", [b"Content-Type: multipart/form-data; boundary=" + BOUNDARY], body % (BOUNDARY, BOUNDARY)
    )
    refused(store.send(upload), 400)
    store.holds()


# And afterwards


def test_a_connection_serves_on_after_a_refusal_whose_body_is_known(store: Store) -> None:
    wrong_digest = b"Content-MD5: AAAAAAAAAAAAAAAAAAAAAA=="
    bad_form = form_of(part(b"hello"), end=b"")
    kept = []
    with connection(store.url) as sock:
        for upload, status in [
            (raw(b"hello", lines=[b"Content-Encoding: gzip"]), 415),
            (raw(b"hello", lines=[wrong_digest]), 400),
            (put(b"hello", lines=[b"Content-Digest: nonsense"]), 400),
            (form(b"hello", about=[wrong_digest]), 400),
            (bad_form, 400),
            (chunked(bad_form), 400),
            (raw(bytes(2 * MIB)), 413),
            (raw_chunked(bytes(2 * MIB)), 413),
            (form_chunked(bytes(2 * MIB)), 413),
            (request(b"POST", b"/files"), 411),
            (request(b"PATCH", b"/files", [], b"hello"), 405),
            (request(b"POST", b"/nowhere", [], b"hello"), 404),
            (raw(b"hello", lines=[b"Content-Range: bytes 0-4/9"]), 400),
            (chunked(raw(b"hello", lines=[b"Idempotency-Key: a b"])), 400),
        ]:
            sock.sendall(bytes(upload))
            assert read_answer(sock).status == status
            sock.sendall(bytes(raw(b"good")))
            kept.append(stored(read_answer(sock)))
    store.holds(*kept)


def test_the_service_is_well_after_all_that(store: Store) -> None:
    assert exchange(store.url, bytes(request(b"GET", b"/health/ready", [b"Connection: close"]))).status == 200
    store.holds(good_request_works(store))
