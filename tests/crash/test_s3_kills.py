"""kill -9 between every two requests that an upload or a delete makes to the object store.

A proxy before the store counts the requests and kills the service at the n-th: before it is passed on, or when the
store has answered and the service does not know. For every n, until the work needs no more requests.
"""

import asyncio
import base64
import hashlib
import io
import random
import sqlite3
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from file_service.server import listening
from file_service.settings import Settings
from tests.crash.checker import DATABASE, ROWS, Row, fetched, listed
from tests.crash.conftest import GRACE, SWEEP
from tests.support.process import Service
from tests.support.s3_fault_proxy import FaultProxy, fault_proxy, killing
from tests.support.s3_server import SERVERS
from tests.support.tampering import InBucket

SMALL = b"goes by one PutObject"
LARGE = random.Random(5).randbytes(11 << 20)  # three parts
PATIENCE = 20.0  # seconds; lease and sweep take one, a busy machine some more
MULTIPART = {"CreateMultipartUpload", "UploadPart", "CompleteMultipartUpload", "HeadObject"}
CLEANING = {"AbortMultipartUpload", "ListParts", "ListMultipartUploads", "DeleteObject"}


@dataclass
class Bed:
    """A database and a bucket, the way to it through a proxy, and what the service has said is stored, by id."""

    place: InBucket
    proxy: FaultProxy
    data_dir: Path
    acknowledged: dict[str, bytes] = field(default_factory=dict)

    def settings(self, url: str) -> dict[str, Any]:
        """Those of a service that reaches the store at `url`."""
        return {**self.place.settings, "s3_endpoint_url": url, "data_dir": self.data_dir, "lease_time": GRACE}

    def leftovers(self) -> dict[str, Any]:
        """What is in the database or in the bucket and should not be."""
        rows = self.rows()
        found = {
            "rows": [row for row in rows if row.state != "stored"],
            "uploads": self.place.staged(),
            "objects without a row": self.place.published() - {row.attempt for row in rows},
        }
        return {what: which for what, which in found.items() if which}

    def rows(self) -> list[Row]:
        """Through SQLite: to copy the file of a database that two processes have open would take its locks away."""
        with closing(sqlite3.connect(f"file:{self.data_dir}/{DATABASE}?mode=ro", uri=True)) as database:
            return [Row(*row) for row in database.execute(ROWS)]

    async def upload(self, url: str, data: bytes) -> int | None:
        """The answer's status, None when there was none; what is acknowledged is remembered."""
        return await self._send(url, io.BytesIO(data), data)

    async def upload_other(self, url: str, data: bytes) -> int | None:
        """Another last byte than was announced follows when two parts are in the store."""

        async def body() -> AsyncIterator[bytes]:
            yield data[:-1]
            async with asyncio.timeout(PATIENCE):
                while self._parts_stored() < 2:  # noqa: ASYNC110 - the proxy only keeps a list
                    await asyncio.sleep(0.01)
            yield bytes([data[-1] ^ 1])

        return await self._send(url, body(), data)

    def _parts_stored(self) -> int:
        return sum(each.over for each in self.proxy.exchanges if each.operation == "UploadPart")

    async def _send(self, url: str, body: Any, data: bytes) -> int | None:
        value = base64.b64encode(hashlib.sha256(data).digest()).decode()
        try:
            headers = {"Repr-Digest": f"sha-256=:{value}:"}
            async with (
                aiohttp.ClientSession() as client,
                client.post(f"{url}/files", data=body, headers=headers) as answer,
            ):
                if answer.status == 201:
                    self.acknowledged[await answer.text()] = data
                return answer.status
        except aiohttp.ClientError:
            return None

    async def delete(self, url: str) -> int | None:
        """Delete the file that was stored last."""
        id_, _ = self.acknowledged.popitem()
        try:
            async with aiohttp.ClientSession() as client, client.delete(f"{url}/files/{id_}/") as answer:
                return answer.status
        except aiohttp.ClientError:
            return None


Work = Callable[[Bed, str], Awaitable[int | None]]


@dataclass(frozen=True)
class Operation:
    """What the service dies of: the requests it makes, and the status it answers when it lives."""

    work: Work
    requests: set[str]
    status: int
    doomed: bytes | None = None  # stored before
    spared: int = 0  # requests at which it does not die, since it does at the same ones of another operation


OPERATIONS = {
    "one PutObject": Operation(lambda bed, url: bed.upload(url, SMALL), {"PutObject", "HeadObject"}, 201),
    "multipart": Operation(lambda bed, url: bed.upload(url, LARGE), MULTIPART, 201),
    "delete": Operation(lambda bed, url: bed.delete(url), {"ListMultipartUploads", "DeleteObject"}, 204, LARGE),
    "failure": Operation(lambda bed, url: bed.upload_other(url, LARGE), CLEANING, 400, spared=3),
}
MATRIX = [*(f"{name} on moto" for name in OPERATIONS), "multipart on swift"]


@asynccontextmanager
async def made(server: str, data_dir: Path) -> AsyncIterator[Bed]:
    """A bed in a fresh bucket."""
    store = SERVERS[server]()
    async with fault_proxy(store.url) as proxy:
        with store.credentials():
            yield Bed(InBucket(store), proxy, data_dir)


async def die(bed: Bed, victim: Service, operation: Operation, number: int, *, answered: bool) -> str | None:
    """Let the service do the work and die at the request of this number; which it was, or None when it has lived."""
    await asyncio.to_thread(victim.wait_until_listening)
    if operation.doomed is not None:
        assert await bed.upload(victim.url, operation.doomed) == 201
    bed.proxy.exchanges.clear()
    bed.proxy.inject(None, killing(victim.kill, answered=answered), skip=number - 1)
    status = await operation.work(bed, victim.url)
    bed.proxy.heal()
    if victim.returncode() is None:
        assert status == operation.status
        return None
    assert status is None
    return bed.proxy.operations[number - 1]


async def recover(bed: Bed, settings: Settings) -> None:
    """A new service, and nothing done by hand: in a while the books are right, and every acknowledged file is whole."""
    async with listening(settings) as url:
        deadline = time.monotonic() + PATIENCE
        while problems := bed.leftovers():
            assert time.monotonic() < deadline, problems
            await asyncio.sleep(0.05)
        assert (await listed(url)).keys() == bed.acknowledged.keys()
        assert bed.place.published() == {row.attempt for row in bed.rows()}
        for id_, data in bed.acknowledged.items():
            assert await fetched(url, id_) == data


@pytest.mark.parametrize("answered", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("case", MATRIX)
async def test_a_service_killed_at_any_request_leaves_nothing_behind(
    spawn: Callable[..., Service], settings: Callable[..., Settings], tmp_path: Path, case: str, answered: bool
) -> None:
    name, _, server = case.partition(" on ")
    operation, killed_at = OPERATIONS[name], list[str]()
    async with made(server, tmp_path / "data") as bed:
        new = settings(**bed.settings(bed.place.bucket.server.url), sweep_interval=SWEEP)
        start = partial(spawn, place=bed.place, **bed.settings(bed.proxy.url), sweep_interval=3600)
        victim = start(wait=False)
        while request := await die(bed, victim, operation, operation.spared + len(killed_at) + 1, answered=answered):
            killed_at.append(request)
            victim = start(wait=False)  # it is ready when the one before has been mourned
            try:
                await recover(bed, new)
            except AssertionError as error:
                raise AssertionError(f"killed at request {len(killed_at)}, {request}") from error
        await recover(bed, new)
    assert set(killed_at) == operation.requests
