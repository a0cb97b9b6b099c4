"""The S3 client against moto: what becomes an object, what fails and leaves nothing."""

import asyncio
import io
import os
import sys
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from tenacity import wait_none

from file_service.client import client as client_module
from file_service.client.errors import DigestMismatch, LocalProblem, RefusedByServer, ServerUnreachable, TransferError
from file_service.clients.s3 import FETCH_LIMIT, S3Client, S3Error, TooLarge
from file_service.storage.s3_retries import Patience
from tests.clients.acts import NOWHERE, made
from tests.clients.conftest import LookOut
from tests.support.odd_server import OddServer, Request, odd_server, problem
from tests.support.s3_server import REGION, Bucket, moto

KEY_ID, SECRET = "AKIAEXAMPLE-KEY-ID", "wJalrXUtnFEMI-LEAK_ME_NOT-EXAMPLEKEY"
SMALL = os.urandom(700_001)
LARGE = os.urandom(1 << 20) * 9 + b"end"  # a part and a piece
PROMPT = Patience(attempts=2, first=0.01, longest=0.01, timeout=0.2)


@pytest.fixture(autouse=True)
def _no_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "BACKOFF", wait_none())


@pytest.fixture
def bucket() -> Bucket:
    return moto().bucket()


@pytest.fixture
async def s3(bucket: Bucket) -> AsyncIterator[S3Client]:
    async with S3Client(bucket.server.url, KEY_ID, SECRET, REGION) as s3:
        yield s3


@pytest.fixture
async def source() -> AsyncIterator[OddServer]:
    async with odd_server() as running:
        yield running


@asynccontextmanager
async def served(handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> AsyncIterator[str]:
    """The URL of a server that answers everything by `handler`."""
    app = web.Application(client_max_size=1 << 60)
    app.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def check_empty(bucket: Bucket) -> None:
    assert (bucket.sizes(), bucket.uploads()) == ({}, [])


# Bytes and files


@pytest.mark.parametrize("content", [b"", SMALL, LARGE], ids=["empty", "small", "large"])
@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview, io.BytesIO])
async def test_bytes_and_buffers_become_objects(s3: S3Client, bucket: Bucket, content: bytes, kind: Any) -> None:
    assert await s3.upload_file(bucket.name, "a/ключ 1", kind(content)) == len(content)
    assert bucket.read("a/ключ 1") == content
    assert bucket.uploads() == []


async def test_a_binary_file_is_stored_from_where_it_stands(s3: S3Client, bucket: Bucket, tmp_path: Path) -> None:
    with made(tmp_path / "file", SMALL).open("rb") as file:
        file.seek(5)
        assert await s3.upload_file(bucket.name, "key", file) == len(SMALL) - 5
    assert bucket.read("key") == SMALL[5:]


@pytest.mark.parametrize("content", [b"", SMALL, LARGE], ids=["empty", "small", "large"])
async def test_a_file_is_streamed(s3: S3Client, bucket: Bucket, tmp_path: Path, content: bytes) -> None:
    assert await s3.stream_file(bucket.name, "key", str(made(tmp_path / "file", content))) == len(content)
    assert bucket.read("key") == content


async def test_a_missing_file_a_folder_and_a_broken_buffer_store_nothing(
    s3: S3Client, bucket: Bucket, tmp_path: Path
) -> None:
    class Broken(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            if self.tell() > 8 << 20:
                raise OSError(5, "Input/output error")
            return super().read(size)

    with pytest.raises(LocalProblem, match="No such file"):
        await s3.stream_file(bucket.name, "key", tmp_path / "missing")
    with pytest.raises(LocalProblem, match="folder"):
        await s3.stream_file(bucket.name, "key", tmp_path)
    with pytest.raises(LocalProblem, match="Input/output error"):
        await s3.upload_file(bucket.name, "key", Broken(LARGE))
    check_empty(bucket)


async def test_a_file_that_changes_meanwhile_is_not_stored(s3: S3Client, bucket: Bucket, tmp_path: Path) -> None:
    path = made(tmp_path / "file", LARGE)
    task = asyncio.create_task(s3.stream_file(bucket.name, "key", path))
    await asyncio.sleep(0)
    path.write_bytes(SMALL)
    with pytest.raises(LocalProblem, match="changed"):
        await task
    check_empty(bucket)


async def test_a_cancelled_upload_leaves_nothing(s3: S3Client, bucket: Bucket) -> None:
    class Watched(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            if self.tell() == 9 << 20:
                loop.call_soon_threadsafe(task.cancel)
            return super().read(size)

    loop = asyncio.get_running_loop()
    task = asyncio.create_task(s3.upload_file(bucket.name, "key", Watched(LARGE)))
    with pytest.raises(asyncio.CancelledError):
        await task
    check_empty(bucket)


# URLs


@pytest.mark.parametrize("content", [b"", SMALL, LARGE], ids=["empty", "small", "large"])
@pytest.mark.parametrize("method", ["fetch_and_upload", "stream_upload"])
async def test_what_a_url_gives_is_stored(
    s3: S3Client, bucket: Bucket, source: OddServer, content: bytes, method: str
) -> None:
    source.content = content
    assert await getattr(s3, method)(bucket.name, "key", source.url) == len(content)
    assert bucket.read("key") == content


@pytest.mark.parametrize("method", ["fetch_and_upload", "stream_upload"])
async def test_a_url_that_fails_stores_nothing(s3: S3Client, bucket: Bucket, source: OddServer, method: str) -> None:
    store = getattr(s3, method)
    source.script.append(problem(404, "No such file."))
    with pytest.raises(RefusedByServer, match="No such file"):
        await store(bucket.name, "key", source.url)
    with pytest.raises(ServerUnreachable, match="No connection"):
        await store(bucket.name, "key", NOWHERE)
    for url in ("ftp://127.0.0.1/file", "file:///etc/passwd", "/etc/passwd", ""):
        with pytest.raises(ValueError, match="must begin with http"):
            await store(bucket.name, "key", url)
    check_empty(bucket)


def cut(content: bytes, **headers: str) -> Any:
    """Announce `content`, send two thirds of it, and close the connection."""

    async def answer(request: web.Request, _: Request) -> web.StreamResponse:
        response = web.StreamResponse(headers=headers)
        response.content_length = len(content)
        await response.prepare(request)
        await response.write(content[: len(content) * 2 // 3])
        assert request.transport
        request.transport.close()
        return response

    return answer


@pytest.mark.parametrize("method", ["fetch_and_upload", "stream_upload"])
async def test_a_url_that_breaks_off_is_gone_on_with(
    s3: S3Client, bucket: Bucket, source: OddServer, method: str
) -> None:
    source.content = LARGE
    source.headers = {"ETag": '"strong"'}
    source.script.append(cut(LARGE, ETag='"strong"'))
    assert await getattr(s3, method)(bucket.name, "key", source.url) == len(LARGE)
    assert bucket.read("key") == LARGE
    assert "Range" in source.requests[1].headers


async def test_a_stream_that_cannot_be_gone_on_with_stores_nothing(
    s3: S3Client, bucket: Bucket, source: OddServer
) -> None:
    source.content = LARGE
    source.script.append(cut(LARGE))
    with pytest.raises(ServerUnreachable, match="cannot resume"):
        await s3.stream_upload(bucket.name, "key", source.url)
    check_empty(bucket)
    source.script.append(cut(LARGE))
    assert await s3.fetch_and_upload(bucket.name, "key", source.url) == len(LARGE)


@pytest.mark.parametrize("method", ["fetch_and_upload", "stream_upload"])
async def test_bytes_that_are_not_those_announced_are_not_stored(
    s3: S3Client, bucket: Bucket, source: OddServer, method: str
) -> None:
    source.content = LARGE
    source.headers = {"Repr-Digest": f"sha-256=:{'A' * 43}=:"}
    with pytest.raises(DigestMismatch):
        await getattr(s3, method)(bucket.name, "key", source.url)
    check_empty(bucket)


async def test_only_so_much_is_held_in_memory(s3: S3Client, bucket: Bucket, source: OddServer) -> None:
    source.content = SMALL
    assert await s3.fetch_and_upload(bucket.name, "right", source.url, limit=len(SMALL)) == len(SMALL)
    with pytest.raises(TooLarge) as raised:
        await s3.fetch_and_upload(bucket.name, "more", source.url, limit=len(SMALL) - 1)
    assert raised.value.limit == len(SMALL) - 1
    assert bucket.sizes() == {"right": len(SMALL)}
    assert FETCH_LIMIT == 64 * 1024 * 1024


# Failures of the store, and the keys


async def test_the_store_is_asked_with_the_keys_and_the_region_given(
    look_out: LookOut, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "another")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another")
    seen: list[str] = []

    async def store(request: web.Request) -> web.StreamResponse:
        seen.append(request.headers["Authorization"])
        return web.Response(status=403)

    async with served(store) as url, S3Client(url, KEY_ID, SECRET, "eu-west-3", patience=PROMPT) as s3:
        with pytest.raises(S3Error):
            await s3.upload_file("bucket", "key", b"x")
    assert f"Credential={KEY_ID}/" in seen[0]
    assert "/eu-west-3/s3/" in seen[0]


async def test_a_refusal_of_the_store_is_named(s3: S3Client, tmp_path: Path, source: OddServer) -> None:
    source.content = LARGE
    for work in (
        s3.upload_file("missing-bucket", "key", SMALL),
        s3.stream_file("missing-bucket", "key", made(tmp_path / "file", LARGE)),
        s3.stream_upload("missing-bucket", "key", source.url),
        s3.fetch_and_upload("missing-bucket", "key", source.url),
    ):
        with pytest.raises(S3Error, match=r"NoSuchBucket \(404\)") as raised:
            await work
        assert (raised.value.code, raised.value.status) == ("NoSuchBucket", 404)


ECHO = f"<Error><Code>SignatureDoesNotMatch</Code><Message>Is {KEY_ID} right?</Message></Error>"


async def echoes(_: web.Request) -> web.StreamResponse:
    return web.Response(status=403, text=ECHO, content_type="application/xml")


async def fails(_: web.Request) -> web.StreamResponse:
    return web.Response(status=503)


async def closes(request: web.Request) -> web.StreamResponse:
    assert request.transport
    request.transport.close()
    return web.Response()


async def stalls(_: web.Request) -> web.StreamResponse:
    await asyncio.Event().wait()
    return web.Response()


async def babbles(_: web.Request) -> web.StreamResponse:
    return web.Response(text="<hello>")


@pytest.mark.parametrize("store", [echoes, fails, closes, stalls, babbles])
@pytest.mark.parametrize("content", [SMALL, LARGE], ids=["small", "large"])
async def test_the_secret_shows_nowhere_whatever_fails(store: Any, content: bytes, look_out: LookOut) -> None:
    async with served(store) as url:
        s3 = S3Client(url, KEY_ID, SECRET, patience=PROMPT)
        async with s3:
            with pytest.raises(TransferError) as raised:
                await s3.upload_file("bucket", "key", content)
    look_out.note(raised.value)
    assert type(raised.value) is S3Error
    assert "object store" in look_out.text()
    assert SECRET not in look_out.text() + repr(s3) + repr(vars(s3))
    assert KEY_ID not in "".join(traceback.format_exception(raised.value))


async def test_the_secret_shows_nowhere_when_there_is_no_store_or_no_right_address(look_out: LookOut) -> None:
    async with S3Client(NOWHERE, KEY_ID, SECRET, patience=PROMPT) as s3:
        with pytest.raises(S3Error, match="failed: EndpointConnectionError") as raised:
            await s3.upload_file("bucket", "key", SMALL)
    look_out.note(raised.value)
    with pytest.raises(ValueError, match="endpoint"):
        await S3Client("no address", KEY_ID, SECRET).__aenter__()
    assert SECRET not in look_out.text()


async def test_the_secret_shows_nowhere_when_all_is_well(bucket: Bucket, look_out: LookOut) -> None:
    async with S3Client(bucket.server.url, KEY_ID, SECRET) as s3:
        await s3.upload_file(bucket.name, "key", LARGE)
    assert bucket.name in look_out.text()
    assert SECRET not in look_out.text()


# Memory

SIZE = 256 << 20  # bytes
GROWTH = 144 << 10  # KiB: four parts of 8 MiB on their way, one that is received, and copies of them
STREAMER = """
import asyncio, sys
from pathlib import Path
from file_service.clients.s3 import S3Client

def peak():
    return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0])

async def main(endpoint, bucket, small, large):
    async with S3Client(endpoint, "key-id", "secret") as s3:
        await s3.stream_upload(bucket, "small", small)
        before = peak()
        await s3.stream_upload(bucket, "large", large)
        print(peak() - before)

asyncio.run(main(*sys.argv[1:]))
"""


async def test_a_large_stream_is_stored_in_constant_memory(bucket: Bucket) -> None:
    async def zeros(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in range(int(request.path[1:]) >> 20):
            await response.write(bytes(1 << 20))
        return response

    async with served(zeros) as url:
        arguments = [bucket.server.url, bucket.name, f"{url}/{1 << 20}", f"{url}/{SIZE}"]
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            STREAMER,
            *arguments,
            env=os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent.parent)},
            stdout=asyncio.subprocess.PIPE,
        )
        output, _ = await process.communicate()
    assert process.returncode == 0
    assert bucket.sizes() == {"small": 1 << 20, "large": SIZE}
    assert int(output) < GROWTH
