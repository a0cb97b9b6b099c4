"""kill -9 before every system call by which an upload or a delete changes the disk, and before the answer.

What was acknowledged is there, what was not is there whole or not at all, and what the crash left is gone within lease
and sweep. No fail points in the service: strace kills it (see killing.py).
"""

import hashlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.crash.checker import debris, fetched, sqlite_rows
from tests.crash.killing import answer_of, attempt, changes, deletion, killed_before, needs_strace, stored, traced
from tests.crash.steps import DELETE, FORM, ONE, RAW, TWO, Step
from tests.support.doors import form_of, part, raw
from tests.support.process import Service
from tests.support.raw import connection, exchange

Recovered = Callable[..., Awaitable[tuple[str, dict[str, dict[str, Any]]]]]
KEPT = b"stored before the crash"


@pytest.fixture
def service(started: Callable[..., Service], step: Step) -> Service:
    """The one that dies."""
    return started(step.lease)


def digests(*contents: bytes) -> list[str]:
    """What the records of these files say, in order."""
    return sorted(hashlib.sha256(content).hexdigest() for content in contents)


@needs_strace
@pytest.mark.parametrize("step", RAW, ids=str)
async def test_a_raw_upload_survives_whole_or_not_at_all(service: Service, recovered: Recovered, step: Step) -> None:
    kept, key = stored(service, KEPT)
    assert attempt(service, step, raw(ONE), ONE) is None
    assert debris(service.data_dir, {key}) == step.left
    url, records = await recovered(service.data_dir, step.lease)
    whole = [ONE] * step.left.rows.count("stored")
    assert sorted(record["sha256"] for record in records.values()) == digests(KEPT, *whole)
    assert await fetched(url, kept) == KEPT


@needs_strace
@pytest.mark.parametrize("step", FORM, ids=str)
async def test_a_form_survives_with_all_its_files_or_none(service: Service, recovered: Recovered, step: Step) -> None:
    kept, key = stored(service, KEPT)
    assert attempt(service, step, form_of(part(ONE), part(TWO)), ONE, TWO) is None
    assert debris(service.data_dir, {key}) == step.left
    url, records = await recovered(service.data_dir, step.lease)
    whole = [ONE, TWO] if "stored" in step.left.rows else []
    assert sorted(record["sha256"] for record in records.values()) == digests(KEPT, *whole)
    assert await fetched(url, kept) == KEPT


@needs_strace
@pytest.mark.parametrize("step", DELETE, ids=str)
async def test_a_deleted_file_is_whole_or_gone(service: Service, recovered: Recovered, step: Step) -> None:
    kept, key = stored(service, KEPT)
    doomed, doomed_key = stored(service, ONE)
    with connection(service.url) as sock:
        with killed_before(service, step, doomed_key):
            sock.sendall(deletion(doomed))
        assert answer_of(sock) is None
    assert debris(service.data_dir, {key}) == step.left
    url, _ = await recovered(service.data_dir, step.lease)
    assert await fetched(url, doomed) == (ONE if "stored" in step.left.rows else None)
    assert await fetched(url, kept) == KEPT


@needs_strace
def test_every_call_that_changes_something_has_its_death(started: Callable[..., Service], tmp_path: Path) -> None:
    service = started(60.0)
    uploads, deletes = tmp_path / "uploads.strace", tmp_path / "deletes.strace"
    with traced(service, uploads):
        ids, keys = zip(*(stored(service, content) for content in (ONE, TWO)), strict=True)
        assert exchange(service.url, bytes(form_of(part(ONE), part(TWO)))).status == 201
        keys = tuple(row.attempt for row in sqlite_rows(service.data_dir))
    with traced(service, deletes):
        assert [exchange(service.url, deletion(id_)).status for id_ in ids] == [204, 204]
    assert changes(service, uploads, *keys) == covered(RAW + FORM)
    assert changes(service, deletes, *keys) == covered(DELETE)


def covered(steps: list[Step]) -> set[tuple[str, str]]:
    """The calls before which the steps die, each with its place."""
    return {(call, step.where) for step in steps for call in step.call.split(",") if call != "close"}
