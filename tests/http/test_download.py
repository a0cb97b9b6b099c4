"""GET and HEAD of a file over the wire: framing, headers, conditions, digests, what a browser may show."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime, parsedate_to_datetime
from functools import partial
from random import Random

import pytest

from file_service.handlers.representation import INLINE
from tests.support.doors import raw, request
from tests.support.downloads import ask, entity_tag, get, read_to_end, repr_digest, take
from tests.support.places import LocalPlace, Place
from tests.support.process import Service
from tests.support.raw import Answer, connection, exchange, read_answer
from tests.support.store import SECURITY, Store, stored

CHUNK = 256 << 10  # the service's default
CONTENT = Random(0).randbytes(3 * CHUNK + 1)
TYPED = [b"Content-Type: application/x-typed; a=b"]
UNCHANGING = ("etag", "last-modified", "content-type", "content-disposition", "accept-ranges", "repr-digest", *SECURITY)


@pytest.fixture(scope="module")
def _with_length(start: Callable[..., Service]) -> Service:
    return start(download_framing="length")


@pytest.fixture
def with_length(_with_length: Service) -> Iterator[Store]:
    """A service that tells the length of whole downloads."""
    store = Store(_with_length)
    yield store
    store.forget()


@pytest.fixture
def id_(store: Store) -> str:
    return stored(store.send(raw(CONTENT, about=TYPED)))


def facts(answer: Answer) -> dict[str, str]:
    """The headers of an answer that are about the file and not about the message."""
    message = ("date", "connection", "transfer-encoding", "content-length")
    return {name: value for name, value in answer.headers.items() if name not in message}


# Framing


@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, len(CONTENT)])
@pytest.mark.parametrize("framing", ["chunked", "length", "1.0"])
def test_a_file_arrives_whole_in_every_framing(store: Store, with_length: Store, framing: str, size: int) -> None:
    store = with_length if framing == "length" else store
    content = CONTENT[:size]
    id_ = stored(store.send(raw(content)))
    answer = ask(store.url, id_, version=b"1.0" if framing == "1.0" else b"1.1")
    assert answer.status == 200
    assert answer.body == content
    expected = (None, "chunked") if framing == "chunked" else (str(size), None)
    assert (answer.headers.get("content-length"), answer.headers.get("transfer-encoding")) == expected


def test_http_1_0_keeps_the_connection_when_asked_to_and_only_then(store: Store, id_: str) -> None:
    with connection(store.url) as sock:
        for _ in range(2):
            sock.sendall(get(id_, b"Connection: keep-alive", version=b"1.0"))
            answer = read_answer(sock)
            assert answer.body == CONTENT
            assert answer.headers["connection"] == "keep-alive"
        sock.sendall(get(id_, version=b"1.0"))
        answer, rest = take(read_to_end(sock))
    assert (answer.body, rest) == (CONTENT, b"")
    assert "connection" not in answer.headers


def test_pipelined_downloads_come_one_after_the_other(store: Store, id_: str) -> None:
    asked = [get(id_), get(id_, b"Range: bytes=5-9"), get(id_, b"Range: bytes=0-0,5-9"), get(id_, b"Connection: close")]
    with connection(store.url) as sock:
        sock.sendall(b"".join(asked))
        data = read_to_end(sock)
    statuses = []
    while data:
        answer, data = take(data)
        statuses.append((answer.status, len(answer.body)))
    assert statuses[0] == statuses[3] == (200, len(CONTENT))
    assert statuses[1] == (206, 5)
    assert statuses[2][0] == 206


def test_one_packet_carries_a_small_file_and_its_headers(store: Store) -> None:
    id_ = stored(store.send(raw(b"small")))
    with connection(store.url) as sock:
        sock.sendall(get(id_))
        assert take(sock.recv(65536))[0].body == b"small"


# What is said of a file


def test_a_download_says_what_is_known_of_the_file(store: Store) -> None:
    before = datetime.now(UTC).replace(microsecond=0)
    id_ = stored(store.send(raw(CONTENT, name="naïve.bin", about=TYPED)))
    headers = ask(store.url, id_).headers
    assert headers.keys() == {*UNCHANGING, "date", "transfer-encoding", "connection"}
    assert headers["etag"] == entity_tag(CONTENT)
    assert headers["repr-digest"] == repr_digest(CONTENT)
    assert headers["content-type"] == "application/x-typed; a=b"
    assert headers["content-disposition"] == "attachment; filename=\"na_ve.bin\"; filename*=UTF-8''na%C3%AFve.bin"
    assert headers["accept-ranges"] == "bytes"
    assert headers.items() >= SECURITY.items()
    modified = parsedate_to_datetime(headers["last-modified"])
    assert before <= modified <= datetime.now(UTC)
    assert headers["last-modified"] == format_datetime(modified, usegmt=True)
    created = datetime.fromisoformat(store.meta(id_)["created_at"])
    assert modified == created.replace(microsecond=0)


def test_equal_bytes_have_equal_tags_and_others_others(store: Store) -> None:
    ids = [stored(store.send(raw(content))) for content in (b"a", b"a", b"b")]
    tags = [ask(store.url, id_).headers["etag"] for id_ in ids]
    assert tags[0] == tags[1] != tags[2]
    assert all(tag.startswith('"') for tag in tags)


HEADS: dict[str, tuple[bytes, ...]] = {
    "plain": (),
    "a range, which HEAD ignores": (b"Range: bytes=0-9",),
    "a range out of the file, too": (b"Range: bytes=99999999-",),
    "a wish for Content-Digest": (b"Want-Content-Digest: sha-256=1",),
    "no wish for Repr-Digest": (b"Want-Repr-Digest: sha-256=0",),
    "a file that the client has": (b"If-None-Match: *",),
    "a condition that fails": (b'If-Match: "other"',),
}


@pytest.mark.parametrize("framing", ["chunked", "length"])
@pytest.mark.parametrize("how", [{}, {"version": b"1.0"}, {"query": b"?inline"}], ids=repr)
@pytest.mark.parametrize("lines", HEADS.values(), ids=HEADS)
def test_head_has_the_headers_of_get_and_the_length(
    store: Store, with_length: Store, framing: str, how: dict[str, bytes], lines: tuple[bytes, ...]
) -> None:
    store = with_length if framing == "length" else store
    id_ = stored(store.send(raw(CONTENT, about=[b"Content-Type: text/plain"])))
    head = ask(store.url, id_, *lines, method=b"HEAD", **how)
    without_range = [line for line in lines if not line.startswith(b"Range")]
    answer = ask(store.url, id_, *without_range, **how)
    assert head.status == answer.status
    assert facts(head) == facts(answer)
    if answer.status != 304:
        assert head.headers["content-length"] == str(len(answer.body))
    assert "transfer-encoding" not in head.headers


@pytest.mark.parametrize("path", [b"/files/00000000-0000-4000-8000-000000000000/", b"/nowhere"])
def test_head_of_nothing_has_the_headers_of_get(store: Store, path: bytes) -> None:
    head, answer = (store.send(request(method, path, [b"Connection: close"])) for method in (b"HEAD", b"GET"))
    assert (head.status, head.body) == (404, b"")
    assert head.headers | {"date": ""} == answer.headers | {"date": ""}


def test_head_leaves_the_connection_in_step(store: Store, id_: str) -> None:
    """A body after HEAD, or one said to come that does not, would be taken for the next answer."""
    gone = "00000000-0000-4000-8000-000000000000"
    asked: list[tuple[bytes, str, tuple[bytes, ...]]] = [
        (b"HEAD", id_, ()),
        (b"GET", id_, (b"If-None-Match: *",)),
        (b"HEAD", id_, (b"If-None-Match: *",)),
        (b"HEAD", id_, (b'If-Match: "other"',)),
        (b"HEAD", gone, ()),
        (b"GET", id_, (b"Range: bytes=0-0",)),
        (b"HEAD", id_, (b"Range: bytes=0-0",)),
        (b"GET", id_, (b"Connection: close",)),
    ]
    with connection(store.url) as sock:
        sock.sendall(b"".join(get(id_, *lines, method=method) for method, id_, lines in asked))
        data = read_to_end(sock)
    statuses = []
    for method, _, _ in asked:
        answer, data = take(data, method)
        statuses.append(answer.status)
    assert statuses == [200, 304, 304, 412, 404, 206, 200, 200]
    assert data == b""


# Digests (RFC 9530)


@pytest.mark.parametrize("lines", [(), (b"Range: bytes=1-2",), (b"Range: bytes=1-2,5-6",)])
@pytest.mark.parametrize("method", [b"GET", b"HEAD"])
def test_the_digest_of_the_whole_file_is_on_every_answer_with_bytes(
    store: Store, id_: str, method: bytes, lines: tuple[bytes, ...]
) -> None:
    assert ask(store.url, id_, *lines, method=method).headers["repr-digest"] == repr_digest(CONTENT)


WISHES: dict[bytes, bool | None] = {
    b"sha-256=1": True,
    b"sha-256=10": True,
    b"sha-512=3, sha-256=2": True,
    b"sha-512=3 ,\tsha-256 = 2": True,
    b"sha-256=0": False,
    b"sha-512=9, sha-256=0": False,
    b"sha-512=9": None,
    b"": None,
    b"sha-256": None,
    b"sha-256=11": None,
    b"sha-256=-1": None,
    b"sha-256=1.5": None,
    b"x-sha-256=1": None,
    b"\xff\xfe=\x80": None,
    b"sha-256=," * 800: None,
}


@pytest.mark.parametrize(("value", "wish"), WISHES.items(), ids=lambda value: repr(value)[:20])
def test_a_wish_for_a_digest_is_granted_and_a_refusal_respected(
    store: Store, id_: str, value: bytes, wish: bool | None
) -> None:
    answer = ask(store.url, id_, b"Want-Repr-Digest: " + value, b"Want-Content-Digest: " + value)
    assert answer.status == 200
    assert ("repr-digest" in answer.headers) is (wish is not False)
    assert answer.headers.get("content-digest") == (repr_digest(CONTENT) if wish else None)


def test_a_part_has_no_digest_of_its_content(store: Store, id_: str) -> None:
    """It would have to be computed before the headers; that of the whole file would be wrong."""
    assert "content-digest" not in ask(store.url, id_, b"Range: bytes=0-9", b"Want-Content-Digest: sha-256=1").headers


# Conditions (RFC 9110 section 13)

TAG = entity_tag(CONTENT).encode()
WEAK = b"W/" + TAG
CONDITIONS: dict[str, tuple[list[bytes], int]] = {
    "the client's copy is current": ([b"If-None-Match: " + TAG], 304),
    "weak comparison is enough for it": ([b"If-None-Match: " + WEAK], 304),
    "one of a list": ([b'If-None-Match: "a", ' + TAG + b', W/"c"'], 304),
    "on several lines": ([b'If-None-Match: "a"', b"If-None-Match: " + TAG], 304),
    "any": ([b"If-None-Match: *"], 304),
    "another copy": ([b'If-None-Match: "other"'], 200),
    "a tag without quotes is none": ([b"If-None-Match: " + TAG.strip(b'"')], 200),
    "garbage matches nothing": ([b'If-None-Match: "', b"If-Modified-Since: {now}"], 200),
    "not modified since": ([b"If-Modified-Since: {now}"], 304),
    "not modified since the same second": ([b"If-Modified-Since: {modified}"], 304),
    "modified since": ([b"If-Modified-Since: {earlier}"], 200),
    "the tag outranks the date": ([b'If-None-Match: "other"', b"If-Modified-Since: {now}"], 200),
    "the date outranks no tag": ([b"If-None-Match: " + TAG, b"If-Modified-Since: {earlier}"], 304),
    "the expected file": ([b"If-Match: " + TAG], 200),
    "any expected": ([b"If-Match: *"], 200),
    "strong comparison is required": ([b"If-Match: " + WEAK], 412),
    "another expected": ([b'If-Match: "other"'], 412),
    "garbage is not the file": ([b"If-Match: garbage"], 412),
    "unmodified since": ([b"If-Unmodified-Since: {modified}"], 200),
    "not unmodified since": ([b"If-Unmodified-Since: {earlier}"], 412),
    "the expected tag outranks the date": ([b"If-Match: " + TAG, b"If-Unmodified-Since: {earlier}"], 200),
    "a failure comes before what is known": ([b'If-Match: "other"', b"If-None-Match: *"], 412),
    "what is known comes after the expected": ([b"If-Match: *", b"If-None-Match: *"], 304),
    "no date at all": ([b"If-Modified-Since: yesterday", b"If-Unmodified-Since: \xff"], 200),
    "what is known comes before the range": ([b"If-None-Match: *", b"Range: bytes=0-0"], 304),
    "a failure comes before the range": ([b'If-Match: "other"', b"Range: bytes=99999999-"], 412),
    "If-Range alone means nothing": ([b'If-Range: "other"'], 200),
}


@pytest.mark.parametrize("method", [b"GET", b"HEAD"])
@pytest.mark.parametrize(("lines", "status"), CONDITIONS.values(), ids=CONDITIONS)
def test_a_condition_decides(store: Store, id_: str, method: bytes, lines: list[bytes], status: int) -> None:
    modified = parsedate_to_datetime(ask(store.url, id_, method=b"HEAD").headers["last-modified"])
    for name, moment in {
        b"{modified}": modified,
        b"{earlier}": modified - timedelta(seconds=1),
        b"{now}": modified + timedelta(days=1),
    }.items():
        lines = [line.replace(name, format_datetime(moment, usegmt=True).encode()) for line in lines]
    answer = ask(store.url, id_, *lines, method=method)
    assert answer.status == status
    assert (answer.body == CONTENT) is (status == 200 and method == b"GET")


def test_a_304_has_what_a_cache_needs_and_no_length(store: Store, id_: str) -> None:
    """RFC 9110 section 15.4.5; its Content-Length would have to be that of the file."""
    whole = ask(store.url, id_)
    answer = ask(store.url, id_, b"If-None-Match: *")
    assert answer.headers.keys() == {"etag", "last-modified", "date", "connection", *SECURITY}
    assert answer.headers.items() - {("date", answer.headers["date"])} <= whole.headers.items()


# What a browser may show


@pytest.mark.parametrize("media_type", sorted(INLINE))
def test_what_cannot_run_script_is_shown_when_asked(store: Store, media_type: str) -> None:
    lines = [b"Content-Type: " + media_type.encode()]
    id_ = stored(store.send(raw(b"content", name="a.bin", about=lines)))
    shown, saved = (ask(store.url, id_, query=query).headers for query in (b"?inline", b""))
    assert shown["content-disposition"] == 'inline; filename="a.bin"'
    assert saved["content-disposition"] == 'attachment; filename="a.bin"'
    assert shown["content-type"].partition(";")[0] == saved["content-type"] == media_type
    assert shown.items() >= SECURITY.items()


@pytest.mark.parametrize(
    "media_type",
    [
        *("text/html", "application/xhtml+xml", "image/svg+xml", "text/xml", "application/xml", "application/pdf"),
        *("text/javascript", "application/javascript", "multipart/x-mixed-replace", "message/rfc822", "text/css"),
        *("application/octet-stream", "text/html;charset=utf-7", "TEXT/HTML", "text/plain,text/html", "image/*"),
        *("application/x-shockwave-flash", "text/vtt", "image/svg+xml;a=image/png", "image/png/html"),
    ],
)
def test_what_might_run_script_is_only_ever_saved(store: Store, media_type: str) -> None:
    id_ = stored(store.send(raw(b"<script>", name="a", about=[b"Content-Type: " + media_type.encode()])))
    for query in (b"", b"?inline", b"?inline=1", b"?inline=true&inline"):
        answer = ask(store.url, id_, query=query)
        assert answer.headers["content-disposition"].startswith("attachment;")
        assert answer.headers.items() >= SECURITY.items()


@pytest.mark.parametrize("kept", ["text/plain", "Text/Plain; charset=utf-7", "text/plain;charset=iso-8859-1"])
def test_text_that_is_shown_is_utf_8_whatever_was_said(store: Store, kept: str) -> None:
    id_ = stored(store.send(raw(b"+ADw-script+AD4-", about=[b"Content-Type: " + kept.encode()])))
    assert ask(store.url, id_, query=b"?inline").headers["content-type"] == "text/plain; charset=utf-8"
    assert ask(store.url, id_).headers["content-type"] == kept


def test_a_range_of_what_is_shown_is_shown(store: Store) -> None:
    id_ = stored(store.send(raw(CONTENT, about=[b"Content-Type: video/mp4"])))
    answer = ask(store.url, id_, b"Range: bytes=0-9", query=b"?inline")
    assert (answer.status, answer.headers["content-type"]) == (206, "video/mp4")
    assert answer.headers["content-disposition"].startswith("inline;")


# Every status


def test_every_status_has_the_security_headers(store: Store, id_: str) -> None:
    missing = "00000000-0000-4000-8000-000000000000"
    answers = [
        *(ask(store.url, id_, *lines, method=method) for method, lines in EVERY),
        *(ask(store.url, missing, method=method) for method in (b"GET", b"DELETE")),
        store.send(raw(b"x", lines=[b"Content-Encoding: gzip"])),
        exchange(store.url, b"nonsense\r\n\r\n"),
        exchange(store.url, b"GET /files HTTP/1.1\r\n\r\n"),
        exchange(store.url, b"GET /" + b"x" * 9000 + b" HTTP/1.1\r\nHost: a\r\n\r\n"),
        ask(store.url, id_, method=b"DELETE"),
    ]
    for answer in answers:
        assert answer.headers.items() >= SECURITY.items(), answer.status
    assert {answer.status for answer in answers} == {200, 204, 206, 304, 400, 403, 404, 405, 412, 415, 416}


EVERY: list[tuple[bytes, list[bytes]]] = [
    (b"GET", []),
    (b"GET", [b"Range: bytes=0-0"]),
    (b"GET", [b"Range: bytes=0-0,2-2"]),
    (b"GET", [b"Range: bytes=99999999-"]),
    (b"GET", [b"If-None-Match: *"]),
    (b"GET", [b'If-Match: "other"']),
    (b"PATCH", []),
    (b"DELETE", [b"Delete-Token: wrong"]),
]


# Storage that lost something


@pytest.fixture(scope="module")
def _lossy(start: Callable[..., Service]) -> Service:
    return start()


@pytest.fixture
def lossy(_lossy: Service) -> Iterator[Store]:
    """A service whose stored files the test may spoil; what it then says in its log is looked at by the test."""
    store = Store(_lossy)
    yield store
    store.forget()


def state(store: Store, id_: str) -> str:
    (row,) = [row for row in store.rows() if row.id == id_]
    return row.state


LOSSES: dict[str, Callable[[Place, str], None]] = {
    "missing": lambda place, key: place.lose(key),
    "cut by a byte": lambda place, key: place.put(key, place.read(key)[:-1]),
    "empty": lambda place, key: place.put(key, b""),
}


@pytest.mark.parametrize("content", [b"small", CONTENT], ids=["small", "large"])
@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_a_file_that_storage_lost_is_500_until_it_is_back(
    lossy: Store, loss: Callable[[Place, str], None], content: bytes
) -> None:
    place = lossy.service.place
    spoiled_and_back(lossy, content, partial(loss, place), place.put)


@pytest.mark.parametrize("content", [b"small", CONTENT], ids=["small", "large"])
def test_a_file_with_a_folder_in_its_place_is_500_until_it_is_back(lossy: Store, content: bytes) -> None:
    place = LocalPlace(lossy.service.data_dir)

    def make_a_folder(key: str) -> None:
        place.lose(key)
        place.path(key).mkdir()

    def put_back(key: str, content: bytes) -> None:
        place.path(key).rmdir()
        place.put(key, content)

    spoiled_and_back(lossy, content, make_a_folder, put_back)


def spoiled_and_back(
    lossy: Store, content: bytes, spoil: Callable[[str], None], put_back: Callable[[str, bytes], None]
) -> None:
    id_ = stored(lossy.send(raw(content)))
    assert ask(lossy.url, id_).body == content
    key = lossy.key_of(id_)
    spoil(key)
    for lines in ((), (b"Range: bytes=1-",), (b"Range: bytes=0-0,-1",)):
        answer = ask(lossy.url, id_, *lines)
        assert answer.status == 500, lines
        assert answer.headers["content-type"].startswith("application/problem+json")
        assert answer.headers.items() >= SECURITY.items()
        assert state(lossy, id_) == "damaged"
    assert lossy.meta(id_)["size"] == len(content)  # the row is kept, and the file is listed
    assert f"CRITICAL file_service.service.files file {id_}" in lossy.log()
    put_back(key, content)
    assert ask(lossy.url, id_).body == content
    assert state(lossy, id_) == "stored"


def test_what_is_left_of_a_cut_file_does_not_make_it_whole(lossy: Store) -> None:
    id_ = stored(lossy.send(raw(CONTENT)))
    lossy.service.place.put(lossy.key_of(id_), CONTENT[:-1])
    assert ask(lossy.url, id_).status == 500
    assert ask(lossy.url, id_, b"Range: bytes=0-9").body == CONTENT[:10]
    assert state(lossy, id_) == "damaged"


def test_a_damaged_file_can_be_deleted(lossy: Store) -> None:
    id_ = stored(lossy.send(raw(CONTENT)))
    lossy.service.place.lose(lossy.key_of(id_))
    assert ask(lossy.url, id_).status == 500
    assert ask(lossy.url, id_, method=b"DELETE").status == 204
    assert ask(lossy.url, id_).status == 404
