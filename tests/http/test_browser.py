"""What a browser makes of stored files: it saves them under their names, and nothing they hold runs in our origin."""

import re
import struct
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from random import Random

import pytest
from aiohttp import web

from tests.support.browser import Browser, browser
from tests.support.doors import raw
from tests.support.store import Store, eventually, stored

CONTENT = Random(0).randbytes(500_000)
NAME = "Übersicht — 日本 100%.bin"
# Whatever of it runs asks the service for something that shows in its log.
SCRIPT = "<script>fetch('/ran')</script><img src=x onerror=\"fetch('/ran')\"><meta http-equiv=refresh content='0;/ran'>"
HTML = f"<!doctype html><title>hostile</title>{SCRIPT}<iframe srcdoc=\"<script>fetch('/ran')</script>\"></iframe>"
SVG = '<svg xmlns="http://www.w3.org/2000/svg" onload="fetch(\'/ran\')"><script>fetch("/ran")</script></svg>'
XHTML = '<html xmlns="http://www.w3.org/1999/xhtml"><head><script>fetch("/ran")</script></head></html>'
HOSTILE = {
    "html": ("text/html", HTML),
    "svg": ("image/svg+xml", SVG),
    "xhtml": ("application/xhtml+xml", XHTML),
    "xml": ("text/xml", f'<?xml version="1.0"?>{XHTML}'),
    "without a type": ("", HTML),
    "an unknown type": ("application/x-unknown", HTML),
}
DISGUISED = {"text": ("text/plain", HTML), "image": ("image/png", HTML), "vector image": ("image/png", SVG)}


@pytest.fixture
async def chromium() -> AsyncIterator[Browser]:
    async with browser() as chromium:
        yield chromium


def keep(store: Store, content: bytes, name: str, media_type: str = "") -> str:
    """Store a file; its link."""
    about = [b"Content-Type: " + media_type.encode()] if media_type else []
    return f"{store.url}/files/{stored(store.send(raw(content, name=name, about=about)))}/"


@pytest.fixture
async def elsewhere() -> AsyncIterator[Callable[[str], Awaitable[str]]]:
    """`url = await elsewhere(html)` is a page of another origin."""
    pages: list[str] = []

    async def page(request: web.Request) -> web.Response:
        return web.Response(text=pages[int(request.match_info["number"])], content_type="text/html")

    app = web.Application()
    app.router.add_get("/{number}", page)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()

    async def add(html: str) -> str:
        pages.append(html)
        return f"http://127.0.0.1:{runner.addresses[0][1]}/{len(pages) - 1}"

    yield add
    await runner.cleanup()


def png(width: int, height: int) -> bytes:
    """A grey image (PNG specification, sections 5 and 11)."""

    def piece(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    pixels = zlib.compress((b"\0" + b"\x80" * width) * height)
    return b"\x89PNG\r\n\x1a\n" + piece(b"IHDR", header) + piece(b"IDAT", pixels) + piece(b"IEND", b"")


async def test_a_link_that_is_opened_is_saved_under_the_name_of_the_file(store: Store, chromium: Browser) -> None:
    page = await chromium.page()
    assert await page.open(keep(store, CONTENT, NAME)) == "net::ERR_ABORTED"
    name, path = await chromium.download()
    assert name == NAME
    assert path.read_bytes() == CONTENT
    assert await page.evaluate("location.href") == "about:blank"


async def test_a_link_that_is_clicked_leaves_its_page_where_it_is(
    store: Store, chromium: Browser, elsewhere: Callable[[str], Awaitable[str]]
) -> None:
    page = await chromium.page()
    link = keep(store, HTML.encode(), "page.html", "text/html")
    url = await elsewhere(f"<a href='{link}?inline'>file</a>")
    await page.open(url)
    await page.evaluate("document.querySelector('a').click()")
    name, path = await chromium.download()
    assert (name, path.read_bytes()) == ("page.html", HTML.encode())
    assert await page.evaluate("location.href") == url


async def test_a_script_that_runs_would_be_noticed(
    store: Store, chromium: Browser, elsewhere: Callable[[str], Awaitable[str]]
) -> None:
    """What the tests below look for in vain can be found."""
    page = await chromium.page()
    await page.open(await elsewhere(f"<base href='{store.url}'>{HTML}"))
    eventually(lambda: "GET /ran" in store.log(), 5)


@pytest.mark.parametrize(("media_type", "content"), HOSTILE.values(), ids=HOSTILE)
async def test_what_could_run_script_is_saved_and_not_shown(
    store: Store, chromium: Browser, media_type: str, content: str
) -> None:
    page = await chromium.page()
    link = keep(store, content.encode(), "file", media_type)
    for query in ("", "?inline"):
        since = len(chromium.events)
        assert await page.open(link + query) == "net::ERR_ABORTED"
        _, path = await chromium.download(since)
        assert path.read_bytes() == content.encode()
        assert await page.evaluate("location.href") == "about:blank"
    assert "/ran" not in store.log()


@pytest.mark.parametrize(("media_type", "content"), DISGUISED.values(), ids=DISGUISED)
async def test_what_is_shown_is_what_its_type_says(
    store: Store, chromium: Browser, media_type: str, content: str
) -> None:
    page = await chromium.page()
    link = keep(store, content.encode(), "file", media_type)
    assert await page.open(link + "?inline") == ""
    assert "<script>" not in await page.html()
    assert "/ran" not in store.log()


@pytest.mark.parametrize("query", ["", "?inline"])
async def test_nothing_runs_in_a_frame_of_another_page(
    store: Store, chromium: Browser, elsewhere: Callable[[str], Awaitable[str]], query: str
) -> None:
    kept = {kind: keep(store, content.encode(), "file", type_) for kind, (type_, content) in HOSTILE.items()}
    kept |= {kind: keep(store, content.encode(), "file", type_) for kind, (type_, content) in DISGUISED.items()}
    frames = "".join(f"<iframe src='{link}{query}'></iframe>" for link in kept.values())
    others = "".join(f"<object data='{link}{query}'></object><embed src='{link}{query}'>" for link in kept.values())
    page = await chromium.page()
    await page.open(await elsewhere(frames + others))
    shown = [frame["url"] for frame in await page.frames() if frame["url"].startswith(store.url)]
    assert [url for url in shown if url not in [f"{kept[kind]}{query}" for kind in DISGUISED]] == []
    assert "/ran" not in store.log()


async def test_a_stored_script_is_none_to_another_page(
    store: Store, chromium: Browser, elsewhere: Callable[[str], Awaitable[str]]
) -> None:
    link = keep(store, b"window.ran = true", "script.js", "text/plain")
    page = await chromium.page()
    await page.open(await elsewhere(f"<script src='{link}?inline'></script><p>done</p>"))
    assert await page.evaluate("window.ran === undefined && document.querySelector('p').innerText") == "done"


async def test_a_shown_file_cannot_be_framed(
    store: Store, chromium: Browser, elsewhere: Callable[[str], Awaitable[str]]
) -> None:
    link = keep(store, png(37, 21), "picture.png", "image/png")
    page = await chromium.page()
    await page.open(await elsewhere(f"<iframe src='{link}?inline'></iframe>"))
    (frame,) = await page.frames()
    assert frame["unreachableUrl"] == f"{link}?inline"


async def test_an_image_is_shown_when_asked(store: Store, chromium: Browser) -> None:
    page = await chromium.page()
    assert await page.open(keep(store, png(137, 91), "picture.png", "image/png") + "?inline") == ""
    assert await page.size_of("img") == (137, 91)
    assert "Browser.downloadWillBegin" not in [event["method"] for event in chromium.events]


async def test_text_is_shown_when_asked_and_is_utf_8(store: Store, chromium: Browser) -> None:
    page = await chromium.page()
    text = "naïve — 日本\n" * 3
    assert await page.open(keep(store, text.encode(), "a.txt", "text/plain; charset=iso-8859-1") + "?inline") == ""
    shown = re.sub(r"<[^>]*>", "", await page.html())
    assert shown == text
