"""Idempotency-Key: a retry never makes a second file, and a key never stands for two bodies."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import pytest

from tests.support.doors import Door, form, form_of, part, put, raw
from tests.support.raw import connection, read_answer, reset
from tests.support.store import Store, eventually, refused, stored

CONTENT = b"content " * 9000
every_door = pytest.mark.parametrize("door", [raw, put, form])


def key() -> bytes:
    """A fresh Idempotency-Key."""
    return f'Idempotency-Key: "{uuid4()}"'.encode()


@every_door
def test_the_same_upload_again_gives_the_same_file(either_store: Store, door: Door) -> None:
    lines = [key()]
    first = stored(either_store.send(door(CONTENT, lines=lines)))
    assert stored(either_store.send(door(CONTENT, lines=lines))) == first
    assert [row.id for row in either_store.rows()].count(first) == 1


@every_door
@pytest.mark.parametrize("other", [b"other", CONTENT + b"x", CONTENT[:-1], b""])
def test_another_body_under_the_same_key_is_refused(store: Store, door: Door, other: bytes) -> None:
    lines = [key()]
    first = stored(store.send(door(CONTENT, lines=lines)))
    refused(store.send(door(other, lines=lines)), 422)
    assert store.get(first) == CONTENT


def test_of_ten_at_once_one_is_stored_and_the_others_say_so(either_store: Store) -> None:
    lines, before = [key()], len(either_store.rows())
    upload = raw(CONTENT, lines=lines)

    def slowly(_: int) -> tuple[int, bytes]:
        with connection(either_store.url) as sock:
            sock.sendall(upload.head + upload.body[:1000])
            sock.sendall(upload.body[1000:])
            answer = read_answer(sock)
            return answer.status, answer.body

    with ThreadPoolExecutor(10) as pool:
        answers = list(pool.map(slowly, range(10)))
    assert set(Counter(status for status, _ in answers)) <= {201, 409}
    assert len({body for status, body in answers if status == 201}) == 1
    assert len(either_store.rows()) == before + 1


def test_a_lost_answer_is_made_good_by_the_retry(store: Store) -> None:
    lines, before = [key()], len(store.rows())
    with connection(store.url) as sock:
        sock.sendall(bytes(raw(CONTENT, lines=lines)))
        eventually(lambda: len(store.rows()) == before + 1 and not store.unfinished())
        reset(sock)
    stored(store.send(raw(CONTENT, lines=lines)))
    assert len(store.rows()) == before + 1


def test_a_retry_takes_a_stalled_attempt_over(store: Store) -> None:
    lines = [key()]
    upload = raw(CONTENT, lines=lines)
    with connection(store.url) as stalled:
        stalled.sendall(upload.head + upload.body[:-1])
        eventually(lambda: bool(store.unfinished()))
        second = stored(store.send(upload))
        stalled.sendall(upload.body[-1:])
        assert read_answer(stalled).status == 409
    assert store.get(second) == CONTENT


def test_a_form_is_repeated_as_a_whole(store: Store) -> None:
    lines = [key()]
    parts = [part(b"one", "1"), part(b"two", "2")]
    first = store.send(form_of(*parts, lines=lines))
    assert store.send(form_of(*parts, lines=lines)).body == first.body
    refused(store.send(form_of(parts[0], lines=lines)), 422)
    refused(store.send(form_of(*parts, part(b"three", "3"), lines=lines)), 422)
    refused(store.send(form_of(*reversed(parts), lines=lines)), 422)


def test_a_key_is_free_again_after_its_file_was_deleted(store: Store) -> None:
    lines = [key()]
    first = stored(store.send(raw(CONTENT, lines=lines)))
    store.call("DELETE", f"/files/{first}/")
    assert stored(store.send(raw(b"other", lines=lines))) != first


@pytest.mark.parametrize("value", [b"", b'""', b"a b", b"x" * 256, b'"unterminated', "schlüssel".encode()])
def test_a_key_that_is_none_is_refused(store: Store, value: bytes) -> None:
    refused(store.send(raw(b"x", lines=[b"Idempotency-Key: " + value])), 400)
