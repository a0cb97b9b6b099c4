"""The power goes at once after an acknowledgement, or before any system call of an upload (see power.py).

After the cut: what was acknowledged is there, byte for byte; what was deleted stays deleted; nothing is visible that is
not whole. The same cut shows what is lost when a sync is left out, so these tests can fail.
"""

import shutil
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from random import Random
from typing import Any

import aiohttp
import pytest

from tests.crash.checker import DATABASE, fetched
from tests.crash.killing import attempt, deletion, lying, needs_strace, receiving, stored
from tests.crash.power import cut, disk, needs_disks, repaired, settle
from tests.crash.steps import BLOCK, FORM, ONE, RAW, TWO, Step
from tests.support.doors import form_of, part, raw
from tests.support.process import Service
from tests.support.raw import connection, exchange, read_answer

pytestmark = needs_disks
Recovered = Callable[..., Awaitable[tuple[str, dict[str, dict[str, Any]]]]]
Started = Callable[..., Service]
Serve = Callable[..., Awaitable[str]]
AfterTheCut = Callable[[], Path]
LEASE = 0.3
AT_LAST = [str(step) for step in RAW].index(
    "last-write"
)  # before it there is nothing yet that could be seen by mistake
SIZES = [0, 1, 4096, 300_000, 3_000_000]


@pytest.fixture(autouse=True)
def image(tmp_path: Path) -> Iterator[Path]:
    """The image of a disk on which the data folder will be."""
    with disk(tmp_path / "data", tmp_path / "image"):
        yield tmp_path / "image"


@pytest.fixture
def after_the_cut(image: Path) -> Iterator[Callable[[], Path]]:
    """Cut the power; the data folder as the next start finds it."""
    with ExitStack() as stack:

        def repair() -> Path:
            cut(image, image.with_name("copy"))
            return stack.enter_context(repaired(image.with_name("copy"), image.with_name("repaired")))

        yield repair


@pytest.fixture
def elsewhere(tmp_path: Path, sqlite_template: Path) -> str:
    """A database that no cut reaches."""
    shutil.copy(sqlite_template, tmp_path / DATABASE)
    return f"sqlite+aiosqlite:///{tmp_path / DATABASE}"


async def whole(url: str, id_: str, content: bytes) -> bool:
    """Whether a file can be downloaded and is `content`."""
    async with aiohttp.ClientSession() as client, client.get(f"{url}/files/{id_}/") as answer:
        return answer.status == 200 and await answer.read() == content


@pytest.mark.parametrize("durable", [True, False])
async def test_files_survive_the_cut_if_durable_and_only_then(
    spawn: Started, serve: Serve, after_the_cut: AfterTheCut, tmp_path: Path, durable: bool
) -> None:
    service = spawn(data_dir=tmp_path / "data" / "new", durable=durable)
    contents = [Random(size).randbytes(size) for size in SIZES]
    ids = [exchange(service.url, bytes(raw(content))).body.decode() for content in contents]
    ids += exchange(service.url, bytes(form_of(part(ONE), part(TWO)))).body.decode().split()
    url = await serve(data_dir=after_the_cut() / "new", durable=True)
    found = [await whole(url, id_, content) for id_, content in zip(ids, [*contents, ONE, TWO], strict=True)]
    assert found == [durable] * len(ids)


async def test_what_was_deleted_stays_deleted_and_what_was_sent_in_part_is_not_seen(
    started: Started, recovered: Recovered, after_the_cut: AfterTheCut
) -> None:
    service = started(LEASE)
    (kept, _), (deleted, _) = stored(service, ONE), stored(service, TWO)
    settle(service.data_dir)
    with connection(service.url) as sock:
        upload = raw(TWO)
        sock.sendall(upload.head + upload.body[:-1])
        receiving(service, len(TWO) - 2 * BLOCK, after=2)
        assert exchange(service.url, deletion(deleted)).status == 204
        data_dir = after_the_cut()
    url, records = await recovered(data_dir, LEASE)
    assert {*records} == {kept}
    assert await fetched(url, kept) == ONE


@needs_strace
@pytest.mark.parametrize(("lie", "survives"), [("tmp", True), ("file", False), ("shard", False), ("wal", False)])
async def test_each_sync_is_needed(
    started: Started, elsewhere: str, serve: Serve, after_the_cut: AfterTheCut, *, lie: str, survives: bool
) -> None:
    """`tmp` is never synced, and need not be. A database on the same disk would bring the link along with its own."""
    database = {} if lie == "wal" else {"database_url": elsewhere}
    service = started(60.0, **database)
    settle(service.data_dir)
    with connection(service.url) as sock:
        upload = raw(ONE)
        sock.sendall(upload.head + upload.body[:-1])
        key = receiving(service, len(ONE) - 2 * BLOCK, after=0)
        with lying(service, "fsync,fdatasync", lie, key):
            sock.sendall(upload.body[-1:])
            answer = read_answer(sock)
    assert answer.status == 201
    url = await serve(data_dir=after_the_cut(), durable=True, **database)
    assert await whole(url, answer.body.decode(), ONE) == survives


@needs_strace
@pytest.mark.parametrize("step", RAW[AT_LAST:] + FORM[-3:], ids=str)
async def test_a_cut_before_any_call_of_an_upload_leaves_it_whole_or_invisible(
    started: Started, recovered: Recovered, after_the_cut: AfterTheCut, step: Step
) -> None:
    service = started(step.lease)
    kept, _ = stored(service, TWO)
    settle(service.data_dir)
    contents, upload = ([ONE], raw(ONE)) if step in RAW else ([ONE, TWO], form_of(part(ONE), part(TWO)))
    assert attempt(service, step, upload, *contents) is None
    url, records = await recovered(after_the_cut(), step.lease)
    assert await fetched(url, kept) == TWO
    assert len(records) - 1 in ({0, len(contents)} if "stored" in step.left.rows else {0})
