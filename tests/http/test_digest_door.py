"""Digests that come with an upload are verified; a mismatch is never stored."""

import base64
import hashlib
from collections.abc import Callable

import pytest

from tests.support.doors import Door, form, put, raw
from tests.support.store import Store, refused, stored

CONTENT = b"some content"
TYPES = "https://iana.org/assignments/http-problem-types#digest-"


def encoded(data: bytes) -> str:
    """Base64 as text."""
    return base64.b64encode(data).decode()


RIGHT: dict[str, str] = {
    "sha-256": encoded(hashlib.sha256(CONTENT).digest()),
    "sha-512": encoded(hashlib.sha512(CONTENT).digest()),
    "md5": encoded(hashlib.md5(CONTENT, usedforsecurity=False).digest()),
}
every_door = pytest.mark.parametrize("door", [raw, put, form])
Line = Callable[[str], bytes]


@every_door
@pytest.mark.parametrize("field", ["Content-Digest", "Repr-Digest"])
@pytest.mark.parametrize("algorithm", RIGHT)
def test_a_digest_is_verified(store: Store, door: Door, field: str, algorithm: str) -> None:
    right = f"{field}: {algorithm}=:{RIGHT[algorithm]}:".encode()
    assert store.get(stored(store.send(door(CONTENT, about=[right])))) == CONTENT
    wrong = f"{field}: {algorithm}=:{encoded(bytes(len(base64.b64decode(RIGHT[algorithm]))))}:".encode()
    refused(store.send(door(CONTENT, about=[wrong])), 400, f"{TYPES}mismatched-values")


@every_door
def test_content_md5_is_verified(store: Store, door: Door) -> None:
    stored(store.send(door(CONTENT, about=[f"Content-MD5: {RIGHT['md5']}".encode()])))
    wrong = f"Content-MD5: {encoded(bytes(16))}".encode()
    refused(store.send(door(CONTENT, about=[wrong])), 400, f"{TYPES}mismatched-values")


@every_door
@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("Content-Digest: sha-256=abc", "invalid-values"),
        ("Content-Digest: sha-256=:AAAA:", "invalid-values"),
        ("Content-Digest: sha-256=:!!!!:", "invalid-values"),
        ("Content-Digest: ", "invalid-values"),
        ("Content-MD5: AAAA", "invalid-values"),
        ("Content-MD5: not base64", "invalid-values"),
        ("Repr-Digest: crc32c=:AAAAAA==:", "unsupported-algorithms"),
    ],
)
def test_a_digest_that_cannot_be_read_or_verified_is_refused(store: Store, door: Door, line: str, kind: str) -> None:
    refused(store.send(door(CONTENT, about=[line.encode()])), 400, TYPES + kind)


def test_a_known_digest_beside_an_unknown_one_is_verified(store: Store) -> None:
    line = f"Repr-Digest: crc32c=:AAAAAA==:, sha-256=:{RIGHT['sha-256']}:".encode()
    stored(store.send(raw(CONTENT, about=[line])))


def test_two_digests_that_contradict_each_other_are_refused(store: Store) -> None:
    lines = [
        f"{field}: sha-256=:{value}:".encode()
        for field, value in (("Content-Digest", RIGHT["sha-256"]), ("Repr-Digest", encoded(bytes(32))))
    ]
    refused(store.send(raw(CONTENT, about=lines)), 400, f"{TYPES}invalid-values")


def test_a_second_line_of_a_digest_field_counts_too(store: Store) -> None:
    lines = [
        b"Repr-Digest: sha-256=:" + RIGHT["sha-256"].encode() + b":",
        b"Repr-Digest: sha-512=:" + encoded(bytes(64)).encode() + b":",
    ]
    refused(store.send(raw(CONTENT, about=lines)), 400, f"{TYPES}mismatched-values")
