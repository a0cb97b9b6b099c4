"""Where redirects and name servers lead: every hop is looked at when it is connected to, and only then."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import pytest
from aiohttp.abc import ResolveResult

from file_service.service import outside
from tests.imports.conftest import Importer
from tests.imports.upstream import Upstream, Visit, upstream_server

NOBODY = "There is no public server at this address."
STATUSES = [301, 302, 303, 307, 308]


@pytest.fixture
async def inner() -> AsyncIterator[Upstream]:
    """A server that is not to be reached: the service is only allowed 127.0.0.1."""
    async with upstream_server("127.0.0.2") as server:
        yield server


def to(location: str, status: int = 302) -> Callable[[Visit], Any]:
    """Answer with this redirect."""
    return lambda visit: visit.redirect(location, status)


async def refused(importer: Importer, url: str, error: str = NOBODY) -> None:
    """Import and see it fail."""
    record = await importer.run(url)
    assert (record["state"], record["error"], record["file_id"]) == ("failed", error, None)
    assert await importer.files() == []


@pytest.mark.parametrize("status", STATUSES)
async def test_redirects_outside_are_followed(importer: Importer, upstream: Upstream, status: int) -> None:
    url = upstream.says(to("/elsewhere/name.txt?x=1", status))
    record = await importer.run(url)
    assert (record["state"], record["url"]) == ("done", url)
    assert await importer.content(record) == b"hello"
    assert (await importer.files())[0]["name"] == "name.txt"


@pytest.mark.parametrize("status", STATUSES)
async def test_a_redirect_inside_is_not_followed(
    importer: Importer, upstream: Upstream, inner: Upstream, connected: list[str], status: int
) -> None:
    await refused(importer, upstream.says(to(f"{inner.url}/secret", status)))
    assert inner.heads == []
    assert "127.0.0.2" not in connected


async def test_the_target_is_there_for_those_who_may_reach_it(
    importing: Callable[..., Any], upstream: Upstream, inner: Upstream
) -> None:
    """What the other tests see is the guard, not a server that does not answer."""
    importer: Importer = await importing(import_allow="127.0.0.0/8")
    record = await importer.run(upstream.says(to(f"{inner.url}/secret")))
    assert await importer.content(record) == b"hello"


@pytest.mark.parametrize(
    "target",
    [
        "https://127.0.0.2:{port}/",
        "http://127.2:{port}/",
        "http://0x7f000002:{port}/",
        "http://2130706434:{port}/",
        "http://0.0.0.0:{port}/",
        "http://[::1]:{port}/",
        "http://[::ffff:127.0.0.2]:{port}/",
        "http://①②⑦.⓪.⓪.②:{port}/",
        "http://169.254.169.254/latest/meta-data/",
        "http://[fd00:ec2::254]/",
        "http://db.internal:{port}/",
        "//127.0.0.2:{port}/",
    ],
)
async def test_no_form_of_an_inner_host_is_redirected_to(
    importer: Importer, upstream: Upstream, inner: Upstream, connected: list[str], target: str
) -> None:
    await importer.files()
    location = target.replace("{port}", inner.url.rpartition(":")[2])
    await refused(importer, upstream.says(to(location)))
    assert set(connected) == {"127.0.0.1"}


@pytest.mark.parametrize(
    ("location", "error"),
    [
        ("file:///etc/passwd", "Only http:// and https:// URLs are imported."),
        ("ftp://127.0.0.1/", "Only http:// and https:// URLs are imported."),
        ("data:text/plain,x", "Only http:// and https:// URLs are imported."),
        ("http://[::1", "This is not a URL."),
        ("http://127.0.0.1:99999/", "This is not a URL."),
        ("http://user:pass@127.0.0.1/", "A URL with a user name or a password is not imported."),
    ],
)
async def test_a_redirect_may_lead_nowhere_but_where_a_url_may(
    importer: Importer, upstream: Upstream, location: str, error: str
) -> None:
    await refused(importer, upstream.says(to(location)), error)


@pytest.mark.parametrize(("status", "headers"), [(302, ()), (304, ()), (300, ("Location: /x",)), (201, ())])
async def test_what_is_no_redirect_and_no_file_is_a_failure(
    importer: Importer, upstream: Upstream, status: int, headers: Sequence[str]
) -> None:
    url = upstream.says(lambda visit: visit.answer(b"", *headers, status=status))
    await refused(importer, url, f"The other server answered {status}.")


async def test_five_redirects_are_followed_and_a_sixth_is_not(importer: Importer, upstream: Upstream) -> None:
    for hop in range(1, 7):
        upstream.says(to(f"/{hop - 1}"), f"/{hop}")
    assert (await importer.run(upstream.url + "/5"))["state"] == "done"
    assert len(upstream.heads) == 6
    record = await importer.run(upstream.url + "/6")
    assert (record["state"], record["error"]) == ("failed", "The other server redirects more than 5 times.")


async def test_nothing_is_carried_from_one_server_to_the_next(importer: Importer, upstream: Upstream) -> None:
    async with upstream_server("127.0.0.1") as other:
        headers = (f"Location: {other.url}/b", "Set-Cookie: a=1; Path=/", "WWW-Authenticate: Basic realm=x")
        url = upstream.says(lambda visit: visit.answer(b"", *headers, status=302), "/a?token=1")
        other.says(lambda visit: visit.answer(b"", f"Location: {upstream.url}/c", "Set-Cookie: b=2", status=307), "/b")
        assert (await importer.run(url))["state"] == "done"
    host = upstream.url.removeprefix("http://")
    lines = [head.decode().split("\r\n") for head in upstream.heads + other.heads]
    assert [line[0] for line in lines] == ["GET /a?token=1 HTTP/1.1", "GET /c HTTP/1.1", "GET /b HTTP/1.1"]
    assert {name.partition(":")[0] for line in lines for name in line[1:-2]} == {
        "Host",
        "Accept",
        "Accept-Encoding",
        "User-Agent",
        "Connection",
    }
    assert f"Host: {host}" in lines[0]
    assert "Accept-Encoding: identity" in lines[0]


# Name servers that change their mind


class Rebinding(outside.Resolver):
    """A name server that answers every question differently; numbers it leaves alone."""

    answers: Sequence[Sequence[str]] = ()
    asked = 0

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        if host != "rebinding.example":
            return await super().resolve(host, port, family)
        type(self).asked += 1
        found = [await super(Rebinding, self).resolve(each, port) for each in self.answers[self.asked - 1]]
        return [one[0] for one in found]


@pytest.fixture
def rebinding(monkeypatch: pytest.MonkeyPatch) -> type[Rebinding]:
    monkeypatch.setattr(outside, "Resolver", Rebinding)
    monkeypatch.setattr(Rebinding, "asked", 0)
    return Rebinding


async def test_a_name_that_is_public_when_looked_up_and_not_when_connected_to(
    rebinding: type[Rebinding], importer: Importer, inner: Upstream, connected: list[str]
) -> None:
    rebinding.answers = (("8.8.8.8",), ("127.0.0.2",))
    await refused(importer, inner.url.replace("127.0.0.2", "rebinding.example"))
    assert rebinding.asked == 2
    assert inner.heads == []
    assert set(connected) == {"127.0.0.1"}  # this test's own client


async def test_a_name_that_turns_inside_after_a_redirect(
    rebinding: type[Rebinding], importer: Importer, connected: list[str]
) -> None:
    async with upstream_server("127.0.0.1") as outer:
        port = int(outer.url.rpartition(":")[2])
        server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.2", port)
        async with server:
            rebinding.answers = (("127.0.0.1",), ("127.0.0.1",), ("127.0.0.2",))
            url = f"http://rebinding.example:{port}"
            outer.says(to("/again"))
            await refused(importer, f"{url}/file")
    assert rebinding.asked == 3
    assert len(outer.heads) == 1
    assert "127.0.0.2" not in connected


async def test_the_inner_one_of_two_addresses_is_passed_over(
    rebinding: type[Rebinding], importer: Importer, upstream: Upstream, connected: list[str]
) -> None:
    rebinding.answers = (("127.0.0.2", "127.0.0.1"),) * 2
    record = await importer.run(upstream.url.replace("127.0.0.1", "rebinding.example") + "/x")
    assert record["state"] == "done"
    assert "127.0.0.2" not in connected


async def test_a_name_that_is_gone_by_the_time_it_is_connected_to(
    rebinding: type[Rebinding], importer: Importer
) -> None:
    rebinding.answers = (("8.8.8.8",), ("no such name",))
    await refused(importer, "http://rebinding.example/")
