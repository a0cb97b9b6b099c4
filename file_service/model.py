"""The facts the program is about, as plain values."""

from dataclasses import dataclass
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
    created_at: datetime
    expires_at: datetime | None = None
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
