"""Forms cut at every place, forms in disguise, forms that are refused: all of their files are stored or none."""

import base64
import hashlib
import json
import time
from collections.abc import Callable
from random import Random

import pytest

from tests.support.doors import BOUNDARY, Upload, chunked, form_of, part, request
from tests.support.raw import connection, reset
from tests.support.store import Store, eventually, refused, stored

MAX_FILE_SIZE = 1 << 20  # the setting of `store`
CONTENT = Random(0).randbytes(100_000)
KIND = b"Content-Type: multipart/form-data; boundary=" + BOUNDARY
FIELD = b'Content-Disposition: form-data; name="note"\r\n\r\nno file'
Framing = Callable[[Upload], Upload]
each_framing = pytest.mark.parametrize("framed", [lambda upload: upload, chunked], ids=["length", "chunked"])


def of(body: bytes, *lines: bytes) -> Upload:
    """A request that says it is a form, with this body."""
    return request(b"POST", b"/files", [KIND, *lines], body)


def ids(store: Store, upload: Upload) -> list[str]:
    """The ids of the files of a form that was taken."""
    answer = store.send(upload)
    assert answer.status == 201, answer
    return answer.body.decode().split("\n")


def test_a_form_is_whole_with_its_closing_boundary_and_not_before(store: Store) -> None:
    """The body has the length it says every time; only the form's own end can tell."""
    body = form_of(part(b"one", "1"), FIELD, part(b"two", "2")).body
    end = body.rindex(b"--\r\n") + 2
    with connection(store.url) as sock:
        for cut in range(end):
            sock.sendall(bytes(of(body[:cut])))
            assert sock.recv(12) == b"HTTP/1.1 400", cut
            while b"}" not in sock.recv(65536):
                pass
    store.holds()
    store.holds(*ids(store, of(body[:end])))


@each_framing
@pytest.mark.parametrize("position", range(3))
def test_of_three_files_with_one_too_large_none_is_stored(store: Store, framed: Framing, position: int) -> None:
    sizes = [1000] * 3
    sizes[position] = MAX_FILE_SIZE + 1
    refused(store.send(framed(form_of(*(part(bytes(size)) for size in sizes)))), 413)
    store.holds()


@each_framing
def test_files_that_are_large_together_are_taken_one_by_one(store: Store, framed: Framing) -> None:
    contents = [bytes([number]) * MAX_FILE_SIZE for number in range(3)]
    found = ids(store, framed(form_of(*map(part, contents))))
    assert [store.get(id_) for id_ in found] == contents
    store.holds(*found)


@each_framing
@pytest.mark.parametrize("share", [0.1, 0.4, 0.7, 0.99])
def test_a_form_cut_in_any_of_its_files_leaves_none(store: Store, framed: Framing, share: float) -> None:
    upload = framed(form_of(*(part(CONTENT, str(number)) for number in range(3))))
    cut = int(len(upload.body) * share)
    with connection(store.url) as sock:
        sock.sendall(upload.head + upload.body[:cut])
        eventually(lambda: len(store.rows()) == min(3, int(share * 3) + 1), 5)
        reset(sock)
    store.holds()


def test_a_cut_form_shows_none_of_its_files_meanwhile(store: Store) -> None:
    upload = form_of(part(b"done", "1"), part(CONTENT, "2"))
    with connection(store.url) as sock:
        sock.sendall(bytes(upload)[:-10])
        eventually(lambda: len(store.rows()) == 2, 5)
        _, content = store.call("GET", "/files?limit=1000")
        listed = {record["id"] for record in json.loads(content)["files"]}
        for row in store.rows():
            assert row.id not in listed
            assert store.call("GET", f"/files/{row.id}/")[0].status == 404
        sock.sendall(bytes(upload)[-10:])
        assert sock.recv(12) == b"HTTP/1.1 201"
    store.holds(*(row.id for row in store.rows()))


def test_ids_come_in_the_order_of_the_files(store: Store) -> None:
    parts = [part(b"%d" % number, f"{number}.txt", [b"Content-Type: text/x-%d" % number]) for number in range(30)]
    lines = [KIND, b"Accept: application/json"]
    answer = store.send(request(b"POST", b"/files", lines, form_of(*parts).body))
    records = json.loads(answer.body)["files"]
    assert "location" not in answer.headers
    for number, record in enumerate(records):
        assert (record["name"], record["content_type"]) == (f"{number}.txt", f"text/x-{number}")
        assert record["sha256"] == hashlib.sha256(b"%d" % number).hexdigest()
    store.holds(*(record["id"] for record in records))


def test_a_file_input_left_empty_is_no_file(store: Store) -> None:
    empty = (
        b'Content-Disposition: form-data; name="file"; filename=""\r\nContent-Type: application/octet-stream\r\n\r\n'
    )
    (only,) = ids(store, form_of(empty, part(b"x", "x"), FIELD, empty))
    assert store.meta(only)["name"] == "x"
    refused(store.send(form_of(empty, FIELD)), 400)
    store.holds(only)


@pytest.mark.parametrize(
    ("disposition", "name"),
    [
        (b'form-data; name="f"; filename="a.txt"', "a.txt"),
        (b"form-data; name=f; filename=a.txt", "a.txt"),
        (b'FORM-DATA; NAME="f"; FILENAME="a.txt"', "a.txt"),
        (b'form-data; name="f"; filename="na\xc3\xafve.txt"', "naïve.txt"),
        (b'form-data; name="f"; filename="na\xefve.txt"', "naïve.txt"),
        (b'form-data; name="f"; filename="x"; filename*=UTF-8\'\'na%C3%AFve.txt', "naïve.txt"),
        (b'form-data; name="f"; filename="50%.txt"', "50%.txt"),
        (b'form-data; name="f"; filename="a%41.txt"', "a%41.txt"),
        (b'form-data; name="f"; filename="a%22b.txt"', 'a"b.txt'),
        (rb'form-data; name="f"; filename="a\"b.txt"', 'a"b.txt'),
        (rb'form-data; name="f"; filename="C:\dir\a.txt"', "a.txt"),
        (rb'form-data; name="f"; filename="dir\"', None),
        (b'form-data; filename="a.txt"', "a.txt"),
        (b'form-data; name="f"; filename="=?utf-8?q?a?="', "=?utf-8?q?a?="),
    ],
)
def test_a_part_names_its_file_as_browsers_and_curl_write_it(
    store: Store, disposition: bytes, name: str | None
) -> None:
    (id_,) = ids(store, form_of(b"Content-Disposition: " + disposition + b"\r\n\r\nx"))
    assert store.meta(id_)["name"] == (name or id_)


@pytest.mark.parametrize(
    "head",
    [
        b"Content-Disposition: form-data; name=f; filename=a; filename=b",
        b"Content-Disposition: form-data; name=f; name=g; filename=a",
        b'Content-Disposition: form-data; name=f; filename="a',
        b"Content-Disposition: form-data; name=f; filename=a\r\nContent-Disposition: form-data; name=f; filename=a",
        b"Content-Disposition: form-data; name=f;\r\n filename=a",
        b"Content-Disposition : form-data; name=f; filename=a",
        b"Content-Disposition: form-data; name=f; filename=a\nX: y",
        b"Content-Type: text/plain",
        b"",
    ],
)
def test_a_part_that_can_be_read_in_two_ways_is_refused(store: Store, head: bytes) -> None:
    refused(store.send(form_of(part(b"good"), head + b"\r\n\r\nx")), 400)
    store.holds()


@pytest.mark.parametrize(
    ("bad", "status"),
    [
        (part(b"x", about=[b"Content-Transfer-Encoding: base64"]), 400),
        (part(b"x", about=[b"Content-Type: multipart/mixed; boundary=x"]), 400),
        (FIELD + b"x" * 70_000, 413),
        (part(b"x", about=[b"X-%d: 1" % number for number in range(200)]), 400),
        (part(b"x", about=[b"X: " + b"y" * (1 << 20)]), 400),
        (part(b"x", about=[b"X: " + b"y" * 17_000]), 400),
    ],
    ids=["base64", "nested", "a long field", "200 headers", "a header of a megabyte", "too much of headers"],
)
@pytest.mark.parametrize("position", range(3))
def test_one_bad_part_refuses_the_good_ones_with_it(store: Store, bad: bytes, status: int, position: int) -> None:
    parts = [part(b"good"), part(b"good")]
    parts.insert(position, bad)
    refused(store.send(form_of(*parts)), status)
    store.holds()


def test_ten_thousand_fields_are_refused_and_soon(store: Store) -> None:
    refused_soon(store, FIELD)


def test_ten_thousand_files_are_refused_and_soon(store: Store) -> None:
    refused_soon(store, part(b""))


def refused_soon(store: Store, one: bytes) -> None:
    start = time.monotonic()
    refused(store.send(form_of(*[one] * 10_000)), 413)
    assert time.monotonic() - start < 15
    store.holds()


def test_a_field_that_names_a_charset_changes_nothing(store: Store) -> None:
    charset = b'Content-Disposition: form-data; name="_charset_"\r\n\r\nutf-7'
    (id_,) = ids(store, form_of(charset, part(b"x", "naïve.txt")))
    assert store.meta(id_)["name"] == "naïve.txt"


@pytest.mark.parametrize("body", [b"", b"--%b--\r\n" % BOUNDARY, form_of(FIELD).body, b"no form at all"])
def test_a_form_without_a_file_is_refused(store: Store, body: bytes) -> None:
    refused(store.send(of(body)), 400)
    store.holds()


@pytest.mark.parametrize(
    "kind",
    [
        b"multipart/form-data",
        b"multipart/form-data; boundary",
        b"multipart/form-data; boundary=",
        b'multipart/form-data; boundary=""',
        b"multipart/form-data; boundary=Bound-ary; boundary=b",
        b"multipart/form-data; boundary=" + b"b" * 71,
        b'multipart/form-data; boundary="b\xc3\xa4"',
        b'multipart/form-data; boundary="b "',
    ],
)
def test_a_form_without_one_good_boundary_is_refused(store: Store, kind: bytes) -> None:
    body = form_of(part(b"x")).body
    refused(store.send(request(b"POST", b"/files", [b"Content-Type: " + kind], body)), 400)
    store.holds()


def test_bytes_that_look_like_a_boundary_are_content(store: Store) -> None:
    for content in (
        b"x--" + BOUNDARY,
        b"\n--" + BOUNDARY + b"--\n",
        b"\r--" + BOUNDARY,
        b"\r\n--Bound-ar",
        b"\r\n-" + BOUNDARY + b"\r\n",
        b"\r\n\r\n" * 1000,
        b"\r" * 50_000,
    ):
        for upload in (form_of(part(content)), chunked(form_of(part(content)), 7)):
            (id_,) = ids(store, upload)
            assert store.get(id_) == content


def test_a_boundary_within_a_line_that_goes_on_is_refused(store: Store) -> None:
    refused(store.send(form_of(part(b"content\r\n--" + BOUNDARY + b"yes, it goes on"))), 400)
    store.holds()


@pytest.mark.parametrize(
    ("epilogue", "status"), [(b"", 201), (b"bye", 400), (b"\r\nbye", 201), (b"\r\n" + b"x" * 5000, 400)]
)
def test_what_follows_the_end_is_ignored_up_to_a_limit(store: Store, epilogue: bytes, status: int) -> None:
    body = form_of(part(b"x"), end=b"--").body
    assert store.send(of(body + epilogue)).status == status


@pytest.mark.parametrize(("preamble", "status"), [(b"Hello.\r\n", 201), (b"Hello.", 400), (b"x" * 5000 + b"\r\n", 400)])
def test_what_precedes_the_first_boundary_is_ignored_up_to_a_limit(store: Store, preamble: bytes, status: int) -> None:
    assert store.send(of(preamble + form_of(part(b"x")).body)).status == status


def test_a_wrong_digest_of_the_whole_form_stores_none_of_its_files(store: Store) -> None:
    body = form_of(part(b"one"), part(CONTENT)).body
    wrong = b"Content-Digest: sha-256=:" + base64.b64encode(hashlib.sha256(b"x").digest()) + b":"
    kind = "https://iana.org/assignments/http-problem-types#digest-mismatched-values"
    refused(store.send(of(body, wrong)), 400, kind)
    store.holds()
    right = b"Content-MD5: " + base64.b64encode(hashlib.md5(body, usedforsecurity=False).digest())
    assert len(ids(store, of(body, right))) == 2


def test_other_multipart_types_are_files(store: Store) -> None:
    body = form_of(part(b"x")).body
    for kind in (b"multipart/mixed", b"multipart/byteranges", b"multipart/form-data-not"):
        upload = request(b"POST", b"/files", [b"Content-Type: " + kind + b"; boundary=" + BOUNDARY], body)
        assert store.get(stored(store.send(upload))) == body


@pytest.mark.parametrize(
    "kind",
    [
        b'multipart/form-data; boundary="Bound-ary"',
        b"MULTIPART/Form-Data; BOUNDARY=Bound-ary",
        b"multipart/form-data; charset=utf-8; boundary=Bound-ary",
        b"multipart/form-data ; boundary=Bound-ary;",
    ],
)
def test_a_boundary_is_found_however_the_type_is_written(store: Store, kind: bytes) -> None:
    upload = request(b"POST", b"/files", [b"Content-Type: " + kind], form_of(part(b"x")).body)
    assert len(ids(store, upload)) == 1
