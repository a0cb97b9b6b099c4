"""What a bucket lists, finds and moves: page by page, whatever its size, and never in circles."""

import random
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

import pytest

from file_service.errors import StorageFailed, Unavailable
from file_service.storage import s3_objects
from file_service.storage.base import DIGITS, Found
from file_service.storage.s3 import S3Storage
from tests.storage.s3_bench import PREFIX, opened
from tests.storage.test_s3_faults import Stand, behind_proxy
from tests.support.s3_fault_proxy import FOR_EVER, answered, refused
from tests.support.s3_server import SERVERS, Bucket, moto

DATA = random.Random(7).randbytes((5 << 20) + 10)


@pytest.fixture(params=["moto", "swift"])
async def storage(request: pytest.FixtureRequest) -> AsyncIterator[tuple[S3Storage, Bucket]]:
    """A marked storage on either server."""
    async with opened(SERVERS[request.param]()) as (storage, bucket):
        await storage.mark(uuid4())
        yield storage, bucket


@pytest.fixture
async def stand() -> AsyncIterator[Stand]:
    """On the quick server, behind a proxy."""
    async with behind_proxy(moto()) as stand:
        await stand[0].mark(uuid4())
        yield stand


async def everything(storage: S3Storage) -> list[Found]:
    """What is listed, digit by digit."""
    return [found for digit in DIGITS for found in [each async for each in storage.list(digit)]]


async def test_every_page_of_a_listing_is_read(
    storage: tuple[S3Storage, Bucket], monkeypatch: pytest.MonkeyPatch
) -> None:
    service, bucket = storage
    keys = [UUID(f"{number:032x}") for number in range(5)]
    for key in keys:
        bucket.put(f"{PREFIX}{key.hex}", b"x")
    many = service.client.list_objects_v2

    async def few(**wish: Any) -> Any:
        return await many(**wish, MaxKeys=2)

    monkeypatch.setattr(service.client, "list_objects_v2", few)
    assert await everything_of(service, "0") == [Found(key, 1, staged=False) for key in keys]


async def everything_of(storage: S3Storage, digit: str) -> list[Found]:
    """In the order of the keys."""
    return sorted([each async for each in storage.list(digit)], key=lambda found: found.key)


OBJECTS = """<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><IsTruncated>true</IsTruncated>
<NextContinuationToken>again</NextContinuationToken></ListBucketResult>"""
UPLOADS = """<ListMultipartUploadsResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><IsTruncated>true</IsTruncated>
{}</ListMultipartUploadsResult>"""


@pytest.mark.parametrize(
    ("operation", "page"),
    [
        ("GET bucket", OBJECTS),
        ("ListMultipartUploads", UPLOADS.format("<NextKeyMarker>a</NextKeyMarker>")),
        ("ListMultipartUploads", UPLOADS.format("")),
    ],
)
async def test_a_store_that_lists_in_circles_is_found_out(stand: Stand, operation: str, page: str) -> None:
    storage, _, proxy = stand
    proxy.inject(operation, answered(page), times=FOR_EVER)
    with pytest.raises(StorageFailed, match="to the end"):
        await everything(storage)


async def test_a_listing_that_fails_for_a_while_is_complete_all_the_same(stand: Stand) -> None:
    storage, bucket, proxy = stand
    key = uuid4()
    bucket.put(f"{PREFIX}{key.hex}", b"x")
    proxy.inject("GET bucket", refused(503, "SlowDown"), times=3)
    proxy.inject("ListMultipartUploads", refused(503, "SlowDown"), times=3)
    assert await everything(storage) == [Found(key, 1, staged=False)]


@pytest.mark.parametrize("copied", [10 << 20, 5 << 20], ids=["at once", "in parts"])
async def test_an_object_goes_to_quarantine_whole_with_all_that_is_known_of_it(
    storage: tuple[S3Storage, Bucket], copied: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_objects, "COPIED", copied)
    service, bucket = storage
    writer = await service.create(key := uuid4(), length=len(DATA), metadata={"name": "a film"})
    await writer.write(DATA)
    await writer.commit()
    name, before = f"{PREFIX}{key.hex}", bucket.head(f"{PREFIX}{key.hex}")
    for _ in range(2):
        await service.quarantine(Found(key, len(DATA), staged=False))
        moved = f"{PREFIX}quarantine/{key.hex}"
        assert bucket.read(moved) == DATA
        assert name not in bucket.sizes()
        assert bucket.uploads() == []
        assert bucket.head(moved)["Metadata"] == before["Metadata"]
        assert bucket.head(moved)["ContentType"] == before["ContentType"]
    await service.delete(key)
    assert bucket.read(moved) == DATA, "nothing in quarantine is deleted"
    assert await everything(service) == []
    assert await service.find(key) == []


@pytest.mark.parametrize("operation", ["UploadPart", "CompleteMultipartUpload", "PutObject"])
async def test_an_object_whose_copy_fails_stays_where_it_is(
    stand: Stand, operation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage, bucket, proxy = stand
    if operation != "PutObject":
        monkeypatch.setattr(s3_objects, "COPIED", 5 << 20)
    key = uuid4()
    bucket.put(f"{PREFIX}{key.hex}", DATA)
    proxy.inject(operation, refused(503, "SlowDown"), times=FOR_EVER)
    with pytest.raises(Unavailable):
        await storage.quarantine(Found(key, len(DATA), staged=False))
    assert bucket.read(f"{PREFIX}{key.hex}") == DATA
    assert bucket.uploads() == []


async def test_a_copy_that_is_not_whole_does_not_count(stand: Stand) -> None:
    storage, bucket, proxy = stand
    key = uuid4()
    bucket.put(f"{PREFIX}{key.hex}", DATA)
    done = '<CopyObjectResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><ETag>"x"</ETag></CopyObjectResult>'

    async def pretended(exchange: Any) -> Any:
        from aiohttp import web

        return web.Response(text=done, content_type="application/xml")

    proxy.inject("PutObject", pretended)
    with pytest.raises(StorageFailed):
        await storage.quarantine(Found(key, len(DATA), staged=False))
    assert bucket.read(f"{PREFIX}{key.hex}") == DATA


async def test_an_upload_is_found_with_the_size_of_its_parts(storage: tuple[S3Storage, Bucket]) -> None:
    service, bucket = storage
    key = uuid4()
    name = f"{PREFIX}{key.hex}"
    bucket.put_part(name, bucket.begin(name), 1, b"part")
    bucket.put(f"{name}.tail", b"tail")
    bucket.put(name, b"published")
    assert await service.find(key) == [Found(key, 8, staged=True), Found(key, 9, staged=False)]
    assert {found.staged for found in await everything(service)} == {True, False}
