"""Places that an operator has meddled with: things that belong to nobody, other markers, what the check put away."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol
from uuid import UUID

from tests.support.places import MARKER, PREFIX, BucketPlace, LocalPlace, Place


class Tampered(Place, Protocol):
    """A place that can be meddled with. Names are those of the files there: 32 hexadecimal digits."""

    def stage(self, name: str, data: bytes) -> None:
        """Begin a write as a process does that dies in it."""

    def staged(self) -> set[str]:
        """The writes that are not finished."""

    def quarantined(self) -> set[str]:
        """What the check has put away; `.staged` marks what was not published."""

    def litter(self) -> set[str]:
        """Put things there that are not the service's; their names."""

    def everything(self) -> set[str]:
        """The names of all files and unfinished writes, whoever's they are."""

    def mark(self, identity: UUID) -> None:
        """Put another marker in place of the one that is there."""


class Folder(LocalPlace):
    """A data folder."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.root = folder

    def put(self, key: str, content: bytes) -> None:
        """Also where nothing was."""
        self.path(key).parent.mkdir(parents=True, exist_ok=True)
        super().put(key, content)

    def stage(self, name: str, data: bytes) -> None:
        """See `Tampered`."""
        (self.root / "tmp" / name).write_bytes(data)

    def staged(self) -> set[str]:
        """See `Tampered`."""
        return {path.name for path in self.root.glob("tmp/*") if not path.name.startswith(".")}

    def quarantined(self) -> set[str]:
        """See `Tampered`."""
        return {path.name for path in self.root.glob("quarantine/*")}

    def litter(self) -> set[str]:
        """See `Tampered`."""
        paths = [self.root / "notes.txt", self.root / "tmp" / "core", self.path("ab" * 16).with_suffix(".bak")]
        for path in paths:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"not ours")
        return {str(path.relative_to(self.root)) for path in paths}

    def everything(self) -> set[str]:
        """See `Tampered`."""
        paths = (path for path in self.root.rglob("*") if path.is_file() and "file_service.db" not in path.name)
        return {str(path.relative_to(self.root)) for path in paths}

    def mark(self, identity: UUID) -> None:
        """See `Tampered`."""
        (self.root / MARKER).write_text(f"{identity}\n")


class InBucket(BucketPlace):
    """A bucket."""

    def stage(self, name: str, data: bytes) -> None:
        """A multipart upload with a part, and a tail."""
        upload = self.bucket.begin(PREFIX + name)
        self.bucket.put_part(PREFIX + name, upload, 1, data[:-1])
        self.put(f"{name}.tail", data[-1:])

    def published(self) -> set[str]:
        """Only what has the name of a file."""
        return {name for name in super().published() if len(name) == 32 and "/" not in name}

    def staged(self) -> set[str]:
        """See `Tampered`."""
        tails = (name for name in super().published() if name.endswith(".tail") and "/" not in name)
        return self.unfinished() | {name.removesuffix(".tail") for name in tails}

    def quarantined(self) -> set[str]:
        """See `Tampered`; of what was staged there is the tail."""
        put_away = (name for name in super().published() if name.startswith("quarantine/"))
        names = (name.removeprefix("quarantine/") for name in put_away)
        return {f"{name.removesuffix('.tail')}.staged" if name.endswith(".tail") else name for name in names}

    def litter(self) -> set[str]:
        """See `Tampered`."""
        names = ["notes.txt", "ab" * 16 + ".bak", f"a/{'ab' * 16}", f"ab{'cd' * 16}"]
        keys = {*(PREFIX + name for name in names), "ab" * 16}
        for key in keys:
            self.bucket.put(key, b"not ours")
        self.bucket.begin(f"{PREFIX}a-film")
        return {*keys, f"{PREFIX}a-film"}

    def everything(self) -> set[str]:
        """See `Tampered`."""
        return {*self.bucket.sizes(), *(key for key, _ in self.bucket.uploads())}

    def mark(self, identity: UUID) -> None:
        """See `Tampered`."""
        self.bucket.put(PREFIX + MARKER, str(identity).encode())


_: type[Tampered] = Folder
__: type[Tampered] = InBucket
