"""Digests sent with an upload, through every door: what does not match is not stored, not even for a moment."""

import base64
import hashlib
from random import Random

import pytest

from tests.support.doors import Door, chunked, every_door, form_of, part, put, raw
from tests.support.raw import connection, read_answer
from tests.support.store import Store, eventually, refused, stored

CONTENT = Random(0).randbytes(300_000)  # many blocks of the disk and of the network
TYPES = "https://iana.org/assignments/http-problem-types#digest-"
HASHES = {"sha-256": "sha256", "sha-512": "sha512", "md5": "md5"}


def field(algorithm: str, content: bytes, name: str = "Content-Digest") -> bytes:
    """The line with the digest of `content`."""
    digest = base64.b64encode(hashlib.new(HASHES[algorithm], content, usedforsecurity=False).digest()).decode()
    return f"Content-MD5: {digest}".encode() if name == "Content-MD5" else f"{name}: {algorithm}=:{digest}:".encode()


FIELDS = [(name, algorithm) for name in ("Content-Digest", "Repr-Digest") for algorithm in HASHES]
every_field = pytest.mark.parametrize(("name", "algorithm"), [*FIELDS, ("Content-MD5", "md5")])


@every_door
@every_field
def test_a_file_is_stored_when_its_digest_is_right(store: Store, door: Door, name: str, algorithm: str) -> None:
    for content in (CONTENT, b""):
        answer = store.send(door(content, about=[field(algorithm, content, name)]))
        assert store.get(stored(answer)) == content
        assert f"Repr-Digest: {answer.headers['repr-digest']}".encode() == field("sha-256", content, "Repr-Digest")
        assert store.meta(answer.body.decode())["sha256"] == hashlib.sha256(content).hexdigest()


@every_door
@every_field
@pytest.mark.parametrize("other", [CONTENT[:-1], CONTENT + b"\n", bytes([CONTENT[0] ^ 1]) + CONTENT[1:], b""])
def test_nothing_is_stored_when_a_digest_is_wrong(
    store: Store, door: Door, name: str, algorithm: str, other: bytes
) -> None:
    refused(store.send(door(other, about=[field(algorithm, CONTENT, name)])), 400, f"{TYPES}mismatched-values")
    store.holds()


@every_door
@pytest.mark.parametrize(
    ("lines", "kind"),
    [
        ([b"Content-Digest: sha-256"], "invalid-values"),
        ([b"Content-Digest: sha-256=:AAAA:"], "invalid-values"),
        ([b"Content-Digest: "], "invalid-values"),
        ([b"Repr-Digest: sha-256=:" + b"A" * 44 + b":"], "invalid-values"),
        ([b"Content-MD5: " + b"A" * 23], "invalid-values"),
        ([field("sha-256", CONTENT), field("sha-256", b"x", "Repr-Digest")], "invalid-values"),
        ([field("md5", CONTENT), field("md5", b"x", "Content-MD5")], "invalid-values"),
        ([b"Content-Digest: sha=:AAAA:, crc32c=:AAAAAA==:"], "unsupported-algorithms"),
        ([b"Repr-Digest: unixsum=:AAA=:"], "unsupported-algorithms"),
        ([field("sha-256", CONTENT), b"Repr-Digest: crc32c=:AAAAAA==:"], "unsupported-algorithms"),
    ],
)
def test_nothing_is_stored_when_a_digest_cannot_be_checked(
    store: Store, door: Door, lines: list[bytes], kind: str
) -> None:
    refused(store.send(door(CONTENT, about=lines)), 400, TYPES + kind)
    store.holds()


@every_door
def test_one_wrong_digest_among_right_ones_is_enough(store: Store, door: Door) -> None:
    right = [field(*each) for each in (("sha-512", CONTENT), ("md5", CONTENT, "Content-MD5"))]
    stored(store.send(door(CONTENT, about=[*right, field("sha-256", CONTENT, "Repr-Digest")])))
    (row,) = store.rows()
    wrong = field("sha-256", b"other", "Repr-Digest")
    refused(store.send(door(CONTENT, about=[*right, wrong])), 400, f"{TYPES}mismatched-values")
    store.holds(row.id)


@pytest.mark.parametrize("door", [raw, put])
def test_every_line_of_a_field_counts(store: Store, door: Door) -> None:
    lines = [field("sha-256", CONTENT), field("sha-512", b"other")]
    refused(store.send(door(CONTENT, about=lines)), 400, f"{TYPES}mismatched-values")
    store.holds()


@every_door
def test_a_known_digest_beside_an_unknown_one_is_checked(store: Store, door: Door) -> None:
    for content, status in ((CONTENT, 201), (b"other", 400)):
        line = field("sha-256", CONTENT).replace(b"sha-256", b"crc32c=:AAAAAA==:, sha-256")
        assert store.send(door(content, about=[line])).status == status
    assert len(store.rows()) == 1


@pytest.mark.parametrize("door", [raw, put])
def test_a_file_whose_digest_is_wrong_is_never_visible(store: Store, door: Door) -> None:
    upload = chunked(door(CONTENT, about=[field("sha-256", b"other")]))
    with connection(store.url) as sock:
        sock.sendall(bytes(upload)[:-1])
        eventually(lambda: [row.state for row in store.rows()] == ["receiving"], 5)
        sock.sendall(bytes(upload)[-1:])
        refused(read_answer(sock), 400, f"{TYPES}mismatched-values")
    store.holds()


@pytest.mark.parametrize("position", range(3))
def test_one_wrong_digest_in_a_form_refuses_all_its_files(store: Store, position: int) -> None:
    parts = [part(CONTENT, about=[field("sha-256", b"other" if n == position else CONTENT)]) for n in range(3)]
    refused(store.send(form_of(*parts)), 400, f"{TYPES}mismatched-values")
    store.holds()


@every_field
def test_digests_of_a_form_and_of_its_parts_are_both_checked(store: Store, name: str, algorithm: str) -> None:
    parts = [part(content, about=[field(algorithm, content, name)]) for content in (b"one", CONTENT)]
    body = form_of(*parts).body
    answer = store.send(form_of(*parts, lines=[field(algorithm, body, name)]))
    assert answer.status == 201
    refused(store.send(form_of(*parts, lines=[field(algorithm, CONTENT, name)])), 400, f"{TYPES}mismatched-values")
    store.holds(*answer.body.decode().split())
