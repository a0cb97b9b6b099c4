"""URLs that are refused at once, with a word that says nothing about our network and without a single connection."""

import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from file_service.errors import UrlRefused
from file_service.service.fetching import parse
from tests.imports.conftest import Importer

NOBODY = "There is no public server at this address."
NO_URL = "This is not a URL."
SCHEMES = "Only http:// and https:// URLs are imported."
CREDENTIALS = "A URL with a user name or a password is not imported."

HOSTS = """
    127.0.0.1 127.1 127.0.1 0177.0.0.1 0x7f.0.0.1 0x7f000001 0x7F000001 2130706433 017700000001 127.0.0.1.
    127.255.255.254 0 0.0.0.0 localhost LOCALHOST localhost. 10.0.0.1 100.64.0.1 169.254.169.254 0xa9fea9fe 172.16.0.1
    192.168.0.1 224.0.0.1 240.0.0.1 255.255.255.255 168.63.129.16 192.0.0.192
    [::1] [::] [::ffff:127.0.0.1] [::ffff:7f00:1] [::FFFF:7F00:1] [::127.0.0.1] [::7f00:1] [0:0:0:0:0:0:0:1]
    [64:ff9b::7f00:1] [64:ff9b::127.0.0.1] [64:ff9b:1::7f00:1] [2002:7f00:1::] [2001:0:7f00:1::] [fec0::1] [fc00::1]
    [fd00:ec2::254] [fe80::1] [fe80::1%25lo] [ff02::1] [::1%25lo]
    ①②⑦.⓪.⓪.① １２７.0.0.1 127。0。0。1 ⑫7.0.0.1 ⓛⓞⓒⓐⓛⓗⓞⓢⓣ
    %31%32%37.0.0.1 localhost%00.example.com 127.0.0.1%20 a..b .. -
"""  # noqa: RUF001 - some are not what they look like
ELSEWHERE = [
    *(
        f"{scheme}://{{host}}/"
        for scheme in ("file", "ftp", "gopher", "dict", "ldap", "unix", "ws", "jar", "http+unix")
    ),
    "file:///etc/passwd",
    "data:text/plain,hello",
    "javascript:alert(1)",
    "http:{host}",
    "http:///{host}/",
    "http://",
    "https://?{host}",
    "//{host}/",
    "{host}",
    "/etc/passwd",
    "",
]
WITH_CREDENTIALS = [
    "http://x@{host}/",
    "http://x:y@{host}/",
    "http://:y@{host}/",
    "https://8.8.8.8@{host}/",
    "http://{host}@8.8.8.8/",
    "http://%78@{host}/",
]
MALFORMED = [
    "http://[::1/",
    "http://[::1]x/",
    "http://[]/",
    "http://{host}:99999/",
    "http://{host}:-1/",
    "http://{host}:0x50/",
    "http://{host}:80:80/",
    "http://8.8.8.8\\@{host}/",
    "http://{host}\\@8.8.8.8/",
    "http://{host}/\r\nX-Injected: 1",
    "http://{host}/\x00",
    "http://8.8.8.8\t@{host}/",
    "http://8.8.8.8/\ud800",
    "http://8.8.8.8/\u202e",
    "http://8.8.8.8/" + "a" * 8000,
]


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """On every address of this machine, of both families."""
    with socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as listening:
        listening.setblocking(False)
        yield listening


@pytest.fixture
async def refused(
    importing: Callable[..., Any], listener: socket.socket, connected: list[str]
) -> Callable[[str, str], Any]:
    """Ask a service without exceptions for a URL, and see that nothing comes of it."""
    importer: Importer = await importing(import_allow="")
    assert await importer.files() == []
    connected.clear()

    async def refuse(url: str, words: str) -> None:
        status, problem = await importer.ask("POST", "/imports", json={"url": url})
        assert (status, problem["detail"]) == (422, words), url
        assert connected == []
        with pytest.raises(BlockingIOError):
            listener.accept()

    return refuse


@pytest.mark.parametrize("host", [*HOSTS.split(), socket.gethostname()])
async def test_no_form_of_an_inner_host_is_imported_from(
    refused: Callable[[str, str], Any], listener: socket.socket, host: str
) -> None:
    port = listener.getsockname()[1]
    for url in (f"http://{host}:{port}/", f"https://{host}:{port}/x?y=https://example.com/", f"http://{host}/"):
        await refused(url, NOBODY)


@pytest.mark.parametrize(
    ("urls", "words"), [(ELSEWHERE, SCHEMES), (WITH_CREDENTIALS, CREDENTIALS), (MALFORMED, NO_URL)]
)
async def test_urls_of_other_kinds_are_not_imported(
    refused: Callable[[str, str], Any], listener: socket.socket, urls: list[str], words: str
) -> None:
    for url in urls:
        await refused(url.replace("{host}", f"127.0.0.1:{listener.getsockname()[1]}"), words)


async def test_the_words_are_the_same_for_hosts_that_are_not_there(
    refused: Callable[[str, str], Any],
) -> None:
    """Else whoever may import could find out what names there are inside."""
    await refused("http://db.internal/", NOBODY)


async def test_a_refusal_leaves_no_word_of_the_url_in_the_log(
    importing: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    importer: Importer = await importing(import_allow="")
    caplog.set_level("DEBUG")
    for url in ("http://127.0.0.1/?s3cret", "http://u:s3cret@127.0.0.1/", "s3cret:", "http://s3cret.invalid:x/"):
        assert (await importer.ask("POST", "/imports", json={"url": url}))[0] == 422
    assert "s3cret" not in caplog.text


@pytest.mark.parametrize(
    ("url", "target", "host"),
    [
        ("http://h", "/", "h"),
        ("http://h?x", "/?x", "h"),
        ("http://h/a/../b?q#f", "/a/../b?q", "h"),
        ("https://h/%2F%2f%7E~?sig=%2Fa%2Bb%3D+%20&x=é", "/%2F%2F~~?sig=/a%2Bb%3D+%20&x=%C3%A9", "h"),
        ("https://h/%2F%2f%7E~?sig=%2Fa%2Bb%3D+%20", "/%2F%2f%7E~?sig=%2Fa%2Bb%3D+%20", "h"),
        ("http://h/a b?c d", "/a%20b?c+d", "h"),
        ("http://münchen.example/ü", "/%C3%BC", "xn--mnchen-3ya.example"),
        ("http://h/%zz", "/%25zz", "h"),
        ("http://H:8080/'(x)*!", "/'(x)*!", "H"),
    ],
)
def test_a_good_url_is_asked_for_as_it_was_given(url: str, target: str, host: str) -> None:
    """Signatures are often made over the very characters of a URL."""
    parsed = parse(url)
    assert (parsed.raw_path_qs, parsed.raw_host) == (target, host)


@pytest.mark.parametrize(
    ("location", "url"),
    [
        ("/x?y", "http://h:1/x?y"),
        ("x", "http://h:1/a/x"),
        ("?y", "http://h:1/a/b?y"),
        ("//other/x", "http://other/x"),
        ("https://other", "https://other"),
        ("..", "http://h:1/"),
    ],
)
def test_a_relative_url_is_joined(location: str, url: str) -> None:
    assert str(parse(location, "http://h:1/a/b?c")) == url


@pytest.mark.parametrize("location", ["http://[::1", "file:///etc/passwd", "//u:p@h/", "http:\x00", "javascript:1"])
def test_a_relative_url_is_no_way_around(location: str) -> None:
    with pytest.raises(UrlRefused):
        parse(location, "http://h:1/a/b?c")
