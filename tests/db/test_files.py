"""The repository of files, on both databases."""

import asyncio
import hashlib
from dataclasses import replace
from datetime import UTC, timedelta
from uuid import UUID, uuid4

import pytest
import sqlalchemy as sa

from file_service.db.engine import Database, connected
from file_service.db.files import Files
from file_service.db.tables import file
from file_service.errors import Superseded
from file_service.model import Attempt, File, Page, Received, RetryKey, Terms
from tests.support.rows import OWNER, attempt_of, begun, now, result, states, stored

KEY = RetryKey("key")


async def all_pages(files: Files, limit: int) -> list[File]:
    """Everything the list has, page by page."""
    found: list[File] = []
    page = Page([], more=True)
    while page.more:
        page = await files.page(limit, (found[-1].created_at, found[-1].id) if found else None)
        assert len(page.files) <= limit
        found += page.files
    return found


async def same_moment(database: Database) -> None:
    """Give every file one creation time."""
    await database.execute(file.update().values(created_at=await now(database)))


# States


async def test_an_attempt_that_receives_is_invisible(files: Files, database: Database) -> None:
    attempt = await begun(files)
    assert await states(database) == {attempt.id: "receiving"}
    assert await files.get(attempt.id) is None
    assert await files.page(10, None) == Page([], more=False)
    assert await files.leftovers() == []


async def test_a_finished_file_has_all_its_facts(files: Files, database: Database) -> None:
    attempt = Attempt(uuid4(), uuid4())
    await files.begin(attempt, OWNER, "na\u00efve \U0001f4c4.txt", "text/plain; charset=utf-8", None)
    before = await now(database)
    [found] = await files.finish([result(attempt, b"some bytes")])
    assert (found.id, found.attempt) == (attempt.id, attempt.key)
    assert (found.name, found.content_type) == ("na\u00efve \U0001f4c4.txt", "text/plain; charset=utf-8")
    assert (found.size, found.sha256) == (10, hashlib.sha256(b"some bytes").digest())
    assert (found.expires_at, found.damaged) == (None, False)
    assert found.created_at.utcoffset() == timedelta(0)
    assert before <= found.created_at <= await now(database)
    assert await files.get(attempt.id) == found
    assert await files.page(10, None) == Page([found], more=False)


async def test_a_size_beyond_32_bits_is_kept(files: Files) -> None:
    attempt = await begun(files)
    enormous = 5 << 40
    large = replace(result(attempt), received=Received(enormous, b"x" * 32, 0))
    [found] = await files.finish([large])
    assert found.size == enormous


async def test_finish_is_repeatable(files: Files) -> None:
    attempt = await begun(files)
    [first] = await files.finish([result(attempt)])
    assert await files.finish([result(attempt)]) == [first]
    await files.mark_damaged(attempt, damaged=True)
    [again] = await files.finish([result(attempt)])
    assert (again.id, again.damaged) == (first.id, True)


async def test_only_the_attempt_that_began_may_finish(files: Files, database: Database) -> None:
    attempt = await begun(files)
    with pytest.raises(Superseded):
        await files.finish([result(Attempt(attempt.id, uuid4()))])
    with pytest.raises(Superseded):
        await files.finish([result(Attempt(uuid4(), attempt.key))])
    assert await states(database) == {attempt.id: "receiving"}


@pytest.mark.parametrize("end", ["aborting", "deleting", "gone"])
async def test_an_attempt_that_has_ended_cannot_finish(end: str, files: Files, database: Database) -> None:
    attempt = await begun(files)
    if end == "deleting":
        await files.finish([result(attempt)])
        await files.mark_deleting(attempt.id)
    else:
        await files.give_up(attempt)
    if end == "gone":
        await files.settle(attempt)
    before = await states(database)
    with pytest.raises(Superseded):
        await files.finish([result(attempt)])
    assert await states(database) == before
    assert await files.get(attempt.id) is None


async def test_several_files_finish_together_or_not_at_all(files: Files, database: Database) -> None:
    good, bad, other = [await begun(files) for _ in range(3)]
    await files.give_up(bad)
    with pytest.raises(Superseded):
        await files.finish([result(attempt) for attempt in (good, bad, other)])
    assert await states(database) == {good.id: "receiving", bad.id: "aborting", other.id: "receiving"}
    both = await files.finish([result(other, b"1"), result(good, b"22")])
    assert [(found.id, found.size) for found in both] == [(other.id, 1), (good.id, 2)]


async def test_give_up_is_repeatable_and_never_hits_a_file(files: Files, database: Database) -> None:
    attempt = await begun(files)
    assert await files.give_up(attempt)
    assert await files.give_up(attempt)
    assert await states(database) == {attempt.id: "aborting"}
    found = await stored(files)
    assert not await files.give_up(attempt_of(found))
    await files.mark_damaged(attempt_of(found), damaged=True)
    assert not await files.give_up(attempt_of(found))
    assert (await states(database))[found.id] == "damaged"


async def test_give_up_says_that_an_attempt_without_a_row_has_no_claim_to_its_bytes(files: Files) -> None:
    attempt = await begun(files)
    await files.give_up(attempt)
    await files.settle(attempt)
    assert await files.give_up(attempt)


async def test_giving_up_names_the_attempt_and_not_just_the_file(files: Files, database: Database) -> None:
    attempt = await begun(files)
    await files.give_up(Attempt(attempt.id, uuid4()))
    assert await states(database) == {attempt.id: "receiving"}


async def test_a_deleted_file_is_invisible_at_once_and_deleted_once(files: Files, database: Database) -> None:
    found = await stored(files)
    assert await files.mark_deleting(found.id) == attempt_of(found)
    assert await files.mark_deleting(found.id) is None
    assert await files.get(found.id) is None
    assert await files.page(10, None) == Page([], more=False)
    assert await states(database) == {found.id: "deleting"}


async def test_only_what_is_visible_can_be_deleted(files: Files) -> None:
    attempt = await begun(files)
    assert await files.mark_deleting(attempt.id) is None
    assert await files.mark_deleting(uuid4()) is None
    found = await stored(files)
    await files.mark_damaged(attempt_of(found), damaged=True)
    assert await files.mark_deleting(found.id) == attempt_of(found)


async def test_ten_deletions_at_once_delete_once(files: Files) -> None:
    found = await stored(files)
    outcomes = await asyncio.gather(*(files.mark_deleting(found.id) for _ in range(10)))
    assert [outcome for outcome in outcomes if outcome] == [attempt_of(found)]


async def test_settling_takes_only_rows_whose_bytes_may_be_gone(files: Files, database: Database) -> None:
    receiving, failed, found = await begun(files), await begun(files), await stored(files)
    await files.give_up(failed)
    for attempt in (receiving, attempt_of(found), failed, failed, Attempt(failed.id, uuid4())):
        await files.settle(attempt)
    assert await states(database) == {receiving.id: "receiving", found.id: "stored"}


async def test_damage_is_noted_and_taken_back(files: Files, database: Database) -> None:
    receiving, found = await begun(files), await stored(files)
    for attempt in (receiving, attempt_of(found), attempt_of(found)):
        await files.mark_damaged(attempt, damaged=True)
    assert await states(database) == {receiving.id: "receiving", found.id: "damaged"}
    damaged = await files.get(found.id)
    assert damaged is not None
    assert damaged.damaged
    assert [listed.id for listed in (await files.page(10, None)).files] == [found.id]
    await files.mark_damaged(attempt_of(found), damaged=False)
    assert await files.get(found.id) == found


async def test_leftovers_are_what_failed_and_what_is_being_deleted(files: Files) -> None:
    await begun(files)
    failed, deleted = await begun(files), await stored(files)
    await stored(files)
    await files.give_up(failed)
    await files.mark_deleting(deleted.id)
    assert sorted(await files.leftovers(), key=str) == sorted([failed, attempt_of(deleted)], key=str)
    assert len(await files.leftovers(limit=1)) == 1


async def test_the_database_itself_refuses_a_stored_file_without_its_facts(files: Files, database: Database) -> None:
    attempt = await begun(files)
    for values in ({"state": "stored"}, {"state": "damaged", "size": 1}, {"state": "lost"}):
        with pytest.raises(sa.exc.IntegrityError):
            await database.execute(file.update().values(**values))
    assert await states(database) == {attempt.id: "receiving"}


async def test_an_expired_file_is_invisible_then_gone_then_forgotten(files: Files, database: Database) -> None:
    brief, lasting = await begun(files, key=KEY), await stored(files)
    [found] = await files.finish([result(brief, terms=Terms(expires_in=0.05))])
    assert found.expires_at is not None
    assert (found.expires_at - found.created_at).total_seconds() == pytest.approx(0.05, abs=0.01)
    while await files.get(brief.id):  # noqa: ASYNC110 - time makes it end
        await asyncio.sleep(0.01)
    assert [listed.id for listed in (await files.page(10, None)).files] == [lasting.id]
    assert await files.gone(brief.id)
    assert await files.mark_deleting(brief.id) is None
    assert await files.expire() == 1
    assert await files.expire() == 0
    assert await files.leftovers() == [brief]
    for _ in range(2):
        await files.settle(brief)
        assert await states(database) == {brief.id: "gone", lasting.id: "stored"}
    assert await files.leftovers() == []
    assert await files.begin(Attempt(uuid4(), uuid4()), OWNER, "x", "text/plain", KEY) is None
    await files.forget_gone(60)
    assert await files.gone(brief.id)
    await files.forget_gone(0)
    assert not await files.gone(brief.id)
    assert not await files.gone(lasting.id)


# What is cached must not outlive a change


@pytest.mark.parametrize("change", ["delete", "damage"])
async def test_a_change_by_another_replica_is_seen_at_once(change: str, files: Files, database_url: str) -> None:
    async with connected(database_url, pool_size=1, timeout=2, durable=False) as elsewhere:
        for _ in range(3):
            found = await stored(files)
            assert await files.get(found.id) == await files.get(found.id) == found
            if change == "delete":
                await Files(elsewhere).mark_deleting(found.id)
                assert await files.get(found.id) is None
            else:
                await Files(elsewhere).mark_damaged(attempt_of(found), damaged=True)
                seen = await files.get(found.id)
                assert seen is not None
                assert seen.damaged


async def test_own_changes_are_seen_at_once(files: Files) -> None:
    found = await stored(files)
    assert await files.get(found.id) == await files.get(found.id) == found
    await files.mark_deleting(found.id)
    assert await files.get(found.id) is None


# Idempotency keys


async def test_a_stored_file_is_returned_for_its_key_and_nothing_recorded(files: Files, database: Database) -> None:
    found = await stored(files, key=KEY)
    assert await files.begin(Attempt(uuid4(), uuid4()), OWNER, "other.txt", "text/plain", KEY) == found
    await files.mark_damaged(attempt_of(found), damaged=True)
    again = await files.begin(Attempt(uuid4(), uuid4()), OWNER, "other.txt", "text/plain", KEY)
    assert again is not None
    assert (again.id, again.damaged) == (found.id, True)
    assert await states(database) == {found.id: "damaged"}


async def test_a_later_attempt_supersedes_one_that_receives(files: Files, database: Database) -> None:
    first = await begun(files, key=KEY)
    second = await begun(files, key=KEY)
    assert await states(database) == {first.id: "aborting", second.id: "receiving"}
    with pytest.raises(Superseded):
        await files.finish([result(first)])
    assert await files.give_up(first)
    [found] = await files.finish([result(second)])
    assert await files.get(second.id) == found
    assert await files.leftovers() == [first]


async def test_parts_of_one_key_are_kept_apart(files: Files, database: Database) -> None:
    attempts = [await begun(files, key=RetryKey("key", part)) for part in range(3)]
    assert set((await states(database)).values()) == {"receiving"}
    found = await files.finish([result(attempt) for attempt in attempts])
    assert await files.count("key") == 3
    assert await files.count("other") == 0
    assert await files.begin(Attempt(uuid4(), uuid4()), OWNER, "x", "text/plain", RetryKey("key", 1)) == found[1]
    assert await files.begin(Attempt(uuid4(), uuid4()), OWNER, "x", "text/plain", RetryKey("key", 3)) is None


async def test_a_key_is_free_after_a_failure_and_after_a_deletion(files: Files) -> None:
    failed = await begun(files, key=KEY)
    await files.give_up(failed)
    found = await stored(files, key=KEY)
    await files.mark_deleting(found.id)
    assert await files.count(KEY.value) == 0
    await begun(files, key=KEY)


async def test_a_key_is_free_after_its_replica_died(files: Files, database: Database) -> None:
    dead = await begun(files, key=KEY)
    assert await files.give_up_dead(grace=0) == 1
    alive = await begun(files, key=KEY)
    assert await states(database) == {dead.id: "aborting", alive.id: "receiving"}


@pytest.mark.parametrize("pool_size", [5, 20])
async def test_of_many_begins_under_one_key_exactly_one_receives(pool_size: int, database_url: str) -> None:
    async with connected(database_url, pool_size=pool_size, timeout=10, durable=False) as database:
        files = Files(database)
        attempts = await asyncio.gather(*(begun(files, key=KEY) for _ in range(20)))
        found = await states(database)
        [winner] = [attempt for attempt in attempts if found[attempt.id] == "receiving"]
        assert sorted(found.values()) == ["aborting"] * 19 + ["receiving"]
        outcomes = await asyncio.gather(
            *(files.finish([result(attempt)]) for attempt in attempts), return_exceptions=True
        )
        assert sum(isinstance(outcome, Superseded) for outcome in outcomes) == 19
        assert [found.id for found in (await files.page(10, None)).files] == [winner.id]


async def test_a_begin_and_a_finish_at_once_never_make_two_files(files: Files) -> None:
    for round_ in range(10):
        key = RetryKey(f"key{round_}")
        first, second = await begun(files, key=key), Attempt(uuid4(), uuid4())
        finished, begin = await asyncio.gather(
            files.finish([result(first)]),
            files.begin(second, OWNER, "x", "text/plain", key),
            return_exceptions=True,
        )
        if isinstance(finished, Superseded):
            assert begin is None
            await files.finish([result(second)])
        else:
            assert [begin] == finished
        assert await files.count(key.value) == 1


# The list


async def test_the_list_is_newest_first_and_says_whether_more_follow(files: Files, database: Database) -> None:
    old, middle, new = [await stored(files) for _ in range(3)]
    for found, age in ((old, 30), (middle, 20), (new, 10)):
        moment = await now(database) - timedelta(days=age)
        await database.execute(file.update().where(file.c.id == found.id).values(created_at=moment))
    first = await files.page(2, None)
    assert ([found.id for found in first.files], first.more) == ([new.id, middle.id], True)
    rest = await files.page(2, (first.files[-1].created_at, first.files[-1].id))
    assert ([found.id for found in rest.files], rest.more) == ([old.id], False)
    assert not (await files.page(3, None)).more


async def test_files_of_one_moment_are_listed_once_each(files: Files, database: Database) -> None:
    ids = {(await stored(files)).id for _ in range(7)}
    await same_moment(database)
    for limit in (1, 2, 3, 7, 8):
        listed = [found.id for found in await all_pages(files, limit)]
        assert len(listed) == len(set(listed))
        assert set(listed) == ids


async def test_files_added_and_removed_while_paging_shift_nothing(files: Files, database: Database) -> None:
    for _ in range(9):
        await stored(files)
    await same_moment(database)
    everything = [found.id for found in (await files.page(100, None)).files]
    first = await files.page(3, None)
    last = first.files[-1]
    added = await stored(files)
    for gone in (everything[0], last.id, everything[4]):
        await files.mark_deleting(gone)
    second = await files.page(100, (last.created_at, last.id))
    assert [found.id for found in second.files] == [id_ for id_ in everything[3:] if id_ != everything[4]]
    assert added.id not in [found.id for found in second.files]
    assert (await files.page(1, None)).files == [added]


async def test_a_position_in_another_zone_is_the_same_position(files: Files) -> None:
    from datetime import timezone

    found = await stored(files)
    elsewhere = found.created_at.astimezone(timezone(timedelta(hours=14)))
    assert (await files.page(5, (elsewhere, UUID(int=0)))).files == []
    assert (await files.page(5, (elsewhere, UUID(int=2**128 - 1)))).files == [found]
    assert found.created_at.tzinfo == UTC
