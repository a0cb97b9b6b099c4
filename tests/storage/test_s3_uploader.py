"""The uploader by itself, as a client program uses it: `async with`, and nothing of the service around it."""

import asyncio
import random
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import pytest
from aiobotocore.session import AioSession
from botocore.exceptions import ClientError

from file_service.storage.multipart_upload import MultipartUploader
from file_service.storage.part_memory import PartMemory
from file_service.storage.part_sizes import PartSizes, TooManyParts
from file_service.storage.s3_client import s3_client
from file_service.storage.s3_parts import Altered
from tests.storage.cancelling import cancelled_everywhere
from tests.storage.s3_bench import PATIENCE
from tests.support.s3_fault_proxy import FOR_EVER, FaultProxy, fault_proxy, grown, refused, request_lost
from tests.support.s3_server import REGION, Bucket, moto, swift

if TYPE_CHECKING:
    from types_aiobotocore_s3.client import S3Client

PART = 1000
KEY = "a folder/a name.bin"
DATA = random.Random(5).randbytes(5 * PART + 5)
SIZES = PartSizes(PART, smallest=300, largest=2 * PART, equal=True)


@pytest.fixture
def bucket() -> Bucket:
    """An empty bucket on the strict server."""
    return swift().bucket()


@pytest.fixture
async def proxy() -> AsyncIterator[FaultProxy]:
    """What is between the client and the server."""
    async with fault_proxy(swift().url) as proxy:
        yield proxy


@pytest.fixture
async def client(proxy: FaultProxy) -> AsyncIterator["S3Client"]:
    """A client of ours."""
    with swift().credentials():
        async with s3_client(proxy.url, REGION) as client:
            yield client


def uploader(client: "S3Client", bucket: Bucket, **options: Any) -> MultipartUploader:
    """An uploader with small parts."""
    return MultipartUploader(
        client, bucket.name, KEY, **{"sizes": SIZES, "memory": PartMemory(4 * PART), "patience": PATIENCE, **options}
    )


@pytest.mark.parametrize("size", [0, 1, PART, PART + 1, len(DATA)])
async def test_leaving_the_block_completes(client: "S3Client", bucket: Bucket, size: int) -> None:
    async with uploader(client, bucket) as upload:
        await upload.write(DATA[:size])
        assert bucket.sizes() == {}
    assert bucket.read(KEY) == DATA[:size]
    assert bucket.uploads() == []


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, asyncio.CancelledError])
@pytest.mark.parametrize("size", [0, PART, len(DATA)])
async def test_any_exception_aborts(client: "S3Client", bucket: Bucket, size: int, error: type[BaseException]) -> None:
    memory = PartMemory(4 * PART)

    async def attempt() -> None:
        async with uploader(client, bucket, memory=memory) as upload:
            await upload.write(DATA[:size])
            raise error

    with pytest.raises(error):
        await attempt()
    assert bucket.sizes() == {}
    assert bucket.uploads() == []
    assert memory.free == memory.size


async def test_an_abort_is_confirmed_by_asking_for_the_parts(
    client: "S3Client", bucket: Bucket, proxy: FaultProxy
) -> None:
    upload = uploader(client, bucket)
    await upload.write(DATA)
    await upload.abort()
    assert proxy.operations[-2:] == ["AbortMultipartUpload", "ListParts"]
    with pytest.raises(ClientError, match="NoSuchUpload"):
        await client.list_parts(Bucket=bucket.name, Key=KEY, UploadId=upload.upload_id or "")
    await upload.abort()


@pytest.mark.parametrize("times", [1, 2])
async def test_cancelled_at_any_await_it_leaves_nothing(bucket: Bucket, times: int) -> None:
    memory = PartMemory(4 * PART)

    async def attempt() -> None:
        async with uploader(direct, bucket, memory=memory) as upload:
            for start in range(0, len(DATA), 700):
                await upload.write(DATA[start : start + 700])

    def check() -> None:
        assert memory.free == memory.size
        assert bucket.uploads() == []
        assert bucket.read(KEY) == DATA if bucket.sizes() else True
        assert asyncio.all_tasks() == {asyncio.current_task()}

    with swift().credentials():
        async with s3_client(swift().url, REGION) as direct:
            assert await cancelled_everywhere(attempt, check, times) > 1
    assert bucket.read(KEY) == DATA


async def test_what_a_part_failed_with_is_raised(client: "S3Client", bucket: Bucket, proxy: FaultProxy) -> None:
    proxy.inject("UploadPart", refused(400, "InvalidArgument"), times=FOR_EVER)
    with pytest.raises(ClientError, match="InvalidArgument"):
        async with uploader(client, bucket) as upload:
            await upload.write(DATA)
    assert bucket.uploads() == []


async def test_an_object_that_is_not_what_was_sent_is_an_error() -> None:
    bucket = moto().bucket()
    with moto().credentials():
        async with fault_proxy(moto().url) as proxy, s3_client(proxy.url, REGION) as client:
            proxy.inject("PutObject", grown(1))
            with pytest.raises(Altered, match="has 11 bytes of the 10 sent"):
                async with uploader(client, bucket) as upload:
                    await upload.write(DATA[:10])


async def test_more_parts_than_the_store_takes_are_an_error(client: "S3Client", bucket: Bucket) -> None:
    sizes = PartSizes(PART, smallest=300, largest=PART, parts=5)
    with pytest.raises(TooManyParts):
        async with uploader(client, bucket, sizes=sizes) as upload:
            await upload.write(DATA)
    async with uploader(client, bucket, sizes=sizes) as upload:
        await upload.write(DATA[: 5 * PART])
    assert bucket.read(KEY) == DATA[: 5 * PART]


async def test_metadata_and_options_are_passed_on_whatever_the_name(client: "S3Client", bucket: Bucket) -> None:
    for data in (b"small", DATA):
        options = {"ContentType": "text/x-test"}
        async with uploader(
            client, bucket, attempt="the-attempt", metadata={"name": "Größe 1/2.txt"}, options=options
        ) as upload:
            await upload.write(data)
        head = bucket.head(KEY)
        assert head["Metadata"] == {"attempt": "the-attempt", "name": "Gr%C3%B6%C3%9Fe 1%2F2.txt"}
        assert head["ContentType"] == "text/x-test"


async def test_chunks_of_any_kind_and_size_are_taken(client: "S3Client", bucket: Bucket) -> None:
    async with uploader(client, bucket) as upload:
        await upload.write(b"")
        await upload.write(DATA[:1])
        await upload.write(DATA[1:])
        await upload.write(b"")
        assert upload.offset == len(DATA)
    assert bucket.read(KEY) == DATA


async def test_defaults_suit_a_client_as_the_sdk_makes_it() -> None:
    """With its own retries, its own checksums as trailers or headers, and Expect."""
    bucket, data = moto().bucket(), random.Random(6).randbytes(17 << 20)
    with moto().credentials():
        async with (
            fault_proxy(moto().url) as proxy,
            AioSession().create_client("s3", REGION, endpoint_url=proxy.url) as client,
        ):
            proxy.inject("UploadPart", request_lost)
            async with MultipartUploader(client, bucket.name, KEY) as upload:
                for start in range(0, len(data), 1 << 20):
                    await upload.write(data[start : start + (1 << 20)])
            assert proxy.operations.count("UploadPart") == 4
    assert bucket.read(KEY) == data
