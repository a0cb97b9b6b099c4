"""GET /archive.zip over the wire: whole, in ranges, resumed, refused, and cut when a file vanishes."""

import asyncio
import io
import shutil
import subprocess
import zipfile
from collections.abc import Awaitable, Callable
from pathlib import Path

import aiohttp
import pytest

from tests.support.places import Place

Start = Callable[..., Awaitable[str]]
UNKNOWN = "5b0c2b5e-6a0e-4d0c-9a57-0d4a7f1c2e11"
FILES = {"naïve.txt": b"hello", "empty": b"", "big.bin": bytes(range(256)) * 4096, "日本.txt": b"x" * 300_000}


async def put(client: aiohttp.ClientSession, url: str, name: str, data: bytes, **headers: str) -> str:
    """Store a file; its id."""
    async with client.put(f"{url}/files/{name}", data=io.BytesIO(data), headers=headers) as answer:
        assert answer.status == 201, await answer.text()
        return await answer.text()


async def stored(client: aiohttp.ClientSession, url: str) -> str:
    """The address of an archive of `FILES`."""
    ids = [await put(client, url, name, data) for name, data in FILES.items()]
    return f"{url}/archive.zip?" + "&".join(f"id={id_}" for id_ in ids)


async def test_an_archive_has_every_file_with_its_name_and_a_length(url: str, tmp_path: Path) -> None:
    async with aiohttp.ClientSession() as client, client.get(await stored(client, url)) as answer:
        body = await answer.read()
        assert answer.status == 200
        assert answer.headers["Content-Length"] == str(len(body))
        assert answer.headers["Content-Type"] == "application/zip"
    with zipfile.ZipFile(io.BytesIO(body)) as archive:
        assert archive.testzip() is None
        assert {info.filename: archive.read(info) for info in archive.infolist()} == FILES
    path = tmp_path / "archive.zip"
    path.write_bytes(body)
    for command in (["unzip", "-tqq"], ["7z", "t"]):
        if shutil.which(command[0]):
            await asyncio.to_thread(subprocess.run, [*command, str(path)], check=True, capture_output=True)


async def test_a_broken_archive_download_goes_on_where_it_broke(serve: Start) -> None:
    url = await serve()
    async with aiohttp.ClientSession() as client:
        link = await stored(client, url)
        async with client.get(link) as answer:
            whole, tag = await answer.read(), answer.headers["ETag"]
        for start in (0, 1, 100, 70_000, len(whole) - 22, len(whole) - 1):
            headers = {"Range": f"bytes={start}-", "If-Range": tag}
            async with client.get(link, headers=headers) as answer:
                assert (answer.status, await answer.read()) == (206, whole[start:])
        async with client.get(link, headers={"Range": "bytes=0-9,-9"}) as answer:
            parts = await answer.read()
            assert answer.status == 206
            assert len(parts) == int(answer.headers["Content-Length"])
        async with client.head(link) as answer:
            assert answer.headers["Content-Length"] == str(len(whole))
        async with client.get(link, headers={"If-None-Match": tag}) as answer:
            assert answer.status == 304


async def test_two_files_of_one_name_are_both_in_the_archive(serve: Start) -> None:
    url = await serve()
    async with aiohttp.ClientSession() as client:
        first, second = [await put(client, url, "a.txt", data) for data in (b"1", b"2")]
        async with client.get(f"{url}/archive.zip?id={first}&id={second}") as answer:
            archive = zipfile.ZipFile(io.BytesIO(await answer.read()))
    assert [archive.read(name) for name in archive.namelist()] == [b"1", b"2"]
    assert len(set(archive.namelist())) == 2


@pytest.mark.parametrize(
    ("query", "status"),
    [("", 400), ("?id=", 404), ("?id=../../etc/passwd", 404), (f"?id={UNKNOWN}", 404), ("?other=1", 400)],
)
async def test_an_archive_of_what_is_not_there_is_refused(serve: Start, query: str, status: int) -> None:
    url = await serve()
    async with aiohttp.ClientSession() as client, client.get(f"{url}/archive.zip{query}") as answer:
        assert answer.status == status
        assert answer.content_type == "application/problem+json"


async def test_a_file_that_may_be_downloaded_only_so_often_is_not_archived(serve: Start) -> None:
    url = await serve()
    async with aiohttp.ClientSession() as client:
        id_ = await put(client, url, "once", b"x", **{"Max-Downloads": "1"})
        async with client.get(f"{url}/archive.zip?id={id_}") as answer:
            assert answer.status == 400


async def test_a_file_that_vanishes_midway_cuts_the_archive(
    serve: Start, placed: Callable[[Path], Place], tmp_path: Path
) -> None:
    url, place = await serve(), placed(tmp_path / "data")
    async with aiohttp.ClientSession() as client:
        first = await put(client, url, "first", bytes(3 << 20))
        before = await asyncio.to_thread(place.published)
        second = await put(client, url, "second", bytes(3 << 20))
        (key,) = await asyncio.to_thread(place.published) - before
        await asyncio.to_thread(place.lose, key)
        async with client.get(f"{url}/archive.zip?id={first}&id={second}") as answer:
            assert answer.status == 200
            with pytest.raises(aiohttp.ClientError):
                await answer.read()
