"""Records, lists, deletion, and what an error looks like, whoever makes it."""

import asyncio
import json
import logging
import re
import sqlite3
import ssl
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path
from uuid import uuid4

import aiohttp
import pytest

from file_service.service.files import FileService
from file_service.service.streams import Hashes
from tests.support.doors import Upload, form_of, part, put, raw, request
from tests.support.places import Place
from tests.support.raw import connection, is_closed, read_answer
from tests.support.store import SECURITY, Store, eventually, refused, stored

ID = b"123e4567-e89b-42d3-a456-426614174000"  # of no file
DIGEST = "https://iana.org/assignments/http-problem-types#digest-"


def pages(store: Store, limit: int) -> list[dict[str, str]]:
    """The whole list, page by page."""
    records: list[dict[str, str]] = []
    cursor: str | None = ""
    while cursor is not None:
        answer, content = store.call("GET", f"/files?limit={limit}&cursor={cursor}")
        assert answer.status == 200
        page = json.loads(content)
        assert page.keys() == {"files", "next"}
        assert len(page["files"]) == limit or page["next"] is None
        records += page["files"]
        cursor = page["next"]
    return records


def test_files_of_one_moment_are_each_in_the_list_once(either_store: Store) -> None:
    answer = either_store.send(form_of(*(part(b"%d" % number) for number in range(25))))
    ids = answer.body.decode().split()
    for limit in (1, 4, 25, 1000):
        listed = pages(either_store, limit)
        assert len({record["id"] for record in listed}) == len(listed)
        assert {record["id"] for record in listed} >= {*ids}
        created = [record["created_at"] for record in listed]
        assert created == sorted(created, reverse=True)


def test_a_file_that_comes_or_goes_meanwhile_moves_no_other(store: Store) -> None:
    ids = [stored(store.send(raw(b"%d" % number))) for number in range(6)]
    _, first = store.call("GET", "/files?limit=3")
    new = stored(store.send(raw(b"new")))
    store.call("DELETE", f"/files/{ids[5]}/")
    store.call("DELETE", f"/files/{ids[3]}/")
    _, second = store.call("GET", f"/files?limit=3&cursor={json.loads(first)['next']}")
    assert [record["id"] for record in json.loads(first)["files"]] == ids[:2:-1]
    assert [record["id"] for record in json.loads(second)["files"]] == ids[2::-1]
    store.holds(*ids[:3], ids[4], new)


def test_a_list_has_the_records_that_the_files_have(store: Store) -> None:
    id_ = stored(store.send(put(b"hello", name="naïve.txt", about=[b"Content-Type: text/plain"])))
    assert pages(store, 1000)[0] == store.meta(id_)


@pytest.mark.parametrize(
    "query",
    [
        "limit=",
        "limit=%2B5",
        "limit=1e2",
        "limit=1.0",
        "limit=%D9%A1",
        "limit=%00",
        "limit=%ff",
        "limit=%0d%0aX:%201",
        "cursor=%00",
        "cursor=%ff",
        "cursor=%ed%a0%80",
        "cursor=" + "A" * 31,
        "cursor=" + "A" * 33,
        "cursor=" + "A" * 5000,
        "cursor=f" + "_" * 31,  # a date no calendar has
        "cursor=g" + "A" * 31,
    ],
)
def test_a_list_that_cannot_be_meant_is_400_on_either_database(either_store: Store, query: str) -> None:
    refused(either_store.send(request(b"GET", b"/files?" + query.encode())), 400)


@pytest.mark.parametrize("cursor", ["A" * 32, "AAOZwA8ihABVVVVVVVVVVVVVVVVVVVVV", "__zwbAGVhAAAAAAAAAAAAAAAAAAAAAAA"])
def test_a_cursor_that_was_made_up_is_a_position_like_any_other(either_store: Store, cursor: str) -> None:
    answer, content = either_store.call("GET", f"/files?cursor={cursor}")
    assert (answer.status, json.loads(content).keys()) == (200, {"files", "next"})


def test_a_file_is_deleted_with_its_row_and_its_bytes(either_store: Store) -> None:
    kept, gone = (stored(either_store.send(raw(content))) for content in (b"kept", b"gone"))
    answer, content = either_store.call("DELETE", f"/files/{gone}/")
    assert (answer.status, content) == (204, b"")
    assert "Content-Type" not in answer.headers
    either_store.holds(kept)
    for method, path in (("GET", ""), ("HEAD", ""), ("DELETE", ""), ("GET", "meta"), ("HEAD", "meta/")):
        assert either_store.call(method, f"/files/{gone}/{path}")[0].status == 404
    assert gone not in {record["id"] for record in pages(either_store, 1000)}
    assert either_store.get(kept) == b"kept"


def test_of_ten_deletions_at_once_one_deletes(either_store: Store) -> None:
    id_ = stored(either_store.send(raw(b"x")))
    with ThreadPoolExecutor(10) as clients:
        statuses = list(clients.map(lambda _: either_store.call("DELETE", f"/files/{id_}")[0].status, range(10)))
    assert sorted(statuses) == [204] + [404] * 9
    either_store.holds()


@pytest.mark.parametrize("path", ["/files", "/files/{id}/meta", "/files/{id}/meta/", "/health/live", "/health/ready"])
def test_head_is_get_without_the_body(store: Store, path: str) -> None:
    path = path.replace("{id}", stored(store.send(raw(b"x"))))
    with closing(HTTPConnection("127.0.0.1", store.service.port, timeout=20)) as client:
        answers = []
        for method in ("HEAD", "GET", "HEAD"):
            client.request(method, path)
            answer = client.getresponse()
            answers.append((answer.status, {**answer.headers, "Date": ""}, answer.read()))
    assert answers[0] == answers[2] == (200, answers[1][1], b"")
    assert len(answers[1][2]) == int(answers[1][1]["Content-Length"]) > 0


@pytest.mark.parametrize("path", ["", "/", "/meta", "/meta/"])
@pytest.mark.parametrize(
    "id_",
    [
        b"..%2f..%2fetc%2fpasswd",
        b"../../etc/passwd",
        b"%2e%2e",
        b"%00",
        ID + b"%00",
        ID + b"%0a",
        ID + b"%0d%0aX:%201",
        b"%ff",
        b"%",
        b"%zz",
        b"x" * 300,
        b"/",
        b"/" + ID,
        ID + b"/",
        ID.upper(),
        ID.replace(b"-", b""),
        ID.replace(b"-4", b"-1"),
        ID.replace(b"-a", b"-c"),
        b"{" + ID + b"}",
        b"urn:uuid:" + ID,
        b"*",
    ],
)
@pytest.mark.parametrize("method", [b"GET", b"DELETE"])
def test_an_id_of_another_shape_is_404_before_anything_is_looked_up(
    store: Store, method: bytes, id_: bytes, path: str
) -> None:
    with connection(store.url) as sock:
        for _ in range(2):  # twice, as a dropped connection would not be noticed the first time
            sock.sendall(bytes(request(method, b"/files/" + id_ + path.encode())))
            assert refused(read_answer(sock), 404) in ("No such resource.", "No such file.")
    assert store.unfinished() == set()


@pytest.mark.parametrize("path", [b"//", b"///", b"//files", b"//127.0.0.1/files", b"/nowhere", b"/FILES", b"/file"])
def test_what_is_nowhere_is_404(store: Store, path: bytes) -> None:
    refused(store.send(request(b"GET", path)), 404)


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        (b"PATCH", b"/files", {"GET", "HEAD", "POST"}),
        (b"PUT", b"/files", {"GET", "HEAD", "POST"}),
        (b"PUT", b"/files/", {"GET", "HEAD", "POST"}),
        (b"DELETE", b"/files", {"GET", "HEAD", "POST"}),
        (b"TRACE", b"/files", {"GET", "HEAD", "POST"}),
        (b"PROPFIND", b"/files", {"GET", "HEAD", "POST"}),
        (b"POST", b"/files/" + ID, {"GET", "HEAD", "DELETE", "PUT"}),
        (b"PATCH", b"/files/" + ID + b"/", {"GET", "HEAD", "DELETE", "PUT"}),
        (b"DELETE", b"/files/" + ID + b"/meta", {"GET", "HEAD", "PUT"}),
        (b"POST", b"/files/" + ID + b"/meta/", {"GET", "HEAD", "PUT"}),
        (b"POST", b"/health/live", {"GET", "HEAD"}),
        (b"DELETE", b"/health/ready", {"GET", "HEAD"}),
        (b"POST", b"/metrics", {"GET", "HEAD"}),
        (b"POST", b"/archive.zip", {"GET", "HEAD"}),
    ],
)
def test_another_method_is_405_and_told_which(store: Store, method: bytes, path: bytes, allowed: set[str]) -> None:
    answer = store.send(request(method, path, [], b""))
    detail = refused(answer, 405)
    assert {name.strip() for name in answer.headers["allow"].split(",")} == allowed
    assert all(name in detail for name in allowed)
    store.holds()


REFUSED: dict[str, tuple[bytes | Upload, int, str]] = {
    "no length": (request(b"POST", b"/files"), 411, "about:blank"),
    "too large": (raw(b"", lines=[b"X: y"]).head.replace(b"Length: 0", b"Length: 99999999"), 413, "about:blank"),
    "coded": (raw(b"x", lines=[b"Content-Encoding: gzip"]), 415, "about:blank"),
    "wrong digest": (raw(b"x", lines=[b"Content-MD5: AAAAAAAAAAAAAAAAAAAAAA=="]), 400, f"{DIGEST}mismatched-values"),
    "bad digest": (raw(b"x", lines=[b"Content-MD5: x"]), 400, f"{DIGEST}invalid-values"),
    "unknown digest": (raw(b"x", lines=[b"Repr-Digest: a=:AA==:"]), 400, f"{DIGEST}unsupported-algorithms"),
    "bad name": (raw(b"x", name=None, lines=[b'Content-Disposition: a; filename="']), 400, "about:blank"),
    "bad key": (raw(b"x", lines=[b"Idempotency-Key: a b"]), 400, "about:blank"),
    "bad expectation": (raw(b"x", lines=[b"Expect: miracles"]), 417, "about:blank"),
    "no form": (request(b"POST", b"/files", [b"Content-Type: multipart/form-data"], b"x"), 400, "about:blank"),
    "no file": (request(b"GET", b"/files/" + ID), 404, "about:blank"),
    "no page": (request(b"GET", b"/files?limit=0"), 400, "about:blank"),
    "nothing": (request(b"GET", b"/nowhere"), 404, "about:blank"),
}


@pytest.mark.parametrize(("upload", "status", "kind"), REFUSED.values(), ids=REFUSED)
def test_every_refusal_is_a_problem_of_its_type(store: Store, upload: bytes | Upload, status: int, kind: str) -> None:
    detail = refused(store.send(upload), status, kind)
    assert detail.endswith(".") or status in (413, 400)
    assert "None" not in detail
    store.holds()


NO_REQUEST = {
    "words": b"hello there\r\n\r\n",
    "a method of nobody": b"SING /files HTTP/1.1\r\nHost: x\r\n\r\n",
    "another version": b"GET /files HTTP/3.7\r\nHost: x\r\n\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(60),
    "another protocol": b"RTSP/1.0 200 OK\r\n\r\n",
    "nothing but ends": b"\0\0\0\0\r\n\r\n",
    "a path that is not ASCII": b"GET /files/\xc3\xa4 HTTP/1.1\r\nHost: x\r\n\r\n",
    "a path with a control": b"GET /files/\x01 HTTP/1.1\r\nHost: x\r\n\r\n",
    "no path": b"GET ?x HTTP/1.1\r\nHost: x\r\n\r\n",
    "an endless path": b"GET /" + b"x" * 9000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    "an asterisk": b"GET * HTTP/1.1\r\nHost: x\r\n\r\n",
    "a script": b"GET / <script>alert(1)</script>\r\n\r\n",
}


@pytest.mark.parametrize("words", NO_REQUEST.values(), ids=NO_REQUEST)
def test_what_is_no_request_is_a_problem_too_and_one_line_of_the_log(store: Store, words: bytes) -> None:
    with connection(store.url) as sock:
        sock.sendall(words)
        answer = read_answer(sock)
        assert is_closed(sock, 2)
    refused(answer, 400)
    assert b"<script>" not in answer.body
    assert b"aiohttp" not in answer.body.lower()
    assert b"xxx" not in answer.body
    eventually(lambda: bool(store.log()))
    assert re.fullmatch(r"\S+ \S+ INFO \S+ 127\.0\.0\.1 not HTTP: ['\"][^\n]{1,80}\n", store.log())


def test_a_client_that_speaks_tls_is_told_off_and_not_hung(store: Store) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with connection(store.url) as sock, pytest.raises(ssl.SSLError):
        context.wrap_socket(sock)


@pytest.mark.parametrize("path", ["/files/{id}/", "/files/{id}/meta", "/files", "/health/live", "/metrics"])
def test_answers_that_are_no_errors_have_the_same_headers(store: Store, path: str) -> None:
    id_ = stored(store.send(raw(b"x")))
    answer, _ = store.call("GET", path.replace("{id}", id_))
    assert answer.status == 200
    assert SECURITY.items() <= {name.lower(): value for name, value in answer.headers.items()}.items()


def test_head_of_an_error_has_its_headers_alone(store: Store) -> None:
    for path in (f"/files/{uuid4()}/", "/nowhere", "/files?limit=0"):
        answer, content = store.call("HEAD", path)
        assert answer.status in (400, 404)
        assert answer.headers["Content-Type"].startswith("application/problem+json")
        assert content == b""


# A fault of ours

Start = Callable[..., Awaitable[str]]


async def test_a_bug_is_logged_once_and_answered_by_a_bare_500(
    serve: Start, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(*_: object) -> None:
        raise RuntimeError("the secret reason")

    url = await serve()
    monkeypatch.setattr(FileService, "get", broken)
    async with aiohttp.ClientSession() as client, client.get(f"{url}/files/{uuid4()}/") as answer:
        assert answer.status == 500
        assert answer.content_type == "application/problem+json"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert "secret" not in await answer.text()
        assert "secret" not in str(answer.headers)
        async with client.get(f"{url}/health/ready") as after:
            assert after.status == 200
    (record,) = [record for record in caplog.records if record.exc_info]
    assert record.levelno == logging.ERROR
    assert "the secret reason" in caplog.text


async def test_a_bug_in_mid_upload_stores_nothing(
    serve: Start, placed: Callable[[Path], Place], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    url, place = await serve(), placed(tmp_path / "data")
    existed: list[tuple[str]] = []

    def states() -> list[tuple[str]]:
        with closing(sqlite3.connect(tmp_path / "data" / "file_service.db")) as database:
            return database.execute("SELECT state FROM file").fetchall()

    def broken(*_: object) -> None:
        existed.extend(states())
        raise RuntimeError("deliberate")

    monkeypatch.setattr(Hashes, "update", broken)
    async with aiohttp.ClientSession() as client, client.post(f"{url}/files", data=bytes(100_000)) as answer:
        assert answer.status == 500
    assert existed == [("receiving",)]
    assert states() == []
    assert await asyncio.to_thread(place.unfinished) == await asyncio.to_thread(place.published) == set()
