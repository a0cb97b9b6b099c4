"""Downloads that bypass the service: what is redirected, to where, and what the link gives."""

import hashlib
import io
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import aiohttp
import pytest

from file_service.client.client import Client
from tests.support.places import Place

CONTENT = b"0123456789" * 100
NAME = 'naïve plan; 100% "final".txt'
Answers = Callable[..., Awaitable[tuple[int, Any, bytes]]]


@pytest.fixture
def redirecting(serve: Callable[..., Awaitable[str]]) -> Callable[..., Any]:
    """`async with redirecting(...) as (client, link)`: a service that redirects, and a file in it."""

    @asynccontextmanager
    async def start(**settings: Any) -> AsyncIterator[tuple[aiohttp.ClientSession, str]]:
        url = await serve(s3_redirect=True, **settings)
        async with aiohttp.ClientSession(url) as client:
            yield client, await stored(client)

    return start


async def stored(client: aiohttp.ClientSession, **headers: str) -> str:
    """The link of a new file."""
    disposition = "attachment; filename*=UTF-8''na%C3%AFve%20plan%3B%20100%25%20%22final%22.txt"
    about = {"Content-Disposition": disposition, "Content-Type": "text/plain", **headers}
    async with client.post("/files", data=io.BytesIO(CONTENT), headers=about) as answer:
        assert answer.status == 201, await answer.text()
        return answer.headers["Location"]


async def ask(client: aiohttp.ClientSession, method: str, link: str, **headers: str) -> aiohttp.ClientResponse:
    """An answer that is not followed, read to its end."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    async with client.request(method, link, headers=named, allow_redirects=False) as answer:
        await answer.read()
        return answer


async def test_a_link_gives_the_bytes_with_name_and_type_for_some_minutes(
    redirecting: Callable[..., Any], placed: Callable[[Path], Place], tmp_path: Path
) -> None:
    async with redirecting() as (client, link):
        answer = await ask(client, "GET", link)
        assert answer.status == 307
        assert answer.headers["Cache-Control"] == "no-store"
        target = urlsplit(answer.headers["Location"])
        assert f"{target.scheme}://{target.netloc}" == placed(tmp_path / "data").settings["s3_endpoint_url"]
        assert 0 < int(parse_qs(target.query)["X-Amz-Expires"][0]) <= 300
        async with client.get(link) as followed:
            assert (followed.status, await followed.read()) == (200, CONTENT)
            assert followed.headers["Content-Type"].startswith("text/plain")
            assert followed.content_disposition is not None
            assert (followed.content_disposition.type, followed.content_disposition.filename) == ("attachment", NAME)
        async with client.get(link, headers={"Range": "bytes=5-9"}) as followed:
            assert (followed.status, await followed.read()) == (206, b"56789")
        async with client.get(f"{link}?inline") as followed:
            assert followed.headers["Content-Disposition"].startswith("inline")


async def test_a_link_cannot_be_changed_into_another(redirecting: Callable[..., Any]) -> None:
    async with redirecting() as (client, link):
        location = (await ask(client, "GET", link)).headers["Location"]
        for wrong in (location.replace("text%2Fplain", "text%2Fhtml"), location.replace("Expires=300", "Expires=3000")):
            assert wrong != location
            async with client.get(wrong) as refused:
                assert refused.status == 403


async def test_what_the_store_cannot_judge_or_count_is_answered_here(redirecting: Callable[..., Any]) -> None:
    async with redirecting() as (client, link):
        head = await ask(client, "HEAD", link)
        assert (head.status, head.content_length) == (200, len(CONTENT))
        etag, modified = head.headers["ETag"], head.headers["Last-Modified"]
        statuses = {
            304: [{"If_None_Match": etag}, {"If_None_Match": f"W/{etag}"}, {"If_Modified_Since": modified}],
            200: [{"If_Match": etag}, {"If_Match": "*"}, {"If_Unmodified_Since": modified}],
            206: [{"If_Range": etag, "Range": "bytes=0-0"}, {"If_Range": modified, "Range": "bytes=0-0"}],
            307: [{"If_Match": '"theirs"'}, {"If_None_Match": '"theirs"'}, {"If_Range": '"a"', "Range": "bytes=0-0"}],
        }
        for status, requests in statuses.items():
            for headers in requests:
                assert (await ask(client, "GET", link, **headers)).status == status, headers
        assert (await ask(client, "GET", f"{link}meta")).status == 200
        assert (await ask(client, "GET", f"/archive.zip?id={link.split('/')[2]}")).status == 200
        counted = await stored(client, **{"Max-Downloads": "1"})
        assert [(await ask(client, "GET", counted)).status for _ in range(2)] == [200, 410]


async def test_a_link_lives_no_longer_than_its_file(redirecting: Callable[..., Any]) -> None:
    async with redirecting() as (client, _):
        link = await stored(client, **{"Expires-In": "20"})
        location = (await ask(client, "GET", link)).headers["Location"]
        assert 0 < int(parse_qs(urlsplit(location).query)["X-Amz-Expires"][0]) <= 20


async def test_a_deleted_file_is_not_found_and_its_link_leads_nowhere(redirecting: Callable[..., Any]) -> None:
    async with redirecting() as (client, link):
        location = (await ask(client, "GET", link)).headers["Location"]
        assert (await ask(client, "DELETE", link)).status == 204
        assert (await ask(client, "GET", link)).status == 404
        async with client.get(location) as gone:
            assert gone.status in (403, 404)  # 403 to who may not list, and moto takes a link for that


async def test_links_lead_to_the_address_that_clients_know(redirecting: Callable[..., Any]) -> None:
    async with redirecting(s3_public_url="https://files.example.org") as (client, link):
        location = (await ask(client, "GET", link)).headers["Location"]
        assert location.startswith("https://files.example.org/")


async def test_our_client_verifies_what_comes_from_the_store(redirecting: Callable[..., Any], tmp_path: Path) -> None:
    notices: list[str] = []
    async with redirecting() as (client, link):
        url = str(client._base_url)
        async with Client(url, notice=notices.append) as fetching:
            path = await fetching.fetch(url.rstrip("/") + link, tmp_path)
    assert path.name == NAME
    assert hashlib.sha256(path.read_bytes()).digest() == hashlib.sha256(CONTENT).digest()
    assert notices == []
