"""The queue of imports on both databases: every import is one replica's at a time, and ends as one file or as none."""

import asyncio
from collections.abc import AsyncIterator
from uuid import UUID, uuid4

import pytest
import sqlalchemy as sa

from file_service.db.engine import Database, connected
from file_service.db.files import Files
from file_service.db.imports import TRIES, Imports, try_key
from file_service.db.replicas import Replicas
from file_service.errors import Superseded
from file_service.handlers.body import KEY
from file_service.model import Attempt, File, Import, Received, Result, RetryKey, Terms

URL = "http://example.com/?s3cret"
LEASE = 100.0


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    async with connected(database_url, pool_size=5, timeout=5, durable=False) as database:
        yield database


@pytest.fixture
def imports(database: Database) -> Imports:
    return Imports(database)


@pytest.fixture
def files(database: Database) -> Files:
    return Files(database)


@pytest.fixture
async def alive(database: Database) -> UUID:
    """A replica with a lease."""
    owner = uuid4()
    await Replicas(database).beat(owner, LEASE)
    return owner


async def queued(imports: Imports) -> Import:
    return await imports.add(uuid4(), URL, None)


async def taken(imports: Imports, owner: UUID | None = None) -> Import:
    """A fresh import, in its first try, by a replica of which nobody knows unless there is an `owner`."""
    added = await queued(imports)
    job = await imports.take(owner or uuid4())
    assert job is not None
    assert job.id == added.id
    return job


async def begun(files: Files, job: Import) -> Attempt:
    """The beginning of the file of a try."""
    attempt = Attempt(uuid4(), uuid4())
    assert job.owner
    assert await files.begin(attempt, job.owner, "name", "text/plain", RetryKey(try_key(job))) is None
    return attempt


async def stored(files: Files, attempt: Attempt) -> File:
    """The end of it."""
    return (await files.finish([Result(attempt, Received(5, b"s" * 32, 1), Terms(), b"t" * 32)]))[0]


async def now(imports: Imports, job: Import) -> Import:
    """The import as it is now."""
    found = await imports.get(job.id)
    assert found is not None
    return found


async def state(imports: Imports, job: Import) -> str:
    return (await now(imports, job)).state


# Taking


async def test_the_oldest_is_taken_first_and_nothing_when_there_is_nothing(imports: Imports, alive: UUID) -> None:
    assert await imports.take(alive) is None
    added = [await queued(imports) for _ in range(3)]
    jobs = [await imports.take(alive) for _ in range(4)]
    assert [job and job.id for job in jobs] == [*(each.id for each in added), None]
    assert jobs[0]
    assert (jobs[0].state, jobs[0].owner, jobs[0].tries, jobs[0].bytes) == ("running", alive, 1, 0)
    assert jobs[0].started_at == jobs[0].updated_at


async def test_many_replicas_take_each_import_once(imports: Imports, database_url: str) -> None:
    added = {(await queued(imports)).id for _ in range(40)}

    async def take_all(owner: UUID) -> list[UUID]:
        async with connected(database_url, pool_size=2, timeout=20, durable=False) as database:
            mine = []
            while job := await Imports(database).take(owner):
                mine.append(job.id)
            return mine

    each = await asyncio.gather(*(take_all(uuid4()) for _ in range(5)))
    assert sorted(id_ for mine in each for id_ in mine) == sorted(added)


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)  # PostgreSQL chooses by statistics, not by rule
async def test_a_look_into_an_empty_queue_reads_the_unfinished_only(imports: Imports, database: Database) -> None:
    """However many imports there have been."""
    statements: list[str] = []
    engine = database._engine.sync_engine
    sa.event.listen(engine, "before_cursor_execute", lambda *a: statements.append(a[2].replace("?", "1")))
    await imports.take(uuid4())
    plan = await database.fetch(sa.text("EXPLAIN QUERY PLAN " + statements[0]))
    assert [row[-1] for row in plan] == ["SCAN import USING INDEX ix_import_unfinished"]


# A try and what is not this try


async def test_progress_and_outcome_of_a_try_are_recorded(imports: Imports, alive: UUID) -> None:
    job = await taken(imports, alive)
    assert await imports.progress(job, 3, 9)
    found = await now(imports, job)
    assert (found.state, found.bytes, found.total) == ("running", 3, 9)
    assert await imports.done(job, (file_id := uuid4()), 9)
    found = await now(imports, job)
    assert (found.state, found.bytes, found.total, found.file_id) == ("done", 9, 9, file_id)
    other = await taken(imports, alive)
    assert await imports.failed(other, "It broke.")
    assert ((await now(imports, other)).state, (await now(imports, other)).error) == ("failed", "It broke.")


async def test_a_try_that_is_over_changes_nothing(imports: Imports, alive: UUID) -> None:
    """Neither on another replica nor on the same one, nor after the end."""
    first = await taken(imports, alive)
    await imports.again(first)
    second = await imports.take(alive)
    assert second is not None
    assert second.id == first.id
    await imports.again(first)
    assert not await imports.progress(first, 1, 1)
    assert not await imports.done(first, uuid4(), 1)
    assert not await imports.failed(first, "no")
    assert await now(imports, first) == second
    assert await imports.done(second, uuid4(), 5)
    assert not await imports.progress(second, 1, 1)
    assert not await imports.failed(second, "no")
    await imports.again(second)
    assert await state(imports, second) == "done"


# Withdrawing: before its file is begun, after, and when it is there


@pytest.mark.parametrize("begin", [False, True])
async def test_a_cancelled_try_never_becomes_a_file(imports: Imports, files: Files, alive: UUID, begin: bool) -> None:
    job = await taken(imports, alive)
    attempt = await begun(files, job) if begin else None
    assert await imports.cancel(job.id)
    assert await state(imports, job) == "cancelled"
    if attempt is None:  # then it asks before it reads the first byte
        attempt = await begun(files, job)
        assert not await imports.progress(job, 0, None)
        return
    with pytest.raises(Superseded):
        await stored(files, attempt)
    assert await files.leftovers() == [attempt]


async def test_what_is_a_file_already_is_done_and_not_cancelled(imports: Imports, files: Files, alive: UUID) -> None:
    """A replica stores the file first and notes the success of the import a moment later."""
    job = await taken(imports, alive)
    file = await stored(files, await begun(files, job))
    assert not await imports.cancel(job.id)
    found = await now(imports, job)
    assert (found.state, found.file_id, found.bytes, found.total) == ("done", file.id, 5, 5)
    assert not await imports.done(job, file.id, 5)
    assert await files.get(file.id) == file


async def test_only_what_has_not_ended_is_cancelled(imports: Imports, alive: UUID) -> None:
    waiting = await queued(imports)
    assert await imports.cancel(waiting.id)
    assert not await imports.cancel(waiting.id)
    assert not await imports.cancel(uuid4())
    assert await imports.take(alive) is None


async def test_cancelling_races_with_the_end_of_the_file(imports: Imports, files: Files, alive: UUID) -> None:
    """Whoever comes first wins altogether."""
    seen = set()
    for number in range(60):
        job = await taken(imports, alive)
        attempt = await begun(files, job)
        order = [stored(files, attempt), imports.cancel(job.id)]
        outcomes = await asyncio.gather(*order[:: 1 if number % 2 else -1], return_exceptions=True)
        file, cancelled = outcomes[:: 1 if number % 2 else -1]
        if cancelled is True:
            assert isinstance(file, Superseded)
            assert await files.get(attempt.id) is None
        else:
            assert isinstance(file, File)
            assert (await now(imports, job)).file_id == file.id
        seen.add(await state(imports, job))
    assert seen == {"cancelled", "done"}


# Replicas that die


async def test_the_living_keep_their_imports(imports: Imports, alive: UUID) -> None:
    job = await taken(imports, alive)
    await imports.requeue_dead(0)
    assert await now(imports, job) == job


async def test_a_dead_replicas_import_is_begun_again_and_its_file_is_not(imports: Imports, files: Files) -> None:
    job = await taken(imports)
    attempt = await begun(files, job)
    await imports.progress(job, 3, 9)
    await imports.requeue_dead(0)
    found = await now(imports, job)
    assert (found.state, found.bytes, found.total, found.rate) == ("pending", 0, None, None)
    with pytest.raises(Superseded):  # it was only slow
        await stored(files, attempt)
    again = await imports.take(uuid4())
    assert again is not None
    assert (again.id, again.tries, again.bytes, again.total) == (job.id, 2, 0, None)
    assert try_key(again) != try_key(job)
    await stored(files, await begun(files, again))


async def test_a_lease_is_over_after_the_grace(imports: Imports, database: Database) -> None:
    owner = uuid4()
    await Replicas(database).beat(owner, -5)
    job = await taken(imports, owner)
    await imports.requeue_dead(10)
    assert await state(imports, job) == "running"
    await imports.requeue_dead(4)
    assert await state(imports, job) == "pending"


async def test_a_dead_replicas_file_that_is_there_is_the_end(imports: Imports, files: Files) -> None:
    job = await taken(imports)
    file = await stored(files, await begun(files, job))
    await imports.requeue_dead(0)
    found = await now(imports, job)
    assert (found.state, found.file_id) == ("done", file.id)


async def test_three_tries_are_enough(imports: Imports, files: Files) -> None:
    added = await queued(imports)
    for _ in range(TRIES):
        job = await imports.take(uuid4())
        assert job is not None
        attempt = await begun(files, job)
        await imports.requeue_dead(0)
    assert await imports.take(uuid4()) is None
    found = await now(imports, added)
    assert (found.state, found.error) == ("failed", "The service broke off in the middle of it, 3 times.")
    with pytest.raises(Superseded):
        await stored(files, attempt)


async def test_a_replica_that_leaves_in_order_has_used_no_try(imports: Imports, alive: UUID) -> None:
    await queued(imports)
    for _ in range(TRIES + 2):
        job = await imports.take(alive)
        assert job is not None
        assert job.tries == 1
        await imports.again(job, counted=False)


async def test_a_try_of_another_replica_with_the_same_number_is_another_one(imports: Imports, alive: UUID) -> None:
    left = await taken(imports)
    await imports.again(left, counted=False)
    job = await imports.take(alive)
    assert job is not None
    assert job.tries == left.tries
    assert not await imports.progress(left, 1, 1)
    await imports.again(left)
    assert await now(imports, job) == job


async def test_a_try_and_a_requeue_race_for_the_end(imports: Imports, files: Files) -> None:
    for _ in range(30):
        job = await taken(imports)
        attempt = await begun(files, job)
        file, *_ = await asyncio.gather(
            stored(files, attempt), *(imports.requeue_dead(0) for _ in range(2)), return_exceptions=True
        )
        ended = isinstance(file, File)
        assert await state(imports, job) == ("done" if ended else "pending")
        assert (await files.get(attempt.id) is not None) == ended
        await imports.cancel(job.id)


# The rest


async def test_only_what_ended_long_ago_is_forgotten(imports: Imports, alive: UUID) -> None:
    running, waiting = await taken(imports, alive), await queued(imports)
    cancelled = await queued(imports)
    await imports.cancel(cancelled.id)
    await imports.forget_ended(60)
    assert await imports.get(cancelled.id)
    await imports.forget_ended(-60)
    assert await imports.get(cancelled.id) is None
    assert await imports.get(running.id)
    assert await imports.get(waiting.id)


async def test_no_client_can_send_the_key_of_a_try(imports: Imports, alive: UUID) -> None:
    assert not KEY.fullmatch(try_key(await taken(imports, alive)))


async def test_the_url_does_not_show_in_the_representation(imports: Imports) -> None:
    added = await queued(imports)
    assert added.url == URL
    assert "s3cret" not in repr(added)
