"""Imports on several replicas, over restarts and kills: each is fetched until it is a file, and becomes only one."""

import asyncio
import os
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

import aiohttp
import psutil
import pytest

from file_service.db.imports import Imports
from file_service.errors import Unavailable
from file_service.model import Import
from file_service.server import listening
from file_service.service import imports as service_module
from tests.imports.conftest import Importer, eventually, kept
from tests.imports.upstream import Upstream, Visit
from tests.support.postgres import Postgres
from tests.support.process import Service, free_port

QUICK = {"import_allow": "127.0.0.1", "lease_time": 0.3, "sweep_interval": 0.1}
HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n"
MIB = 1 << 20


class Patchy:
    """A file whose bytes stop half-way until `mended` is set."""

    def __init__(self) -> None:
        self.mended = asyncio.Event()
        self.visits = 0

    def visited(self, times: int) -> bool:
        """Whether so many have come."""
        return self.visits >= times

    async def __call__(self, visit: Visit) -> None:
        self.visits += 1
        await visit.say(HEAD, b"x" * 50_000)
        leaving = asyncio.ensure_future(visit.until_left())
        mended = asyncio.ensure_future(self.mended.wait())
        await asyncio.wait({leaving, mended}, return_when=asyncio.FIRST_COMPLETED)
        leaving.cancel()
        mended.cancel()
        if self.mended.is_set():
            await visit.say(b"x" * 50_000)


def is_half(record: dict[str, Any]) -> bool:
    return bool(record["bytes"] == 50_000)


@pytest.fixture
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as client:
        yield client


# Several at once


async def test_replicas_share_the_queue(importing: Callable[..., Any], upstream: Upstream, database_url: str) -> None:
    """Every file is asked for once, whoever was told to import it."""
    replicas: list[Importer] = [await importing(database_url=database_url) for _ in range(3)]
    paths = [await replicas[n % 3].post(f"{upstream.url}/{n}") for n in range(30)]
    records = [await replicas[n % 2].ended(path) for n, path in enumerate(paths)]
    assert {record["state"] for record in records} == {"done"}
    assert Counter(head.split()[1].decode() for head in upstream.heads) == {f"/{n}": 1 for n in range(30)}
    assert len({record["file_id"] for record in records}) == 30
    assert {file["id"] for file in await replicas[2].files()} == {record["file_id"] for record in records}


async def test_no_more_than_so_many_run_at_once(importer: Importer, upstream: Upstream) -> None:
    patchy = Patchy()
    paths = [await importer.post(upstream.says(patchy)) for _ in range(service_module.AT_ONCE + 2)]
    for path in paths[:-2]:
        await importer.until(path, is_half)
    await asyncio.sleep(0.05)
    assert patchy.visits == service_module.AT_ONCE
    assert [(await importer.get(path))["state"] for path in paths[-2:]] == ["pending", "pending"]
    patchy.mended.set()
    assert {(await importer.ended(path))["state"] for path in paths} == {"done"}


# Killed and restarted


async def test_a_killed_replicas_import_is_begun_again(
    spawn: Callable[..., Service], client: aiohttp.ClientSession, upstream: Upstream
) -> None:
    patchy = Patchy()
    service = spawn(**QUICK)
    importer = Importer(service.url, client)
    path = await importer.post(upstream.says(patchy))
    await importer.until(path, is_half)
    service.kill()
    assert kept(service.data_dir)
    patchy.mended.set()
    service.start()
    assert await importer.files() == []
    assert (await importer.get(path))["state"] in ("running", "pending")
    record = await importer.ended(path)
    assert (record["state"], record["bytes"], patchy.visits) == ("done", 100_000, 2)
    assert await importer.content(record) == b"x" * 100_000
    assert [file["id"] for file in await importer.files()] == [record["file_id"]]
    await eventually(lambda: len(kept(service.data_dir)) == 2)  # the file and its row


def ports(service: Service) -> set[str]:
    """Those that the service has connected to."""
    connections = psutil.Process(service.pid).net_connections("tcp")
    return {str(each.raddr[1]) for each in connections if each.status == psutil.CONN_ESTABLISHED}


async def test_another_replica_goes_on_with_a_killed_ones_import(
    spawn: Callable[..., Service], client: aiohttp.ClientSession, upstream: Upstream, postgres: Postgres
) -> None:
    url = postgres.create_database("imports_killed", template="template")
    patchy = Patchy()
    both = [spawn(**QUICK, database_url=url, port=free_port()) for _ in range(2)]
    importers = [Importer(service.url, client) for service in both]
    path = await importers[0].post(upstream.says(patchy))
    await importers[0].until(path, is_half)
    for service in both:
        if upstream.url.rpartition(":")[2] in ports(service):
            service.kill()
    patchy.mended.set()
    survivor = importers[both[0].returncode() is not None]
    record = await survivor.ended(path)
    assert (record["state"], patchy.visits) == ("done", 2)
    assert await survivor.content(record) == b"x" * 100_000
    for service in both:
        service.kill()
    postgres.drop_database("imports_killed")


async def test_what_kills_the_service_three_times_is_left_alone(
    spawn: Callable[..., Service], client: aiohttp.ClientSession, upstream: Upstream
) -> None:
    patchy = Patchy()
    service = spawn(**QUICK)
    importer = Importer(service.url, client)
    path = await importer.post(upstream.says(patchy))
    for visit in range(1, 4):
        await eventually(partial(patchy.visited, visit))
        service.kill()
        service.start()
    record = await importer.ended(path)
    assert (record["state"], record["error"]) == ("failed", "The service broke off in the middle of it, 3 times.")
    assert (await importer.files(), patchy.visits) == ([], 3)
    assert (await importer.run(upstream.url))["state"] == "done"


async def test_a_stopped_service_hands_its_imports_back(
    spawn: Callable[..., Service], client: aiohttp.ClientSession, upstream: Upstream
) -> None:
    """At once, however long the lease, and as often as it is stopped."""
    patchy = Patchy()
    service = spawn(import_allow="127.0.0.1", lease_time=1000, sweep_interval=1000)
    importer = Importer(service.url, client)
    path = await importer.post(upstream.says(patchy))
    for _ in range(4):
        await importer.until(path, is_half)
        assert service.terminate() == 0
        assert kept(service.data_dir) == []
        service.start()
    patchy.mended.set()
    record = await importer.ended(path)
    assert (record["state"], patchy.visits) == ("done", 5)
    assert "WARNING" not in service.output()
    assert "ERROR" not in service.output()


# The moment between the file and the note that it is there


class Unnoted:
    """While it is `away`, the database does not take the note that an import is done."""

    def __init__(self) -> None:
        self.away, self.tried, self._done = True, 0, Imports.done

    def patched(self) -> Callable[..., Awaitable[bool]]:
        """What takes the place of the method."""

        async def done(imports: Imports, job: Import, file_id: UUID, size: int) -> bool:
            self.tried += 1
            if self.away:
                raise Unavailable("database")
            return await self._done(imports, job, file_id, size)

        return done


@pytest.fixture
def unnoted(monkeypatch: pytest.MonkeyPatch) -> Unnoted:
    """The database goes away in the very moment between the file and the note."""
    unnoted = Unnoted()
    monkeypatch.setattr(service_module, "POLL", 0.05)
    monkeypatch.setattr(Imports, "done", unnoted.patched())
    return unnoted


async def test_a_success_is_recorded_however_late(importer: Importer, upstream: Upstream, unnoted: Unnoted) -> None:
    path = await importer.post(upstream.url)
    await eventually(lambda: unnoted.tried >= 3)
    assert (await importer.get(path))["state"] == "running"
    unnoted.away = False
    record = await importer.ended(path)
    assert (record["state"], record["error"]) == ("done", None)
    assert [file["id"] for file in await importer.files()] == [record["file_id"]]


async def test_a_success_that_is_not_recorded_is_found_by_who_cancels(
    importer: Importer, upstream: Upstream, unnoted: Unnoted
) -> None:
    path = await importer.post(upstream.url)
    await eventually(lambda: unnoted.tried)
    status, problem = await importer.ask("DELETE", path)
    assert (status, problem["detail"]) == (409, "This import is done already.")
    assert await importer.content(await importer.get(path)) == b"hello"


async def test_a_success_that_is_not_recorded_is_found_after_a_restart(
    settings: Callable[..., Any], client: aiohttp.ClientSession, upstream: Upstream, unnoted: Unnoted
) -> None:
    """It is not fetched once more, nor is there a second file."""
    same = settings(**QUICK)
    async with listening(same) as url:
        path = await Importer(url, client).post(upstream.url)
        await eventually(lambda: unnoted.tried)
    async with listening(same) as url:
        importer = Importer(url, client)
        record = await importer.ended(path)
        assert record["state"] == "done"
        assert [file["id"] for file in await importer.files()] == [record["file_id"]]
    assert len(upstream.heads) == 1


# The database goes away


async def test_an_import_outlives_a_restart_of_the_database(importing: Callable[..., Any], upstream: Upstream) -> None:
    patchy = Patchy()
    with Postgres() as server:
        url = server.create_database("imports")
        importer: Importer = await importing(database_url=url, database_timeout=1.0, lease_time=1000.0)
        path = await importer.post(upstream.says(patchy))
        await importer.until(path, is_half)
        await asyncio.to_thread(server.kill)
        assert (await importer.ask("GET", path))[0] == 503
        patchy.mended.set()
        await asyncio.sleep(0.5)
        await asyncio.to_thread(server.start)

        async def back() -> bool:
            return bool((await importer.ask("GET", path))[0] == 200)

        await eventually(back, 40)
        record = await importer.ended(path)
        assert (record["state"], record["error"]) == ("done", None)
        assert await importer.content(record) == b"x" * 100_000
        assert [file["id"] for file in await importer.files()] == [record["file_id"]]


# Memory


async def test_memory_stays_flat(
    spawn: Callable[..., Service], client: aiohttp.ClientSession, upstream: Upstream, tmp_path: Path
) -> None:
    block, blocks = os.urandom(MIB), 300

    async def conversation(visit: Visit) -> None:
        await visit.say(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (blocks * MIB), *[block] * blocks, pause=0)

    service = spawn(import_allow="127.0.0.1")
    importer = Importer(service.url, client)
    await importer.run(upstream.url)
    before = service.rss("VmHWM")
    record = await importer.run(upstream.says(conversation))
    assert (record["state"], record["bytes"]) == ("done", blocks * MIB)
    assert service.rss("VmHWM") - before < 32 * MIB
