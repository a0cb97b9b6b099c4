"""A headless Chromium, driven by the DevTools protocol over aiohttp's web sockets, which is less than a driver needs.

https://chromedevtools.github.io/devtools-protocol/ has every command and event.
"""

import asyncio
import json
import os
import shutil
import signal
from asyncio.subprocess import DEVNULL
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import aiohttp
import pytest

PATIENCE = 20.0  # seconds for anything a browser does
NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
FLAGS = (
    "--headless=new",
    "--no-sandbox",  # it refuses to have one as root
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--no-proxy-server",
    "--remote-debugging-port=0",
)


class Page:
    """One tab."""

    def __init__(self, browser: "Browser", session: str) -> None:
        self._browser = browser
        self._session = session

    async def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """A command to this tab; its result."""
        return await self._browser.call(method, self._session, **parameters)

    async def open(self, url: str) -> str:
        """Go to `url` and wait until it is loaded; the error, such as net::ERR_ABORTED for what becomes a download."""
        since = len(self._browser.events)
        error = (await self.call("Page.navigate", url=url)).get("errorText", "")
        if not error:
            await self._browser.event("Page.loadEventFired", since)
        return str(error)

    async def html(self) -> str:
        """The document as it is now, also where script may not run."""
        root = await self.call("DOM.getDocument", depth=0)
        return str((await self.call("DOM.getOuterHTML", nodeId=root["root"]["nodeId"]))["outerHTML"])

    async def size_of(self, selector: str) -> tuple[int, int]:
        """Width and height of the first element that matches, as laid out."""
        root = await self.call("DOM.getDocument", depth=0)
        node = await self.call("DOM.querySelector", nodeId=root["root"]["nodeId"], selector=selector)
        model = (await self.call("DOM.getBoxModel", nodeId=node["nodeId"]))["model"]
        return int(model["width"]), int(model["height"])

    async def frames(self) -> list[dict[str, Any]]:
        """What stands in the frames of the document: `url`, and `unreachableUrl` for what was refused."""
        tree = (await self.call("Page.getFrameTree"))["frameTree"]
        return [child["frame"] for child in tree.get("childFrames", [])]

    async def evaluate(self, script: str) -> Any:
        """The value of a script, or of its promise."""
        result = await self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")


class Browser:
    """`downloads` is the folder that takes what is saved; `events` are all that were heard, in order."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse, downloads: Path) -> None:
        self.downloads = downloads
        self.events: list[dict[str, Any]] = []
        self._socket = socket
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._news = asyncio.Event()

    async def page(self) -> Page:
        """A new, empty tab."""
        target = await self.call("Target.createTarget", url="about:blank")
        attached = await self.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        page = Page(self, attached["sessionId"])
        await page.call("Page.enable")
        return page

    async def call(self, method: str, session: str = "", **parameters: Any) -> dict[str, Any]:
        """A command; its result. RuntimeError with the browser's reason when it is refused."""
        number = len(self._answers) + 1
        self._answers[number] = asyncio.get_running_loop().create_future()
        command = {"id": number, "method": method, "params": parameters}
        await self._socket.send_json(command | ({"sessionId": session} if session else {}))
        async with asyncio.timeout(PATIENCE):
            answer = await self._answers[number]
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']}")
        return dict(answer["result"])

    async def event(self, method: str, since: int = 0, **parameters: Any) -> dict[str, Any]:
        """The first event after `since` others that has these parameters among its own, which are returned."""
        async with asyncio.timeout(PATIENCE):
            while True:
                for event in self.events[since:]:
                    if event["method"] == method and parameters.items() <= event["params"].items():
                        return dict(event["params"])
                self._news.clear()
                await self._news.wait()

    async def download(self, since: int = 0) -> tuple[str, Path]:
        """The next download, when it is complete: the name it was offered under, and the file."""
        begun = await self.event("Browser.downloadWillBegin", since)
        done = await self.event("Browser.downloadProgress", since, guid=begun["guid"], state="completed")
        return str(begun["suggestedFilename"]), self.downloads / str(done["guid"])

    async def listen(self) -> None:
        """Take in answers and events until the browser is gone."""
        async for message in self._socket:
            said = json.loads(message.data)
            if "id" in said:
                self._answers[said["id"]].set_result(said)
            else:
                self.events.append(said)
                self._news.set()


@asynccontextmanager
async def browser() -> AsyncIterator[Browser]:
    """A browser with a profile of its own, all of whose files go with it; skips where there is none."""
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        pytest.skip("Chromium is not installed")
    # Beside the socket that it keeps there a long path has no room (unix(7)).
    with TemporaryDirectory(prefix="browser-", ignore_cleanup_errors=True) as folder:
        async with _running(program, Path(folder)) as chromium:
            yield chromium


@asynccontextmanager
async def _running(program: str, folder: Path) -> AsyncIterator[Browser]:
    profile, downloads = folder / "profile", folder / "downloads"
    command = [program, *FLAGS, f"--user-data-dir={profile}", "about:blank"]
    process = await asyncio.create_subprocess_exec(
        *command, stdout=DEVNULL, stderr=DEVNULL, env={**os.environ, "TMPDIR": str(folder)}, start_new_session=True
    )
    try:
        address = await _address(profile / "DevToolsActivePort")
        async with aiohttp.ClientSession() as client, client.ws_connect(address, max_msg_size=0) as socket:
            chromium = Browser(socket, downloads)
            listening = asyncio.create_task(chromium.listen())
            await chromium.call(
                "Browser.setDownloadBehavior",
                behavior="allowAndName",
                downloadPath=str(downloads),
                eventsEnabled=True,
            )
            yield chromium
            await chromium.call("Browser.close")
            await listening
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


async def _address(port_file: Path) -> str:
    """Where it listens."""
    async with asyncio.timeout(PATIENCE):
        while len(lines := _lines(port_file)) < 2:  # noqa: ASYNC110 - the browser tells it in a file
            await asyncio.sleep(0.02)
    return f"ws://127.0.0.1:{lines[0]}{lines[1]}"


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []
