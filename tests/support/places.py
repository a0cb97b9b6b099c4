"""Where a service under test keeps its bytes, looked at and spoiled behind its back: a folder, its memory, a bucket.

`PLACES` names them all; `PLACES[name](data_dir)` is a fresh one for a service with that folder. A place gives the
settings and the environment with which a service uses it, and the module that `python -m` starts.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Protocol
from unittest import mock

from tests.support import memory_service
from tests.support.s3_server import SERVERS, S3Server

MARKER = ".file-service"
PREFIX = "files/"


class Place(Protocol):
    """Keys are those of the attempts, in hex."""

    settings: Mapping[str, Any]
    environment: Mapping[str, str]
    module: str
    shows_small: bool  # whether an upload is seen in it from its beginning, and not only once it fills a part

    def published(self) -> set[str]:
        """Keys of the whole files, and the name of whatever has no business there."""

    def unfinished(self) -> set[str]:
        """Keys of the files being received."""

    def read(self, key: str) -> bytes:
        """The bytes of a file."""

    def put(self, key: str, content: bytes) -> None:
        """Other bytes in place of a file's."""

    def lose(self, key: str) -> None:
        """The file without a trace."""

    def here(self) -> Any:
        """A context in which a service that is started in this process uses the place."""


class LocalPlace:
    """The folder of the service."""

    environment: Mapping[str, str] = {}
    settings: Mapping[str, Any] = {}
    module = "file_service"
    shows_small = True

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def published(self) -> set[str]:
        """Files and whatever else lies where they do."""
        return {path.name for path in (self._folder / "objects").glob("*/*/*")}

    def unfinished(self) -> set[str]:
        """What lies in tmp/, but for the file by which the disk is tried."""
        return {path.name for path in (self._folder / "tmp").iterdir()} - {".probe"}

    def path(self, key: str) -> Path:
        """Where a file lies."""
        return self._folder / "objects" / key[:2] / key[2:4] / key

    def read(self, key: str) -> bytes:
        """See `Place`."""
        return self.path(key).read_bytes()

    def put(self, key: str, content: bytes) -> None:
        """The file itself is written: who has it open sees it."""
        self.path(key).write_bytes(content)

    def lose(self, key: str) -> None:
        """See `Place`."""
        self.path(key).unlink()

    @contextmanager
    def here(self) -> Iterator[None]:
        """Nothing to do."""
        yield


class MemoryPlace:
    """The memory of the service's process, asked over its socket; gone with the process."""

    environment: Mapping[str, str] = {}
    settings: Mapping[str, Any] = {}
    module = memory_service.__name__
    shows_small = True

    def __init__(self, folder: Path) -> None:
        self._socket = folder / memory_service.SOCKET

    def published(self) -> set[str]:
        """See `Place`."""
        return {*self._ask("published")}

    def unfinished(self) -> set[str]:
        """See `Place`."""
        return {*self._ask("staged")}

    def read(self, key: str) -> bytes:
        """See `Place`."""
        return bytes.fromhex(self._ask("read", key))

    def put(self, key: str, content: bytes) -> None:
        """Who reads the file goes on with what it was."""
        self._ask("put", key, content.hex())

    def lose(self, key: str) -> None:
        """See `Place`."""
        self._ask("lose", key)

    def _ask(self, *question: str) -> Any:
        with closing(socket.socket(socket.AF_UNIX)) as sock:
            sock.settimeout(20)
            sock.connect(str(self._socket))
            sock.sendall(json.dumps(question).encode() + b"\n")
            with sock.makefile() as answer:
                return json.loads(answer.readline())

    @contextmanager
    def here(self) -> Iterator[None]:
        """The service that is started in this process looks for its storage in app.py, as any does."""
        with memory_service.in_place():
            yield


class BucketPlace:
    """A bucket of its own on one of the servers; parts are as small as the settings let them be."""

    module = "file_service"
    shows_small = False

    def __init__(self, server: S3Server) -> None:
        self.bucket = server.bucket()
        self.environment: Mapping[str, str] = server.keys
        self.settings: Mapping[str, Any] = {
            "storage": "s3",
            "s3_bucket": self.bucket.name,
            "s3_endpoint_url": server.url,
            "s3_prefix": PREFIX,
            "s3_part_size": 5 << 20,
        }

    def published(self) -> set[str]:
        """All objects but the marker."""
        return {key.removeprefix(PREFIX) for key in self.bucket.sizes()} - {MARKER}

    def unfinished(self) -> set[str]:
        """The keys of the multipart uploads, which begin when a first part is full."""
        return {key.removeprefix(PREFIX) for key, _ in self.bucket.uploads()}

    def read(self, key: str) -> bytes:
        """See `Place`."""
        return self.bucket.read(PREFIX + key)

    def put(self, key: str, content: bytes) -> None:
        """Another object of that name: who reads the old one goes on with it, or notices."""
        self.bucket.put(PREFIX + key, content)

    def lose(self, key: str) -> None:
        """See `Place`."""
        self.bucket.delete(PREFIX + key)

    @contextmanager
    def here(self) -> Iterator[None]:
        """The keys are looked for in the environment."""
        with mock.patch.dict(os.environ, self.environment):
            yield


def _bucket(server: str, _: Path) -> BucketPlace:
    return BucketPlace(SERVERS[server]())


PLACES: dict[str, Callable[[Path], Place]] = {
    "local": LocalPlace,
    "memory": MemoryPlace,
    "s3-moto": partial(_bucket, "moto"),
    "s3-swift": partial(_bucket, "swift"),
}
