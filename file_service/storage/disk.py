"""The blocking half of local storage: a few system calls each, run in a thread by local.py.

On disk, under one root on one filesystem:

    .file-service           the identity marker, written last when the root is laid out
    tmp/<key>               bytes being received; 0600, opened O_EXCL
    objects/ab/cd/<key>     published files, in 65,536 folders by the first four hex digits of the key
    quarantine/             what `file-service check --repair` found without an owner

Every path is walked folder by folder with O_NOFOLLOW, so that a planted link leads nowhere and a planted FIFO never
blocks (open(2)). Nothing but `lay_out` creates the root's own folders: on an unmounted disk every call fails.
"""

import errno
import os
import re
import stat
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast
from uuid import UUID

from file_service.errors import Damaged, NotFound, StorageFailed, Unavailable

MARKER = ".file-service"
PROBE = ".probe"
KEY = re.compile(r"[0-9a-f]{32}")
FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
OLD = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Disk:
    """One root; `durable` false leaves out every fsync."""

    root: Path
    durable: bool

    def lay_out(self, identity: UUID) -> None:
        """Make the folders, then the marker; the marker's presence promises the folders."""
        for folder in (self.root, self.root / "tmp", self.root / "objects"):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        name = f"{MARKER}.{identity.hex}"  # the marker itself appears whole or not at all
        with self._folder() as root:
            new = os.open(name, NEW, 0o600, dir_fd=root)
            try:
                with os.fdopen(new, "w", encoding="ascii") as marker:
                    marker.write(f"{identity}\n")
                    marker.flush()
                    os.fsync(new)
                with suppress(FileExistsError):
                    os.link(name, MARKER, src_dir_fd=root, dst_dir_fd=root)
            finally:
                os.unlink(name, dir_fd=root)
            os.fsync(root)

    def identity(self) -> UUID | None:
        """What the marker says; None when there is none."""
        try:
            with self._folder() as root:
                fd = os.open(MARKER, os.O_RDONLY | OLD, dir_fd=root)
        except FileNotFoundError:
            return None
        try:
            return UUID(os.read(fd, 64).decode("ascii").strip())
        except ValueError:
            raise StorageFailed(f"The marker {MARKER} in the data folder is not readable.") from None
        finally:
            os.close(fd)

    def one_filesystem(self) -> bool:
        """Whether a finished file can be linked from `tmp` into `objects`: not between two mounts, even of one disk.

        A link to a folder is refused in any case, but for this reason first (link(2): EXDEV, EPERM).
        """
        with self._folder("tmp") as tmp, self._folder("objects") as objects:
            try:
                os.link(".", PROBE, src_dir_fd=tmp, dst_dir_fd=objects)
            except OSError as error:
                return error.errno != errno.EXDEV
        return True

    def require(self, identity: UUID | None) -> None:
        """Raise `Unavailable` when this is not the storage with that identity (any more)."""
        if self.identity() != identity:
            raise Unavailable("storage", "The data folder is not the one this service was started on.")

    def free(self, identity: UUID | None) -> int:
        """Bytes that an unprivileged process may still write into the storage with that identity."""
        self.require(identity)
        space = os.statvfs(self.root / "tmp")
        if space.f_flag & os.ST_RDONLY:
            raise Unavailable("storage", "The data folder is on a read-only filesystem.")
        return space.f_bavail * space.f_frsize

    def probe(self) -> None:
        """Write, sync and remove a small file."""
        with self._folder("tmp") as tmp:
            flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
            probe = os.open(PROBE, flags, 0o600, dir_fd=tmp)
            try:
                os.write(probe, b"probe")
                self._sync(probe)
            finally:
                os.close(probe)
                with suppress(FileNotFoundError):
                    os.unlink(PROBE, dir_fd=tmp)

    def create(self, key: UUID) -> BinaryIO:
        """A new, private, unbuffered file for the bytes of `key`."""
        with self._folder("tmp") as tmp:
            return _unbuffered(os.open(key.hex, NEW, 0o600, dir_fd=tmp), "wb")

    def reopen(self, key: UUID) -> BinaryIO:
        """The unpublished file of `key`, to be written further; `NotFound` when there is none."""
        try:
            with self._folder("tmp") as tmp:
                fd = os.open(key.hex, os.O_WRONLY | OLD, dir_fd=tmp)
        except FileNotFoundError:
            self._present()
            raise NotFound("No such upload.") from None
        _regular(fd, key)
        return _unbuffered(fd, "wb")

    def publish(self, key: UUID) -> None:
        """Give the finished bytes their place: link(2) refuses to overwrite, then the folder is synced."""
        with self._folder("tmp") as tmp, self._shard(key, create=True) as shard:
            os.link(key.hex, key.hex, src_dir_fd=tmp, dst_dir_fd=shard, follow_symlinks=False)
            os.unlink(key.hex, dir_fd=tmp)
            self._sync(shard)

    def open(self, key: UUID, start: int, count: int) -> tuple[BinaryIO, int, bytes]:
        """A published file, its size and up to `count` bytes from `start`: one trip to a thread serves a small file."""
        try:
            with self._shard(key) as shard:
                fd = os.open(key.hex, os.O_RDONLY | OLD, dir_fd=shard)
        except FileNotFoundError:
            self._present()
            raise Damaged(key) from None
        found = _regular(fd, key)
        stream = _unbuffered(fd, "rb")
        try:
            return stream, found.st_size, os.pread(fd, count, start)
        except OSError:
            stream.close()
            raise

    def delete(self, key: UUID) -> None:
        """Unlink whatever `key` has; the folders are synced, so that a power cut does not bring it back."""
        self._present()
        for staged in (True, False):
            with suppress(FileNotFoundError), self._home(key, staged) as home:
                os.unlink(key.hex, dir_fd=home)
                self._sync(home)

    def names(self, *folders: str) -> list[tuple[str, int]]:
        """The keys and sizes in a folder; other names and what is no regular file are nobody's."""
        found: list[tuple[str, int]] = []
        with suppress(FileNotFoundError), self._folder(*folders) as folder, os.scandir(folder) as entries:
            for entry in entries:
                with suppress(FileNotFoundError):
                    if KEY.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                        found.append((entry.name, entry.stat(follow_symlinks=False).st_size))
        return found

    def shards(self, first: str) -> list[tuple[str, int]]:
        """The keys and sizes of the published files whose keys begin with these two digits."""
        self._present()
        with suppress(FileNotFoundError), self._folder("objects", first) as folder, os.scandir(folder) as seconds:
            return [pair for second in seconds for pair in self.names("objects", first, second.name)]
        return []

    def find(self, key: UUID) -> list[tuple[int, bool]]:
        """The sizes of the temporary (True) and of the published file (False), if they are there."""
        self._present()
        found = []
        for staged in (True, False):
            with suppress(FileNotFoundError), self._home(key, staged) as home:
                found.append((os.stat(key.hex, dir_fd=home, follow_symlinks=False).st_size, staged))
        return found

    def quarantine(self, key: UUID, staged: bool) -> None:
        """Move the temporary or the published file of `key` into the folder `quarantine`."""
        (self.root / "quarantine").mkdir(mode=0o700, exist_ok=True)
        name = f"{key.hex}.staged" if staged else key.hex
        with suppress(FileNotFoundError), self._folder("quarantine") as target, self._home(key, staged) as home:
            os.rename(key.hex, name, src_dir_fd=home, dst_dir_fd=target)
            self._sync(home)
            self._sync(target)

    def _present(self) -> None:
        # A missing file on a missing disk says nothing about the file.
        if self.identity() is None:
            raise Unavailable("storage", "The data folder has lost its marker: is its disk mounted?")

    def _sync(self, fd: int) -> None:
        if self.durable:
            os.fsync(fd)

    @contextmanager
    def _folder(self, *names: str) -> Iterator[int]:
        # The root itself is the operator's word, and may be a link.
        fd = os.open(self.root.joinpath(*names), FOLDER if names else FOLDER & ~os.O_NOFOLLOW)
        try:
            yield fd
        finally:
            os.close(fd)

    def _home(self, key: UUID, staged: bool) -> AbstractContextManager[int]:
        return self._folder("tmp") if staged else self._shard(key)

    @contextmanager
    def _shard(self, key: UUID, create: bool = False) -> Iterator[int]:
        with (
            self._folder("objects") as objects,
            self._sub(objects, key.hex[:2], create) as first,
            self._sub(first, key.hex[2:4], create) as second,
        ):
            yield second

    @contextmanager
    def _sub(self, parent: int, name: str, create: bool) -> Iterator[int]:
        try:
            fd = os.open(name, FOLDER, dir_fd=parent)
        except FileNotFoundError:
            if not create:
                raise
            with suppress(FileExistsError):
                os.mkdir(name, 0o700, dir_fd=parent)
            self._sync(parent)
            fd = os.open(name, FOLDER, dir_fd=parent)
        try:
            yield fd
        finally:
            os.close(fd)


def _regular(fd: int, key: UUID) -> os.stat_result:
    """What is open there; anything but a regular file is damage, and closed again."""
    found = os.fstat(fd)
    if not stat.S_ISREG(found.st_mode):
        os.close(fd)
        raise Damaged(key)
    return found


def _unbuffered(fd: int, mode: str) -> BinaryIO:
    return cast(BinaryIO, open(fd, mode, buffering=0))
