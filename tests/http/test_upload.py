"""The doors in, used as they are meant to be: what is sent is what is stored, under the name and type it was given."""

import base64
import hashlib
import json
import re
import shutil
import socket
import stat
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from urllib.parse import unquote
from uuid import UUID

import pytest

from tests.support.doors import (
    DOORS,
    Door,
    chunked,
    every_door,
    every_door_with_length,
    form,
    put,
    raw,
    raw_chunked,
    request,
)
from tests.support.places import LocalPlace
from tests.support.raw import connection, read_answer
from tests.support.store import Store, refused, stored

SIZES = [0, 1, 4095, 4096, 65_537, 500_000, 1_048_000]
EXACT_NAMES = [
    "a.txt",
    "two words.txt",
    "naïve — résumé (1) [2].pdf",
    "日本語.tar.gz",
    "😀.png",
    "semi;colon,comma='it'.txt",
    'quo"te.txt',
    "100%.txt",
    "percent%41.txt",
    "plus+and&and=.txt",
    ".hidden",
    "-rf",
    "no extension",
    "a" * 251 + ".txt",
    "é" * 125 + ".png",
    "CON",
    "nul.txt",
    "<img src=x onerror=alert(1)>",
]
DISPOSITION = re.compile(r'attachment; filename="([ -~]*)"(?:; filename\*=UTF-8\'\'([!-~]+))?')


def offered_name(store: Store, id_: str) -> str:
    """The name under which a download offers the file."""
    answer, _ = store.call("HEAD", f"/files/{id_}/")
    found = DISPOSITION.fullmatch(answer.headers["Content-Disposition"])
    assert found
    return unquote(found[2], errors="strict") if found[2] else found[1]


@every_door
@pytest.mark.parametrize("size", SIZES)
def test_what_is_sent_is_what_is_stored(store: Store, door: Door, size: int) -> None:
    content = Random(size).randbytes(size)
    id_ = stored(store.send(door(content)))
    assert store.get(id_) == content
    store.holds(id_)


def test_any_cut_into_chunks_gives_the_same_file(store: Store) -> None:
    content = bytes(range(256)) * 16
    for size in (1, 7, 1000, 4096):
        assert store.get(stored(store.send(chunked(raw(content), size)))) == content


@every_door
def test_a_201_names_the_file_and_its_digest(store: Store, door: Door) -> None:
    digest = hashlib.sha256(b"hello").digest()
    answer = store.send(door(b"hello"))
    assert answer.headers["location"] == f"/files/{stored(answer)}/"
    assert answer.headers["repr-digest"] == f"sha-256=:{base64.b64encode(digest).decode()}:"
    assert answer.headers["etag"] == f'"sha256-{base64.urlsafe_b64encode(digest).decode().rstrip("=")}"'
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.interim == ()
    head, _ = store.call("HEAD", answer.headers["location"])
    assert head.headers["ETag"] == answer.headers["etag"]
    assert head.headers["Repr-Digest"] == answer.headers["repr-digest"]


@every_door
def test_the_record_says_what_was_sent(store: Store, door: Door) -> None:
    id_ = stored(store.send(door(b"hello", name="naïve.txt", about=[b"Content-Type: text/plain; charset=utf-16"])))
    expected = {
        "id": id_,
        "name": "naïve.txt",
        "size": 5,
        "content_type": "text/plain; charset=utf-16",
        "sha256": hashlib.sha256(b"hello").hexdigest(),
        "expires_at": None,
        "url": f"http://127.0.0.1/files/{id_}/",
    }
    _, content = store.call("GET", f"/files/{id_}/meta", Host="127.0.0.1")
    found = json.loads(content)
    assert expected.items() <= found.items()
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", found["created_at"])


@pytest.mark.parametrize(
    ("accept", "json_wanted"),
    [
        (None, False),
        ("", False),
        ("*/*", False),
        ("text/plain", False),
        ("application/json", True),
        ("Application/JSON", True),
        ("application/*", True),
        ("application/problem+json", False),
        ("application/json;q=0.1", True),
        ("application/json;q=0", False),
        ("application/json; Q=0.5, text/plain;q=0.4", True),
        ("application/json;q=0.5, text/plain;q=0.6", False),
        ("application/json;q=0.5, */*;q=0.4", True),
        ("application/json;q=0.5, text/*", False),
        ("text/plain;q=0, */*;q=0.1", True),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", False),
        ("application/json;q=1.2.3", False),
        (",;,=", False),
        ("application/json," * 100, True),
    ],
)
def test_json_is_answered_to_who_prefers_it(store: Store, accept: str | None, json_wanted: bool) -> None:
    lines = [] if accept is None else [b"Accept: " + accept.encode()]
    one, several = store.send(raw(b"x", lines=lines)), store.send(form(b"x", lines=lines))
    assert (one.status, several.status) == (201, 201)
    if json_wanted:
        assert one.headers["content-type"].startswith("application/json")
        (only,) = json.loads(several.body)["files"]
        for answer, record in ((one, json.loads(one.body)), (several, only)):
            assert answer.headers["location"] == f"/files/{record['id']}/"
            assert {**store.meta(record["id"]), "url": record["url"]}.items() <= record.items()
    else:
        assert one.headers["location"] == f"/files/{stored(one)}/"
        assert several.headers["location"] == f"/files/{stored(several)}/"


@every_door
@pytest.mark.parametrize("name", EXACT_NAMES)
def test_a_name_comes_back_as_it_was_given(store: Store, door: Door, name: str) -> None:
    id_ = stored(store.send(door(b"x", name=name)))
    assert store.meta(id_)["name"] == name
    device = name in ("CON", "nul.txt")
    assert offered_name(store, id_) == (f"_{name}" if device else name)


def test_equal_names_are_different_files(store: Store) -> None:
    with ThreadPoolExecutor(20) as clients:
        answers = list(clients.map(lambda n: store.send(put(b"%d" % n, name="same.txt")), range(20)))
    ids = [stored(answer) for answer in answers]
    assert [store.get(id_) for id_ in ids] == [b"%d" % n for n in range(20)]
    store.holds(*ids)


@pytest.mark.parametrize("door", [raw, raw_chunked])
def test_a_file_without_a_name_has_its_id_for_one(store: Store, door: Door) -> None:
    id_ = stored(store.send(door(b"x", name=None)))
    assert store.meta(id_)["name"] == id_


@pytest.mark.parametrize(
    ("line", "name"),
    [
        (b'Content-Disposition: attachment; filename="foo bar.txt"', "foo bar.txt"),
        (b"Content-Disposition: attachment; filename=foo bar.txt", "foo bar.txt"),
        (b'content-disposition: ATTACHMENT; FILENAME="a;b;c.txt"', "a;b;c.txt"),
        (b"Content-Disposition: attachment; filename=\"x\"; filename*=UTF-8''%e2%82%ac.txt", "€.txt"),
        (b"Content-Disposition: attachment; filename*=UTF-8''%e2%82%ac.txt; filename=\"x\"", "€.txt"),
        (b"Content-Disposition: attachment; filename*=iso-8859-1''foo-%E4.txt", "foo-ä.txt"),
        (b'Content-Disposition: attachment; filename="foo-\xe4.txt"', "foo-ä.txt"),
        (b'Content-Disposition: attachment; filename="foo-\xc3\xa4.txt"', "foo-ä.txt"),
        (rb'Content-Disposition: attachment; filename="\"quoted\".txt"', '"quoted".txt'),
        (rb'Content-Disposition: attachment; filename="C:\Users\me\f.txt"', "f.txt"),
        (b'Content-Disposition: attachment; filename*0="it\'s"; filename*1=.txt', "it's.txt"),
        (b'Content-Disposition: filename="no type.txt"', "no type.txt"),
        (b'Content-Disposition: form-data; name="file"; filename="from a form.txt"', "from a form.txt"),
    ],
)
def test_content_disposition_names_a_raw_upload_and_beats_the_path(store: Store, line: bytes, name: str) -> None:
    for upload in (raw(b"x", name=None, lines=[line]), put(b"x", name="path.txt", lines=[line])):
        id_ = stored(store.send(upload))
        assert store.meta(id_)["name"] == name


@pytest.mark.parametrize("value", [b"attachment", b'attachment; filename=""', b""])
def test_a_disposition_without_a_name_leaves_the_paths(store: Store, value: bytes) -> None:
    upload = put(b"x", name="path.txt", lines=[b"Content-Disposition: " + value])
    assert store.meta(stored(store.send(upload)))["name"] == "path.txt"


@pytest.mark.parametrize("method", [b"POST /files", b"PUT /files/n"])
@pytest.mark.parametrize(
    "lines",
    [
        [b"Content-Disposition: attachment; filename=a", b"Content-Disposition: attachment; filename=a"],
        [b"Content-Disposition: attachment; filename=a; filename=b"],
        [b'Content-Disposition: attachment; filename="a'],
        [b'Content-Disposition: attachment; filename="a".txt'],
        [b"Content-Disposition: attachment; filename"],
        [b"Content-Disposition: attachment; =a"],
    ],
)
def test_a_disposition_that_cannot_be_read_is_refused_and_explained(
    store: Store, method: bytes, lines: list[bytes]
) -> None:
    verb, path = method.split()
    detail = refused(store.send(request(verb, path, lines, b"hello")), 400)
    assert "Content-Disposition" in detail
    store.holds()


@pytest.mark.parametrize(
    ("path", "name"),
    [
        (b"/files/two%20words+plus.txt", "two words+plus.txt"),
        (b"/files/a/b/c.txt", "c.txt"),
        (b"/files/a%2Fb.txt", "b.txt"),
        (b"/files/100%25", "100%"),
        (b"/files/%2541", "%41"),
        (b"/files/name?query=1", "name"),
        (b"/files/123e4567-e89b-42d3-a456-426614174000", "123e4567-e89b-42d3-a456-426614174000"),
        (b"/files/123e4567-e89b-42d3-a456-426614174000/meta", "meta"),
        (b"/files/folder/", None),
        (b"/files//", None),
        (b"/files/..", None),
    ],
)
def test_the_last_segment_of_the_path_names_a_put(store: Store, path: bytes, name: str | None) -> None:
    id_ = stored(store.send(request(b"PUT", path, [], b"x")))
    assert store.meta(id_)["name"] == (name or id_)


@every_door
@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("text/plain", "text/plain"),
        ("text/html; charset=utf-8", "text/html; charset=utf-8"),
        ("image/svg+xml", "image/svg+xml"),
        ("Application/X-Whatever.1;a=b", "Application/X-Whatever.1;a=b"),
        ("  image/png  ", "image/png"),
        ("", "application/octet-stream"),
        ("nonsense", "application/octet-stream"),
        ("text/", "application/octet-stream"),
        ("text/pl ain", "application/octet-stream"),
        ("text/plain, text/html", "application/octet-stream"),
        ("text/<script>", "application/octet-stream"),
        ("text/plain; n=é", "application/octet-stream"),
        ("text/plain; n=" + "x" * 250, "application/octet-stream"),
        ("application/x-www-form-urlencoded", "application/octet-stream"),
    ],
)
def test_a_type_is_kept_when_it_reads_like_one(store: Store, door: Door, sent: str, kept: str) -> None:
    id_ = stored(store.send(door(b"x", about=[b"Content-Type: " + sent.encode()])))
    assert store.meta(id_)["content_type"] == kept
    answer, _ = store.call("GET", f"/files/{id_}/")
    assert answer.headers["Content-Type"] == kept


@every_door
def test_a_file_without_a_type_is_octets(store: Store, door: Door) -> None:
    id_ = stored(store.send(door(b"x")))
    assert store.meta(id_)["content_type"] == "application/octet-stream"


@pytest.mark.parametrize("path", [b"/files", b"/files/", b"/files?x=1", b"http://127.0.0.1/files"])
def test_the_slash_at_the_end_and_the_query_make_no_difference(store: Store, path: bytes) -> None:
    stored(store.send(request(b"POST", path, [], b"x")))


@every_door
def test_stored_bytes_are_their_owners_alone(store: Store, door: Door) -> None:
    stored(store.send(door(b"secret")))
    (row,) = store.rows()
    path = LocalPlace(store.service.data_dir).path(row.attempt)
    assert path.read_bytes() == b"secret"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.stat().st_nlink == 1
    assert {stat.S_IMODE(folder.stat().st_mode) for folder in path.parents[:3]} == {0o700}
    assert UUID(row.attempt) != UUID(row.id)


@pytest.mark.parametrize("method", [b"POST /files", b"PUT /files/n"])
def test_a_body_of_no_known_length_is_411(store: Store, method: bytes) -> None:
    verb, path = method.split()
    refused(store.send(request(verb, path)), 411)
    refused(store.send(request(verb, path, [b"Expect: 100-continue"])), 411)
    store.holds()


@every_door_with_length
def test_http_1_0_can_upload_what_has_a_length(store: Store, door: Door) -> None:
    upload = door(b"hello", lines=[b"Expect: 100-continue"])
    answer = store.send(bytes(upload).replace(b"HTTP/1.1", b"HTTP/1.0", 1))
    assert store.get(stored(answer)) == b"hello"
    assert answer.interim == (), "HTTP/1.0 knows no interim answers"


@every_door
@pytest.mark.parametrize("value", [b"100-continue", b"100-Continue"])
def test_an_upload_that_waits_is_told_once_to_go_on(store: Store, door: Door, value: bytes) -> None:
    upload = door(b"hello", lines=[b"Expect: " + value])
    with connection(store.url) as sock:
        sock.sendall(upload.head)
        assert read_interim(sock) == b"HTTP/1.1 100 Continue\r\n\r\n"
        sock.sendall(upload.body)
        answer = read_answer(sock)
        assert answer.interim == ()
        assert store.get(stored(answer)) == b"hello"
        sock.sendall(bytes(raw(b"next")))
        assert store.get(stored(read_answer(sock))) == b"next"


def read_interim(sock: socket.socket) -> bytes:
    """What comes up to the end of the first head."""
    head = b""
    while b"\r\n\r\n" not in head:
        head += sock.recv(1000)
    return head


def test_a_body_sent_without_waiting_for_100_is_taken(store: Store) -> None:
    assert store.get(stored(store.send(raw(b"hello", lines=[b"Expect: 100-continue"])))) == b"hello"


def test_one_connection_takes_one_upload_after_the_other(store: Store) -> None:
    with connection(store.url) as sock:
        for name, door in DOORS.items():
            sock.sendall(bytes(door(name.encode())))
            assert store.get(stored(read_answer(sock))) == name.encode()


def test_pipelined_uploads_are_all_stored(store: Store) -> None:
    uploads = [door(b"%d" % n) for n, door in enumerate(DOORS.values())]
    last = request(b"GET", b"/health/live", [b"Connection: close"])
    with connection(store.url) as sock:
        sock.sendall(b"".join(map(bytes, [*uploads, last])))
        received = b""
        while more := sock.recv(65536):
            received += more
    ids = [found.decode() for found in re.findall(rb"\r\nLocation: /files/([^/]+)/\r\n", received)]
    assert [store.get(id_) for id_ in ids] == [b"%d" % n for n in range(len(uploads))]
    store.holds(*ids)


def test_chunk_extensions_and_trailers_are_no_content(store: Store) -> None:
    head = chunked(raw(b"")).head
    for body in (b"5;a=b;c\r\nhello\r\n0\r\n\r\n", b"005\r\nhello\r\n0\r\nX-Trailer: 1\r\n\r\n"):
        assert store.get(stored(store.send(head + body))) == b"hello"


def test_identity_is_no_coding(store: Store) -> None:
    for value in (b"identity", b"Identity", b""):
        assert store.get(stored(store.send(raw(b"hello", lines=[b"Content-Encoding: " + value])))) == b"hello"


@pytest.mark.parametrize("door", [raw, put, raw_chunked])
def test_a_piece_of_a_file_is_refused(store: Store, door: Door) -> None:
    refused(store.send(door(b"hello", lines=[b"Content-Range: bytes 0-4/10"])), 400)
    store.holds()


def test_a_form_that_is_put_is_a_file(store: Store) -> None:
    body = form(b"hello").body
    upload = put(body, lines=[b"Content-Type: multipart/form-data; boundary=Bound-ary"])
    assert store.get(stored(store.send(upload))) == body


# With the client that everybody has


def curl(*arguments: str | Path, stdin: bytes = b"") -> str:
    """What curl prints; it must succeed."""
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    command = ["curl", "--silent", "--show-error", "--max-time", "20", "--noproxy", "*", *arguments]
    done = subprocess.run(command, input=stdin, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.decode()


@pytest.fixture
def document(tmp_path: Path) -> Path:
    """A file with an awkward name."""
    path = tmp_path / "my “first” document.txt"
    path.write_bytes(Random(1).randbytes(300_000))
    return path


@pytest.mark.parametrize("options", [(), ("--http1.0",), ("--header", "Expect: 100-continue")])
def test_curl_upload_file_keeps_the_name(store: Store, document: Path, options: tuple[str, ...]) -> None:
    id_ = curl(*options, "--upload-file", document, f"{store.url}/files/")
    assert store.get(id_) == document.read_bytes()
    assert store.meta(id_)["name"] == document.name


def test_curl_uploads_a_pipe(store: Store, document: Path) -> None:
    id_ = curl("--upload-file", "-", f"{store.url}/files/from-pipe", stdin=document.read_bytes())
    assert store.get(id_) == document.read_bytes()


def test_curl_data_binary_stores_the_bytes(store: Store, document: Path) -> None:
    id_ = curl("--data-binary", f"@{document}", f"{store.url}/files")
    assert store.get(id_) == document.read_bytes()
    assert store.meta(id_)["content_type"] == "application/octet-stream"


def test_curl_form_stores_every_file(store: Store, document: Path, tmp_path: Path) -> None:
    (tmp_path / "b.html").write_text("<p>")
    ids = curl("--form", f"a=@{document}", "--form", f"b=@{tmp_path / 'b.html'}", f"{store.url}/files").split()
    assert [store.get(id_) for id_ in ids] == [document.read_bytes(), b"<p>"]
    assert [store.meta(id_)["name"] for id_ in ids] == [document.name, "b.html"]
    assert store.meta(ids[1])["content_type"] == "text/html"
    store.holds(*ids)


def test_curl_downloads_under_the_name_it_uploaded(store: Store, document: Path, tmp_path: Path) -> None:
    id_ = curl("--upload-file", document, f"{store.url}/files/")
    (tmp_path / "down").mkdir()
    curl("--remote-name", "--remote-header-name", "--output-dir", tmp_path / "down", f"{store.url}/files/{id_}/")
    (downloaded,) = (tmp_path / "down").iterdir()
    assert downloaded.read_bytes() == document.read_bytes()
