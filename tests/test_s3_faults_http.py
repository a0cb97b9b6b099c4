"""An object store on its bad days, as the clients of the service see it; `storage/test_s3_faults.py` has the rest."""

import io
import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

import aiohttp
import pytest

from file_service.storage import s3, s3_retries
from file_service.storage.s3_retries import Patience
from tests.support.s3_fault_proxy import (
    FOR_EVER,
    Fault,
    FaultProxy,
    answer_lost,
    bit_flipped,
    body_cut,
    error_in_200,
    fault_proxy,
    grown,
    refused,
    refused_but_done,
    request_lost,
    silent,
)
from tests.support.s3_server import moto, swift
from tests.support.tampering import InBucket

SMALL = b"goes by one PutObject"
LARGE = random.Random(6).randbytes(11 << 20)  # three parts
SLOW_DOWN = refused(503, "SlowDown")


@dataclass
class Stand:
    """A service, the bucket behind it, and the proxy between the two."""

    client: aiohttp.ClientSession
    place: InBucket
    proxy: FaultProxy

    async def send(self, data: bytes) -> tuple[int, str]:
        """The status and the body; what is refused for a while says when to come back."""
        async with self.client.post("/files", data=io.BytesIO(data)) as answer:
            assert ("Retry-After" in answer.headers) == (answer.status in (503, 507))
            return answer.status, await answer.text()

    async def fetch(self, id_: str) -> tuple[int, bytes]:
        """A whole download."""
        async with self.client.get(f"/files/{id_}/") as answer:
            assert ("Retry-After" in answer.headers) == (answer.status == 503)
            return answer.status, await answer.read()

    async def failing(self) -> set[str]:
        """The parts that readiness names."""
        async with self.client.get("/health/ready") as answer:
            failing = set((await answer.json())["failing"])
            assert answer.status == (503 if failing else 200)
            return failing

    async def read_as_far_as_it_goes(self, id_: str, headers: dict[str, str]) -> bytes:
        """What comes of a download that the service breaks off; AssertionError when it ends well."""
        got = bytearray()
        try:
            async with self.client.get(f"/files/{id_}/", headers=headers) as answer:
                assert answer.status in (200, 206)
                async for piece in answer.content.iter_any():
                    got += piece
        except (aiohttp.ClientPayloadError, ConnectionError):
            return bytes(got)
        raise AssertionError(f"{len(got)} bytes ended well")

    async def assert_stored(self, *files: tuple[str, bytes]) -> None:
        """These files are there, whole, and nothing else is."""
        for id_, data in files:
            assert await self.fetch(id_) == (200, data)
        async with self.client.get("/files") as answer:
            assert {record["id"] for record in (await answer.json())["files"]} == {id_ for id_, _ in files}
        assert len(self.place.published()) == len(files)
        assert self.place.staged() == set()


@pytest.fixture
def server() -> str:
    """The quick one, if the test does not say otherwise."""
    return "moto"


@pytest.fixture
async def stand(
    serve: Callable[..., Awaitable[str]], monkeypatch: pytest.MonkeyPatch, server: str
) -> AsyncIterator[Stand]:
    """On either server, with a service that is as patient as ever, but quicker."""
    monkeypatch.setattr(s3, "Patience", lambda: Patience(attempts=4, first=0.001, longest=0.01, timeout=3))
    monkeypatch.setattr(s3_retries, "SLOWEST", 4 << 20)
    store = {"moto": moto, "swift": swift}[server]()
    place = InBucket(store)
    async with fault_proxy(store.url) as proxy:
        with store.credentials():
            url = await serve(**{**place.settings, "s3_endpoint_url": proxy.url, "sweep_interval": 3600})
            async with aiohttp.ClientSession(url) as client:
                yield Stand(client, place, proxy)


PASSING: dict[str, tuple[str, Fault, int]] = {
    "a part is refused": ("UploadPart", refused(500, "InternalError"), 3),
    "parts come too fast": ("UploadPart", SLOW_DOWN, 3),
    "the connection breaks under a part": ("UploadPart", request_lost, 3),
    "nobody answers to a part": ("UploadPart", silent, 1),
    "a part is damaged on its way": ("UploadPart", refused(400, "BadDigest"), 1),
    "the answer to the completion is lost": ("CompleteMultipartUpload", answer_lost, 3),
    "the completion fails in its body": ("CompleteMultipartUpload", error_in_200(carried_out=False), 1),
    "the completion fails in its body, but happened": ("CompleteMultipartUpload", error_in_200(carried_out=True), 1),
    "the upload is unknown, since it is complete": (
        "CompleteMultipartUpload",
        refused_but_done(404, "NoSuchUpload"),
        1,
    ),
    "the credentials expire under way": ("UploadPart", refused(400, "ExpiredToken"), 1),
    "the clock is wrong for a while": ("CompleteMultipartUpload", refused(403, "RequestTimeTooSkewed"), 1),
}


@pytest.mark.parametrize("trouble", PASSING)
async def test_an_upload_outlives_what_passes(stand: Stand, trouble: str) -> None:
    operation, fault, times = PASSING[trouble]
    stand.proxy.inject(operation, fault, times=times)
    status, id_ = await stand.send(LARGE)
    assert status == 201, id_
    await stand.assert_stored((id_, LARGE))


@pytest.mark.parametrize("server", ["swift"])
async def test_parts_damaged_on_their_way_are_sent_again(stand: Stand) -> None:
    stand.proxy.inject("UploadPart", bit_flipped, times=2)
    status, id_ = await stand.send(LARGE)
    assert status == 201, id_
    assert stand.proxy.operations.count("UploadPart") == 5
    await stand.assert_stored((id_, LARGE))


@pytest.mark.parametrize(
    ("operation", "data"),
    [("PutObject", SMALL), ("UploadPart", LARGE), ("CompleteMultipartUpload", LARGE), ("HeadObject", LARGE)],
)
async def test_an_upload_that_cannot_be_stored_is_503_and_leaves_nothing(
    stand: Stand, operation: str, data: bytes
) -> None:
    stand.proxy.inject(operation, SLOW_DOWN, times=FOR_EVER)
    status, text = await stand.send(data)
    assert status == 503, text
    stand.proxy.heal()
    await stand.assert_stored()
    status, id_ = await stand.send(data)
    assert status == 201, "and no restart is needed"
    await stand.assert_stored((id_, data))


async def test_a_store_that_keeps_other_bytes_than_it_was_sent_stores_nothing(
    stand: Stand, caplog: pytest.LogCaptureFixture
) -> None:
    stand.proxy.inject("PutObject", grown(12))
    status, text = await stand.send(SMALL)
    assert (status, "did not keep the bytes" in text) == (500, True)
    assert "do not trust this store" in caplog.text
    await stand.assert_stored()


@pytest.mark.parametrize("after", [1, 300_000, len(LARGE) - 1])
async def test_a_download_goes_on_where_the_store_broke_off(stand: Stand, after: int) -> None:
    _, id_ = await stand.send(LARGE)
    stand.proxy.inject("GetObject", body_cut(after))
    stand.proxy.inject("GetObject", body_cut(1), times=2)
    assert await stand.fetch(id_) == (200, LARGE)
    async with stand.client.get(f"/files/{id_}/", headers={"Range": "bytes=5-"}) as answer:
        assert (answer.status, await answer.read()) == (206, LARGE[5:])


@pytest.mark.parametrize("headers", [{}, {"Range": "bytes=0-"}], ids=["chunked", "length"])
async def test_a_download_that_cannot_go_on_is_cut_and_never_ends_well(stand: Stand, headers: dict[str, str]) -> None:
    _, id_ = await stand.send(LARGE)
    stand.proxy.inject("GetObject", body_cut(600_000))
    stand.proxy.inject("GetObject", body_cut(0), times=FOR_EVER)
    got = await stand.read_as_far_as_it_goes(id_, headers)
    assert LARGE.startswith(got)
    assert len(got) <= 600_000
    stand.proxy.heal()
    await stand.assert_stored((id_, LARGE))


AWAY: dict[str, Fault] = {
    "connections break": request_lost,
    "it is overloaded": SLOW_DOWN,
    "the keys are revoked": refused(403, "InvalidAccessKeyId"),
    "the bucket is gone": refused(404, "NoSuchBucket"),
}


@pytest.mark.parametrize("trouble", AWAY)
async def test_a_store_that_is_away_is_503_until_it_is_back(
    stand: Stand, trouble: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    _, id_ = await stand.send(SMALL)
    stand.proxy.inject(None, AWAY[trouble], times=FOR_EVER)
    status, text = await stand.send(LARGE)
    assert status == 503, text
    status, answer = await stand.fetch(id_)
    assert status == 503, answer
    assert await stand.failing() == {"storage"}
    stand.proxy.heal()
    assert await stand.failing() == set()
    await stand.assert_stored((id_, SMALL))
    keys = stand.place.environment.values()
    assert not [key for key in keys if key in caplog.text or key in text or key.encode() in answer]
