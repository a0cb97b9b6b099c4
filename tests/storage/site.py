"""A running service over a local folder, as its clients and its operator see it."""

import asyncio
import json
import sqlite3
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

BLOCK = 64 << 10  # bytes; what the service writes at once, where a test says so
PATIENCE = 10.0  # seconds within which what must come has come


@dataclass
class Site:
    """A service at `url` with its data folder and its SQLite database."""

    url: str
    folder: Path
    database: Path

    async def send(self, data: Any, headers: dict[str, str] | None = None) -> tuple[int, str]:
        """POST; the status and the body. Whatever is no success must be a problem to RFC 9457, with its headers."""
        async with (
            aiohttp.ClientSession() as client,
            client.post(f"{self.url}/files", data=data, headers=headers) as answer,
        ):
            text = await answer.text()
            if answer.status != 201:
                problem = json.loads(text)
                assert answer.content_type == "application/problem+json"
                assert problem["status"] == answer.status
                assert problem["detail"]
                assert ("Retry-After" in answer.headers) == (answer.status in (503, 507))
            return answer.status, text

    async def fetch(self, id_: str) -> tuple[int, bytes]:
        """GET."""
        async with aiohttp.ClientSession() as client, client.get(f"{self.url}/files/{id_}/") as answer:
            return answer.status, await answer.read()

    async def delete(self, id_: str) -> int:
        """DELETE."""
        async with aiohttp.ClientSession() as client, client.delete(f"{self.url}/files/{id_}/") as answer:
            return answer.status

    async def failing(self) -> set[str]:
        """The parts that readiness names."""
        async with aiohttp.ClientSession() as client, client.get(f"{self.url}/health/ready") as answer:
            failing = set((await answer.json())["failing"])
            assert answer.status == (503 if failing else 200)
            return failing

    async def stored(self, data: bytes) -> str:
        """Store `data`, which must work, and read it back; the id."""
        status, id_ = await self.send(pieces(data))
        assert status == 201
        assert await self.fetch(id_) == (200, data)
        return id_

    def temporary(self) -> list[Path]:
        """What lies in tmp."""
        return list((self.folder / "tmp").iterdir())

    def rows(self) -> list[str]:
        """The states of all rows."""
        with closing(sqlite3.connect(f"file:{self.database}?mode=ro", uri=True)) as connection:
            return [state for (state,) in connection.execute("SELECT state FROM file")]

    def published(self) -> int:
        """How many files lie in objects."""
        return sum(path.is_file() for path in (self.folder / "objects").rglob("*"))

    def assert_clean(self, stored: int = 0) -> None:
        """Nothing is there but so many stored files and their rows."""
        assert self.temporary() == []
        assert self.rows() == ["stored"] * stored
        assert self.published() == stored


async def pieces(data: bytes) -> AsyncIterator[bytes]:
    """A body whose length is not known beforehand."""
    for start in range(0, len(data), BLOCK):
        yield data[start : start + BLOCK]


async def eventually(holds: Callable[[], object]) -> None:
    """Return when `holds`; AssertionError when it does not in time."""
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline, "it did not come about"
        await asyncio.sleep(0.005)


@dataclass
class Upload:
    """A running upload, whose first block lies on the disk. `key` is the name of its temporary file."""

    key: str
    go: asyncio.Event = field(default_factory=asyncio.Event)
    sending: asyncio.Task[tuple[int, str]] | None = None

    async def finish(self) -> tuple[int, str]:
        """Send the rest; the answer."""
        assert self.sending is not None
        self.go.set()
        return await self.sending


@asynccontextmanager
async def uploading(site: Site, block: int = BLOCK) -> AsyncIterator[Upload]:
    """Begin an upload of two blocks."""
    upload = Upload("")

    async def body() -> AsyncIterator[bytes]:
        yield b"x" * block
        await upload.go.wait()
        yield b"x" * block

    upload.sending = asyncio.create_task(site.send(body()))
    try:
        await eventually(lambda: any(path.stat().st_size >= block for path in site.temporary()))
        (temporary,) = site.temporary()
        upload.key = temporary.name
        yield upload
    finally:
        upload.sending.cancel()
        await asyncio.wait({upload.sending})
