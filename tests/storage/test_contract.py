"""What base.py promises in words, over every storage. After each test nothing is left but what the test has kept."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from file_service.aio import uncancelled
from file_service.errors import Damaged, NotFound
from file_service.storage.base import Bounded, Marked, Storage, Writer, staged
from tests.storage.benches import BENCHES, CHUNK, IDENTITY, Bench, Contents
from tests.storage.cancelling import cancelled_everywhere

DATA = random.Random(1).randbytes(3 * CHUNK + 100)
SIZE = len(DATA)
many = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(params=BENCHES)
async def bench(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Bench]:
    """An empty storage of every kind, looked through once the test is over."""
    async with BENCHES[request.param](tmp_path) as bench:
        yield bench
        bench.check()


async def read(storage: Storage, key: UUID, start: int = 0, stop: int | None = None) -> bytes:
    """The bytes of a published file."""
    async with aclosing(storage.read(key, start, stop)) as chunks:
        return b"".join([chunk async for chunk in chunks])


async def is_visible(storage: Storage, key: UUID) -> bool:
    """Whether there is a file to read, of any size."""
    try:
        await read(storage, key)
    except Damaged:
        return False
    return True


async def written(bench: Bench, *chunks: bytes) -> tuple[UUID, Writer]:
    """A key and its writer, which has taken `chunks`."""
    key = uuid4()
    writer = await bench.storage.create(key)
    for chunk in chunks:
        await writer.write(chunk)
    return key, writer


# Visibility


async def test_nothing_is_visible_before_commit(bench: Bench) -> None:
    key, writer = await written(bench)
    assert not await is_visible(bench.storage, key)
    await writer.write(DATA)
    assert not await is_visible(bench.storage, key)
    await writer.suspend()
    assert not await is_visible(bench.storage, key)
    writer = await bench.storage.resume(key, writer.token)
    assert not await is_visible(bench.storage, key)
    await writer.abort()
    assert not await is_visible(bench.storage, key)


async def test_commit_makes_all_bytes_visible_at_once(bench: Bench) -> None:
    key, writer = await written(bench, DATA, DATA)
    looked = asyncio.Event()

    async def watch() -> bytes:
        while not await is_visible(bench.storage, key):
            looked.set()
        return await read(bench.storage, key)

    watching = asyncio.create_task(watch())
    await looked.wait()
    await writer.commit()
    bench.kept.add(key)
    assert await is_visible(bench.storage, key)
    assert await watching == DATA * 2


@many
@given(sizes=st.lists(st.integers(0, 2 * CHUNK + 1), max_size=6))
async def test_what_is_written_in_any_pieces_is_what_is_read(bench: Bench, sizes: list[int]) -> None:
    pieces = [random.Random(size).randbytes(size) for size in sizes]
    key, writer = await written(bench, *pieces)
    assert writer.offset == sum(sizes)
    await writer.commit()
    assert await read(bench.storage, key) == b"".join(pieces)
    await bench.storage.delete(key)


async def test_keys_do_not_touch_each_other(bench: Bench) -> None:
    (one, first), (two, second), (three, third) = [await written(bench, name) for name in (b"a", b"b", b"c")]
    await asyncio.gather(*(writer.write(b"1") for writer in (first, second, third)))
    await asyncio.gather(first.commit(), second.abort(), third.commit())
    bench.kept |= {one, three}
    assert [await read(bench.storage, key) for key in (one, three)] == [b"a1", b"c1"]
    assert not await is_visible(bench.storage, two)
    await bench.storage.delete(one)
    bench.kept.remove(one)
    assert await read(bench.storage, three) == b"c1"


# Abort and delete


async def test_abort_drops_the_bytes_and_may_be_repeated(bench: Bench) -> None:
    _, writer = await written(bench, DATA)
    await writer.abort()
    bench.check()
    await writer.abort()


async def test_abort_after_commit_does_nothing(bench: Bench) -> None:
    key, writer = await written(bench, DATA)
    await writer.commit()
    bench.kept.add(key)
    await writer.abort()
    assert await read(bench.storage, key) == DATA


async def test_abort_after_suspend_does_nothing(bench: Bench) -> None:
    key, writer = await written(bench, DATA)
    await writer.suspend()
    await writer.abort()
    again = await bench.storage.resume(key, writer.token)
    assert again.offset == SIZE
    await again.abort()


async def test_delete_removes_what_is_staged_suspended_or_published(bench: Bench) -> None:
    key, writer = await written(bench, DATA)
    await bench.storage.delete(key)
    assert bench.look().staged == set()
    await writer.abort()
    key, writer = await written(bench, DATA)
    await writer.suspend()
    await bench.storage.delete(key)
    assert bench.look().staged == set()
    key = await bench.store(DATA)
    await bench.storage.delete(key)
    bench.kept.clear()
    assert not await is_visible(bench.storage, key)


async def test_deleting_what_is_not_there_is_fine(bench: Bench) -> None:
    await bench.storage.delete(uuid4())
    key = await bench.store(DATA)
    bench.kept.clear()
    await bench.storage.delete(key)
    await bench.storage.delete(key)


# Suspend and resume


async def test_a_suspended_write_goes_on_where_it_stopped(bench: Bench) -> None:
    key, writer = await written(bench, DATA[:1000])
    await writer.suspend()
    assert bench.look().handles == 0
    for part in (b"", DATA[1000:5000], DATA[5000:]):
        writer = await bench.storage.resume(key, writer.token)
        offset = writer.offset
        assert offset == DATA.index(part) if part else 1000
        await writer.write(part)
        assert writer.offset == offset + len(part)
        await writer.suspend()
    writer = await bench.storage.resume(key, writer.token)
    await writer.commit()
    bench.kept.add(key)
    assert await read(bench.storage, key) == DATA


async def test_there_is_nothing_to_resume_once_a_write_has_ended(bench: Bench) -> None:
    committed, writer = await written(bench, DATA)
    await writer.commit()
    bench.kept.add(committed)
    aborted, other = await written(bench, DATA)
    await other.abort()
    deleted, third = await written(bench, DATA)
    await third.suspend()
    await bench.storage.delete(deleted)
    for key, token in ((committed, writer.token), (aborted, other.token), (deleted, third.token), (uuid4(), "x")):
        with pytest.raises(NotFound):
            await bench.storage.resume(key, token)


@pytest.mark.parametrize("times", [1, 2])
async def test_a_resume_cancelled_at_any_await_leaves_the_bytes_and_nothing_open(bench: Bench, times: int) -> None:
    key, writer = await written(bench, DATA)
    await writer.suspend()

    def check() -> None:
        assert bench.look() == Contents(staged={key})

    async def resume() -> None:
        again = await bench.storage.resume(key, writer.token)
        await uncancelled(again.suspend())

    assert await cancelled_everywhere(resume, check, times) > 0
    check()
    await bench.storage.delete(key)


# Reading


@pytest.mark.parametrize(
    ("start", "stop"),
    [
        (0, None),
        (0, 0),
        (0, 1),
        (0, SIZE),
        (0, CHUNK),
        (0, CHUNK + 1),
        (CHUNK - 1, CHUNK + 1),
        (CHUNK, 2 * CHUNK),
        (CHUNK + 1, 3 * CHUNK + 1),
        (77, 77),
        (SIZE - 1, None),
        (SIZE, None),
        (SIZE, SIZE),
        (SIZE + 1, None),
    ],
)
async def test_a_range_has_exactly_its_bytes(bench: Bench, start: int, stop: int | None) -> None:
    key = await bench.store(DATA)
    for _ in range(2):  # what was read once may come from somewhere else the second time
        assert await read(bench.storage, key, start, stop) == DATA[start:stop]


@many
@given(size=st.integers(0, 3 * CHUNK), one=st.integers(0, 3 * CHUNK), two=st.integers(0, 3 * CHUNK))
async def test_any_range_of_any_file_has_exactly_its_bytes(bench: Bench, size: int, one: int, two: int) -> None:
    start, stop = sorted((min(one, size), min(two, size)))
    key = await bench.store(DATA[:size])
    for _ in range(2):
        assert await read(bench.storage, key, start, stop) == DATA[start:stop]
    await bench.storage.delete(key)
    bench.kept.clear()


async def test_an_empty_file_is_a_file(bench: Bench) -> None:
    key = await bench.store(b"")
    for stop in (None, 0, None):
        assert await read(bench.storage, key, 0, stop) == b""
    assert await read(bench.storage, key, 1) == b""
    with pytest.raises(Damaged):
        await read(bench.storage, key, 0, 1)


@pytest.mark.parametrize(("start", "stop"), [(0, SIZE), (0, CHUNK + 1), (CHUNK, SIZE), (SIZE - 1, SIZE)])
@pytest.mark.parametrize("read_before", [False, True])
async def test_a_short_file_is_found_before_its_first_chunk(
    bench: Bench, start: int, stop: int, read_before: bool
) -> None:
    key = await bench.store(DATA)
    if read_before:
        assert await read(bench.storage, key) == DATA
    bench.cut(key, CHUNK)
    async with aclosing(bench.storage.read(key, start, stop)) as chunks:
        with pytest.raises(Damaged):
            await anext(chunks)


@pytest.mark.parametrize("size", [10, CHUNK])
async def test_a_small_file_cut_after_it_was_read_is_found_short(bench: Bench, size: int) -> None:
    key = await bench.store(DATA[:size])
    assert await read(bench.storage, key, 0, size) == DATA[:size]
    bench.cut(key, size - 1)
    async with aclosing(bench.storage.read(key, 0, size)) as chunks:
        with pytest.raises(Damaged):
            await anext(chunks)


async def test_a_missing_file_is_found_before_its_first_chunk(bench: Bench) -> None:
    for stop in (None, 0, 1):
        async with aclosing(bench.storage.read(uuid4(), 0, stop)) as chunks:
            with pytest.raises(Damaged):
                await anext(chunks)


async def test_a_file_cut_while_it_is_read_never_ends_short_and_clean(bench: Bench) -> None:
    key = await bench.store(DATA * 10)
    for size in (0, CHUNK, 2 * CHUNK, 2 * CHUNK + 1, 5 * CHUNK):
        again = await bench.store(DATA * 10)
        got = b""
        try:
            async with aclosing(bench.storage.read(again, 0, SIZE * 10)) as chunks:
                async for chunk in chunks:
                    got += chunk
                    bench.cut(again, size)
        except Damaged:
            assert len(got) < SIZE * 10
        else:
            assert len(got) == SIZE * 10
        assert (DATA * 10).startswith(got)
    assert await read(bench.storage, key) == DATA * 10


async def test_a_file_deleted_while_it_is_read_is_whole_or_raises(bench: Bench) -> None:
    for size in (10, SIZE, 10 * SIZE):
        data = (DATA * 10)[:size]
        key = await bench.store(data)
        bench.kept.clear()
        chunks = bench.storage.read(key, 0, size)
        got = await anext(chunks)
        await bench.storage.delete(key)
        try:
            got += b"".join([chunk async for chunk in chunks])
        except Damaged:
            assert len(got) < size
        else:
            assert got == data
        assert not await is_visible(bench.storage, key)


async def test_a_reader_that_stops_early_leaves_nothing_open(bench: Bench) -> None:
    key = await bench.store(DATA * 10)
    for _ in range(3):
        async with aclosing(bench.storage.read(key)) as chunks:
            await anext(chunks)
        bench.check()


@pytest.mark.parametrize("times", [1, 2, 3])
async def test_a_reader_cancelled_at_any_await_leaves_nothing_open(bench: Bench, times: int) -> None:
    key = await bench.store(DATA)
    assert await cancelled_everywhere(lambda: read(bench.storage, key), bench.check, times) > 0


async def test_many_read_at_once(bench: Bench) -> None:
    key = await bench.store(DATA)
    spans = [(start, stop) for start in range(0, SIZE, 2000) for stop in range(start, SIZE, 3000)]
    parts = await asyncio.gather(*(read(bench.storage, key, start, stop) for start, stop in spans))
    assert parts == [DATA[start:stop] for start, stop in spans]


# The helper `staged`


async def store_in_two_writes(bench: Bench, key: UUID) -> None:
    """One write by way of `staged`."""
    async with staged(bench.storage, key) as writer:
        await writer.write(DATA[:5000])
        await writer.write(DATA[5000:])


async def test_staged_commits(bench: Bench) -> None:
    key = uuid4()
    await store_in_two_writes(bench, key)
    bench.kept.add(key)
    assert await read(bench.storage, key) == DATA


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, asyncio.CancelledError])
async def test_staged_drops_everything_when_its_block_fails(bench: Bench, error: type[BaseException]) -> None:
    async def fail() -> None:
        async with staged(bench.storage, uuid4()) as writer:
            await writer.write(DATA)
            raise error

    with pytest.raises(error):
        await fail()


@pytest.mark.parametrize("times", [1, 2, 3])
async def test_staged_leaves_nothing_when_it_is_cancelled_at_any_await(bench: Bench, times: int) -> None:
    keys: list[UUID] = []

    async def attempt() -> None:
        keys.append(uuid4())
        await store_in_two_writes(bench, keys[-1])

    assert await cancelled_everywhere(attempt, bench.check, times) > 0, "nothing waits, so nothing was cancelled"
    bench.kept.add(keys[-1])
    assert await read(bench.storage, keys[-1]) == DATA


async def test_staged_leaves_nothing_when_it_is_cancelled_at_any_time(bench: Bench) -> None:
    for delay in range(20):
        task = asyncio.create_task(store_in_two_writes(bench, key := uuid4()))
        await asyncio.sleep(delay * 1e-4)
        task.cancel()
        await asyncio.wait({task})
        if not task.cancelled():
            bench.kept.add(key)
        bench.check()


# Health, and the optional protocols


async def test_a_storage_in_order_says_so(bench: Bench) -> None:
    await asyncio.gather(*(bench.storage.check() for _ in range(10)))


async def test_room_is_told_in_bytes(bench: Bench) -> None:
    if isinstance(bench.storage, Bounded):
        assert await bench.storage.free() > 10 * SIZE


async def test_an_identity_stays(bench: Bench) -> None:
    if isinstance(bench.storage, Marked):
        await bench.storage.mark(uuid4())
        assert await bench.storage.identity() == IDENTITY


# The suite itself


@pytest.mark.parametrize("what", ["staged", "suspended", "published", "reader", "task"])
async def test_the_check_for_leftovers_sees_each_kind(bench: Bench, what: str) -> None:
    key, writer = await written(bench, DATA)
    if what == "suspended":
        await writer.suspend()
    if what != "staged":
        await writer.commit() if what != "suspended" else None
    bench.kept |= {key} if what in ("reader", "task") else set()
    chunks = bench.storage.read(key)
    task = asyncio.create_task(asyncio.sleep(60 if what == "task" else 0))
    if what == "reader":
        await anext(chunks)
    await asyncio.sleep(0.001)
    with pytest.raises(AssertionError):
        bench.check()
    await chunks.aclose()
    task.cancel()
    await asyncio.wait({task})
    await writer.abort()
    await bench.storage.delete(key)
    bench.kept.clear()
