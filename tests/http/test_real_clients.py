"""Downloads by the programs people use: curl, wget, aria2, REDbot, and each through nginx."""

import http.client
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from random import Random

import pytest

from tests.support import redbot
from tests.support.doors import raw
from tests.support.downloads import Cut, ask, get, read_to_end, take
from tests.support.nginx import nginx_before
from tests.support.places import LocalPlace
from tests.support.process import Service
from tests.support.raw import connection, exchange
from tests.support.store import Store, eventually, stored

MIB = 1 << 20
CONTENT = Random(0).randbytes(24 * MIB)
NAME = "naïve — 日本 100%.bin"
ENVIRONMENT = {**os.environ, "LC_ALL": "C.UTF-8"}  # what a name may be written with depends on it
SLOWLY = f"{6 * MIB}"  # bytes a second
FRAMINGS = ("chunked", "length")
ARIA2 = ("aria2c", "--quiet", "--file-allocation=none")


def tool(name: str) -> str:
    """The program; skips where there is none."""
    program = shutil.which(name)
    if program is None:
        pytest.skip(f"{name} is not installed")
    return program


@pytest.fixture(scope="module")
def _services(start: Callable[..., Service]) -> dict[str, Service]:
    return {framing: start(download_framing=framing) for framing in FRAMINGS}


@pytest.fixture(params=FRAMINGS)
def site(request: pytest.FixtureRequest, _services: dict[str, Service]) -> Iterator[Store]:
    """A service with either framing of whole downloads."""
    store = Store(_services[request.param])
    yield store
    store.forget()


@pytest.fixture
def id_(site: Store) -> str:
    return stored(site.send(raw(CONTENT, name=NAME)))


@pytest.fixture
def link(site: Store, id_: str) -> str:
    return f"{site.url}/files/{id_}/"


def run(*command: str | Path, folder: Path | None = None) -> "subprocess.CompletedProcess[bytes]":
    """A program that has come to its end."""
    return subprocess.run(command, cwd=folder, env=ENVIRONMENT, capture_output=True, check=False, timeout=60)


def cut(site: Store, id_: str) -> None:
    """Take half of the bytes from a stored file."""
    os.truncate(LocalPlace(site.service.data_dir).path(site.key_of(id_)), len(CONTENT) // 2)


def killed_midway(target: Path, *command: str | Path) -> None:
    """Run a download into `target` and kill it when a part has come."""
    with subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        eventually(lambda: target.exists() and target.stat().st_size > MIB, 10)
        process.kill()
    assert MIB < target.stat().st_size < len(CONTENT)


# curl


def test_curl_goes_on_after_a_cut(link: str, tmp_path: Path) -> None:
    target = tmp_path / "file"
    curl = (tool("curl"), "--silent", "--show-error", "--output", target)
    killed_midway(target, *curl, "--limit-rate", SLOWLY, link)
    assert run(*curl, "--continue-at", "-", link).returncode == 0
    assert target.read_bytes() == CONTENT
    assert run(*curl, "--continue-at", "-", link).returncode == 0  # there is nothing more to get: 416
    assert target.read_bytes() == CONTENT


@pytest.mark.parametrize("version", ["--http1.0", "--http1.1"])
def test_curl_gets_ranges(link: str, version: str) -> None:
    curl = (tool("curl"), "--silent", "--fail", version)
    assert run(*curl, "--range", "1000000-1000009", link).stdout == CONTENT[1_000_000:1_000_010]
    assert run(*curl, "--range", "-10", link).stdout == CONTENT[-10:]
    several = run(*curl, "--range", "0-9,1000000-1000009,-10", link).stdout
    parts = [part.partition(b"\r\n\r\n")[2] for part in several.split(b"\r\n--")]
    assert parts[:3] == [CONTENT[:10], CONTENT[1_000_000:1_000_010], CONTENT[-10:]]
    assert run(*curl, "--range", "99999999-", link).returncode == 22


@pytest.mark.parametrize("version", ["--http1.0", "--http1.1"])
def test_curl_gets_it_all(link: str, version: str) -> None:
    assert run(tool("curl"), "--silent", version, link).stdout == CONTENT


def test_curl_does_not_get_twice_what_it_has(link: str, tmp_path: Path) -> None:
    target, tag = tmp_path / "file", tmp_path / "tag"
    curl = (tool("curl"), "--silent", "--write-out", "%{http_code}", "--output", target)
    assert run(*curl, "--etag-save", tag, link).stdout == b"200"
    assert run(*curl, "--etag-compare", tag, link).stdout == b"304"
    assert run(*curl, "--time-cond", target, link).stdout == b"304"


# wget


def test_wget_saves_under_the_name_the_file_was_given(link: str, tmp_path: Path) -> None:
    assert run(tool("wget"), "--quiet", "--content-disposition", link, folder=tmp_path).returncode == 0
    (saved,) = tmp_path.iterdir()
    assert saved.name == NAME
    assert saved.read_bytes() == CONTENT


def test_wget_goes_on_after_a_cut(link: str, tmp_path: Path) -> None:
    target = tmp_path / "file"
    wget = (tool("wget"), "--quiet", "--continue", "--output-document", target)
    killed_midway(target, *wget, "--limit-rate", SLOWLY, link)
    for _ in range(2):  # the second time there is nothing more to get
        assert run(*wget, link).returncode == 0
        assert target.read_bytes() == CONTENT


# aria2


def test_sixteen_connections_of_aria2_are_one_download(site: Store, tmp_path: Path) -> None:
    """It begins with a whole download, which it cuts when the other connections have taken their parts of it."""
    for number, way in enumerate(("--use-head=false", "--use-head=true")):
        id_ = stored(site.send(raw(CONTENT, name=NAME, lines=[b"Max-Downloads: 1"])))
        target = tmp_path / str(number)
        slowly = "--max-download-limit=48M"
        options = ("--max-connection-per-server=16", "--split=16", "--min-split-size=1M", slowly, way)
        link = f"{site.url}/files/{id_}/"
        done = run(tool("aria2c"), *ARIA2[1:], *options, "--dir", target, link)
        assert done.returncode == 0, done.stdout
        (saved,) = target.iterdir()
        assert saved.name == NAME
        assert saved.read_bytes() == CONTENT
        assert ask(site.url, id_).status == 410
    assert sum("206" in line for line in site.access()) > 4  # fewer than sixteen when the first were soon done


def test_aria2_goes_on_after_a_cut(link: str, tmp_path: Path) -> None:
    target = tmp_path / "file"
    # Without a length it begins again beside what it has; HEAD tells it in either framing.
    aria2 = (tool("aria2c"), *ARIA2[1:], "--use-head=true", "--continue", "--dir", tmp_path, "--out", "file")
    killed_midway(target, *aria2, "--max-download-limit", SLOWLY, link)
    assert run(*aria2, link).returncode == 0
    assert target.read_bytes() == CONTENT


# A stored file that is cut while it is sent


CLIENTS: dict[str, tuple[str, ...]] = {
    "curl": ("curl", "--silent", "--limit-rate", SLOWLY, "--output"),
    "curl 1.0": ("curl", "--silent", "--http1.0", "--limit-rate", SLOWLY, "--output"),
    "wget": ("wget", "--quiet", "--tries=1", "--limit-rate", SLOWLY, "--output-document"),
    "wget that tries again": ("wget", "--quiet", "--tries=2", "--limit-rate", SLOWLY, "--output-document"),
    "aria2": (*ARIA2, "--max-tries=1", "--max-download-limit", SLOWLY, "--dir=/", "--out"),
}


@pytest.mark.parametrize("command", CLIENTS.values(), ids=CLIENTS)
def test_no_client_takes_a_part_for_the_whole(
    site: Store, id_: str, link: str, command: tuple[str, ...], tmp_path: Path
) -> None:
    target = tmp_path / "file"
    with subprocess.Popen([tool(command[0]), *command[1:], target, link], env=ENVIRONMENT) as process:
        eventually(lambda: target.exists() and target.stat().st_size > 0, 10)
        cut(site, id_)
        assert process.wait(30) != 0
    if target.exists():
        assert target.stat().st_size < len(CONTENT)


def test_no_client_takes_what_came_before_a_kill_for_the_whole(tmp_path: Path, spawn: Callable[..., Service]) -> None:
    service = spawn()
    link = f"{service.url}/files/{stored(exchange(service.url, bytes(raw(CONTENT))))}/"
    targets = [tmp_path / str(number) for number in range(len(CLIENTS))]
    with ExitStack() as stack:
        processes = [
            stack.enter_context(subprocess.Popen([tool(program), *options, target, link], env=ENVIRONMENT))
            for (program, *options), target in zip(CLIENTS.values(), targets, strict=True)
        ]
        eventually(lambda: all(target.exists() and target.stat().st_size > 0 for target in targets), 10)
        service.kill()
        assert 0 not in {name: process.wait(30) for name, process in zip(CLIENTS, processes, strict=True)}.values()


# REDbot


@pytest.mark.parametrize("query", ["", "?inline"])
def test_redbot_finds_no_fault(site: Store, query: str) -> None:
    try:
        redbot.program()
    except subprocess.CalledProcessError as error:
        pytest.skip(f"REDbot cannot be installed: {error.stderr!r}")
    id_ = stored(site.send(raw(b"hello world\n" * 100, name=NAME, about=[b"Content-Type: text/plain"])))
    found = {note["note_id"]: note["level"] for note in redbot.notes(f"{site.url}/files/{id_}/{query}")}
    assert {"RANGE_CORRECT", "INM_304", "IMS_304", "CONTENT_SECURITY_POLICY", "CONTENT_TYPE_OPTIONS"} <= found.keys()
    assert {note for note, level in found.items() if level not in ("GOOD", "INFO")} <= {"FRESHNESS_HEURISTIC"}


# Through nginx


FRONTS = {"1.1": ("1.1", False), "1.0": ("1.0", False), "1.1 buffering": ("1.1", True), "1.0 buffering": ("1.0", True)}


@pytest.fixture(scope="module")
def _fronts(
    _services: dict[str, Service], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str, str], str]]:
    with ExitStack() as stack:
        urls: dict[tuple[str, str], str] = {}

        def url(framing: str, kind: str) -> str:
            if (framing, kind) not in urls:
                version, buffering = FRONTS[kind]
                folder = tmp_path_factory.mktemp("nginx")
                folder.chmod(0o755)
                folder.parent.chmod(0o755)
                front = nginx_before(
                    _services[framing].port, folder, version=version, buffering=buffering, rate=20 * MIB
                )
                urls[framing, kind] = stack.enter_context(front)
            return urls[framing, kind]

        yield url


@pytest.fixture(params=FRONTS)
def front(request: pytest.FixtureRequest, site: Store, _fronts: Callable[[str, str], str]) -> str:
    """The URL of an nginx before the service of `site`."""
    return _fronts(str(site.service.settings["download_framing"]), request.param)


def test_nginx_passes_downloads_on(site: Store, front: str, tmp_path: Path) -> None:
    content = CONTENT[: 3 * MIB]
    id_ = stored(site.send(raw(content, name=NAME)))
    straight = ask(site.url, id_)
    for version in (b"1.0", b"1.1"):
        with connection(front) as sock:
            sock.sendall(get(id_, b"Connection: close", version=version))
            head, _, body = read_to_end(sock).partition(b"\r\n\r\n")
        if version == b"1.1":
            answer = take(head + b"\r\n\r\n" + body)[0]
            assert answer.headers.items() >= {
                (name, straight.headers[name]) for name in ("etag", "repr-digest", "content-disposition")
            }
            body = answer.body
        assert body == content
    tag = straight.headers["etag"].encode()
    assert ask(front, id_, b"If-None-Match: " + tag).status == 304
    assert ask(front, id_, b"Range: bytes=5-9", b"If-Range: " + tag).body == content[5:10]
    assert ask(front, id_, b"Range: bytes=5-9", b'If-Range: "other"').body == content
    assert ask(front, id_, b"Range: bytes=99999999-").headers["content-range"] == f"bytes */{len(content)}"
    several = ask(front, id_, b"Range: bytes=0-9,-10")
    assert (several.status, int(several.headers["content-length"])) == (206, len(several.body))
    assert ask(front, id_, method=b"HEAD").headers["etag"].encode() == tag
    target = tmp_path / "file"
    target.write_bytes(content[:MIB])
    link = f"{front}/files/{id_}/"
    assert run(tool("curl"), "--silent", "--continue-at", "-", "--output", target, link).returncode == 0
    assert target.read_bytes() == content


def test_one_connection_to_nginx_takes_one_download_after_the_other(site: Store, front: str) -> None:
    id_ = stored(site.send(raw(CONTENT[:MIB])))
    address = front.removeprefix("http://")
    client = http.client.HTTPConnection(address, timeout=20)
    for method in ("GET", "HEAD", "GET", "HEAD", "HEAD", "GET"):
        client.request(method, f"/files/{id_}/")
        answer = client.getresponse()
        assert (answer.status, answer.read()) == (200, CONTENT[:MIB] if method == "GET" else b"")
    client.close()


def test_a_download_that_breaks_behind_nginx_never_looks_whole(site: Store, id_: str, front: str) -> None:
    """To a client that can know: on HTTP/1.0 without a length none can."""
    with connection(front) as sock:
        sock.sendall(get(id_, b"Connection: close"))
        data = sock.recv(65536)
        cut(site, id_)
        try:
            data += read_to_end(sock)
        except ConnectionResetError:
            return
    with pytest.raises(Cut):
        take(data)


def test_a_download_through_nginx_is_counted(site: Store, front: str) -> None:
    content = CONTENT[: 3 * MIB]
    id_ = stored(site.send(raw(content, lines=[b"Max-Downloads: 1"])))
    assert ask(front, id_, b"If-None-Match: *").status == 304
    assert ask(front, id_).body == content
    assert ask(front, id_).status == 410
