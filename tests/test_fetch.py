"""The client fetching: what is saved and under which name, what is resumed, and that nothing else is left."""

import asyncio
import gzip
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web
from tenacity import wait_none

from file_service.client import Client, DigestMismatch, LocalProblem, RefusedByServer, ServerFailed, ServerUnreachable
from file_service.client import client as client_module
from file_service.client.fetching import DescriptorSink, part_file, visible_name
from tests.support.odd_server import Behaviour, OddServer, Request, description, odd_server, problem, raw_server

CONTENT = os.urandom(3_000_000)


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(client_module, "BACKOFF", wait_none())


@pytest.fixture
async def server() -> AsyncIterator[OddServer]:
    async with odd_server() as running:
        running.content = CONTENT
        running.headers["Content-Disposition"] = 'attachment; filename="data.bin"'
        yield running


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def cut(content: bytes, after: int, **headers: str) -> Behaviour:
    """Answer with `content`, and reset the connection after so many bytes."""

    async def answer(request: web.Request, _: Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={**description(content), **headers})
        response.content_length = len(content)
        await response.prepare(request)
        await response.write(content[:after])
        await asyncio.sleep(0.05)
        assert request.transport
        request.transport.abort()
        return response

    return answer


async def stall(request: web.Request, _: Request) -> web.StreamResponse:
    """Answer with the first thousand bytes and then nothing."""
    response = web.StreamResponse(headers=description(CONTENT))
    response.content_length = len(CONTENT)
    await response.prepare(request)
    await response.write(CONTENT[:1000])
    await asyncio.sleep(60)
    return response


async def test_a_file_is_saved_under_the_servers_name_with_the_users_mode(server: OddServer, tmp_path: Path) -> None:
    mask = os.umask(0o027)
    try:
        async with Client(server.url) as client:
            path = await client.fetch(server.url + "/1/")
    finally:
        os.umask(mask)
    assert (path, path.read_bytes()) == (Path("data.bin"), CONTENT)
    assert path.stat().st_mode & 0o7777 == 0o640
    assert left(tmp_path) == ["data.bin"]


async def test_a_path_or_a_folder_may_be_given(server: OddServer, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    async with Client(server.url) as client:
        assert await client.fetch(server.url + "/1/", folder) == folder / "data.bin"
        assert await client.fetch(server.url + "/1/", folder / "mine") == folder / "mine"
        assert await client.fetch("/files/1/", Path("relative")) == Path("relative")
    assert left(folder) == ["data.bin", "mine"]
    assert left(tmp_path) == ["folder", "relative"]


@pytest.mark.parametrize("size", [0, 1])
async def test_the_smallest_files(server: OddServer, size: int) -> None:
    server.content = bytes(size)
    async with Client(server.url) as client:
        assert (await client.fetch(server.url + "/1/")).read_bytes() == bytes(size)


@pytest.mark.parametrize(
    ("offered", "name"),
    [
        ("../../etc/passwd", "passwd"),
        ("/etc/cron.d/job", "job"),
        ("..\\..\\boot.ini", "boot.ini"),
        (".bashrc", "bashrc"),
        ("..", "file"),
        ("...", "file"),
        ("", "file"),
        ("a\nb\x1b[2J\x00.txt", "ab[2J.txt"),
        ("☃" * 200 + ".txt", "☃" * 83 + ".txt"),
    ],
)
async def test_no_name_leads_out_of_the_folder_or_into_hiding(offered: str, name: str) -> None:
    assert visible_name(offered) == name


async def test_a_hostile_name_in_the_header_stays_in_the_folder(server: OddServer, tmp_path: Path) -> None:
    server.headers["Content-Disposition"] = "attachment; filename*=UTF-8''..%2F..%2F.profile"
    folder = tmp_path / "a" / "b"
    folder.mkdir(parents=True)
    async with Client(server.url) as client:
        await client.fetch(server.url + "/1/", folder)
    assert left(folder) == ["profile"]
    assert left(tmp_path) == ["a"]


# What is there already


async def test_an_existing_file_is_kept_unless_it_may_be_replaced(server: OddServer, tmp_path: Path) -> None:
    there = tmp_path / "data.bin"
    there.write_bytes(b"mine")
    async with Client(server.url) as client:
        for path in (None, there):
            with pytest.raises(LocalProblem, match=r"data\.bin exists already"):
                await client.fetch(server.url + "/1/", path)
            assert there.read_bytes() == b"mine"
        await client.fetch(server.url + "/1/", replace=True)
    assert there.read_bytes() == CONTENT
    assert left(tmp_path) == ["data.bin"]


async def test_a_named_target_is_looked_at_before_anything_is_asked(server: OddServer, tmp_path: Path) -> None:
    (tmp_path / "there").touch()
    async with Client(server.url) as client:
        with pytest.raises(LocalProblem):
            await client.fetch(server.url + "/1/", Path("there"))
        with pytest.raises(LocalProblem, match="No such file or directory"):
            await client.fetch(server.url + "/1/", Path("missing/f"))
        with pytest.raises(LocalProblem, match="File name too long"):
            await client.fetch(server.url + "/1/", Path("x" * 300))
    assert server.requests == []


async def test_a_device_is_never_replaced(server: OddServer, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    async with Client(server.url) as client:
        with pytest.raises(LocalProblem, match="not a regular file"):
            await client.fetch(server.url + "/1/", Path("pipe"), replace=True)
    assert left(tmp_path) == ["pipe"]


@pytest.mark.parametrize("links", [True, False], ids=["links", "no links, as on FAT"])
async def test_a_file_that_appears_meanwhile_is_kept(
    server: OddServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    if not links:
        monkeypatch.setattr(Path, "hardlink_to", no_links)

    async def interfere(request: web.Request, seen: Request) -> web.StreamResponse:
        (tmp_path / "target").write_bytes(b"mine")
        return await server.serve(request, seen)

    server.script.append(interfere)
    async with Client(server.url) as client:
        with pytest.raises(LocalProblem, match="exists already"):
            await client.fetch(server.url + "/1/", Path("target"))
        await client.fetch(server.url + "/1/", Path("other"))
    assert (tmp_path / "target").read_bytes() == b"mine"
    assert (tmp_path / "other").read_bytes() == CONTENT
    assert left(tmp_path) == ["other", "target"]


def no_links(self: Path, _: Path) -> None:
    raise PermissionError(1, "Operation not permitted", str(self))


async def test_the_unfinished_file_is_private(tmp_path: Path, server: OddServer) -> None:
    modes: list[int] = []

    async def look(request: web.Request, seen: Request) -> web.StreamResponse:
        modes.extend((tmp_path / name).stat().st_mode & 0o7777 for name in left(tmp_path))
        return await server.serve(request, seen)

    server.script.append(look)
    async with Client(server.url) as client:
        await client.fetch(server.url + "/1/")
    assert modes == [0o600]


# Breaks


async def test_a_broken_download_goes_on_where_it_broke(server: OddServer, tmp_path: Path) -> None:
    server.script.extend([cut(CONTENT, 1_000_000), problem(503, "Later.", Retry_After="0")])
    async with Client(server.url) as client:
        path = await client.fetch(server.url + "/1/", Path("target"))
    assert path.read_bytes() == CONTENT
    first, second, third = server.requests
    assert "Range" not in first.headers
    assert (second.headers["Range"], third.headers["Range"]) == ("bytes=1000000-", "bytes=1000000-")
    assert third.headers["If-Range"] == description(CONTENT)["ETag"]
    assert left(tmp_path) == ["target"]


async def test_a_file_that_is_another_one_by_now_is_fetched_from_the_start(server: OddServer) -> None:
    server.script.append(cut(b"old" * 1_000_000, 1_000_000))
    async with Client(server.url) as client:
        path = await client.fetch(server.url + "/1/", Path("target"))
    assert path.read_bytes() == CONTENT


async def test_a_server_that_cannot_resume_is_asked_from_the_start(server: OddServer) -> None:
    async def whole(_: web.Request, __: Request) -> web.StreamResponse:
        return web.Response(body=CONTENT, headers=description(CONTENT))

    server.script.extend([cut(CONTENT, 1_000_000), problem(416, "No range."), cut(CONTENT, 10, ETag='W/"weak"'), whole])
    async with Client(server.url) as client:
        path = await client.fetch(server.url + "/1/", Path("target"))
    assert path.read_bytes() == CONTENT
    assert [seen.headers.get("Range") for seen in server.requests] == [None, "bytes=1000000-", None, None]


async def test_a_partial_answer_that_was_not_asked_for_is_an_error(server: OddServer, tmp_path: Path) -> None:
    async def part(_: web.Request, __: Request) -> web.StreamResponse:
        return web.Response(status=206, body=CONTENT[7:], headers={"Content-Range": "bytes 7-2999999/3000000"})

    server.script.extend([part, cut(CONTENT, 1_000_000), part])
    async with Client(server.url) as client:
        for _ in range(2):
            with pytest.raises(ServerFailed) as failed:
                await client.fetch(server.url + "/1/")
            assert failed.value.status == 206
    assert left(tmp_path) == []


async def test_a_part_of_the_rest_is_followed_by_the_rest(server: OddServer) -> None:
    async def short(_: web.Request, __: Request) -> web.StreamResponse:
        headers = {"Content-Range": "bytes 1000000-1999999/3000000", **description(CONTENT)}
        return web.Response(status=206, body=CONTENT[1_000_000:2_000_000], headers=headers)

    server.script.extend([cut(CONTENT, 1_000_000), short])
    async with Client(server.url) as client:
        assert (await client.fetch(server.url + "/1/")).read_bytes() == CONTENT
    assert server.requests[2].headers["Range"] == "bytes=2000000-"


async def test_a_download_that_breaks_again_and_again_fails_and_leaves_nothing(
    server: OddServer, tmp_path: Path
) -> None:
    server.script.extend([cut(CONTENT, 1000, ETag='W/"weak"')] * 9)
    async with Client(server.url, retries=2) as client:
        with pytest.raises(ServerUnreachable):
            await client.fetch(server.url + "/1/")
    assert len(server.requests) == 3
    assert left(tmp_path) == []


async def test_a_download_that_stalls_is_resumed(server: OddServer) -> None:
    server.script.append(stall)
    async with Client(server.url, idle=0.3) as client:
        assert (await client.fetch(server.url + "/1/")).read_bytes() == CONTENT
    assert server.requests[1].headers["Range"] == "bytes=1000-"


async def test_when_only_the_end_of_the_framing_is_lost_nothing_is_asked_again() -> None:
    requests = 0

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal requests
        requests += 1
        await reader.readuntil(b"\r\n\r\n")
        digest = description(b"content")["Repr-Digest"]
        head = f"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nRepr-Digest: {digest}\r\n\r\n"
        writer.write(head.encode() + b"7\r\ncontent\r\n")

    async with raw_server(converse) as url, Client(url) as client:
        assert (await client.fetch(url + "/1/")).read_bytes() == b"content"
    assert requests == 1


async def test_a_chunked_body_without_its_end_is_no_file(tmp_path: Path) -> None:
    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n7\r\ncontent\r\n")

    async with raw_server(converse) as url, Client(url, retries=1) as client:
        with pytest.raises(ServerUnreachable, match="middle of the answer"):
            await client.fetch(url + "/1/")
    assert left(tmp_path) == []


# Digests, refusals, other ends


async def test_other_bytes_than_announced_are_an_error_and_not_kept(server: OddServer, tmp_path: Path) -> None:
    server.headers["Repr-Digest"] = description(b"other")["Repr-Digest"]
    async with Client(server.url) as client:
        with pytest.raises(DigestMismatch):
            await client.fetch(server.url + "/1/")
    assert len(server.requests) == 1
    assert left(tmp_path) == []


async def test_bytes_that_nothing_vouches_for_are_kept_with_a_notice(server: OddServer) -> None:
    async def bare(_: web.Request, __: Request) -> web.StreamResponse:
        return web.Response(body=CONTENT)

    server.script.append(bare)
    notices: list[str] = []
    async with Client(server.url, notice=notices.append) as client:
        assert (await client.fetch(server.url + "/1/")).read_bytes() == CONTENT
    assert notices == ["The server announced no SHA-256; the bytes could not be verified."]


async def test_a_refusal_leaves_nothing(server: OddServer, tmp_path: Path) -> None:
    server.script.append(problem(404, "No such file."))
    async with Client(server.url) as client:
        with pytest.raises(RefusedByServer, match="No such file") as refused:
            await client.fetch(server.url + "/1/")
    assert refused.value.status == 404
    assert left(tmp_path) == []


async def test_coded_bytes_are_kept_as_they_come(server: OddServer) -> None:
    coded = gzip.compress(CONTENT)
    server.content, server.headers["Content-Encoding"] = coded, "gzip"
    async with Client(server.url) as client:
        assert (await client.fetch(server.url + "/1/")).read_bytes() == coded
    assert server.requests[0].headers["Accept-Encoding"] == "identity"


async def test_a_redirect_is_followed(server: OddServer) -> None:
    async def redirect(_: web.Request, __: Request) -> web.StreamResponse:
        return web.Response(status=307, headers={"Location": "/bucket/key?signature=x"})

    server.script.append(redirect)
    async with Client(server.url) as client:
        assert (await client.fetch(server.url + "/1/")).read_bytes() == CONTENT
    assert server.requests[1].path == "/bucket/key"


async def test_a_full_disk_is_reported_as_such(server: OddServer) -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    async with Client(server.url) as client:
        with pytest.raises(LocalProblem, match="No space left on device"):
            await client.fetch_into(server.url + "/1/", DescriptorSink(full))
    os.close(full)
    assert len(server.requests) == 1


async def test_what_is_out_cannot_be_taken_back(server: OddServer) -> None:
    server.script.append(cut(CONTENT, 60_000, ETag='W/"weak"'))
    reading, writing = os.pipe()
    async with Client(server.url) as client:
        with pytest.raises(LocalProblem, match="cannot resume"):
            await client.fetch_into(server.url + "/1/", DescriptorSink(writing))
    os.close(reading)
    os.close(writing)


async def test_a_cancelled_download_leaves_nothing(server: OddServer, tmp_path: Path) -> None:
    begun = asyncio.Event()
    server.script.append(stall)
    async with Client(server.url) as client:
        download = asyncio.create_task(client.fetch(server.url + "/1/", progress=lambda _done, _total: begun.set()))
        await begun.wait()
        assert len(left(tmp_path)) == 1
        download.cancel()
        with pytest.raises(asyncio.CancelledError):
            await download
    assert left(tmp_path) == []


async def test_a_part_file_outlives_its_last_write(tmp_path: Path) -> None:
    """A cancelled write still runs in its thread; were the descriptor closed, it could hit another file."""
    async with Client("http://127.0.0.1") as client, part_file(Path("target"), client._io, replace=False) as part:
        write = asyncio.create_task(part.write(bytes(64 << 20)))
        await asyncio.sleep(0)
        write.cancel()
        await asyncio.wait({write})
        assert part._writing
        assert not part._writing.done()
    assert part._writing.done()
    assert left(tmp_path) == []


async def test_progress_is_told_in_bytes(server: OddServer) -> None:
    told: list[tuple[int, int | None]] = []
    server.script.append(cut(CONTENT, 1_000_000))
    async with Client(server.url) as client:
        path = await client.fetch(server.url + "/1/", progress=lambda done, total: told.append((done, total)))
        assert told[-1] == (3_000_000, 3_000_000)
        assert [done for done, _ in told] == sorted(done for done, _ in told)
        told.clear()
        await client.send(path, progress=lambda done, total: told.append((done, total)))
    assert told[-1] == (3_000_000, 3_000_000)
