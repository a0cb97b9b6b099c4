"""S3 storage beyond the contract: what it puts into the bucket, how it goes on, what it says when it cannot."""

import asyncio
import logging
import random
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote
from uuid import UUID, uuid4

import pytest

from file_service.errors import Damaged, NotFound, StorageFailed, TooLarge, Unavailable
from file_service.storage.base import staged
from file_service.storage.s3 import S3Storage
from file_service.storage.s3_marker import MARKER
from file_service.storage.s3_unfinished import TAIL
from file_service.storage.s3_writer import S3Writer
from tests.storage.s3_bench import PREFIX, opened
from tests.support.s3_fault_proxy import fault_proxy
from tests.support.s3_server import SERVERS, Bucket, S3Server, moto, swift

MIB = 1 << 20
PART = 1000  # on the server that takes such
SMALL: dict[str, Any] = {"part_size": PART, "smallest_part": 300, "memory": 8 * PART, "chunk_size": 700}
DATA = random.Random(2).randbytes(20 * PART)


@pytest.fixture
async def small() -> AsyncIterator[tuple[S3Storage, Bucket]]:
    """A storage with small parts that do not grow."""
    async with opened(swift(), **SMALL) as (storage, bucket):
        storage._sizes = replace(storage._sizes, reach=1)
        yield storage, bucket


@pytest.fixture(params=SERVERS)
def server(request: pytest.FixtureRequest) -> S3Server:
    """Either server."""
    return SERVERS[request.param]()


def place(key: UUID) -> str:
    """The key of the object."""
    return f"{PREFIX}{key.hex}"


async def store(storage: S3Storage, data: bytes, step: int | None = None) -> UUID:
    """Publish `data` under a fresh key, written `step` bytes at a time."""
    key = uuid4()
    async with staged(storage, key) as writer:
        for start in range(0, len(data), step or max(1, len(data))):
            await writer.write(data[start : start + (step or len(data))])
    return key


async def read(storage: S3Storage, key: UUID, start: int = 0, stop: int | None = None) -> bytes:
    """The bytes of a file."""
    async with aclosing(storage.read(key, start, stop)) as chunks:
        return b"".join([chunk async for chunk in chunks])


async def crash(writer: S3Writer) -> None:
    """Let go of a writer as a process does that is killed: what is in the bucket stays."""
    await writer._uploader.stop()


def parts_of(bucket: Bucket, key: UUID) -> int:
    """The number of parts, which the entity tag of a multipart upload tells; 0 for one by PutObject."""
    _, dash, number = bucket.head(place(key))["ETag"].strip('"').partition("-")
    return int(number) if dash else 0


# How bytes are cut


@pytest.mark.parametrize("step", [None, 333])
@pytest.mark.parametrize(
    ("size", "parts"),
    [
        (0, 0),
        (1, 0),
        (PART - 1, 0),
        (PART, 0),
        (PART + 1, 2),
        (2 * PART, 2),
        (2 * PART + 1, 3),
        (7 * PART + PART // 2, 8),
    ],
)
async def test_every_size_around_a_part_is_kept_as_it_is(size: int, parts: int, step: int | None) -> None:
    async with opened(swift(), equal_parts=True, **SMALL) as (storage, bucket):
        key = await store(storage, DATA[:size], step)
        assert parts_of(bucket, key) == parts
        assert await read(storage, key) == bucket.read(place(key)) == DATA[:size]
        assert bucket.uploads() == []


@pytest.mark.parametrize("more", [-1, 0, 1])
async def test_parts_of_real_size_are_never_too_small(more: int) -> None:
    data = random.Random(more).randbytes(10 * MIB + more)
    async with opened(moto(), part_size=5 * MIB, memory=20 * MIB) as (storage, bucket):
        key = await store(storage, data, MIB + 1)
        assert await read(storage, key) == data
        assert parts_of(bucket, key) == 2, "the second part may be a little larger than the first"


@pytest.mark.parametrize("size", [3 * PART, 4 * PART, 4 * PART + 1, 12 * PART])
async def test_a_stream_past_the_last_part_is_too_large(small: tuple[S3Storage, Bucket], size: int) -> None:
    storage, bucket = small
    storage._sizes = replace(storage._sizes, parts=4, reach=4 * PART)
    if size > 4 * PART:
        with pytest.raises(TooLarge, match="more than 4 parts"):
            await store(storage, DATA[:size], 100)
        assert bucket.uploads() == []
        assert bucket.sizes() == {}
    else:
        assert await read(storage, await store(storage, DATA[:size], 100)) == DATA[:size]


async def test_parts_grow_so_that_a_long_stream_fits(small: tuple[S3Storage, Bucket]) -> None:
    storage, bucket = small
    storage._sizes = replace(storage._sizes, parts=10, reach=len(DATA))
    key = await store(storage, DATA, 100)
    assert await read(storage, key) == DATA
    assert parts_of(bucket, key) <= 10


async def test_an_object_says_whose_it_is_without_the_database(small: tuple[S3Storage, Bucket]) -> None:
    storage, bucket = small
    name = 'résumé "1".txt'
    async with staged(storage, key := uuid4(), length=3, metadata={"id": "4f", "name": name}) as writer:
        await writer.write(b"abc")
    found = {label.lower(): unquote(value) for label, value in bucket.head(place(key))["Metadata"].items()}
    assert found == {"attempt": key.hex, "id": "4f", "name": name}


async def test_a_known_length_makes_the_parts_fit(small: tuple[S3Storage, Bucket]) -> None:
    storage, bucket = small
    storage._sizes = replace(storage._sizes, parts=10, reach=PART)
    writer = await storage.create(key := uuid4(), length=len(DATA))
    for start in range(0, len(DATA), 100):
        await writer.write(DATA[start : start + 100])
    await writer.commit()
    assert parts_of(bucket, key) == 10
    assert await read(storage, key) == DATA
    with pytest.raises(TooLarge):
        await storage.create(uuid4(), length=10 * 4 * PART + 1)


async def test_equal_parts_are_equal() -> None:
    async with opened(swift(), **SMALL, equal_parts=True) as (storage, bucket):
        writer = await storage.create(uuid4())
        for start in range(0, 7500, 100):
            await writer.write(DATA[start : start + 100])
        await writer._uploader.arrived()
        ((name, upload),) = bucket.uploads()
        assert bucket.parts(name, upload) == dict.fromkeys(range(1, 8), PART)
        await writer.abort()


def test_sizes_that_do_not_fit_together_are_refused() -> None:
    async def attempt(**options: Any) -> None:
        async with opened(moto(), **options):
            pass

    for options in ({"part_size": 4 * MIB}, {"memory": 12 * MIB}):
        with pytest.raises(ValueError, match="can be had"):
            asyncio.run(attempt(**options))


# Memory


@pytest.mark.parametrize("memory", [2 * PART, 5 * PART])
async def test_many_uploads_share_a_small_memory_and_all_arrive(memory: int) -> None:
    async with opened(swift(), **{**SMALL, "memory": memory}) as (storage, _):
        storage._sizes = replace(storage._sizes, equal=True)
        lowest = storage.memory.size

        async def upload(seed: int) -> tuple[UUID, bytes]:
            nonlocal lowest
            rng, key = random.Random(seed), uuid4()
            data = rng.randbytes(rng.randint(0, 4 * PART))
            async with staged(storage, key) as writer:
                offset = 0
                while offset < len(data):
                    step = rng.randint(1, PART)
                    await writer.write(data[offset : offset + step])
                    offset += step
                    lowest = min(lowest, storage.memory.free)
                    await asyncio.sleep(0)
            return key, data

        async with asyncio.timeout(60):
            stored = await asyncio.gather(*(upload(seed) for seed in range(12)))
        assert lowest == 0, "the memory was never short: the test shows nothing"
        for key, data in stored:
            assert await read(storage, key) == data


async def test_a_cancelled_upload_gives_its_memory_back(small: tuple[S3Storage, Bucket]) -> None:
    storage, bucket = small
    writers = [await storage.create(uuid4()) for _ in range(10)]
    writing = [asyncio.create_task(writer.write(DATA[: PART - 1])) for writer in writers]
    await asyncio.sleep(0)
    assert not all(task.done() for task in writing)
    for task in writing:
        task.cancel()
    await asyncio.wait(writing)
    for writer in writers:
        await writer.abort()
    assert storage.memory.free == storage.memory.size
    assert await read(storage, await store(storage, DATA)) == DATA
    assert bucket.uploads() == []


# What is in the bucket


async def test_an_object_names_its_attempt(server: S3Server) -> None:
    async with opened(server) as (storage, bucket):
        for size in (10, 9 * MIB):
            key = await store(storage, bytes(size))
            assert bucket.head(place(key))["Metadata"] == {"attempt": key.hex}


async def test_an_object_has_the_storage_class_that_is_set() -> None:
    async with opened(moto(), storage_class="STANDARD_IA") as (storage, bucket):
        for size in (10, 9 * MIB):
            key = await store(storage, bytes(size))
            assert bucket.head(place(key))["StorageClass"] == "STANDARD_IA"


async def test_delete_aborts_what_processes_that_died_have_left(server: S3Server) -> None:
    async with opened(server) as (storage, bucket):
        key, other = uuid4(), f"{uuid4().hex}"
        uploads = [bucket.begin(place(key)) for _ in range(3)]
        bucket.put_part(place(key), uploads[1], 1, b"x" * 100)
        longer = bucket.begin(f"{place(key)}0"), bucket.begin(f"{PREFIX}{other}")
        bucket.put(f"{place(key)}{TAIL}", b"tail")
        bucket.put(place(key), b"object")
        bucket.put(f"{place(key)}1", b"another")
        await storage.delete(key)
        assert {upload for _, upload in bucket.uploads()} == set(longer)
        assert set(bucket.sizes()) == {f"{place(key)}1"}
        await storage.delete(key)


async def test_a_write_that_was_aborted_by_another_process_does_not_become_visible(
    small: tuple[S3Storage, Bucket],
) -> None:
    storage, bucket = small
    writer = await storage.create(key := uuid4())
    await writer.write(DATA[:5000])
    await storage.delete(key)
    with pytest.raises(Unavailable):
        await writer.commit()
    await writer.abort()
    assert bucket.sizes() == {}
    assert bucket.uploads() == []


async def test_a_part_overwritten_by_a_zombie_is_not_mixed_in(small: tuple[S3Storage, Bucket]) -> None:
    storage, bucket = small
    writer = await storage.create(uuid4())
    await writer.write(DATA[:5000])
    await writer._uploader.arrived()
    ((name, upload),) = bucket.uploads()
    bucket.put_part(name, upload, 2, b"z" * PART)
    with pytest.raises(Unavailable):
        await writer.commit()
    await writer.abort()
    assert bucket.sizes() == {}


# Suspend and resume


@pytest.mark.parametrize("size", [0, 1, PART - 1, PART, PART + 1, 5 * PART, 5 * PART + 999])
@pytest.mark.parametrize("length", [None, 12 * PART])
async def test_a_suspended_write_is_whole_parts_and_a_tail(
    small: tuple[S3Storage, Bucket], size: int, length: int | None
) -> None:
    storage, bucket = small
    writer = await storage.create(key := uuid4(), length=length)
    await writer.write(DATA[:size])
    await writer.suspend()
    kept = sum(size for name, upload in bucket.uploads() for size in bucket.parts(name, upload).values())
    assert kept + bucket.sizes()[f"{place(key)}{TAIL}"] == size
    writer = await storage.resume(key, writer.token)
    assert writer.offset == size
    await writer.write(DATA[size : 12 * PART])
    await writer.commit()
    assert await read(storage, key) == DATA[: 12 * PART]
    assert set(bucket.sizes()) == {place(key)}
    assert bucket.uploads() == []


async def test_an_acknowledged_offset_never_shrinks(small: tuple[S3Storage, Bucket]) -> None:
    storage, bucket = small
    data = DATA[: 6 * PART + 100]
    for seed, length in enumerate([None, len(data)] * 2):
        rng, key = random.Random(seed), uuid4()
        writer = await storage.create(key, length=length)
        await writer.suspend()
        acknowledged, offset = 0, 0
        while offset < len(data):
            writer = await storage.resume(key, writer.token)
            assert writer.offset >= acknowledged
            offset = writer.offset
            for _ in range(rng.randint(0, 5)):
                step = rng.randint(0, 2 * PART)
                await writer.write(data[offset : offset + step])
                offset = writer.offset
            if rng.random() < 0.4:
                await crash(writer)
            else:
                await writer.suspend()
                acknowledged = offset
        writer = await storage.resume(key, writer.token)
        await writer.write(data[writer.offset :])
        await writer.commit()
        assert await read(storage, key) == data, seed
        assert set(bucket.sizes()) == {place(key)}
        assert bucket.uploads() == []
        await storage.delete(key)


async def test_a_crash_while_completing_takes_back_no_acknowledged_byte(small: tuple[S3Storage, Bucket]) -> None:
    storage, bucket = small
    writer = await storage.create(key := uuid4())
    await writer.write(DATA[: 3 * PART + 200])
    await writer.suspend()
    writer = await storage.resume(key, writer.token)
    await writer.write(DATA[3 * PART + 200 : 3 * PART + 250])
    ((name, upload),) = bucket.uploads()
    bucket.put_part(name, upload, 4, DATA[3 * PART : 3 * PART + 250])  # the last part, and the process dies
    await crash(writer)
    writer = await storage.resume(key, writer.token)
    assert writer.offset == 3 * PART + 200
    await writer.write(DATA[3 * PART + 200 :])
    await writer.commit()
    assert await read(storage, key) == DATA


async def test_a_tail_that_a_later_part_contains_is_not_taken_twice(small: tuple[S3Storage, Bucket]) -> None:
    storage, bucket = small
    writer = await storage.create(key := uuid4())
    await writer.write(DATA[:2500])
    await writer.suspend()
    writer = await storage.resume(key, writer.token)
    await writer.write(DATA[2500:4100])
    await writer._uploader.arrived()
    await crash(writer)
    assert bucket.sizes() == {f"{place(key)}{TAIL}": 500}
    writer = await storage.resume(key, writer.token)
    assert writer.offset == 4000
    await writer.write(DATA[4000:])
    await writer.commit()
    assert await read(storage, key) == DATA


async def test_parts_of_several_processes_fit_together(small: tuple[S3Storage, Bucket]) -> None:
    storage, bucket = small
    writer = await storage.create(key := uuid4())
    await writer.write(DATA[:10])
    await writer.suspend()
    upload = bucket.begin(place(key), attempt=key.hex)
    for number in (1, 2, 4):  # the third was on its way when the process died
        bucket.put_part(place(key), upload, number, DATA[(number - 1) * PART : number * PART])
    writer = await storage.resume(key, writer.token)
    assert writer.offset == 2 * PART
    await writer.write(DATA[2 * PART : 3 * PART + 500])
    await writer._uploader.arrived()
    await crash(writer)
    writer = await storage.resume(key, writer.token)
    assert writer.offset == 4 * PART
    await writer.write(DATA[4 * PART :])
    await writer.commit()
    assert await read(storage, key) == DATA


async def test_a_write_that_has_all_its_bytes_can_be_suspended_and_completed_later(
    small: tuple[S3Storage, Bucket],
) -> None:
    storage, bucket = small
    for size in (50, 1000, 2050):
        writer = await storage.create(key := uuid4(), length=size)
        await writer.write(DATA[:size])
        await writer.suspend()
        writer = await storage.resume(key, writer.token)
        assert writer.offset == size
        await writer.commit()
        assert bucket.read(place(key)) == DATA[:size]


async def test_a_write_goes_on_with_the_parts_it_was_begun_with() -> None:
    other = {**SMALL, "part_size": 2 * PART}
    async with (
        opened(swift(), **SMALL, equal_parts=True) as (storage, bucket),
        opened(swift(), bucket=bucket, **other) as (later, _),
    ):
        writer = await storage.create(key := uuid4())
        await writer.write(DATA[:3300])
        await writer.suspend()
        writer = await later.resume(key, writer.token)
        assert writer.offset == 3300
        await writer.write(DATA[3300:])
        await writer.commit()
        assert parts_of(bucket, key) == 20
        assert await read(later, key) == DATA


async def test_what_the_store_has_dropped_cannot_be_resumed(small: tuple[S3Storage, Bucket]) -> None:
    storage, bucket = small
    writer = await storage.create(key := uuid4())
    await writer.write(DATA[:2500])
    await writer.suspend()
    bucket.abort(*bucket.uploads()[0])
    with pytest.raises(NotFound, match="dropped"):
        await storage.resume(key, writer.token)
    await storage.delete(key)
    assert bucket.sizes() == {}


async def test_of_several_uploads_the_acknowledged_one_goes_on_and_the_others_end(
    small: tuple[S3Storage, Bucket],
) -> None:
    storage, bucket = small
    writer = await storage.create(key := uuid4())
    await writer.write(DATA[:2500])
    await writer.suspend()
    ((_, mine),) = bucket.uploads()
    zombie = bucket.begin(place(key))
    for number in range(1, 8):
        bucket.put_part(place(key), zombie, number, b"z" * PART)
    writer = await storage.resume(key, writer.token)
    assert bucket.uploads() == [(place(key), mine)]
    await writer.write(DATA[2500:])
    await writer.commit()
    assert await read(storage, key) == DATA


async def test_parts_of_a_process_that_died_before_any_suspend_are_used(small: tuple[S3Storage, Bucket]) -> None:
    storage, bucket = small
    writer = await storage.create(key := uuid4())
    await writer.suspend()
    bucket.begin(place(key))  # an answer was lost, and the request repeated
    writer = await storage.resume(key, writer.token)
    await writer.write(DATA[: 4 * PART + 10])
    await writer._uploader.arrived()
    await crash(writer)
    writer = await storage.resume(key, writer.token)
    assert writer.offset > 3 * PART
    assert len(bucket.uploads()) == 1
    await writer.abort()
    assert bucket.sizes() == {}


@pytest.mark.parametrize(
    "token",
    [
        "",
        "x",
        "---",
        "growing-1000",
        "growing-x-4000-",
        "growing-1000-4000-x",
        "growing-1-4000-",
        "growing-1000-4000-99999999999",
    ],
)
async def test_a_token_that_is_none_is_not_found(small: tuple[S3Storage, Bucket], token: str) -> None:
    storage, _ = small
    writer = await storage.create(key := uuid4())
    await writer.suspend()
    with pytest.raises(NotFound):
        await storage.resume(key, token)


async def test_a_resume_waits_for_memory_and_can_be_cancelled(small: tuple[S3Storage, Bucket]) -> None:
    storage, _ = small
    writer = await storage.create(key := uuid4())
    await writer.write(DATA[:900])
    await writer.suspend()
    hog = storage.memory.share(storage.memory.largest), storage.memory.share(storage.memory.largest)
    for share in hog:
        await share.grow(storage.memory.largest)
    resuming = asyncio.create_task(storage.resume(key, writer.token))
    done, _ = await asyncio.wait({resuming}, timeout=0.3)
    assert not done
    resuming.cancel()
    await asyncio.wait({resuming})
    for share in hog:
        share.release()
    resumed = await storage.resume(key, writer.token)
    assert resumed.offset == 900
    await resumed.abort()


# The marker, and health


async def test_the_first_identity_stays_even_when_two_write_it_at_once(server: S3Server) -> None:
    async with opened(server) as (one, bucket), opened(server, bucket=bucket) as (two, _):
        identities = [uuid4(), uuid4()]
        await asyncio.gather(*(s.mark(i) for s, i in zip((one, two), identities, strict=True)))
        assert await one.identity() == await two.identity() in identities
        assert set(bucket.sizes()) == {f"{PREFIX}{MARKER}"}


async def test_another_bucket_is_not_taken_for_ours(server: S3Server) -> None:
    async with opened(server) as (storage, bucket):
        await storage.mark(uuid4())
        await storage.check()
        key = await store(storage, b"bytes")
        bucket.put(f"{PREFIX}{MARKER}", str(uuid4()).encode())
        with pytest.raises(Unavailable, match="not the one"):
            await storage.check()
        bucket.delete(place(key))
        with pytest.raises(Unavailable):
            await read(storage, key)
        bucket.put(f"{PREFIX}{MARKER}", b"nonsense")
        with pytest.raises(StorageFailed, match="not readable"):
            await storage.check()


async def test_a_missing_object_in_our_bucket_is_damaged(server: S3Server) -> None:
    async with opened(server) as (storage, bucket):
        await storage.mark(uuid4())
        key = await store(storage, b"bytes")
        bucket.delete(place(key))
        for span in ((0, None), (0, 5), (2, 2)):
            with pytest.raises(Damaged):
                await read(storage, key, *span)


async def test_a_bucket_that_is_gone_is_unavailable(server: S3Server) -> None:
    async with opened(server, bucket=Bucket(server, "no-such-bucket")) as (storage, _):
        for attempt in (
            storage.check(),
            storage.identity(),
            storage.mark(uuid4()),
            storage.delete(uuid4()),
            store(storage, b"bytes"),
            read(storage, uuid4()),
            read(storage, uuid4(), 0, 0),
            storage.resume(uuid4(), f"growing-{8 * MIB}-{8 * MIB}-"),
        ):
            with pytest.raises(Unavailable):
                await attempt


async def test_a_server_that_is_down_is_unavailable() -> None:
    async with opened(moto(), url="http://127.0.0.1:9", bucket=Bucket(moto(), "bucket")) as (storage, _):
        for attempt in (storage.check(), storage.delete(uuid4()), store(storage, b"bytes"), read(storage, uuid4())):
            with pytest.raises(Unavailable):
                await attempt


# Secrets and what goes over the wire


async def test_wrong_keys_are_unavailable_and_no_key_is_ever_said(caplog: pytest.LogCaptureFixture) -> None:
    wrong = replace(swift(), secret_key="a-secret-that-is-wrong")
    logging.getLogger("botocore").setLevel(logging.DEBUG)
    with caplog.at_level(logging.DEBUG):
        async with opened(wrong, bucket=swift().bucket()) as (storage, _):
            caplog.clear()
            for attempt in (storage.check(), storage.delete(uuid4()), store(storage, DATA), read(storage, uuid4())):
                with pytest.raises(Unavailable) as caught:
                    await attempt
                assert caught.value.detail == "The storage does not answer at the moment."
                assert caught.value.__cause__ is None
            said = caplog.text + repr(storage) + repr(vars(storage))
    assert "SignatureDoesNotMatch" in caplog.text
    for secret in (wrong.access_key, wrong.secret_key, "Signature=", "Credential="):
        assert secret not in said


async def test_without_any_keys_it_says_unavailable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    nobody = replace(moto(), access_key="", secret_key="")
    async with opened(nobody, bucket=moto().bucket()) as (storage, _):
        with pytest.raises(Unavailable):
            await storage.check()
    assert "NoCredentialsError" in caplog.text


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_bodies_have_a_checksum_and_neither_trailers_nor_expect(
    scheme: str, certificate: tuple[Path, ssl.SSLContext]
) -> None:
    ca_file, context = certificate
    secure: dict[str, Any] = {"ca_file": ca_file} if scheme == "https" else {}
    async with AsyncExitStack() as stack:
        proxy = await stack.enter_async_context(fault_proxy(swift().url, context if secure else None))
        storage, _ = await stack.enter_async_context(opened(swift(), url=proxy.url, **SMALL, **secure))
        writer = await storage.create(key := uuid4())
        await writer.write(DATA[:2500])
        await writer.suspend()
        writer = await storage.resume(key, writer.token)
        await writer.write(DATA[2500:])
        await writer.commit()
        assert await read(storage, key) == DATA
        await store(storage, b"small")
        sent = [exchange.request.headers for exchange in proxy.exchanges if exchange.operation in BODIES]
        assert len(sent) > 10
        for headers in sent:
            assert ("Content-MD5" in headers) == (scheme == "https")
            assert (headers["x-amz-content-sha256"] == "UNSIGNED-PAYLOAD") == (scheme == "https")
        for exchange in proxy.exchanges:
            assert not {"Expect", "x-amz-trailer", "Transfer-Encoding"} & set(exchange.request.headers)


BODIES = {"UploadPart", "PutObject"}


async def test_a_certificate_that_nobody_vouches_for_is_not_accepted(certificate: tuple[Path, ssl.SSLContext]) -> None:
    _, context = certificate
    async with fault_proxy(moto().url, context) as proxy, opened(moto(), url=proxy.url) as (storage, _):
        with pytest.raises(Unavailable):
            await storage.check()
        assert proxy.exchanges == []


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ssl.SSLContext]:
    """A certificate for 127.0.0.1 that only its own file vouches for, and a server's context with it."""
    folder = tmp_path_factory.mktemp("certificate")
    subject = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    files = ["-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem")]
    kind = ["-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    subprocess.run(["openssl", "req", *kind, *files, *subject], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    return folder / "cert.pem", context


def test_a_service_without_s3_does_not_pay_for_it() -> None:
    code = "import sys, file_service.app; assert not {'aiobotocore', 'botocore'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


async def test_many_downloads_at_once_leave_connections_for_others() -> None:
    data = random.Random(3).randbytes(2 * MIB)
    async with opened(moto(), chunk_size=64 << 10) as (storage, _):
        key = await store(storage, data)
        readers = [storage.read(key) for _ in range(40)]
        firsts = [await anext(reader) for reader in readers]
        async with asyncio.timeout(10):
            other = await store(storage, b"others")
            assert await read(storage, other) == b"others"
        for first, reader in zip(firsts, readers, strict=True):
            assert first + b"".join([chunk async for chunk in reader]) == data
