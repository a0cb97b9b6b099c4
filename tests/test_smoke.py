"""The main road, end to end, on both databases."""

from collections.abc import Callable

import aiohttp

from tests.support.process import Service


async def test_what_is_posted_is_what_is_downloaded(url: str) -> None:
    async with aiohttp.ClientSession() as client:
        disposition = {"Content-Disposition": "attachment; filename*=UTF-8''na%C3%AFve.txt"}
        async with client.post(f"{url}/files", data=b"hello", headers=disposition) as answer:
            assert answer.status == 201
            link = answer.headers["Location"]
        async with client.get(url + link) as answer:
            assert (answer.status, await answer.read()) == (200, b"hello")
            assert "naïve.txt" in answer.content_disposition.filename  # type: ignore[union-attr, operator]


def test_the_process_serves_and_stops(spawn: Callable[..., Service]) -> None:
    service = spawn()
    assert service.terminate() == 0
