"""Other servers that lie, stall, break off or never stop: the import fails with a reason, and nothing of it is kept."""

import asyncio
import gzip
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from file_service.errors import StorageFull
from file_service.service import fetching
from file_service.service.files import FileService
from file_service.storage.local import LocalStorage
from tests.imports.conftest import Importer, kept
from tests.imports.upstream import Upstream, Visit

BROKEN = "The body broke off, or its framing is broken."
NOT_HTTP = "What the other server sends is not proper HTTP."
TOO_SLOW = "The other server sent nothing, or next to nothing, for too long."
NO_ANSWER = "The other server closed the connection without an answer."
CONNECTION = "The connection broke."
CODING = "The other server uses a transfer coding that it was not offered."
OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
LENGTH = OK + b"Content-Length: %d\r\n\r\n"
HELLO = b"5\r\nhello\r\n"


async def failed(importer: Importer, folder: Path, url: str, error: str) -> dict[str, Any]:
    """Import and see it fail without a trace."""
    record = await importer.run(url)
    assert (record["state"], record["error"], record["file_id"]) == ("failed", error, None)
    assert await importer.files() == []
    assert kept(folder) == []
    return record


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the service keeps its data."""
    return tmp_path / "data"


# Bodies, sent piece by piece


@pytest.mark.parametrize(
    ("pieces", "error"),
    [
        pytest.param([LENGTH % 10, b"hello"], BROKEN, id="shorter than its length"),
        pytest.param([LENGTH % 10 + b"hello"], BROKEN, id="shorter than its length, at once"),
        pytest.param([LENGTH % 10], BROKEN, id="length and no body"),
        pytest.param([LENGTH % 3 + b"hello"], NOT_HTTP, id="longer than its length, at once"),
        pytest.param([LENGTH % 70000, b"x" * 65000, b"x" * 65000], BROKEN, id="longer than its length"),
        pytest.param([LENGTH % 7, b"hello", b"hello"], BROKEN, id="a little longer than its length"),
        pytest.param([CHUNKED, HELLO], BROKEN, id="chunks without an end"),
        pytest.param([CHUNKED, b"5\r\nhel"], BROKEN, id="half a chunk"),
        pytest.param([CHUNKED, HELLO, b"0\r\n"], BROKEN, id="chunks without the last line"),
        pytest.param([CHUNKED, HELLO, b"0\r\n\r\nmore"], BROKEN, id="bytes after the last chunk"),
        pytest.param([CHUNKED + b"ZZ\r\nhello\r\n0\r\n\r\n"], NOT_HTTP, id="a malformed chunk, at once"),
        pytest.param([CHUNKED, b"ZZ\r\nhello\r\n0\r\n\r\n"], BROKEN, id="a malformed chunk"),
        pytest.param([CHUNKED, HELLO, b"5\r\nhelloXX"], BROKEN, id="a chunk that is longer than it says"),
        pytest.param([CHUNKED, b"-5\r\nhello\r\n"], BROKEN, id="a negative chunk"),
        pytest.param([CHUNKED, b"f" * 17 + b"\r\nhello"], BROKEN, id="a chunk of more bytes than there are"),
        pytest.param([CHUNKED, b"5\nhello\n0\n\n"], BROKEN, id="chunks with bare line feeds"),
    ],
)
async def test_a_body_that_is_not_what_it_says(
    importer: Importer, upstream: Upstream, folder: Path, pieces: list[bytes], error: str
) -> None:
    async def conversation(visit: Visit) -> None:
        await visit.say(*pieces)
        if error == BROKEN and pieces[-1].startswith((b"ZZ", b"-5", b"f", b"5\n")):
            await visit.until_left()  # also when the connection stays open

    await failed(importer, folder, upstream.says(conversation), error)


@pytest.mark.parametrize(
    ("pieces", "error"),
    [
        pytest.param([], NO_ANSWER, id="nothing"),
        pytest.param([OK], NO_ANSWER, id="half a head"),
        pytest.param([b"SSH-2.0-OpenSSH_9.9\r\n"], NOT_HTTP, id="another protocol"),
        pytest.param([b"\x16\x03\x01\x00\x05hello"], NOT_HTTP, id="TLS"),
        pytest.param([b"hello"], NOT_HTTP, id="HTTP/0.9"),
        pytest.param([OK + b"Content-Length: -5\r\n\r\nhello"], NOT_HTTP, id="a negative length"),
        pytest.param([OK + b"Content-Length: 5\r\nContent-Length: 4\r\n\r\nhello"], NOT_HTTP, id="two lengths"),
        pytest.param([OK + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"], NOT_HTTP, id="both"),
        pytest.param([OK + b"X: " + b"a" * 100_000 + b"\r\n\r\n"], NOT_HTTP, id="a large header"),
        pytest.param([OK + b"X: a\r\n" * 100_000 + b"\r\n"], NOT_HTTP, id="many headers"),
        pytest.param([OK + b"Transfer-Encoding: gzip\r\n\r\nhello"], CODING, id="a transfer coding"),
        pytest.param(
            [OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n" + HELLO + b"0\r\n\r\n"], CODING, id="a coding, chunked"
        ),
        *(
            pytest.param([b"HTTP/1.1 %d What\r\nContent-Length: 0\r\n\r\n" % status], str(status), id=str(status))
            for status in (101, 204, 206, 400, 401, 403, 404, 407, 500, 503)
        ),
    ],
)
async def test_an_answer_that_is_none(
    importer: Importer, upstream: Upstream, folder: Path, pieces: list[bytes], error: str
) -> None:
    error = f"The other server answered {error}." if error.isdigit() else error
    await failed(importer, folder, upstream.sends(*pieces), error)


@pytest.mark.parametrize(
    "head", [LENGTH % 1_000_000, CHUNKED + b"fffff\r\n", OK + b"\r\n"], ids=["length", "chunk", "end"]
)
async def test_a_reset_is_never_the_end_of_a_file(
    importer: Importer, upstream: Upstream, folder: Path, head: bytes
) -> None:
    """Where the end of the connection is the end of the body, that is all there is to tell the two apart."""

    async def conversation(visit: Visit) -> None:
        await visit.say(head, b"x" * 100_000, b"x")
        await asyncio.sleep(0.05)
        visit.reset()

    error = CONNECTION if head == OK + b"\r\n" else BROKEN
    await failed(importer, folder, upstream.says(conversation), error)


async def test_a_reset_before_the_body_is_read_is_not_the_end_either(
    importer: Importer, upstream: Upstream, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer is there, and then disk and database take their time."""
    over, admit = asyncio.Event(), FileService.admit

    async def conversation(visit: Visit) -> None:
        await visit.say(OK + b"\r\n", b"hello")
        await asyncio.sleep(0.05)
        visit.reset()
        over.set()

    async def slow(files: FileService, length: int | None) -> None:
        await over.wait()
        await asyncio.sleep(0.05)
        await admit(files, length)

    monkeypatch.setattr(FileService, "admit", slow)
    await failed(importer, folder, upstream.says(conversation), CONNECTION)


async def test_a_reset_instead_of_an_answer(importer: Importer, upstream: Upstream, folder: Path) -> None:
    async def conversation(visit: Visit) -> None:
        visit.reset()

    await failed(importer, folder, upstream.says(conversation), CONNECTION)


async def test_nobody_listens(importer: Importer, folder: Path) -> None:
    """In the words that are used for what may not be reached."""
    await failed(importer, folder, "http://127.0.0.1:1/", "There is no public server at this address.")


async def test_a_server_without_tls_behind_https(importer: Importer, folder: Path) -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 This is no TLS\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as server:
        url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        await failed(importer, folder, url, "The other server does not speak TLS as we do.")


# Slow ones; the service waits 0.3 s


@pytest.fixture
async def impatient(importing: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> Importer:
    monkeypatch.setattr(fetching, "CONNECT_SECONDS", 0.1)
    return await importing(body_idle_timeout=0.3)  # type: ignore[no-any-return]


async def drip(visit: Visit, before: bytes) -> None:
    """Go on one byte at a time, for ever."""
    await visit.say(before)
    while True:
        await visit.say(b"x")
        await asyncio.sleep(0.02)


@pytest.mark.parametrize(
    "before", [b"", OK, OK + b"X-Header: ", LENGTH % 10_000, CHUNKED + b"fffff\r\n", OK + b"\r\n", CHUNKED + HELLO]
)
async def test_silence_and_dripping_are_given_up(
    impatient: Importer, upstream: Upstream, folder: Path, before: bytes
) -> None:
    if before != CHUNKED + HELLO:
        await failed(
            impatient, folder, upstream.says(lambda visit: drip(visit, before)), TOO_SLOW if before else NOT_HTTP
        )

    async def silent(visit: Visit) -> None:
        await visit.say(before)
        await visit.until_left()

    await failed(impatient, folder, upstream.says(silent), TOO_SLOW)


async def test_interim_answers_for_ever_are_given_up(impatient: Importer, upstream: Upstream, folder: Path) -> None:
    async def conversation(visit: Visit) -> None:
        while True:
            await visit.say(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n")
            await asyncio.sleep(0.01)

    await failed(impatient, folder, upstream.says(conversation), TOO_SLOW)


# Large ones


async def test_an_announced_length_over_the_limit_is_refused_before_the_first_byte(
    importing: Callable[..., Any], upstream: Upstream, folder: Path
) -> None:
    importer: Importer = await importing(max_file_size=5)

    async def conversation(visit: Visit) -> None:
        await visit.say(LENGTH % 6)
        await visit.until_left()

    record = await failed(
        importer, folder, upstream.says(conversation), "The file is larger than the limit of 5 bytes."
    )
    assert record["bytes"] == 0
    assert (await importer.run(upstream.url + "/hello"))["state"] == "done"


@pytest.mark.parametrize("head", [CHUNKED, OK + b"\r\n"])
async def test_an_endless_body_is_cut_off_at_the_limit(
    importing: Callable[..., Any], upstream: Upstream, folder: Path, head: bytes
) -> None:
    importer: Importer = await importing(max_file_size=1_000_000)
    sent = 0

    async def conversation(visit: Visit) -> None:
        nonlocal sent
        await visit.say(head)
        while True:
            await visit.say(b"10000\r\n" + bytes(65536) + b"\r\n")
            sent += 65536

    url = upstream.says(conversation)
    await failed(importer, folder, url, "The file is larger than the limit of 1000000 bytes.")
    assert sent < 20_000_000


async def test_a_file_that_has_no_room_is_refused_before_the_first_byte(
    importer: Importer, upstream: Upstream, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def free(_: LocalStorage) -> int:
        return 4

    monkeypatch.setattr(LocalStorage, "free", free)
    await failed(importer, folder, upstream.url, StorageFull().detail)


# What looks like a fault and is none


@pytest.mark.parametrize(
    ("pieces", "content"),
    [
        pytest.param([OK + b"\r\n", b"hel", b"lo"], b"hello", id="ended by the connection"),
        pytest.param([b"HTTP/1.0 200 OK\r\n\r\n", b"hello"], b"hello", id="HTTP/1.0"),
        pytest.param([CHUNKED + b"0\r\n\r\n"], b"", id="no bytes, chunked"),
        pytest.param([LENGTH % 0], b"", id="no bytes"),
        pytest.param([CHUNKED, b"5;a=b\r\nhello\r\n0\r\nTrailer: x\r\n\r\n"], b"hello", id="extension and trailer"),
        pytest.param(
            [b"HTTP/1.1 103 Early\r\nLink: </x>\r\n\r\n", LENGTH % 5 + b"hello"], b"hello", id="an interim answer"
        ),
        pytest.param([LENGTH % 300_000] + [b"x" * 1000] * 300, b"x" * 300_000, id="many pieces"),
    ],
)
async def test_odd_but_whole(importer: Importer, upstream: Upstream, pieces: list[bytes], content: bytes) -> None:
    record = await importer.run(upstream.sends(*pieces, pause=0.001))
    assert (record["state"], record["error"], record["bytes"]) == ("done", None, len(content))
    assert record["total"] == len(content)
    assert await importer.content(record) == content


async def test_a_reset_after_a_whole_body_takes_nothing_away(importer: Importer, upstream: Upstream) -> None:
    async def conversation(visit: Visit) -> None:
        await visit.say(LENGTH % 5, b"hello")
        visit.reset()

    record = await importer.run(upstream.says(conversation))
    assert await importer.content(record) == b"hello"


PACKED = gzip.compress(bytes(100 << 20), 1)


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "nonsense"])
async def test_a_coded_body_is_stored_as_it_is(importer: Importer, upstream: Upstream, coding: str) -> None:
    """A hundred megabytes of nothing, packed, are half a megabyte. How well they are packed is not our affair."""
    packed = PACKED if coding == "gzip" else b"hello"
    url = upstream.says(lambda visit: visit.answer(packed, f"Content-Encoding: {coding}", "Content-Type: text/plain"))
    record = await importer.run(url)
    assert (record["state"], record["bytes"]) == ("done", len(packed))
    assert await importer.content(record) == packed


async def test_a_large_file_comes_whole(importer: Importer, upstream: Upstream) -> None:
    content = os.urandom(20 << 20)
    record = await importer.run(upstream.says(lambda visit: visit.answer(content)))
    assert await importer.content(record) == content
