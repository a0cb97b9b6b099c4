"""What a server's answer says: headers and records as values. Pure."""

import base64
import binascii
import json
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any, NamedTuple

from multidict import CIMultiDictProxy
from yarl import URL

from file_service.client.errors import AnsweredError, DigestMismatch, RefusedByServer, ServerFailed
from file_service.names import BadDisposition, parse_disposition

MAX_DETAIL = 500  # characters of a server's explanation that are passed on
SHA256 = re.compile(r"(?:^|,)\s*sha-256\s*=\s*:([A-Za-z0-9+/]{43}=):")
CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-\d{1,18}/(\d{1,18}|\*)")


class Answer(NamedTuple):
    """A complete answer; `content` is cut when it is longer than an answer has any reason to be."""

    url: URL
    status: int
    headers: CIMultiDictProxy[str]
    content: bytes

    @property
    def success(self) -> bool:
        """Whether the status is 2xx."""
        return HTTPStatus.OK <= self.status < HTTPStatus.MULTIPLE_CHOICES


@dataclass(frozen=True, slots=True)
class Stored:
    """A file that the server has: its absolute link, its size in bytes, its SHA-256 in hex, the record it answered."""

    link: str
    size: int
    sha256: str
    record: Mapping[str, Any]


def stored(answer: Answer, size: int, sha256: bytes) -> Stored:
    """The answer to an upload of `size` bytes. Raises `AnsweredError` and `DigestMismatch`."""
    if not answer.success:
        raise refusal(answer)
    record = json_object(answer.content)
    link = record.get("url") or answer.headers.get("Location")
    claims = {digest for digest in (repr_digest(answer.headers), _hex(record.get("sha256"))) if digest}
    if not isinstance(link, str) or not claims:
        raise ServerFailed(answer.status, "The answer has no link or no SHA-256: is this a file service?")
    if claims != {sha256}:
        raise DigestMismatch
    return Stored(str(answer.url.join(URL(link))), size, sha256.hex(), record)


def refusal(answer: Answer) -> AnsweredError:
    """The error that the answer stands for, in its own words where it has any (RFC 9457)."""
    problem = json_object(answer.content)
    words = problem.get("detail") or problem.get("title") or _phrase(answer)
    failed = answer.success or answer.status >= HTTPStatus.INTERNAL_SERVER_ERROR
    kind = ServerFailed if failed else RefusedByServer
    return kind(answer.status, printable(str(words)[:MAX_DETAIL]), retry_after(answer.headers.get("Retry-After", "")))


def retry_after(field: str) -> float | None:
    """Seconds to wait by Retry-After, a number or a date (RFC 9110 section 10.2.3)."""
    if re.fullmatch("[0-9]{1,9}", field.strip()):
        return float(field)
    with suppress(ValueError):
        moment = parsedate_to_datetime(field)
        return max(0.0, (moment.replace(tzinfo=moment.tzinfo or UTC) - datetime.now(UTC)).total_seconds())
    return None


def repr_digest(headers: CIMultiDictProxy[str]) -> bytes | None:
    """The SHA-256 in Repr-Digest (RFC 9530 section 3)."""
    found = SHA256.search(", ".join(headers.getall("Repr-Digest", [])))
    return base64.b64decode(found[1]) if found else None


def strong_etag(headers: CIMultiDictProxy[str]) -> str | None:
    """The entity tag, when it names exact bytes (RFC 9110 section 8.8.3)."""
    tag = headers.get("ETag", "")
    return tag if tag.startswith('"') else None


def content_range(headers: CIMultiDictProxy[str]) -> tuple[int, int | None]:
    """Offset of the first byte and the complete length in bytes; (-1, None) when the header says neither."""
    found = CONTENT_RANGE.fullmatch(headers.get("Content-Range", ""))
    if not found:
        return -1, None
    return int(found[1]), None if found[2] == "*" else int(found[2])


def offered_name(url: URL, headers: CIMultiDictProxy[str]) -> str:
    """The name in Content-Disposition, else the last segment of the link; it is data, not yet a safe file name."""
    with suppress(BadDisposition):
        if name := parse_disposition(headers.getall("Content-Disposition", [])):
            return name
    return next((part for part in reversed(url.parts) if part.strip("/")), "")


def printable(text: str) -> str:
    """One line that cannot command a terminal."""
    return "".join(character if character.isprintable() else "\ufffd" for character in text)


def _phrase(answer: Answer) -> str:
    if location := answer.headers.get("Location"):
        return f"It redirects to {location.partition('?')[0]}"
    try:
        return HTTPStatus(answer.status).phrase
    except ValueError:
        return "No explanation"


def json_object(content: bytes) -> dict[str, Any]:
    """The JSON object in `content`, an empty one where there is something else."""
    with suppress(ValueError, RecursionError):
        if isinstance(value := json.loads(content), dict):
            return value
    return {}


def _hex(value: object) -> bytes | None:
    with suppress(ValueError, TypeError, binascii.Error):
        return bytes.fromhex(value)  # type: ignore[arg-type]
    return None
