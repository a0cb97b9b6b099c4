"""Digest fields (RFC 9530), Content-MD5 (RFC 1864) and the entity tag made of a digest: text in, text out."""

import base64
import binascii
import re
from collections.abc import Mapping

from file_service.errors import BadRequest

LENGTHS = {"sha-256": 32, "sha-512": 64, "md5": 16}
MEMBER = re.compile(r"\s*([a-z*][a-z0-9_.*-]*)\s*=\s*:([A-Za-z0-9+/]*={0,2}):\s*")


class UnsupportedDigest(BadRequest):
    """None of the announced digests can be verified."""


class InvalidDigest(BadRequest):
    """A digest field that cannot be read."""


def parse_digests(field: str) -> dict[str, bytes]:
    """`sha-256=:base64:, ...` as a dictionary of those algorithms that can be verified (RFC 9530 section 2).

    Raises `InvalidDigest` for other syntax or a digest of the wrong length, `UnsupportedDigest` when no algorithm is
    known: a client that asks for a check should not believe it was made.
    """
    members = [MEMBER.fullmatch(member) for member in field.split(",")]
    digests: dict[str, bytes] = {}
    for member in members:
        if member is None:
            raise InvalidDigest("A digest field must read like sha-256=:base64:.")
        algorithm, value = member[1], _decoded(member[2])
        if algorithm in LENGTHS:
            if len(value) != LENGTHS[algorithm]:
                raise InvalidDigest(f"A {algorithm} digest has {LENGTHS[algorithm]} bytes.")
            digests[algorithm] = value
    if not digests:
        raise UnsupportedDigest(f"Digests that can be verified: {', '.join(LENGTHS)}.")
    return digests


def parse_content_md5(field: str) -> dict[str, bytes]:
    """The obsolete but still used header (RFC 1864)."""
    value = _decoded(field.strip())
    if len(value) != LENGTHS["md5"]:
        raise InvalidDigest("Content-MD5 must be the base64 of 16 bytes.")
    return {"md5": value}


def expected_digests(fields: Mapping[str, str]) -> dict[str, bytes]:
    """All digests that these fields announce; `InvalidDigest` when two of them contradict each other."""
    digests: dict[str, bytes] = {}
    for name, field in fields.items():
        parse = parse_content_md5 if name == "content-md5" else parse_digests
        for algorithm, value in parse(field).items():
            if digests.setdefault(algorithm, value) != value:
                raise InvalidDigest(f"Two different {algorithm} digests were sent.")
    return digests


def format_digest(sha256: bytes) -> str:
    """The value of Repr-Digest for a file."""
    return f"sha-256=:{base64.b64encode(sha256).decode()}:"


def wants(field: str) -> bool | None:
    """Whether a Want-Repr-Digest or Want-Content-Digest field asks for sha-256; None when it says nothing about it.

    The weights are hints (RFC 9530 section 4): 0 is "not acceptable", and a field that cannot be read is no wish.
    """
    if not field:
        return None
    weights = re.findall(r"(?:^|,)\s*sha-256\s*=\s*(10|[0-9])\s*(?=,|$)", field)
    return None if not weights else weights[-1] != "0"


def etag(sha256: bytes) -> str:
    """A strong entity tag: files never change, so the digest of the bytes names them for ever."""
    return f'"sha256-{base64.urlsafe_b64encode(sha256).decode().rstrip("=")}"'


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise InvalidDigest("A digest must be base64.") from None
