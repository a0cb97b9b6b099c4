"""The memory that all parts share: bounded, in order, and never a deadlock."""

import asyncio
import random

import pytest

from file_service.storage.part_memory import PartMemory, PartShare


async def fill(memory: PartMemory, rng: random.Random, parts: int) -> int:
    """Fill so many parts in pieces, each let go of when it is full, as an upload does; the bytes."""
    for _ in range(parts):
        share = memory.share(memory.largest)
        filled = 0
        while filled < share.part:
            piece = min(rng.randint(1, 5), share.part - filled)
            await share.grow(piece)
            filled += piece
            assert 0 <= memory.free <= memory.size
            await asyncio.sleep(0)
        share.release()
    return parts * memory.largest


@pytest.mark.parametrize(("size", "largest"), [(10, 10), (20, 10), (25, 10), (1000, 10)])
async def test_many_uploads_that_each_hold_half_a_part_all_come_to_their_end(size: int, largest: int) -> None:
    memory = PartMemory(size, largest)
    async with asyncio.timeout(10):
        done = await asyncio.gather(*(fill(memory, random.Random(seed), 3) for seed in range(50)))
    assert done == [3 * largest] * 50
    assert memory.free == size


async def test_parts_of_different_sizes_come_to_their_end() -> None:
    memory = PartMemory(64, 32)

    async def upload(part: int) -> None:
        for _ in range(5):
            share = memory.share(part)
            for _ in range(part):
                await share.grow(1)
                await asyncio.sleep(0)
            share.release()

    async with asyncio.timeout(10):
        await asyncio.gather(*(upload(1 + n % 32) for n in range(60)))
    assert memory.free == 64


async def test_who_sends_little_holds_little() -> None:
    memory = PartMemory(1000, 100)
    trickling = [memory.share(100) for _ in range(500)]
    for share in trickling:
        await share.grow(1)
    healthy = memory.share(100)
    async with asyncio.timeout(1):
        await healthy.grow(100)
    assert memory.free == 1000 - 500 - 100


async def test_those_who_wait_are_served_in_order() -> None:
    memory = PartMemory(20, 10)
    holder = memory.share(10)
    await holder.grow(10)
    small, big = memory.share(2), memory.share(10)
    served: list[str] = []

    async def wait(name: str, share: PartShare) -> None:
        await share.grow(1)
        served.append(name)

    late = memory.share(10)
    await late.grow(0)
    tasks = [asyncio.create_task(wait("first", late))]
    await asyncio.sleep(0)
    tasks += [asyncio.create_task(wait("big", big)), asyncio.create_task(wait("small", small))]
    await asyncio.sleep(0)
    assert served == ["first"], "the whole rest of its part is there for it, and only for it"
    assert memory.free == 0
    holder.release()
    await asyncio.sleep(0)
    assert served == ["first", "big"], "the small one would fit, and is not let past"
    late.release()
    await asyncio.gather(*tasks)
    assert served == ["first", "big", "small"]


async def test_a_part_that_had_to_wait_waits_only_once() -> None:
    memory = PartMemory(20, 10)
    holder, share = memory.share(10), memory.share(10)
    await holder.grow(10)
    await share.grow(1)
    async with asyncio.timeout(1):
        for _ in range(9):
            await share.grow(1)
    assert memory.free == 0


async def test_a_cancelled_wait_takes_nothing_and_holds_nobody_up() -> None:
    memory = PartMemory(20, 20)
    holder, one, two = memory.share(15), memory.share(20), memory.share(5)
    await holder.grow(15)
    waiting = [asyncio.create_task(share.grow(1)) for share in (one, two)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    async with asyncio.timeout(1):
        await asyncio.wait(waiting)
    assert waiting[0].cancelled()
    assert (one.held, two.held) == (0, 5)
    holder.release()
    two.release()
    assert memory.free == memory.size


async def test_a_wait_cancelled_in_the_moment_of_its_turn_gives_back_what_it_got() -> None:
    memory = PartMemory(10, 10)
    holder, share = memory.share(10), memory.share(10)
    await holder.grow(10)
    waiting = asyncio.create_task(share.grow(1))
    await asyncio.sleep(0)
    holder.release()
    waiting.cancel()
    await asyncio.wait({waiting})
    assert waiting.cancelled()
    share.release()
    share.release()
    assert memory.free == 10


async def test_a_wait_cancelled_just_before_its_turn_is_passed_over() -> None:
    memory = PartMemory(10, 10)
    holder, one, two = (memory.share(10) for _ in range(3))
    await holder.grow(10)
    waiting = [asyncio.create_task(share.grow(1)) for share in (one, two)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    holder.release()
    async with asyncio.timeout(1):
        await asyncio.wait(waiting)
    assert two.held == 10
    assert one.held == 0


def test_what_could_never_be_had_is_refused() -> None:
    with pytest.raises(ValueError, match="larger than"):
        PartMemory(10).share(6)
    for size, largest in ((0, 0), (10, 11)):
        with pytest.raises(ValueError, match="do not fit"):
            PartMemory(size, largest)
