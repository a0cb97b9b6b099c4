"""The list of files, deletion and the record over HTTP."""

from uuid import UUID, uuid1, uuid4

import aiohttp
import pytest

from tests.support.doors import raw
from tests.support.store import Store, stored


async def test_pages_have_every_file_once_newest_first(url: str) -> None:
    async with aiohttp.ClientSession(url) as client:
        ids = []
        for _ in range(7):
            async with client.post("/files", data=b"x") as answer:
                ids.append(await answer.text())
        seen: list[str] = []
        cursor: str | None = ""
        while cursor is not None:
            async with client.get(f"/files?limit=3&cursor={cursor}") as answer:
                page = await answer.json()
            assert len(page["files"]) <= 3
            seen += [file["id"] for file in page["files"]]
            cursor = page["next"]
    assert seen == ids[::-1]


@pytest.mark.parametrize(
    "query",
    ["limit=0", "limit=1001", "limit=-1", "limit=x", "limit=" + "9" * 40, "limit=%C2%B2", "cursor=x", "cursor=AAAA"],
)
def test_a_page_that_makes_no_sense_is_400(store: Store, query: str) -> None:
    answer, _ = store.call("GET", f"/files?{query}")
    assert answer.status == 400


def test_a_file_is_deleted_once(store: Store) -> None:
    id_ = stored(store.send(raw(b"x")))
    assert [store.call("DELETE", f"/files/{id_}/")[0].status for _ in range(2)] == [204, 404]
    assert [store.call(method, f"/files/{id_}")[0].status for method in ("GET", "HEAD")] == [404, 404]
    assert store.call("GET", f"/files/{id_}/meta")[0].status == 404


@pytest.mark.parametrize(
    "id_",
    [
        "..%2f..%2fetc%2fpasswd",
        "%00",
        "%ff",
        "x" * 300,
        "/",
        "%2e%2e",
        str(uuid1()),
        str(UUID(int=0)),
        str(uuid4()).upper(),
        uuid4().hex,
        f"{uuid4()}x",
        f"{{{uuid4()}}}",
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE"])
def test_whatever_is_no_id_is_404(store: Store, method: str, id_: str) -> None:
    assert store.call(method, f"/files/{id_}/")[0].status == 404


def test_a_method_that_a_file_does_not_take_is_405_and_says_which(store: Store) -> None:
    id_ = stored(store.send(raw(b"x")))
    answer, _ = store.call("PATCH", f"/files/{id_}/", b"")
    assert answer.status == 405
    assert {"GET", "HEAD", "DELETE"} <= set(answer.headers["Allow"].replace(" ", "").split(","))
