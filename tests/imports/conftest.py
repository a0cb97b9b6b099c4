"""A service that may reach loopback addresses of our choice, another server there, and a watch on all connections."""

import asyncio
import socket
import sqlite3
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, closing
from inspect import isawaitable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.imports.upstream import Upstream, upstream_server

ENDED = ("done", "failed", "cancelled")
_connected: list[str] = []


def _listen(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "socket.connect" and arguments[0].type == socket.SOCK_STREAM and isinstance(arguments[1], tuple):
        _connected.append(str(arguments[1][0]))


sys.addaudithook(_listen)  # the interpreter's own report of every connect(2); a hook stays for good


@pytest.fixture(autouse=True)
def _no_name_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names that are not this machine's do not exist, and no packet goes out to ask for them."""
    look = socket.getaddrinfo

    def getaddrinfo(host: Any, *arguments: Any, **named: Any) -> Any:
        name = host.decode() if isinstance(host, bytes) else str(host)
        known = name.rstrip(".").lower() in ("localhost", socket.gethostname().lower())
        return look(host if known else address(name), *arguments, **named)

    def address(name: str) -> str:
        return str(look(name.encode(), None, flags=socket.AI_NUMERICHOST)[0][4][0])

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


@pytest.fixture(autouse=True)
def _nothing_unexpected(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Whatever is done to the service, it has foreseen it."""
    yield
    assert [record.getMessage() for record in caplog.get_records("call") if record.levelname == "ERROR"] == []


@pytest.fixture
def connected() -> Iterator[list[str]]:
    """The addresses that this process began to connect to, by TCP, since the test began."""
    _connected.clear()
    yield _connected
    _connected.clear()


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    async with upstream_server() as server:
        yield server


async def eventually(holds: Callable[[], Any], within: float = 10) -> None:
    """Return as soon as `holds()` is true, or what it gives to await."""
    async with asyncio.timeout(within):
        while not (await found if isawaitable(found := holds()) else found):  # noqa: ASYNC110 - others make it true
            await asyncio.sleep(0.02)


def kept(folder: Path) -> list[str]:
    """Whatever a service on SQLite has in the storage at `folder` or in its table of files, finished or not."""
    on_disk = [path.name for path in (folder / "tmp").iterdir() if path.name != ".probe"]
    on_disk += [path.name for path in (folder / "objects").glob("*/*/*")]
    with closing(sqlite3.connect(f"file:{folder}/file_service.db?mode=ro", uri=True, timeout=10)) as database:
        return on_disk + [f"row {state}" for (state,) in database.execute("SELECT state FROM file")]


class Importer:
    """A client of `POST /imports` at the service `url`."""

    def __init__(self, url: str, client: aiohttp.ClientSession) -> None:
        self.url, self._client = url, client

    async def ask(self, method: str, path: str, **arguments: Any) -> tuple[int, Any]:
        """Status and body, parsed when it is JSON."""
        async with self._client.request(method, self.url + path, **arguments) as answer:
            parsed = await answer.json() if "json" in answer.content_type else await answer.read()
            return answer.status, parsed

    async def post(self, url: str, name: str | None = None) -> str:
        """Queue an import; its path."""
        async with self._client.post(f"{self.url}/imports", json={"url": url, "name": name}) as answer:
            assert answer.status == 202, await answer.text()
            return answer.headers["Location"]

    async def get(self, path: str) -> dict[str, Any]:
        """The record."""
        status, record = await self.ask("GET", path)
        assert status == 200
        return dict(record)

    async def until(self, path: str, right: Callable[[dict[str, Any]], Any], within: float = 20) -> dict[str, Any]:
        """The record, as soon as it is `right`."""
        record: dict[str, Any] = {}

        async def holds() -> Any:
            record.update(await self.get(path))
            return right(record)

        await eventually(holds, within)
        return record

    async def ended(self, path: str) -> dict[str, Any]:
        """The record, as soon as the import has ended."""
        return await self.until(path, lambda record: record["state"] in ENDED)

    async def run(self, url: str, name: str | None = None) -> dict[str, Any]:
        """Import and wait for the end."""
        return await self.ended(await self.post(url, name))

    async def files(self) -> list[dict[str, Any]]:
        """The records of all files."""
        return list((await self.ask("GET", "/files"))[1]["files"])

    async def content(self, record: dict[str, Any]) -> bytes:
        """The bytes that an import brought."""
        status, content = await self.ask("GET", f"/files/{record['file_id']}/")
        assert status == 200
        return bytes(content)


@pytest.fixture
async def importing(serve: Callable[..., Any]) -> AsyncIterator[Callable[..., Any]]:
    """`importer = await importing(import_allow="127.0.0.1")` runs a service in this process."""
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(aiohttp.ClientSession())

        async def start(**settings: Any) -> Importer:
            return Importer(await serve(**{"import_allow": "127.0.0.1", **settings}), client)

        yield start


@pytest.fixture
async def importer(importing: Callable[..., Any]) -> Importer:
    """A service that may reach 127.0.0.1 besides public addresses."""
    return await importing()  # type: ignore[no-any-return]
