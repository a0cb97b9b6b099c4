"""The way in: what is fetched, verified, and written beside its target.

A download leaves nothing but the finished file: until then it is a private `.file-service-*.part`, which is removed on
the way out unless the process is killed.
"""

import asyncio
import hashlib
import os
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus
from pathlib import Path
from secrets import token_hex
from typing import Protocol

import aiohttp
from aiofile import AIOFile
from caio.python_aio_asyncio import AsyncioContext
from yarl import URL

from file_service.client import answers
from file_service.client.errors import DigestMismatch, ServerUnreachable
from file_service.client.progress import Progress
from file_service.names import DEFAULT_NAME, sanitize_name


class Sink(Protocol):
    """Where a download goes. `offset` is how many bytes have been written."""

    offset: int

    def offer(self, name: str) -> None:
        """Tell the name the server has for the file, before the first byte. Raises OSError when it cannot be kept."""

    async def write(self, block: bytes) -> None:
        """Append. Raises OSError."""

    async def restart(self) -> None:
        """Begin again at offset 0. Raises OSError when what was written cannot be taken back."""


class Download:
    """What has come of a file over one or more answers."""

    def __init__(self, url: URL, sink: Sink, progress: Progress) -> None:
        self.url, self._sink, self._progress = url, sink, progress
        self._sha256 = hashlib.sha256()
        self._announced: bytes | None = None
        self._etag: str | None = None
        self._total: int | None = None
        self._redirected = False

    @property
    def whole(self) -> bool:
        """Whether every byte is known to be here."""
        return self._announced == self._sha256.digest()

    @property
    def redirected(self) -> bool:
        """Whether it came from elsewhere, where no digest was announced."""
        return self._redirected and self._announced is None

    def expect(self, sha256: bytes | None) -> None:
        """Announce the digest after all."""
        self._announced = sha256

    def headers(self) -> dict[str, str]:
        """Ask for the rest, provided that the file is still the same (RFC 9110 section 13.1.5)."""
        if not self._sink.offset or not self._etag:
            return {}
        return {"Range": f"bytes={self._sink.offset}-", "If-Range": self._etag}

    async def begin(self, response: aiohttp.ClientResponse) -> bool:
        """Whether the answer's body is the file, or the rest of it."""
        offset = self._sink.offset
        if response.status == HTTPStatus.PARTIAL_CONTENT:
            start, self._total = answers.content_range(response.headers)
            return offset > 0 and start == offset
        if response.status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and self._etag:
            self._etag = None
            raise ServerUnreachable("The server cannot resume.")
        if response.status != HTTPStatus.OK:
            return False
        if offset:
            await self._sink.restart()
        self._sink.offer(answers.offered_name(self.url, response.headers))
        self._sha256, self._announced = hashlib.sha256(), answers.repr_digest(response.headers)
        self._etag, self._total = answers.strong_etag(response.headers), response.content_length
        self._redirected = bool(response.history)
        return True

    async def take(self, block: bytes) -> None:
        """Keep the next bytes."""
        self._sha256.update(block)
        await self._sink.write(block)
        self._progress(self._sink.offset, self._total)

    def end(self) -> None:
        """The answer is over. Raises ServerUnreachable when the file is not: a 206 may hold less than was asked for."""
        if self._total is not None and self._sink.offset != self._total:
            raise ServerUnreachable("The server sent only a part of the file.")

    def verified(self) -> bool:
        """False when there was nothing to compare with. Raises DigestMismatch."""
        if self._announced and not self.whole:
            raise DigestMismatch
        return self.whole


class DescriptorSink:
    """Standard output and the like. Writing blocks; what is written stays written."""

    def __init__(self, descriptor: int) -> None:
        self.offset = 0
        self._descriptor = descriptor

    def offer(self, name: str) -> None:
        """A descriptor has no use for names."""

    async def write(self, block: bytes) -> None:
        """Append."""
        rest = memoryview(block)
        while rest:
            rest = rest[os.write(self._descriptor, rest) :]
        self.offset += len(block)

    async def restart(self) -> None:
        """Only before the first byte."""
        if self.offset:
            raise OSError("The server cannot resume, and the output cannot be taken back.")


class PartFile:
    """A download beside its target; `publish()` gives it the target's name, at once and whole."""

    def __init__(self, file: AIOFile, path: Path, folder: Path, name: str | None, *, replace: bool) -> None:
        self.offset = 0
        self._file, self._path, self._folder, self._name, self._replace = file, path, folder, name, replace
        self._writing: asyncio.Future[int] | None = None
        if name:
            self._check()

    @property
    def target(self) -> Path:
        """Where the file will be."""
        return self._folder / (self._name or DEFAULT_NAME)

    def offer(self, name: str) -> None:
        """Take the server's name if the caller gave none. Raises OSError when such a file is there already."""
        if self._name is None:
            self._name = visible_name(name)
            self._check()

    async def write(self, block: bytes) -> None:
        """Append. A cancelled write still runs to its end in its thread; `settle()` waits for it."""
        self._writing = asyncio.ensure_future(self._file.write_bytes(block, self.offset))
        await asyncio.shield(self._writing)
        self.offset += len(block)

    async def restart(self) -> None:
        """Drop what was written."""
        await self._file.truncate(0)
        self.offset = 0

    async def settle(self) -> None:
        """Wait until nothing writes to the descriptor any more, so that it may be closed and its number reused."""
        if self._writing:
            await asyncio.wait({self._writing})
            self._writing.cancelled() or self._writing.exception()

    async def publish(self) -> Path:
        """Make the bytes durable, then visible under the target's name. Raises OSError, FileExistsError among them."""
        await self._file.fsync()
        os.fchmod(self._file.fileno(), 0o666 & ~_umask())
        self._rename()
        _sync_folder(self._folder)
        return self.target

    def _check(self) -> None:
        try:
            found = self.target.lstat()
        except FileNotFoundError:
            return
        if not stat.S_ISREG(found.st_mode) and not stat.S_ISLNK(found.st_mode):
            raise OSError(f"{self.target} is there and not a regular file.")
        if not self._replace:
            raise _exists(self.target)

    def _rename(self) -> None:
        if not self._replace:
            try:
                self.target.hardlink_to(self._path)  # never replaces anything, which a rename would
            except FileExistsError:
                raise _exists(self.target) from None
            except OSError:
                self._check()  # the file system has no links, such as FAT
            else:
                return
        self._path.replace(self.target)


@asynccontextmanager
async def part_file(path: Path | None, io: AsyncioContext, *, replace: bool) -> AsyncIterator[PartFile]:
    """A private file in the folder of `path`, gone at the end unless it was published.

    `path` may be a folder, or None for the current one: the name then comes from the server. Raises OSError.
    """
    path = path or Path()
    folder, name = (path, None) if path.is_dir() else (path.parent, path.name)
    part = folder / f".file-service-{token_hex(8)}.part"
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600), "wb") as raw:
        try:
            download = PartFile(AIOFile.from_fp(raw, context=io), part, folder, name, replace=replace)
            try:
                yield download
            finally:
                await download.settle()
        finally:
            part.unlink(missing_ok=True)


def visible_name(offered: str) -> str:
    """A server's name for a file as one that may be created in any folder: no path, not hidden, never empty.

    A link opened in a home folder must not be able to bring a `.profile` along.
    """
    return (sanitize_name(offered) or DEFAULT_NAME).lstrip(".") or DEFAULT_NAME


def _umask() -> int:
    mask = os.umask(0o077)  # there is no call that only reads it
    os.umask(mask)
    return mask


def _exists(path: Path) -> FileExistsError:
    return FileExistsError(f"{path} exists already.")


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
