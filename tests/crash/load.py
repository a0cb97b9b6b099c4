"""Clients that store, repeat, read and delete files until the service is gone, and remember what they were told."""

import asyncio
import hashlib
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any, Literal

import aiohttp

from tests.support.process import Service

AT_ONCE = 6
LONGEST = 0.5  # seconds between a start and the next kill
MANY = 200  # files, after which the clients delete
LARGEST = 300_000  # bytes of a file
GONE = (aiohttp.ClientError, ConnectionError)


@dataclass
class Entry:
    """One file as its client knows it; those of one form share a `request`.

    `told` is about the upload; from the moment a delete is tried it is about that.
    """

    name: str
    request: int
    sha256: str = field(repr=False)
    content: bytes = field(repr=False)  # empty once it is stored
    keyed: bool = False
    id: str = ""
    told: Literal["nothing yet", "stored", "no answer", "deleting", "deleted"] = "nothing yet"


class Clients:
    """Every name is used for one file, so that the list tells afterwards which uploads came through.

    The whole course of events but for the timing of the machine comes from `random`.
    """

    def __init__(self, random: Random) -> None:
        self.entries: list[Entry] = []
        self._random = random

    async def kill(self, service: Service, rounds: int) -> None:
        """Work with the service, kill it at some moment and start it again, so many times.

        AssertionError when an answer is wrong.
        """
        for _ in range(rounds):
            async with asyncio.TaskGroup() as clients:
                for _ in range(AT_ONCE):
                    clients.create_task(self._client(service.url))
                await asyncio.sleep(self._random.uniform(0.02, LONGEST))
                service.kill()
            await asyncio.to_thread(service.start)

    async def _client(self, url: str) -> None:
        acts = [self._post, self._form, self._keyed, self._get, self._delete]
        async with aiohttp.ClientSession(url) as session:
            while True:
                full = sum(entry.told == "stored" for entry in self.entries) >= MANY
                try:
                    await (self._delete if full else self._random.choice(acts))(session)
                except GONE:
                    return

    def _new(self, count: int) -> list[Entry]:
        request = len(self.entries)
        sizes = [self._random.choice([0, 1, self._random.randrange(LARGEST)]) for _ in range(count)]
        contents = [self._random.randbytes(size) for size in sizes]
        made = [Entry(f"{request + n}.bin", request, digest(each), each) for n, each in enumerate(contents)]
        self.entries += made
        return made

    def _pick(self, told: str, *, keyed: bool = False) -> Entry | None:
        fit = [entry for entry in self.entries if entry.told == told and (entry.keyed or not keyed)]
        return self._random.choice(fit) if fit else None

    async def _post(self, session: aiohttp.ClientSession) -> None:
        (entry,) = self._new(1)
        await self._upload([entry], session.put(f"/files/{entry.name}", data=entry.content))

    async def _form(self, session: aiohttp.ClientSession) -> None:
        form, entries = aiohttp.FormData(), self._new(2)
        for entry in entries:
            form.add_field("file", entry.content, filename=entry.name)
        await self._upload(entries, session.post("/files", data=form))

    async def _keyed(self, session: aiohttp.ClientSession) -> None:
        """Repeat an upload that got no answer, when there is one."""
        entry = self._pick("no answer", keyed=True) or self._new(1)[0]
        entry.keyed, entry.told = True, "nothing yet"
        headers = {"Idempotency-Key": entry.name}
        await self._upload([entry], session.put(f"/files/{entry.name}", data=entry.content, headers=headers))

    async def _upload(self, entries: list[Entry], request: Any) -> None:
        try:
            async with request as answer:
                text = await answer.text()
        except GONE:
            for entry in entries:
                entry.told = "no answer"
            raise
        assert answer.status == 201, text
        for entry, id_ in zip(entries, text.split(), strict=True):
            entry.id, entry.told, entry.content = id_, "stored", b""

    async def _get(self, session: aiohttp.ClientSession) -> None:
        if entry := self._pick("stored"):
            async with session.get(f"/files/{entry.id}/") as answer:
                found = digest(await answer.read()) if answer.status == 200 else answer.status
            assert found in ([entry.sha256] if entry.told == "stored" else [entry.sha256, 404]), entry

    async def _delete(self, session: aiohttp.ClientSession) -> None:
        if entry := self._pick("stored"):
            entry.told = "deleting"
            async with session.delete(f"/files/{entry.id}/") as answer:
                assert answer.status == 204, entry
            entry.told = "deleted"

    def contradictions(self, records: Mapping[str, Mapping[str, Any]]) -> list[str]:
        """Where the list of all files is not what the clients were told; files that nobody sent among them."""
        by_name = defaultdict(list)
        for record in records.values():
            by_name[record["name"]].append(record)
        wrong = [problem for entry in self.entries if (problem := _contradiction(entry, by_name[entry.name]))]
        torn = defaultdict(set)
        for entry in self.entries:
            if entry.told == "no answer":
                torn[entry.request].add(bool(by_name[entry.name]))
        wrong += [f"request {request}: some of its files alone" for request, found in torn.items() if len(found) > 1]
        return wrong + sorted({*by_name} - {entry.name for entry in self.entries})


def digest(content: bytes) -> str:
    """As it stands in a record."""
    return hashlib.sha256(content).hexdigest()


def _contradiction(entry: Entry, found: list[Mapping[str, Any]]) -> str:
    must = {"stored": [1], "deleted": [0], "no answer": [0, 1], "deleting": [0, 1]}[entry.told]
    if len(found) not in must:
        return f"{entry} is there {len(found)} times"
    other = [record for record in found if record["sha256"] != entry.sha256 or entry.id not in ("", record["id"])]
    return f"{entry} is {other}" if other else ""
