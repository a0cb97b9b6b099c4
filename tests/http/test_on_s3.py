"""The service on an object store: the same answers, and the bytes in the bucket."""

import io
from collections.abc import Awaitable, Callable
from random import Random

import aiohttp
import pytest

from tests.support.s3_server import SERVERS

LARGE = Random(1).randbytes(12 << 20)


@pytest.mark.parametrize("server", ["moto", "swift"])
async def test_files_of_any_size_come_back_from_a_bucket(serve: Callable[..., Awaitable[str]], server: str) -> None:
    store = SERVERS[server]()
    bucket = store.bucket()
    with store.credentials():
        url = await serve(
            storage="s3", s3_bucket=bucket.name, s3_endpoint_url=store.url, s3_prefix="files/", s3_part_size=5 << 20
        )
        async with aiohttp.ClientSession(url) as client:
            async with client.get("/health/ready") as answer:
                assert answer.status == 200, await answer.text()
            links = []
            for content in (b"", b"small", LARGE):
                async with client.post("/files", data=io.BytesIO(content)) as answer:
                    assert answer.status == 201, await answer.text()
                    links.append(answer.headers["Location"])
                async with client.get(links[-1]) as answer:
                    assert (answer.status, await answer.read()) == (200, content)
            async with client.get(links[-1], headers={"Range": "bytes=5242870-5242890"}) as answer:
                assert (answer.status, await answer.read()) == (206, LARGE[5242870:5242891])
            records = [(await (await client.get(f"{link}meta")).json()) for link in links]
            heads = [bucket.head(key)["Metadata"] for key in bucket.sizes() if not key.endswith(".file-service")]
            assert {head["id"] for head in heads} == {record["id"] for record in records}
            for link in links:
                async with client.delete(link) as answer:
                    assert answer.status == 204
                async with client.get(link) as answer:
                    assert answer.status == 404
