"""The repository of deliveries on both databases: places, pieces, and what makes a whole."""

import asyncio
from collections.abc import Sequence
from itertools import pairwise
from uuid import UUID, uuid4

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from file_service.db.deliveries import MAX_SPANS, Deliveries, Span, merged
from file_service.db.engine import Database
from file_service.db.files import Files
from file_service.db.tables import delivery, file, piece
from file_service.model import File, Terms
from tests.support.rows import OWNER, begun, result, states

SIZE = 4000


@pytest.fixture
def deliveries(database: Database) -> Deliveries:
    return Deliveries(database)


async def limited(files: Files, most: int) -> File:
    """A file of `SIZE` bytes that may be downloaded so often."""
    attempt = await begun(files)
    return (await files.finish([result(attempt, bytes(SIZE), Terms(max_downloads=most))]))[0]


async def begin(deliveries: Deliveries, found: File, client: str, *, whole: bool = False) -> UUID | None:
    """The id of a download that got a place; None when there was none."""
    id_ = uuid4()
    return id_ if await deliveries.begin(id_, found.id, client, OWNER, whole=whole) else None


async def got(deliveries: Deliveries, found: File, client: str, spans: Sequence[Span]) -> bool:
    """Let `client` get these bytes; whether that used the downloads up."""
    id_ = await begin(deliveries, found, client, whole=(0, SIZE) in spans)
    assert id_ is not None
    return await deliveries.delivered(id_, found.id, client, spans, SIZE)


async def downloads(database: Database) -> int:
    return int((await database.fetch(sa.select(file.c.downloads)))[0][0])


async def test_there_are_as_many_places_as_downloads_left(deliveries: Deliveries, files: Files) -> None:
    found = await limited(files, 3)
    assert not await got(deliveries, found, "a", [(0, SIZE)])
    places = [await begin(deliveries, found, "b", whole=True) for _ in range(3)]
    assert [place is not None for place in places] == [True, True, False]
    await deliveries.end(places[0] or uuid4())
    assert await begin(deliveries, found, "c", whole=True)


async def test_of_many_that_begin_at_once_no_more_get_a_place(deliveries: Deliveries, files: Files) -> None:
    found = await limited(files, 2)
    places = await asyncio.gather(*(begin(deliveries, found, "a", whole=True) for _ in range(10)))
    assert sum(place is not None for place in places) == 2


async def test_the_pieces_of_a_client_take_the_place_it_has(deliveries: Deliveries, files: Files) -> None:
    found = await limited(files, 1)
    assert await begin(deliveries, found, "a", whole=True)
    assert await begin(deliveries, found, "a")
    assert await begin(deliveries, found, "a")
    assert not await begin(deliveries, found, "b")
    assert not await begin(deliveries, found, "a", whole=True)


async def test_every_byte_in_any_order_is_one_download(
    deliveries: Deliveries, files: Files, database: Database
) -> None:
    found = await limited(files, 1)
    for spans in ([(3000, SIZE)], [(0, 1), (5, 10)], [(7, 2000)], [(1, 5), (0, 9)], [(1500, 2999)]):
        assert not await got(deliveries, found, "a", spans)
        assert not await got(deliveries, found, "b", [(0, SIZE - 1)])
    assert await got(deliveries, found, "a", [(2999, 3000)])
    assert await downloads(database) == 1
    assert await states(database) == {found.id: "expiring"}


async def test_pieces_that_end_at_once_are_all_remembered(
    deliveries: Deliveries, files: Files, database: Database
) -> None:
    found = await limited(files, 2)
    step = SIZE // 16
    spans = [[(at, at + step)] for at in range(0, SIZE, step)]
    await asyncio.gather(*(got(deliveries, found, "a", span) for span in spans))
    assert await downloads(database) == 1
    assert await database.fetch(sa.select(piece)) == []
    assert await database.fetch(sa.select(delivery)) == []


async def test_a_delivery_is_counted_once_however_often_it_is_told(
    deliveries: Deliveries, files: Files, database: Database
) -> None:
    found = await limited(files, 5)
    id_ = await begin(deliveries, found, "a", whole=True)
    assert id_ is not None
    for _ in range(3):
        assert not await deliveries.delivered(id_, found.id, "a", [(0, SIZE)], SIZE)
    assert await downloads(database) == 1


async def test_a_whole_download_ends_what_was_begun_in_pieces(deliveries: Deliveries, files: Files) -> None:
    found = await limited(files, 2)
    assert not await got(deliveries, found, "a", [(0, 3000)])
    assert not await got(deliveries, found, "a", [(0, SIZE)])
    assert not await got(deliveries, found, "a", [(3000, SIZE)])
    assert await got(deliveries, found, "a", [(0, 3000)])


async def test_no_client_leaves_more_than_so_many_pieces_behind(
    deliveries: Deliveries, files: Files, database: Database
) -> None:
    found = await limited(files, 1)
    assert not await got(deliveries, found, "a", [(at, at + 1) for at in range(0, SIZE, 2)])
    assert (await database.fetch(sa.select(sa.func.count()).select_from(piece)))[0][0] == MAX_SPANS


async def test_nothing_of_a_file_that_is_forgotten_stays(
    deliveries: Deliveries, files: Files, database: Database
) -> None:
    found = await limited(files, 2)
    await got(deliveries, found, "a", [(0, 1)])
    assert await begin(deliveries, found, "a")
    await database.execute(file.delete())
    assert await database.fetch(sa.select(piece)) == []
    assert await database.fetch(sa.select(delivery)) == []
    assert not await begin(deliveries, found, "a")


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(1, 10))))
def test_merged_spans_are_the_same_bytes_apart_from_each_other(pairs: list[tuple[int, int]]) -> None:
    spans = [(start, start + length) for start, length in pairs]
    together = merged(spans)
    assert {at for span in together for at in range(*span)} == {at for span in spans for at in range(*span)}
    assert all(before[1] < after[0] for before, after in pairwise(together))
