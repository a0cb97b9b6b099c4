"""Digest fields as text: what is read, what is refused, what is written."""

import base64
import hashlib
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from file_service.digests import (
    LENGTHS,
    InvalidDigest,
    UnsupportedDigest,
    etag,
    expected_digests,
    format_digest,
    parse_content_md5,
    parse_digests,
    wants,
)
from file_service.errors import BadRequest

SHA256 = hashlib.sha256(b"hello").digest()
SHA512 = hashlib.sha512(b"hello").digest()
MD5 = bytes(range(16))


def b64(value: bytes) -> str:
    """The text of a digest."""
    return base64.b64encode(value).decode()


# RFC 9530, appendix B.1 and B.10: of {"hello": "world"} and a line feed
RFC_SHA256 = "sha-256=:RK/0qy18MlBSVnWgjwz6lZEWjP/lF5HF9bvEF8FabDg=:"
RFC_SHA512 = "sha-512=:YMAam51Jz/jOATT6/zvHrLVgOYTGFy1d6GJiOHTohq4yP+pgk4vf2aCsyRZOtw8MjkM7iw7yZ/WkppmM44T3qg==:"


def test_the_examples_of_the_rfc_are_read() -> None:
    content = b'{"hello": "world"}\n'
    assert parse_digests(RFC_SHA256) == {"sha-256": hashlib.sha256(content).digest()}
    both = parse_digests(f"{RFC_SHA256},{RFC_SHA512}")
    assert both == {"sha-256": hashlib.sha256(content).digest(), "sha-512": hashlib.sha512(content).digest()}


@pytest.mark.parametrize(
    "field",
    [
        f"sha-256=:{b64(SHA256)}:",
        f"  sha-256=:{b64(SHA256)}:  ",
        f"crc32c=:AAAAAA==:, sha-256=:{b64(SHA256)}:",
        f"sha-256=:{b64(SHA256)}:\t,\tunixsum=:AAA=:",
        f"sha-256=:{b64(bytes(32))}:, sha-256=:{b64(SHA256)}:",  # RFC 8941 section 3.2: the last one counts
    ],
)
def test_known_algorithms_are_kept_and_others_passed_over(field: str) -> None:
    assert parse_digests(field) == {"sha-256": SHA256}


@pytest.mark.parametrize(
    "field",
    [
        "",
        " ",
        ",",
        "sha-256",
        "sha-256=",
        "sha-256=::",
        f"sha-256={b64(SHA256)}",
        f"sha-256=:{b64(SHA256)}",
        f'sha-256="{b64(SHA256)}"',
        f"SHA-256=:{b64(SHA256)}:",
        f"sha-256=:{b64(SHA256)}:,",
        f",sha-256=:{b64(SHA256)}:",
        f"sha-256=:{b64(SHA256)}: md5=:{b64(MD5)}:",
        f"sha-256=:{b64(SHA256)[:-1]}:",
        f"sha-256=:{b64(SHA256)[:20]} {b64(SHA256)[20:]}:",
        f"sha-256=:{base64.urlsafe_b64encode(bytes([255] * 32)).decode()}:",
        f"sha-256=:{SHA256.hex()}:",
        f"sha-256=:{b64(SHA256[:-1])}:",
        f"sha-256=:{b64(SHA256 + b'x')}:",
        f"sha-512=:{b64(SHA256)}:",
        f"md5=:{b64(SHA256)}:",
        "sha-256=1",
        "sha-256=?1",
        "sha-256=:ä:",
        f"crc32c=:%%%%:, sha-256=:{b64(SHA256)}:",
    ],
)
def test_what_is_no_digest_is_refused(field: str) -> None:
    with pytest.raises(InvalidDigest):
        parse_digests(field)


@pytest.mark.parametrize("field", ["crc32c=:AAAAAA==:", "unixsum=:AAA=:, sha=:AAAA:", "*=:AAAA:"])
def test_a_field_of_unknown_algorithms_alone_is_refused_with_those_that_are_known(field: str) -> None:
    with pytest.raises(UnsupportedDigest, match="sha-256, sha-512, md5"):
        parse_digests(field)


def test_content_md5_is_bare_base64() -> None:
    assert parse_content_md5(f" {b64(MD5)} ") == {"md5": MD5}


@pytest.mark.parametrize(
    "field", ["", "x", f":{b64(MD5)}:", MD5.hex(), b64(MD5[:-1]), b64(SHA256), f"{b64(MD5)}, {b64(MD5)}"]
)
def test_a_content_md5_of_another_shape_is_refused(field: str) -> None:
    with pytest.raises(InvalidDigest):
        parse_content_md5(field)


def test_the_digests_of_all_fields_are_expected_together() -> None:
    fields = {
        "content-digest": f"sha-256=:{b64(SHA256)}:",
        "repr-digest": f"sha-256=:{b64(SHA256)}:, sha-512=:{b64(SHA512)}:",
        "content-md5": b64(MD5),
    }
    assert expected_digests(fields) == {"sha-256": SHA256, "sha-512": SHA512, "md5": MD5}
    assert expected_digests({}) == {}


@pytest.mark.parametrize(
    "fields",
    [
        {"content-digest": f"sha-256=:{b64(SHA256)}:", "repr-digest": f"sha-256=:{b64(bytes(32))}:"},
        {"content-digest": f"md5=:{b64(MD5)}:", "content-md5": b64(bytes(16))},
    ],
)
def test_fields_that_contradict_each_other_are_refused(fields: dict[str, str]) -> None:
    with pytest.raises(InvalidDigest, match="Two different"):
        expected_digests(fields)


@given(st.sampled_from(sorted(LENGTHS)), st.data())
def test_every_digest_that_is_written_can_be_read(algorithm: str, data: st.DataObject) -> None:
    value = data.draw(st.binary(min_size=LENGTHS[algorithm], max_size=LENGTHS[algorithm]))
    assert parse_digests(f"{algorithm}=:{b64(value)}:") == {algorithm: value}
    if algorithm == "sha-256":
        assert parse_digests(format_digest(value)) == {"sha-256": value}


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused(field: str) -> None:
    for parse in (parse_digests, parse_content_md5):
        with suppress(BadRequest):
            assert all(len(value) == LENGTHS[algorithm] for algorithm, value in parse(field).items())


def test_a_field_as_long_as_a_header_can_be_is_read_at_once() -> None:
    for field in ("sha-256=:" + "A" * 8000, " " * 8000, "a" * 8000 + "=:", "a=:AA==:," * 800 + "!"):
        with pytest.raises(BadRequest):
            parse_digests(field)


@given(st.binary(min_size=32, max_size=32))
def test_a_tag_is_strong_and_one_for_each_digest(value: bytes) -> None:
    tag = etag(value)
    assert tag.startswith('"sha256-')
    assert tag.endswith('"')
    assert base64.urlsafe_b64decode(tag.strip('"').removeprefix("sha256-") + "=") == value
    assert set(tag[1:-1]) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_")


@pytest.mark.parametrize(
    ("field", "wish"),
    [
        ("", None),
        ("sha-512=3", None),
        ("sha-256", None),
        ("sha-256=11", None),
        ("sha-256=-1", None),
        ("xsha-256=1", None),
        ("sha-256=1", True),
        ("sha-256=10", True),
        ("sha-512=3, sha-256=10, unixsum=0", True),
        ("sha-256=0", False),
        ("sha-256=3, sha-256=0", False),
        ("sha-256=0,sha-256=1", True),
    ],
)
def test_a_wish_is_a_weight(field: str, wish: bool | None) -> None:
    assert wants(field) is wish
