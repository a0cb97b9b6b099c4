"""Forms: every file or none, and only when the closing boundary was seen."""

import base64
import hashlib

import pytest

from tests.support.doors import BOUNDARY, form, form_of, part, request
from tests.support.store import Store, refused

MAX_FILE_SIZE = 1 << 20  # the setting of `store`
FIELD = b'Content-Disposition: form-data; name="note"\r\n\r\n'


def ids(body: bytes) -> list[str]:
    """The ids of a 201, one a line."""
    return body.decode().split("\n")


def test_three_files_are_stored_together_and_fields_are_not_files(either_store: Store) -> None:
    parts = [part(b"one", "1"), FIELD + b"not a file", part(b"", "2"), part(b"three", "3")]
    answer = either_store.send(form_of(*parts))
    assert answer.status == 201
    assert [either_store.get(id_) for id_ in ids(answer.body)] == [b"one", b"", b"three"]
    assert [either_store.meta(id_)["name"] for id_ in ids(answer.body)] == ["1", "2", "3"]


@pytest.mark.parametrize(
    ("bad", "status"),
    [
        (part(b"x" * (MAX_FILE_SIZE + 1), "large"), 413),
        (b"No-Disposition: 1\r\n\r\nx", 400),
        (b'Content-Disposition: form-data; name="f"; filename="unterminated\r\n\r\nx', 400),
        (part(b"x", "gz", [b"Content-Transfer-Encoding: base64"]), 400),
        (part(b"x", "mixed", [b"Content-Type: multipart/mixed; boundary=x"]), 400),
        (FIELD + b"x" * 70_000, 413),
        (b"\r\n".join([b"X-%d: 1" % number for number in range(200)]) + b"\r\n\r\nx", 400),
        (b"X: " + b"y" * (1 << 20) + b"\r\n\r\nx", 400),
        (part(b"x", "digest", [b"Content-Digest: sha-256=:" + base64.b64encode(bytes(32)) + b":"]), 400),
    ],
    ids=["large", "nameless", "unterminated", "base64", "nested", "long field", "200 headers", "1 MB header", "digest"],
)
def test_one_bad_part_refuses_the_good_ones_with_it(store: Store, bad: bytes, status: int) -> None:
    before = len(store.rows())
    answer = store.send(form_of(part(b"good", "1"), bad, part(b"good", "3")))
    assert answer.status == status
    assert len(store.rows()) == before


@pytest.mark.parametrize("end", [b"", b"-", b"\r\n", b"--x\r\n"], ids=["none", "one dash", "open", "text"])
def test_without_its_closing_boundary_a_form_is_no_form(store: Store, end: bytes) -> None:
    refused(store.send(form_of(part(b"one", "1"), part(b"two", "2"), end=end)), 400)


def test_ten_thousand_parts_are_refused(store: Store) -> None:
    refused(store.send(form_of(*[FIELD + b"x"] * 10_000)), 413)


@pytest.mark.parametrize(
    "body", [b"", b"--" + BOUNDARY + b"--\r\n", b"--" + BOUNDARY + b"\r\n" + FIELD + b"x\r\n--" + BOUNDARY + b"--\r\n"]
)
def test_a_form_without_a_file_is_refused(store: Store, body: bytes) -> None:
    kind = b"Content-Type: multipart/form-data; boundary=" + BOUNDARY
    refused(store.send(request(b"POST", b"/files", [kind], body)), 400)


@pytest.mark.parametrize("kind", [b"multipart/form-data", b"multipart/form-data; boundary=a; boundary=b"])
def test_a_form_without_one_boundary_is_refused(store: Store, kind: bytes) -> None:
    refused(store.send(request(b"POST", b"/files", [b"Content-Type: " + kind], b"x")), 400)


def test_a_digest_in_the_head_is_that_of_the_whole_form(store: Store) -> None:
    right = base64.b64encode(hashlib.sha256(form(b"content").body).digest())
    for digest, status in ((right, 201), (base64.b64encode(bytes(32)), 400)):
        lines = [b"Content-Digest: sha-256=:" + digest + b":"]
        assert store.send(form(b"content", lines=lines)).status == status
