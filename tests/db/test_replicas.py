"""The repository of replicas: leases by the database's clock, and the identity of the storage."""

import asyncio
from datetime import timedelta
from uuid import UUID, uuid4

import pytest
import sqlalchemy as sa

from file_service.db.engine import Database
from file_service.db.files import Files
from file_service.db.replicas import Replicas
from file_service.db.tables import replica
from file_service.model import Attempt
from tests.support.rows import begun, now, result, states, stored

A, B = UUID(int=10), UUID(int=11)


async def leases(database: Database) -> dict[UUID, float]:
    """How many seconds every lease still has."""
    moment = await now(database)
    rows = await database.fetch(sa.select(replica))
    return {row.id: (row.lease_until - moment).total_seconds() for row in rows}


async def expire(database: Database, id_: UUID, seconds: float) -> None:
    """Let a lease have ended so many seconds ago."""
    until = await now(database) - timedelta(seconds=seconds)
    await database.execute(replica.update().where(replica.c.id == id_).values(lease_until=until))


async def test_a_beat_makes_a_lease_and_renews_it(replicas: Replicas, database: Database) -> None:
    await replicas.beat(A, 100)
    assert (await leases(database))[A] == pytest.approx(100, abs=5)
    await replicas.beat(B, 50)
    await replicas.beat(A, 200)
    assert await leases(database) == {A: pytest.approx(200, abs=5), B: pytest.approx(50, abs=5)}


async def test_a_lease_that_ran_out_can_be_taken_up_again(replicas: Replicas, database: Database) -> None:
    await replicas.beat(A, 10)
    await expire(database, A, 1000)
    await replicas.beat(A, 10)
    assert (await leases(database))[A] == pytest.approx(10, abs=5)


async def test_leaving_ends_one_lease_and_is_repeatable(replicas: Replicas, database: Database) -> None:
    await replicas.beat(A, 10)
    await replicas.beat(B, 10)
    await replicas.leave(A)
    await replicas.leave(A)
    assert list(await leases(database)) == [B]


async def test_only_what_a_dead_replica_received_is_given_up(
    files: Files, replicas: Replicas, database: Database
) -> None:
    await replicas.beat(A, 60)
    await replicas.beat(B, 60)
    living, dying, unknown = [await begun(files, owner=owner) for owner in (A, B, uuid4())]
    finished = await stored(files, owner=B)
    assert await files.give_up_dead(grace=0) == 1
    assert (await states(database))[unknown.id] == "aborting"
    await expire(database, B, 10)
    assert await files.give_up_dead(grace=20) == 0
    assert await files.give_up_dead(grace=5) == 1
    assert await files.give_up_dead(grace=5) == 0
    assert await states(database) == {
        living.id: "receiving",
        dying.id: "aborting",
        unknown.id: "aborting",
        finished.id: "stored",
    }


async def test_what_a_replica_left_behind_is_dead_at_once(files: Files, replicas: Replicas) -> None:
    await replicas.beat(A, 60)
    await begun(files, owner=A)
    await replicas.leave(A)
    assert await files.give_up_dead(grace=1000) == 1


async def test_a_dead_lease_is_kept_as_long_as_it_owns_an_attempt(
    files: Files, replicas: Replicas, database: Database
) -> None:
    for id_ in (A, B):
        await replicas.beat(id_, 10)
    attempt = await begun(files, owner=A)
    await stored(files, owner=B)
    for id_ in (A, B):
        await expire(database, id_, 100)
    await replicas.forget_dead(grace=200)
    assert set(await leases(database)) == {A, B}
    await replicas.forget_dead(grace=50)
    assert set(await leases(database)) == {A}
    await files.give_up(attempt)
    await replicas.forget_dead(grace=50)
    assert await leases(database) == {}


async def test_the_living_are_never_forgotten(replicas: Replicas, database: Database) -> None:
    await replicas.beat(A, 10)
    await replicas.forget_dead(grace=0)
    assert list(await leases(database)) == [A]


async def test_the_first_storage_is_the_one_that_counts(replicas: Replicas) -> None:
    assert await replicas.storage_identity() is None
    first, second = uuid4(), uuid4()
    assert await replicas.adopt_storage(first) == first
    assert await replicas.adopt_storage(second) == first
    assert await replicas.storage_identity() == first


async def test_ten_that_start_at_once_agree_on_the_storage(replicas: Replicas) -> None:
    answers = await asyncio.gather(*(replicas.adopt_storage(uuid4()) for _ in range(10)))
    assert set(answers) == {await replicas.storage_identity()}


async def test_a_reclaimed_attempt_is_nobody_elses(files: Files, replicas: Replicas, database: Database) -> None:
    """Two replicas share a file's id only by accident; the attempt keeps them apart."""
    await replicas.beat(A, 60)
    attempt = await begun(files, owner=A)
    await files.give_up(Attempt(attempt.id, uuid4()))
    assert len(await files.finish([result(attempt)])) == 1
    assert await states(database) == {attempt.id: "stored"}
