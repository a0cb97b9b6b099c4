"""A folder and a bucket as an operator sees them who looks past the service, in the same words.

Names are those of the files there: 32 hexadecimal digits.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol
from uuid import UUID

from tests.support.s3_server import Bucket

PREFIX = "some/place/"


class Place(Protocol):
    """Where a service keeps its files; `settings` and `variables` are what it is told."""

    settings: dict[str, Any]
    variables: dict[str, str]

    def put(self, name: str, data: bytes) -> None:
        """Publish a file, or put another in its place."""

    def read(self, name: str) -> bytes:
        """The bytes of a published file."""

    def remove(self, name: str) -> None:
        """Lose a published file."""

    def stage(self, name: str, data: bytes) -> None:
        """Begin a write as a process does that dies in it."""

    def published(self) -> set[str]:
        """The published files."""

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


@dataclass
class Folder:
    """A data folder."""

    root: Path
    settings: dict[str, Any] = field(default_factory=dict)
    variables: dict[str, str] = field(default_factory=dict)

    def path(self, name: str) -> Path:
        """Where a published file lies."""
        return self.root / "objects" / name[:2] / name[2:4] / name

    def put(self, name: str, data: bytes) -> None:
        """See `Place`."""
        self.path(name).parent.mkdir(parents=True, exist_ok=True)
        self.path(name).write_bytes(data)

    def read(self, name: str) -> bytes:
        """See `Place`."""
        return self.path(name).read_bytes()

    def remove(self, name: str) -> None:
        """See `Place`."""
        self.path(name).unlink()

    def stage(self, name: str, data: bytes) -> None:
        """See `Place`."""
        (self.root / "tmp" / name).write_bytes(data)

    def published(self) -> set[str]:
        """See `Place`."""
        return {path.name for path in self.root.glob("objects/*/*/*")}

    def staged(self) -> set[str]:
        """See `Place`."""
        return {path.name for path in self.root.glob("tmp/*") if not path.name.startswith(".")}

    def quarantined(self) -> set[str]:
        """See `Place`."""
        return {path.name for path in self.root.glob("quarantine/*")}

    def litter(self) -> set[str]:
        """See `Place`."""
        paths = [self.root / "notes.txt", self.root / "tmp" / "core", self.path("ab" * 16).with_suffix(".bak")]
        for path in paths:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"not ours")
        return {str(path.relative_to(self.root)) for path in paths}

    def everything(self) -> set[str]:
        """See `Place`."""
        paths = (path for path in self.root.rglob("*") if path.is_file() and "file_service.db" not in path.name)
        return {str(path.relative_to(self.root)) for path in paths}

    def mark(self, identity: UUID) -> None:
        """See `Place`."""
        (self.root / ".file-service").write_text(f"{identity}\n")


class InBucket:
    """A bucket, whose files have the prefix `PREFIX`."""

    def __init__(self, bucket: Bucket) -> None:
        self.bucket = bucket
        self.variables = bucket.server.keys
        self.settings: dict[str, Any] = {
            "storage": "s3",
            "s3_bucket": bucket.name,
            "s3_endpoint_url": bucket.server.url,
            "s3_prefix": PREFIX,
            "s3_part_size": 5 << 20,
        }

    def put(self, name: str, data: bytes) -> None:
        """See `Place`."""
        self.bucket.put(PREFIX + name, data)

    def read(self, name: str) -> bytes:
        """See `Place`."""
        return self.bucket.read(PREFIX + name)

    def remove(self, name: str) -> None:
        """See `Place`."""
        self.bucket.delete(PREFIX + name)

    def stage(self, name: str, data: bytes) -> None:
        """A multipart upload with a part, and a tail."""
        upload = self.bucket.begin(PREFIX + name)
        self.bucket.put_part(PREFIX + name, upload, 1, data[:-1])
        self.put(f"{name}.tail", data[-1:])

    def published(self) -> set[str]:
        """See `Place`."""
        names = (key.removeprefix(PREFIX) for key in self.bucket.sizes())
        return {name for name in names if len(name) == 32 and "/" not in name}

    def staged(self) -> set[str]:
        """See `Place`."""
        uploads = {key.removeprefix(PREFIX) for key, _ in self.bucket.uploads()}
        return uploads | {key.removeprefix(PREFIX)[:-5] for key in self._below("") if key.endswith(".tail")}

    def quarantined(self) -> set[str]:
        """See `Place`; of what was staged there is the tail."""
        names = (key.removeprefix(f"{PREFIX}quarantine/") for key in self._below("quarantine/"))
        return {f"{name[:-5]}.staged" if name.endswith(".tail") else name for name in names}

    def litter(self) -> set[str]:
        """See `Place`."""
        names = ["notes.txt", "ab" * 16 + ".bak", f"a/{'ab' * 16}", f"ab{'cd' * 16}"]
        keys = {*(PREFIX + name for name in names), "ab" * 16}
        for key in keys:
            self.bucket.put(key, b"not ours")
        self.bucket.begin(f"{PREFIX}a-film")
        return {*keys, f"{PREFIX}a-film"}

    def everything(self) -> set[str]:
        """See `Place`."""
        return {*self.bucket.sizes(), *(key for key, _ in self.bucket.uploads())}

    def mark(self, identity: UUID) -> None:
        """See `Place`."""
        self.bucket.put(f"{PREFIX}.file-service", str(identity).encode())

    def _below(self, folder: str) -> list[str]:
        keys = [key for key in self.bucket.sizes() if key.startswith(PREFIX + folder)]
        return keys if folder else [key for key in keys if "/" not in key.removeprefix(PREFIX)]


_: type[Place] = Folder
__: type[Place] = InBucket
