"""The facts the program is about, as plain values."""

from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID


@dataclass(frozen=True, slots=True)
class File:
    """A stored file. `attempt` is the storage key; `size` is bytes; times are aware UTC."""

    id: UUID
    attempt: UUID
    name: str
    size: int
    content_type: str
    sha256: bytes
    crc32: int
    created_at: datetime
    expires_at: datetime | None = None
    max_downloads: int | None = None
    damaged: bool = False


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try at storing a file: the row's id and the storage key, both fresh for every try."""

    id: UUID
    key: UUID


@dataclass(frozen=True, slots=True)
class Received:
    """What a body turned out to be once its last byte had come."""

    size: int
    sha256: bytes
    crc32: int


@dataclass(frozen=True, slots=True)
class Terms:
    """How long a file may live: seconds from its completion, and whole downloads; None is for ever."""

    expires_in: float | None = None
    max_downloads: int | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """An attempt whose bytes are durable, ready to become a file; of the delete token only the SHA-256 is kept."""

    attempt: Attempt
    received: Received
    terms: Terms
    delete_token: bytes


@dataclass(frozen=True, slots=True)
class Receipt:
    """What the uploader gets: the file, and the token that deletes it."""

    file: File
    delete_token: str


@dataclass(frozen=True, slots=True)
class RetryKey:
    """An Idempotency-Key and the position of the file within the request."""

    value: str
    part: int = 0


@dataclass(frozen=True, slots=True)
class Page:
    """A piece of the list of files, newest first; `more` says that older ones follow."""

    files: list[File]
    more: bool


@dataclass(frozen=True, slots=True)
class Import:
    """A file on its way from a URL. States: pending, running, done, failed, cancelled.

    `bytes` of `total`, where that is known, have come in the latest of `tries`, which the replica `owner` runs. The URL
    may be a secret, so it does not show in the representation.
    """

    id: UUID
    url: str = field(repr=False)
    name: str | None
    state: str
    owner: UUID | None
    tries: int
    bytes: int
    total: int | None
    file_id: UUID | None
    error: str | None
    started_at: datetime | None
    updated_at: datetime | None

    @property
    def rate(self) -> float | None:
        """Bytes a second, from the beginning of the try to its latest news."""
        if self.started_at is None or self.updated_at is None or self.updated_at <= self.started_at:
            return None
        return self.bytes / (self.updated_at - self.started_at).total_seconds()
