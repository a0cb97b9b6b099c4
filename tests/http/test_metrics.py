"""GET /metrics counts what was answered and what was refused."""

import re
from collections.abc import Awaitable, Callable

import aiohttp


async def test_requests_and_refusals_are_counted(serve: Callable[..., Awaitable[str]]) -> None:
    url = await serve()
    async with aiohttp.ClientSession() as client:
        for path in ("/files", "/files?limit=0", "/files?limit=x"):
            await client.get(url + path)
        await client.request("PROPFIND", f"{url}/files")
        async with client.post(f"{url}/files", data=b"x" * 1000) as answer:
            link = answer.headers["Location"]
        async with client.get(url + link) as answer:
            await answer.read()
        async with client.get(f"{url}/metrics") as answer:
            assert answer.headers["Content-Type"].startswith("text/plain; version=")
            text = await answer.text()
    assert counted(text, 'file_service_requests_total{method="GET",status="200"}') == 2
    assert counted(text, 'file_service_requests_total{method="GET",status="400"}') == 2
    assert counted(text, 'file_service_requests_total{method="other",status="405"}') == 1
    assert counted(text, 'file_service_failures_total{kind="BadRequest"}') == 2
    assert counted(text, "file_service_sent_bytes_total") > 1000


def counted(text: str, name: str) -> float:
    """The value of a counter."""
    found = re.search(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE)
    return float(found[1]) if found else 0
