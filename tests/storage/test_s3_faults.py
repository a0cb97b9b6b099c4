"""S3 on its bad days: slow, refusing, cut off, lying. Nothing incomplete is visible, nothing is left or lost."""

import asyncio
import logging
import random
import socket
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from typing import Any
from uuid import UUID, uuid4

import pytest

from file_service.errors import Damaged, ServiceError, StorageFailed, StorageFull, Unavailable
from file_service.storage import s3_reading, s3_retries
from file_service.storage.base import staged
from file_service.storage.s3 import S3Storage
from file_service.storage.s3_retries import Patience
from tests.storage.s3_bench import PATIENCE, PREFIX, opened
from tests.support.s3_fault_proxy import (
    FOR_EVER,
    Fault,
    FaultProxy,
    answer_lost,
    answered,
    bit_flipped,
    body_cut,
    error_in_200,
    fault_proxy,
    grown,
    held,
    refused,
    refused_but_done,
    request_lost,
    silent,
)
from tests.support.s3_server import Bucket, S3Server, moto, swift

PART = 1000
SMALL: dict[str, Any] = {"part_size": PART, "smallest_part": 300, "memory": 8 * PART, "chunk_size": 700}
DATA = random.Random(4).randbytes(3 * PART + 10)
TINY = DATA[:10]
Stand = tuple[S3Storage, Bucket, FaultProxy]


@asynccontextmanager
async def behind_proxy(server: S3Server, **options: Any) -> AsyncIterator[Stand]:
    """A storage that reaches its server through a proxy with faults."""
    async with fault_proxy(server.url) as proxy, opened(server, url=proxy.url, **options) as (storage, bucket):
        yield storage, bucket, proxy


@pytest.fixture
async def stand() -> AsyncIterator[Stand]:
    """On the strict server, with small parts."""
    async with behind_proxy(swift(), **SMALL) as stand:
        yield stand


def place(key: UUID) -> str:
    """The key of the object."""
    return f"{PREFIX}{key.hex}"


async def store(storage: S3Storage, data: bytes) -> UUID:
    """Publish `data` under a fresh key."""
    key = uuid4()
    async with staged(storage, key) as writer:
        await writer.write(data)
    return key


async def read(storage: S3Storage, key: UUID, start: int = 0, stop: int | None = None) -> bytes:
    """The bytes of a file."""
    async with aclosing(storage.read(key, start, stop)) as chunks:
        return b"".join([chunk async for chunk in chunks])


async def read_as_far_as_it_goes(chunks: AsyncIterator[bytes]) -> tuple[bytes, Exception | None]:
    """What came, and what ended it."""
    got = b""
    try:
        async for chunk in chunks:
            got += chunk
    except ServiceError as error:
        return got, error
    return got, None


async def stored_all_the_same(stand: Stand, data: bytes) -> None:
    """An upload of `data` succeeds, is exact, and leaves nothing else."""
    storage, bucket, _ = stand
    key = await store(storage, data)
    assert bucket.read(place(key)) == data
    assert set(bucket.sizes()) == {place(key)}
    assert bucket.uploads() == []


async def nothing_is_left(stand: Stand) -> None:
    """Once the store is well again a failed upload has left nothing, and the next one succeeds."""
    storage, bucket, proxy = stand
    proxy.heal()
    assert bucket.sizes() == {}
    assert bucket.uploads() == []
    assert storage.memory.free == storage.memory.size
    await stored_all_the_same(stand, DATA)


# Row by row: what fails for a while, and what fails for ever

OPERATIONS = [
    ("PutObject", TINY),
    ("HeadObject", TINY),
    ("CreateMultipartUpload", DATA),
    ("UploadPart", DATA),
    ("CompleteMultipartUpload", DATA),
    ("HeadObject", DATA),
]
FAULTS = {
    "503": refused(503, "SlowDown"),
    "request lost": request_lost,
    "answer lost": answer_lost,
}


@pytest.mark.parametrize(("operation", "data"), OPERATIONS)
@pytest.mark.parametrize("fault", FAULTS)
async def test_what_fails_three_times_is_tried_a_fourth(stand: Stand, operation: str, data: bytes, fault: str) -> None:
    _, _, proxy = stand
    proxy.inject(operation, FAULTS[fault], times=3)
    if (operation, fault) == ("CreateMultipartUpload", "answer lost"):
        key = await store(stand[0], data)
        assert stand[1].read(place(key)) == data
        await stand[0].delete(key)  # and with it the uploads of which nobody got the id
        await nothing_is_left(stand)
        return
    await stored_all_the_same(stand, data)


@pytest.mark.parametrize(("operation", "data"), OPERATIONS)
@pytest.mark.parametrize("fault", FAULTS)
async def test_what_fails_for_ever_is_unavailable_and_leaves_nothing(
    stand: Stand, operation: str, data: bytes, fault: str
) -> None:
    storage, _, proxy = stand
    proxy.inject(operation, FAULTS[fault], times=FOR_EVER)
    if operation in ("PutObject", "CompleteMultipartUpload") and fault == "answer lost":
        await stored_all_the_same(stand, data)  # it did arrive, and HEAD says so
        return
    with pytest.raises(Unavailable):
        await store(storage, data)
    await nothing_is_left(stand)


@pytest.mark.parametrize("operation", ["UploadPart", "CompleteMultipartUpload", "HeadObject"])
async def test_a_store_that_says_nothing_is_asked_again(operation: str) -> None:
    patience = replace(PATIENCE, timeout=0.5)
    async with behind_proxy(swift(), **SMALL, patience=patience) as stand:
        stand[2].inject(operation, silent)
        await stored_all_the_same(stand, DATA)


async def test_a_store_that_stops_reading_does_not_hold_an_upload_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3_retries, "SLOWEST", 64 << 20)
    patience = Patience(attempts=2, first=0.001, timeout=0.3)
    async with deaf_server() as url, opened(moto(), url=url, bucket=moto().bucket(), patience=patience) as (storage, _):
        writer = await storage.create(uuid4())
        await writer.write(bytes(8 << 20))
        async with asyncio.timeout(10):
            with pytest.raises(Unavailable):
                await writer.commit()
        await writer._uploader.stop()


@asynccontextmanager
async def deaf_server() -> AsyncIterator[str]:
    """A server that accepts connections and never reads."""
    with socket.socket() as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


async def test_a_failed_part_fails_the_upload_while_it_is_still_received(stand: Stand) -> None:
    storage, _, proxy = stand
    proxy.inject("UploadPart", refused(403, "AccessDenied"), part=1)

    async def endless() -> None:
        async with staged(storage, uuid4()) as writer:
            while True:
                await writer.write(DATA)

    with pytest.raises(Unavailable):
        async with asyncio.timeout(10):
            await endless()
    await nothing_is_left(stand)


async def test_an_abort_that_cannot_be_made_is_said_and_made_up_for_by_delete(stand: Stand) -> None:
    storage, bucket, proxy = stand
    proxy.inject("AbortMultipartUpload", refused(503, "SlowDown"), times=FOR_EVER)
    writer = await storage.create(key := uuid4())
    await writer.write(DATA)
    with pytest.raises(Unavailable):
        await writer.abort()
    assert bucket.uploads()
    proxy.heal()
    await storage.delete(key)
    await nothing_is_left(stand)


LEFT = """<ListPartsResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><IsTruncated>false</IsTruncated>
<Part><PartNumber>1</PartNumber><ETag>"x"</ETag><Size>1</Size></Part></ListPartsResult>"""


@pytest.mark.parametrize("times", [1, 2])
async def test_an_abort_is_repeated_while_parts_are_left(stand: Stand, times: int) -> None:
    storage, _, proxy = stand
    writer = await storage.create(uuid4())
    await writer.write(DATA)
    proxy.inject("ListParts", answered(LEFT), times=times)
    proxy.inject("AbortMultipartUpload", answered(""), times=times)
    await writer.abort()
    assert proxy.operations.count("AbortMultipartUpload") == times + 1
    await nothing_is_left(stand)


# What became of the completion


@pytest.mark.parametrize(
    "fault",
    [
        error_in_200(carried_out=True),
        error_in_200(carried_out=False),
        refused_but_done(500, "InternalError"),
        refused_but_done(404, "NoSuchUpload"),
        refused_but_done(403, "AccessDenied"),
    ],
)
async def test_an_object_that_is_there_was_completed_whatever_was_said(stand: Stand, fault: Fault) -> None:
    stand[2].inject("CompleteMultipartUpload", fault)
    await stored_all_the_same(stand, DATA)


@pytest.mark.parametrize(
    "fault",
    [
        error_in_200(carried_out=False),
        refused(404, "NoSuchUpload"),
        refused(400, "InvalidPart"),
        answered("<CompleteMultipartUploadResult/>"),
    ],
)
async def test_an_object_that_is_not_there_was_not_completed_whatever_was_said(fault: Fault) -> None:
    async with behind_proxy(swift(), **SMALL) as stand:
        storage, bucket, proxy = stand
        proxy.inject("CompleteMultipartUpload", fault, times=FOR_EVER)
        proxy.inject("HeadObject", refused(404, "NoSuchKey"), times=FOR_EVER)
        with pytest.raises((Unavailable, StorageFailed)):
            await store(storage, DATA)
        assert bucket.sizes() == {}
        await nothing_is_left(stand)


async def test_an_object_of_another_attempt_does_not_count(stand: Stand) -> None:
    storage, bucket, proxy = stand
    key = uuid4()
    bucket.put(place(key), DATA)
    proxy.inject("CompleteMultipartUpload", refused(404, "NoSuchUpload"))
    with pytest.raises(Unavailable):
        async with staged(storage, key) as writer:
            await writer.write(DATA)
    await nothing_is_left(stand)


# Damage on the way


@pytest.mark.parametrize(("operation", "data"), [("UploadPart", DATA), ("PutObject", TINY)])
async def test_a_part_damaged_on_its_way_is_sent_again(stand: Stand, operation: str, data: bytes) -> None:
    stand[2].inject(operation, bit_flipped, times=3)
    await stored_all_the_same(stand, data)


@pytest.mark.parametrize("code", ["BadDigest", "IncompleteBody", "RequestTimeout"])
async def test_a_body_that_the_store_got_wrong_is_sent_again(stand: Stand, code: str) -> None:
    stand[2].inject("UploadPart", refused(400, code), times=3)
    await stored_all_the_same(stand, DATA)


async def test_parts_that_are_always_damaged_store_nothing(stand: Stand) -> None:
    stand[2].inject("UploadPart", bit_flipped, times=FOR_EVER)
    with pytest.raises(Unavailable):
        await store(stand[0], DATA)
    await nothing_is_left(stand)


@pytest.mark.parametrize("size", [10, 11 << 20])
async def test_a_store_that_keeps_other_bytes_than_it_was_sent_is_found_out(
    size: int, caplog: pytest.LogCaptureFixture
) -> None:
    async with behind_proxy(moto()) as (storage, bucket, proxy):
        proxy.inject("PutObject", grown(45), times=FOR_EVER)
        proxy.inject("UploadPart", grown(45), times=FOR_EVER)
        with pytest.raises(StorageFailed, match="did not keep the bytes"):
            await store(storage, bytes(size))
        assert bucket.sizes() == {}
        assert bucket.uploads() == []
    assert [record.levelno for record in caplog.records if "do not trust" in record.message] == [logging.CRITICAL]


# Credentials, clocks, quotas


@pytest.mark.parametrize("code", ["ExpiredToken", "RequestTimeTooSkewed"])
async def test_credentials_or_a_clock_put_right_meanwhile_save_the_upload(stand: Stand, code: str) -> None:
    stand[2].inject("UploadPart", refused(403, code), times=3)
    stand[2].inject("CompleteMultipartUpload", refused(400, code), times=3)
    await stored_all_the_same(stand, DATA)


@pytest.mark.parametrize("code", ["ExpiredToken", "RequestTimeTooSkewed", "AccessDenied", "InvalidAccessKeyId"])
async def test_credentials_that_stay_wrong_are_unavailable(
    stand: Stand, code: str, caplog: pytest.LogCaptureFixture
) -> None:
    storage, _, proxy = stand
    proxy.inject("UploadPart", refused(403, code), times=FOR_EVER)
    with pytest.raises(Unavailable) as caught:
        await store(storage, DATA)
    assert f"UploadPart: {code} (403)" in caplog.text
    assert code not in caught.value.detail
    await nothing_is_left(stand)


@pytest.mark.parametrize(("status", "code"), [(403, "QuotaExceeded"), (507, "XMinioStorageFull"), (507, "Whatever")])
@pytest.mark.parametrize(("operation", "data"), [("UploadPart", DATA), ("PutObject", TINY)])
async def test_a_store_that_is_full_is_full(stand: Stand, operation: str, data: bytes, status: int, code: str) -> None:
    storage, _, proxy = stand
    proxy.inject(operation, refused(status, code), times=FOR_EVER)
    with pytest.raises(StorageFull):
        await store(storage, data)
    assert proxy.operations.count(operation) <= 5, "a full store is not asked again"
    await nothing_is_left(stand)


async def test_what_no_retry_helps_is_a_failure(stand: Stand) -> None:
    stand[2].inject("UploadPart", refused(400, "InvalidArgument"), times=FOR_EVER)
    with pytest.raises(StorageFailed):
        await store(stand[0], DATA)
    await nothing_is_left(stand)


async def test_nonsense_in_place_of_an_answer_is_asked_again(stand: Stand) -> None:
    stand[2].inject("CreateMultipartUpload", answered("<nonsense"), times=1)
    storage, bucket, _ = stand
    key = await store(storage, DATA)
    assert bucket.read(place(key)) == DATA
    await storage.delete(key)
    await nothing_is_left(stand)


# Suspended writes


async def test_a_suspend_that_fails_takes_back_nothing(stand: Stand) -> None:
    storage, bucket, proxy = stand
    writer = await storage.create(key := uuid4())
    await writer.write(DATA[:2500])
    await writer.suspend()
    writer = await storage.resume(key, writer.token)
    await writer.write(DATA[2500:2600])
    proxy.inject("PutObject", refused(503, "SlowDown"), times=FOR_EVER)
    with pytest.raises(Unavailable):
        await writer.suspend()
    await writer.abort()
    proxy.heal()
    writer = await storage.resume(key, writer.token)
    assert writer.offset == 2500
    await writer.write(DATA[2500:])
    await writer.commit()
    assert bucket.read(place(key)) == DATA


async def test_a_tail_that_cannot_be_deleted_does_not_fail_the_file(
    stand: Stand, caplog: pytest.LogCaptureFixture
) -> None:
    storage, bucket, proxy = stand
    writer = await storage.create(key := uuid4())
    await writer.write(TINY)
    await writer.suspend()
    writer = await storage.resume(key, writer.token)
    proxy.inject("DeleteObject", refused(503, "SlowDown"), times=FOR_EVER)
    await writer.commit()
    assert bucket.read(place(key)) == TINY
    assert "stays until the file is deleted" in caplog.text
    proxy.heal()
    await storage.delete(key)
    await nothing_is_left(stand)


@pytest.mark.parametrize("operation", ["GetObject", "ListMultipartUploads", "ListParts"])
@pytest.mark.parametrize("fault", ["503", "answer lost"])
async def test_a_resume_tries_again(stand: Stand, operation: str, fault: str) -> None:
    storage, bucket, proxy = stand
    writer = await storage.create(key := uuid4())
    await writer.write(DATA[:2500])
    await writer.suspend()
    proxy.inject(operation, FAULTS[fault], times=3)
    writer = await storage.resume(key, writer.token)
    await writer.write(DATA[2500:])
    await writer.commit()
    assert bucket.read(place(key)) == DATA


# Downloads


@pytest.mark.parametrize("after", [0, 1, 700, 3000])
@pytest.mark.parametrize("times", [1, 3])
async def test_a_broken_body_goes_on_at_the_exact_byte(stand: Stand, after: int, times: int) -> None:
    storage, _, proxy = stand
    key = await store(storage, DATA)
    proxy.inject("GetObject", body_cut(after), times=times)
    assert await read(storage, key) == DATA
    assert await read(storage, key, 5, 2005) == DATA[5:2005]
    gets = [exchange.request.headers for exchange in proxy.exchanges if exchange.operation == "GetObject"]
    assert "If-Match" not in gets[0]
    assert "If-Match" in gets[1]
    start, _, last = gets[1]["Range"].removeprefix("bytes=").partition("-")
    assert int(last) == len(DATA) - 1
    assert int(start) <= after, "what had come and was not read yet may be lost with the connection"


async def test_a_body_that_always_breaks_ends_in_an_error_after_what_it_gave(stand: Stand) -> None:
    storage, _, proxy = stand
    key = await store(storage, DATA)
    proxy.inject("GetObject", body_cut(705), times=FOR_EVER)
    got, error = await read_as_far_as_it_goes(storage.read(key))
    assert isinstance(error, Unavailable)
    assert DATA.startswith(got)
    assert len(got) < len(DATA)
    assert proxy.operations.count("GetObject") == 4


async def test_a_long_download_may_break_often_as_long_as_it_goes_on(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_reading, "PROGRESS", 300)
    storage, _, proxy = stand
    key = await store(storage, DATA)
    proxy.inject("GetObject", body_cut(400), times=FOR_EVER)
    assert await read(storage, key) == DATA


async def test_a_stalled_body_goes_on_by_another_request() -> None:
    async with behind_proxy(swift(), **SMALL, patience=replace(PATIENCE, timeout=0.5)) as (storage, _, proxy):
        key = await store(storage, DATA)
        proxy.inject("GetObject", body_cut(1500, stalls=True))
        assert await read(storage, key) == DATA


@pytest.mark.parametrize("becomes", [None, DATA[:2000], bytes(len(DATA)), DATA + b"x"])
async def test_a_file_that_changes_under_a_broken_download_is_damaged(stand: Stand, becomes: bytes | None) -> None:
    storage, bucket, proxy = stand
    key = await store(storage, DATA)
    proxy.inject("GetObject", body_cut(1500))
    chunks = storage.read(key)
    first = await anext(chunks)
    bucket.delete(place(key))
    if becomes is not None:
        bucket.put(place(key), becomes)
    got, error = await read_as_far_as_it_goes(chunks)
    assert isinstance(error, Damaged)
    assert DATA.startswith(first + got)


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_download_that_cannot_begin_is_tried_again(stand: Stand, fault: str) -> None:
    storage, _, proxy = stand
    key = await store(storage, DATA)
    proxy.inject("GetObject", FAULTS[fault], times=3)
    assert await read(storage, key) == DATA
    proxy.inject("GetObject", FAULTS[fault], times=FOR_EVER)
    with pytest.raises(Unavailable):
        await read(storage, key)


async def test_a_store_that_serves_no_ranges_is_found_out(stand: Stand) -> None:
    storage, _, proxy = stand
    key = await store(storage, DATA)
    proxy.inject("GetObject", answered("the whole file"), times=FOR_EVER)
    with pytest.raises(StorageFailed, match="ranges"):
        await read(storage, key, 5, 10)


# The next part is received while the one before is sent


async def test_parts_are_sent_beside_each_other_and_no_more_than_a_few(stand: Stand) -> None:
    storage, bucket, proxy = stand
    go = asyncio.Event()
    proxy.inject("UploadPart", held(go), times=FOR_EVER)
    key, data = uuid4(), DATA * 3
    writer = await storage.create(key)
    writing = asyncio.create_task(writer.write(data))
    done, _ = await asyncio.wait({writing}, timeout=0.5)
    assert not done
    assert proxy.operations.count("UploadPart") == 4
    go.set()
    await writing
    await writer.commit()
    assert bucket.read(place(key)) == data
