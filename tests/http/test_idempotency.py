"""Idempotency-Key when things go wrong: races, cuts, takeovers, other doors; on both databases."""

from concurrent.futures import ThreadPoolExecutor
from random import Random
from threading import Barrier
from uuid import uuid4

import pytest

from tests.support.doors import Door, Upload, chunked, every_door, form, form_of, part, put, raw
from tests.support.raw import connection, read_answer, reset
from tests.support.store import Store, eventually, refused, stored

CONTENT = Random(0).randbytes(100_000)


def fresh() -> list[bytes]:
    """The lines of a fresh key."""
    return [b"Idempotency-Key: " + str(uuid4()).encode()]


@every_door
def test_ten_equal_uploads_at_once_are_one_file(either_store: Store, door: Door) -> None:
    upload = door(CONTENT, lines=fresh())
    together = Barrier(10)

    def send(_: int) -> tuple[int, bytes]:
        with connection(either_store.url) as sock:
            sock.sendall(bytes(upload)[:-1])
            together.wait(10)
            sock.sendall(bytes(upload)[-1:])
            answer = read_answer(sock)
            return answer.status, answer.body

    with ThreadPoolExecutor(10) as clients:
        answers = list(clients.map(send, range(10)))
    assert {status for status, _ in answers} - {409} == {201}
    (id_,) = {body.decode() for status, body in answers if status == 201}
    assert either_store.get(id_) == CONTENT
    either_store.holds(id_)
    assert stored(either_store.send(upload)) == id_


@every_door
def test_ten_uploads_one_after_the_other_are_one_file(either_store: Store, door: Door) -> None:
    upload = door(CONTENT, lines=fresh())
    (id_,) = {stored(either_store.send(upload)) for _ in range(10)}
    either_store.holds(id_)


@pytest.mark.parametrize("end", ["finishes", "is reset", "is cut", "turns out wrong"])
def test_an_attempt_that_was_overtaken_takes_nothing_away(either_store: Store, end: str) -> None:
    """The end of a stalled first attempt must not hit the row or the bytes of its own retry."""
    lines = fresh()
    upload = raw(CONTENT, lines=lines)
    digest = b"Content-MD5: AAAAAAAAAAAAAAAAAAAAAA=="
    first = raw(CONTENT, lines=[*lines, digest]) if end == "turns out wrong" else upload
    with connection(either_store.url) as stalled:
        stalled.sendall(bytes(first)[:-1])
        eventually(lambda: either_store.begun() == 1, 5)
        id_ = stored(either_store.send(upload))
        if end == "is reset":
            reset(stalled)
        elif end != "is cut":
            stalled.sendall(bytes(first)[-1:])
            assert read_answer(stalled).status == (409 if end == "finishes" else 400)
    either_store.holds(id_)
    assert either_store.get(id_) == CONTENT
    assert stored(either_store.send(upload)) == id_


@every_door
def test_an_attempt_that_failed_leaves_its_key_free(either_store: Store, door: Door) -> None:
    lines = fresh()
    with connection(either_store.url) as sock:
        sock.sendall(bytes(door(CONTENT, lines=lines))[:-1])
        eventually(lambda: bool(either_store.rows()), 5)
    either_store.holds()
    either_store.holds(stored(either_store.send(door(b"other", lines=lines))))


@every_door
def test_an_answer_that_nobody_read_is_given_again(either_store: Store, door: Door) -> None:
    upload = door(CONTENT, lines=fresh())
    with connection(either_store.url) as sock:
        sock.sendall(bytes(upload))
        eventually(lambda: [row.state for row in either_store.rows()] == ["stored"], 5)
        reset(sock)
    (row,) = either_store.rows()
    assert stored(either_store.send(upload)) == row.id
    either_store.holds(row.id)


def test_a_refused_reuse_of_a_key_stores_nothing_and_harms_nothing(either_store: Store) -> None:
    lines = fresh()
    id_ = stored(either_store.send(raw(CONTENT, lines=lines)))
    for other in (b"", b"other", CONTENT[:-1], CONTENT + b"x", b"x" * len(CONTENT)):
        for door in (raw, put, form):
            for upload in (door(other, lines=lines), chunked(door(other, lines=lines))):
                refused(either_store.send(upload), 422)
    either_store.holds(id_)
    assert either_store.get(id_) == CONTENT


def test_a_key_says_who_sends_and_not_how(store: Store) -> None:
    lines = fresh()
    uploads: list[Upload] = [raw(CONTENT, lines=lines), put(CONTENT, lines=lines), form(CONTENT, lines=lines)]
    (id_,) = {stored(store.send(each)) for upload in uploads for each in (upload, chunked(upload))}
    store.holds(id_)


def test_a_repeated_upload_keeps_its_first_name_and_type(store: Store) -> None:
    lines = fresh()
    id_ = stored(store.send(put(b"x", name="first.txt", lines=[*lines, b"Content-Type: text/plain"])))
    assert stored(store.send(put(b"x", name="second.png", lines=[*lines, b"Content-Type: image/png"]))) == id_
    assert (store.meta(id_)["name"], store.meta(id_)["content_type"]) == ("first.txt", "text/plain")


def test_a_repeated_upload_is_held_to_its_digest(store: Store) -> None:
    lines = fresh()
    id_ = stored(store.send(raw(b"x", lines=lines)))
    wrong = [*lines, b"Content-MD5: AAAAAAAAAAAAAAAAAAAAAA=="]
    kind = "https://iana.org/assignments/http-problem-types#digest-mismatched-values"
    refused(store.send(raw(b"x", lines=wrong)), 400, kind)
    store.holds(id_)
    assert store.get(id_) == b"x"


def test_a_retry_that_waits_is_told_to_go_on(store: Store) -> None:
    lines = [*fresh(), b"Expect: 100-continue"]
    id_ = stored(store.send(raw(b"x", lines=lines)))
    answer = store.send(raw(b"x", lines=lines))
    assert (stored(answer), answer.interim) == (id_, (100,))


@pytest.mark.parametrize("spelling", [b"%b", b'"%b"', b' "%b" ', b" %b"])
def test_a_key_is_the_same_with_and_without_its_quotes(store: Store, spelling: bytes) -> None:
    value = str(uuid4()).encode()
    id_ = stored(store.send(raw(b"x", lines=[b"Idempotency-Key: " + value])))
    assert stored(store.send(raw(b"x", lines=[b"Idempotency-Key: " + spelling % value]))) == id_


def test_keys_differ_in_case_and_to_the_last_of_255_characters(store: Store) -> None:
    start = uuid4().hex * 7 + "a" * 30
    keys = [start + "a", start + "b", (start + "a").upper()]
    found = [stored(store.send(raw(b"x", lines=[b"Idempotency-Key: " + value.encode()]))) for value in keys]
    assert len({*found}) == 3
    store.holds(*found)


@pytest.mark.parametrize(
    "lines",
    [
        [b"Idempotency-Key:"],
        [b"Idempotency-Key: a", b"Idempotency-Key: b"],
        [b"Idempotency-Key: a", b"Idempotency-Key: a"],
        [b'Idempotency-Key: "a", "b"'],
        [b'Idempotency-Key: "a'],
        [b'Idempotency-Key: ""'],
        [b'Idempotency-Key: "a\\b"'],
        [b'Idempotency-Key: "a b"'],
        [b"Idempotency-Key: a\tb"],
        [b"Idempotency-Key: \xc3\xa9"],
        [b"Idempotency-Key: " + b"x" * 256],
        [b"Idempotency-Key: " + b"x" * 8000],
    ],
)
@pytest.mark.parametrize("door", [raw, put, form])
def test_what_is_no_key_is_refused_and_not_passed_over(store: Store, door: Door, lines: list[bytes]) -> None:
    assert "Idempotency-Key" in refused(store.send(door(b"x", lines=lines)), 400)
    store.holds()


def test_a_form_is_repeated_file_by_file(either_store: Store) -> None:
    lines = fresh()
    parts = [part(b"%d" % number, f"{number}") for number in range(3)]
    ids = either_store.send(form_of(*parts, lines=lines)).body.decode().split()
    assert either_store.send(form_of(*parts, lines=lines)).body.decode().split() == ids
    for others in (parts[:2], [*parts, part(b"3")], [parts[1], parts[0], parts[2]], [*parts[:2], part(b"2x")]):
        refused(either_store.send(form_of(*others, lines=lines)), 422)
        either_store.holds(*ids)
    refused(either_store.send(form_of(*parts, lines=lines, end=b"")), 400)
    either_store.holds(*ids)


def test_a_form_that_was_overtaken_between_two_files_takes_nothing_away(either_store: Store) -> None:
    upload = form_of(part(b"one"), part(CONTENT), part(b"three"), lines=fresh())
    cut = upload.body.rindex(b"--Bound-ary\r\n")
    with connection(either_store.url) as stalled:
        stalled.sendall(upload.head + upload.body[:cut])
        eventually(lambda: len(either_store.rows()) == 2, 5)
        ids = either_store.send(upload).body.decode().split()
        stalled.sendall(upload.body[cut:])
        assert read_answer(stalled).status in (409, 422)
    either_store.holds(*ids)
    assert [either_store.get(id_) for id_ in ids] == [b"one", CONTENT, b"three"]


def test_a_form_that_lost_a_file_is_no_repetition(either_store: Store) -> None:
    lines = fresh()
    form_ = form_of(part(b"one"), part(b"two"), lines=lines)
    ids = either_store.send(form_).body.decode().split()
    either_store.call("DELETE", f"/files/{ids[0]}/")
    refused(either_store.send(form_), 422)
    either_store.holds(ids[1])
    either_store.call("DELETE", f"/files/{ids[1]}/")
    again = either_store.send(form_).body.decode().split()
    assert not {*again} & {*ids}
    either_store.holds(*again)


def test_a_deleted_file_gives_its_key_back(either_store: Store) -> None:
    lines = fresh()
    first = stored(either_store.send(raw(b"x", lines=lines)))
    either_store.call("DELETE", f"/files/{first}/")
    second = stored(either_store.send(raw(b"y", lines=lines)))
    assert second != first
    either_store.holds(second)
