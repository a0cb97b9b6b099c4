"""The seam between the service and the place where bytes live.

Keys are random UUIDs, one per attempt: never reused, never overwritten. No reader ever sees a partial file: bytes are
readable under their key after `commit()` has returned and not before. Counting, hashing, limits and timeouts live above
the seam; whoever calls decides when an attempt is dead and says `delete(key)`, which removes whatever stands under the
key, staged or published.

All methods raise `StorageFull`, `StorageFailed` or `Unavailable("storage")`, never a foreign exception.
"""

import logging
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol, TypeAlias, runtime_checkable
from uuid import UUID

from file_service.aio import uncancelled
from file_service.errors import ServiceError

log = logging.getLogger(__name__)
Metadata: TypeAlias = Mapping[str, str]
NO_METADATA: Metadata = MappingProxyType({})


class Writer(Protocol):
    """One staged write. Exactly one of commit, suspend and abort ends it."""

    @property
    def token(self) -> str:
        """Opaque; together with the key enough for `Storage.resume()`."""

    @property
    def offset(self) -> int:
        """Bytes accepted so far, as the backend knows it."""

    async def write(self, chunk: bytes) -> None:
        """Append `chunk`. Not to be called again before it returned. After an error only `abort` is allowed."""

    async def suspend(self) -> None:
        """Keep the bytes for a later `resume`, release handles."""

    async def commit(self) -> None:
        """Make the bytes durable, then visible under the key, at once."""

    async def abort(self) -> None:
        """Drop the bytes. Repeatable; does nothing after commit or suspend."""


class Storage(Protocol):
    """A place for files."""

    async def create(self, key: UUID, *, length: int | None = None, metadata: Metadata = NO_METADATA) -> Writer:
        """Begin a write under a fresh key, of `length` bytes where that is known.

        The metadata are for people who look at the place without the database; a backend that can keeps them beside the
        bytes, and nothing reads them back.
        """

    async def resume(self, key: UUID, token: str) -> Writer:
        """Continue a suspended write at its offset; `NotFound` when there is none."""

    def read(self, key: UUID, start: int = 0, stop: int | None = None) -> AsyncGenerator[bytes, None]:
        """Yield the bytes [start, stop); `stop` None means to the end.

        Raises `Damaged` before the first chunk when the file is missing or shorter than `stop`, and in mid-stream when
        it turns out to be; it never ends early without raising.
        """

    async def delete(self, key: UUID) -> None:
        """Remove everything under `key`, staged or published; a missing key is fine."""

    async def check(self) -> None:
        """Return when the storage can take and give bytes; raise what is wrong otherwise."""


@runtime_checkable
class Bounded(Protocol):
    """A storage that knows how much room it has."""

    async def free(self) -> int:
        """Bytes that can still be written."""


@runtime_checkable
class Marked(Protocol):
    """A storage that carries an identity, so that a wrong or unmounted place is told from an empty one."""

    async def identity(self) -> UUID | None:
        """The identity written into the storage, or None."""

    async def mark(self, identity: UUID) -> None:
        """Write the identity into a storage that has none."""


@dataclass(frozen=True, slots=True)
class Found:
    """What stands under a key: a published file of `size` bytes, or what an attempt has staged."""

    key: UUID
    size: int
    staged: bool


@runtime_checkable
class Listed(Protocol):
    """A storage that can say everything it holds, for `service/check.py`."""

    def list(self) -> AsyncGenerator[Found, None]:
        """Everything, in no order; what comes or goes meanwhile may be missed."""

    async def size(self, key: UUID) -> int | None:
        """The size of a published file in bytes, None when it is not there."""

    async def quarantine(self, key: UUID) -> None:
        """Move whatever stands under `key` to where nobody reads or deletes it."""


@runtime_checkable
class Linked(Protocol):
    """A storage that may give files away by itself."""

    async def link(self, key: UUID, headers: Mapping[str, str], seconds: int) -> str | None:
        """A URL that gives anybody the bytes for so many seconds, answered with these headers; None: read them here."""


class MarkedStorage(Storage, Marked, Protocol):
    """What the service runs on."""


@asynccontextmanager
async def staged(
    storage: Storage, key: UUID, *, length: int | None = None, metadata: Metadata = NO_METADATA
) -> AsyncIterator[Writer]:
    """A writer that is committed when the block ends well; when anything at all goes wrong nothing is left of it.

    A cancellation may hit a `create` or a `commit` that has come to its end all the same.
    """
    writer: Writer | None = None
    try:
        writer = await storage.create(key, length=length, metadata=metadata)
        yield writer
        await uncancelled(writer.commit())
    except BaseException:
        await uncancelled(_dropped(storage, key, writer))
        raise


async def _dropped(storage: Storage, key: UUID, writer: Writer | None) -> None:
    """Whoever owns the key finds what cannot be removed now; the error that led here is the one to be told."""
    try:
        if writer is not None:
            await writer.abort()
        await storage.delete(key)
    except ServiceError as error:
        log.warning("attempt %s: not cleaned up yet: %s", key, error.detail)
