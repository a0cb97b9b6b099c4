"""How long files live: terms, expiry, downloads that count and those that do not, tokens that delete."""

import asyncio
import json
import socket
import sqlite3
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from datetime import datetime, timedelta
from functools import partial
from hashlib import sha256
from random import Random
from uuid import UUID, uuid4

import pytest

from file_service.settings import BadSettings, from_environment
from tests.support.doors import DOORS, Door, Lines, Upload, every_door, form_of, part, raw
from tests.support.downloads import Cut, ask, get, read_to_end, take
from tests.support.fault_proxy import FaultProxy
from tests.support.places import LocalPlace
from tests.support.postgres import Postgres
from tests.support.process import Service
from tests.support.raw import Answer, connection, exchange, read_answer, reset
from tests.support.store import COLUMNS, Store, eventually, refused, stored

MIB = 1 << 20
CONTENT = Random(0).randbytes(1000)
BIG = Random(1).randbytes(16 * MIB)
UNKNOWN = "00000000-0000-4000-8000-000000000000"
SETTINGS = {"sweep_interval": 0.1, "drain_timeout": 0, "database_timeout": 10}
LEASE = 1.0
Spawn = Callable[..., Service]


class Site:
    """A service and its database: `sql` gives rows as text, columns parted by `|`."""

    def __init__(self, service: Service, sql: Callable[[str], list[str]]) -> None:
        self.service = service
        self.url = service.url
        self.sql = sql
        self.store = Store(service, self._rows)

    def _rows(self) -> list[tuple[str, str, str]]:
        return [(id_, attempt, state) for id_, attempt, state in (line.split("|") for line in self.sql(COLUMNS))]

    def keep(self, content: bytes, *lines: bytes) -> str:
        """Store a file; its id."""
        return stored(self.store.send(raw(content, lines=lines)))

    def column(self, id_: str, name: str) -> str:
        """A column of a file's row; empty when there is no row."""
        # Text in the one database, a UUID in the other.
        found = f"WHERE replace(CAST(id AS text), '-', '') = '{UUID(id_).hex}'"
        return "".join(self.sql(f"SELECT {name} FROM file {found}"))  # noqa: S608 - both are the tests' own

    def state(self, id_: str) -> str:
        return self.column(id_, "state")

    def downloads(self, id_: str) -> int:
        return int(self.column(id_, "downloads"))

    def key_of(self, id_: str) -> str:
        """The key of a file's bytes in their place."""
        return UUID(self.column(id_, "attempt")).hex

    def running(self) -> int:
        """How many places downloads hold."""
        return int(self.sql("SELECT count(*) FROM delivery")[0])


def on_sqlite(service: Service) -> Site:
    def sql(statement: str) -> list[str]:
        with closing(sqlite3.connect(service.data_dir / "file_service.db", timeout=10)) as database, database:
            return ["|".join(map(str, row)) for row in database.execute(statement)]

    return Site(service, sql)


def on_postgres(service: Service, server: Postgres, name: str) -> Site:
    return Site(service, lambda statement: server.sql(statement, name).splitlines())


@pytest.fixture(scope="module")
def _sqlite(start: Spawn) -> Site:
    return on_sqlite(start(**SETTINGS))


@pytest.fixture(scope="module")
def _own_database(storage: str, postgres: Postgres) -> Iterator[str]:
    name = f"t{uuid4().hex}"
    postgres.create_database(name, template="template")
    yield name
    postgres.drop_database(name)


@pytest.fixture(scope="module")
def _postgresql(postgres: Postgres, _own_database: str, start: Spawn) -> Site:
    url = postgres.url(_own_database)
    return on_postgres(start(database_url=url, **SETTINGS), postgres, _own_database)


@pytest.fixture(params=["sqlite", "postgresql"])
def site(request: pytest.FixtureRequest, storage: str) -> Iterator[Site]:
    """A service that sweeps all the time; afterwards nothing may be wrong in its log, and no download held a place."""
    shared: Site = request.getfixturevalue(f"_{request.param}")
    site = Site(shared.service, shared.sql)
    yield site
    eventually(lambda: site.running() == 0)
    assert site.store.complaints() == ""
    site.store.forget()


@pytest.fixture
def two(spawn: Spawn, postgres: Postgres) -> Iterator[tuple[Site, Site]]:
    """Two services over one PostgreSQL and one folder."""
    name = f"t{uuid4().hex}"
    url = postgres.create_database(name, template="template")
    services = [spawn(database_url=url, lease_time=LEASE, **SETTINGS) for _ in range(2)]
    one, other = (on_postgres(service, postgres, name) for service in services)
    yield one, other
    for service in services:
        service.kill()
    postgres.drop_database(name)


def with_fields(fields: dict[str, str], *, first: bool, lines: Lines = ()) -> Upload:
    """A form of one file and some other fields, before or after it."""
    others = [
        b'Content-Disposition: form-data; name="%b"\r\n\r\n%b' % (n.encode(), v.encode()) for n, v in fields.items()
    ]
    return form_of(*(others if first else ()), part(CONTENT), *(() if first else others), lines=lines)


def lifetime(store: Store, id_: str) -> float | None:
    """Seconds from a file's completion to its end."""
    meta = store.meta(id_)
    if meta["expires_at"] is None:
        return None
    return (datetime.fromisoformat(meta["expires_at"]) - datetime.fromisoformat(meta["created_at"])).total_seconds()


# Terms


@every_door
@pytest.mark.parametrize("value", [b"1000", b" 1000\t", b"999999999"])
def test_a_file_lives_as_long_as_its_uploader_says(store: Store, door: Door, value: bytes) -> None:
    id_ = stored(store.send(door(CONTENT, lines=[b"Expires-In: " + value])))
    assert lifetime(store, id_) == pytest.approx(int(value), abs=0.01)


@every_door
def test_a_file_without_terms_lives_for_ever(store: Store, door: Door) -> None:
    assert lifetime(store, stored(store.send(door(CONTENT)))) is None


@pytest.mark.parametrize("first", [True, False])
def test_a_field_of_a_form_says_it_too_and_beats_the_header(site: Site, first: bool) -> None:
    upload = with_fields({"expires_in": "1000", "max_downloads": "1"}, first=first, lines=[b"Expires-In: 5"])
    id_ = stored(site.store.send(upload))
    assert lifetime(site.store, id_) == pytest.approx(1000, abs=0.01)
    assert [ask(site.url, id_).status for _ in range(2)] == [200, 410]


def test_an_input_left_empty_asks_for_nothing(store: Store) -> None:
    id_ = stored(store.send(with_fields({"expires_in": "", "max_downloads": " "}, first=True)))
    assert lifetime(store, id_) is None
    assert [ask(store.url, id_).status for _ in range(3)] == [200] * 3


BAD = [
    b"0",
    b"-1",
    b"1.5",
    b"abc",
    b"",
    b"1000000000",
    b"1e3",
    b"0x10",
    b"5, 6",
    b"5\r\n{name}: 6",
    b"\xb2",
    b"+1",
    b"01",
]


@every_door
@pytest.mark.parametrize("name", [b"Expires-In", b"Max-Downloads"])
@pytest.mark.parametrize("value", BAD, ids=repr)
def test_terms_that_make_no_sense_are_400_before_the_body(store: Store, door: Door, name: bytes, value: bytes) -> None:
    line = name + b": " + value.replace(b"{name}", name)
    answer = exchange(store.url, door(CONTENT, lines=[line, b"Expect: 100-continue"]).head)
    assert name.decode() in refused(answer, 400)
    assert answer.interim == ()
    store.holds()


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("name", ["expires_in", "max_downloads"])
@pytest.mark.parametrize("value", ["0", "-1", "1.5", "abc", "1000000000", "\N{FULLWIDTH DIGIT ONE}", "\0"], ids=ascii)
def test_a_field_that_makes_no_sense_stores_nothing(store: Store, first: bool, name: str, value: str) -> None:
    refused(store.send(with_fields({name: value}, first=first)), 400)
    store.holds()


@pytest.mark.parametrize(
    ("chosen", "asked", "given"),
    [
        ({"default_expiry": 50}, None, 50),
        ({"default_expiry": 50}, b"100", 100),
        ({"max_expiry": 50}, None, 50),
        ({"max_expiry": 50}, b"50", 50),
        ({"max_expiry": 50}, b"51", None),
        ({"default_expiry": 20, "max_expiry": 50}, None, 20),
        ({"default_expiry": 20, "max_expiry": 50}, b"51", None),
    ],
)
async def test_the_settings_say_how_long_at_most_and_by_default(
    serve: Callable[..., Awaitable[str]], chosen: dict[str, float], asked: bytes | None, given: int | None
) -> None:
    url = await serve(**chosen)
    for door in DOORS.values():
        lines = [b"Expect: 100-continue"] + ([b"Expires-In: " + asked] if asked else [])
        if given is None:
            answer = await asyncio.to_thread(exchange, url, door(CONTENT, lines=lines).head)
            assert "50 seconds" in refused(answer, 400)
            assert answer.interim == ()
            continue
        answer = await asyncio.to_thread(
            exchange, url, bytes(door(CONTENT, lines=[*lines, b"Accept: application/json"]))
        )
        [record] = json.loads(answer.body).get("files", [json.loads(answer.body)])
        times = (datetime.fromisoformat(record[name]) for name in ("created_at", "expires_at"))
        assert next(times) + timedelta(seconds=given) == pytest.approx(next(times), abs=timedelta(milliseconds=10))


def test_a_default_beyond_the_maximum_stops_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"DEFAULT": "51", "MAX": "50"}.items():
        monkeypatch.setenv(f"FILE_SERVICE_{name}_EXPIRY", value)
    with pytest.raises(BadSettings, match=r"FILE_SERVICE_MAX_EXPIRY: .*DEFAULT_EXPIRY"):
        from_environment()
    monkeypatch.setenv("FILE_SERVICE_MAX_EXPIRY", "51")
    assert from_environment().max_expiry == 51


# Expiry


def test_a_file_expires_by_itself_and_is_forgotten_later(spawn: Spawn) -> None:
    """By the second, whenever the sweep comes; 410 while anything is known of it, then 404."""
    service = spawn(sweep_interval=0.05, gone_retention=1)
    site = on_sqlite(service)
    id_ = site.keep(CONTENT, b"Expires-In: 2")
    start = time.monotonic()
    assert ask(site.url, id_).body == CONTENT
    eventually(lambda: ask(site.url, id_, method=b"HEAD").status == 410, 5)
    assert time.monotonic() - start > 1.9
    for method in (b"GET", b"HEAD", b"DELETE"):
        assert ask(site.url, id_, method=method).status == 410
    refused(ask(site.url, id_, b"Range: bytes=0-0"), 410)
    refused(ask(site.url, id_, b"If-None-Match: *"), 410)
    refused(ask(site.url, id_ + "/meta"), 410)
    eventually(lambda: site.state(id_) == "gone")
    assert site.store.published() == set()
    eventually(lambda: ask(site.url, id_).status == 404, 2)
    assert site.state(id_) == ""
    assert site.store.complaints() == ""


def test_a_file_that_expired_is_gone_before_any_sweep(spawn: Spawn) -> None:
    site = on_sqlite(spawn(sweep_interval=3600))
    key = b'Idempotency-Key: "key"'
    id_, other = site.keep(CONTENT, b"Expires-In: 2", key), site.keep(CONTENT)
    assert site.keep(CONTENT, key) == id_
    eventually(lambda: ask(site.url, id_).status == 410, 5)
    assert site.state(id_) == "stored"
    listed = json.loads(site.store.call("GET", "/files")[1])["files"]
    assert [file["id"] for file in listed] == [other]
    assert ask(site.url, id_, b"Delete-Token: wrong", method=b"DELETE").status == 410
    again = site.keep(CONTENT, key)
    assert again != id_
    assert site.keep(CONTENT, key) == again
    assert (ask(site.url, id_).status, ask(site.url, again).status) == (410, 200)


def test_the_bytes_go_before_the_row_does(spawn: Spawn) -> None:
    site = on_sqlite(spawn(**SETTINGS, gone_retention=0))
    id_ = site.keep(CONTENT, b"Expires-In: 1")
    path = LocalPlace(site.service.data_dir).path(site.key_of(id_))
    path.unlink()
    (path / "in the way").mkdir(parents=True)
    eventually(lambda: "left to the sweep" in site.store.log(), 3)
    assert site.state(id_) == "expiring"
    assert ask(site.url, id_).status == 410
    (path / "in the way").rmdir()
    path.rmdir()
    eventually(lambda: site.state(id_) == "")
    assert ask(site.url, id_).status == 404


def slow_reader(stack: ExitStack, url: str, message: bytes) -> socket.socket:
    """A connection that asked, and reads nothing yet: most of a large answer still waits in the service."""
    sock = stack.enter_context(connection(url))
    sock.sendall(message)
    assert sock.recv(1, socket.MSG_PEEK)
    return sock


def test_a_download_that_runs_when_its_file_expires_is_whole_or_cut(site: Site) -> None:
    id_ = site.keep(BIG, b"Expires-In: 2")
    key = site.key_of(id_)
    with ExitStack() as stack:
        running = [slow_reader(stack, site.url, get(id_, b"Connection: close")) for _ in range(3)]
        eventually(lambda: key not in site.store.published(), 6)
        assert ask(site.url, id_).status == 410
        for sock in running:
            try:
                assert take(read_to_end(sock))[0].body == BIG
            except (Cut, ConnectionResetError):
                continue


def test_downloads_around_the_moment_of_expiry_are_whole_or_refused(site: Site) -> None:
    ids = [site.keep(BIG[:MIB], b"Expires-In: 1") for _ in range(5)]

    def until_gone(id_: str) -> set[int]:
        statuses = set()
        while 410 not in statuses:
            try:
                answer = ask(site.url, id_)
            except (Cut, ConnectionResetError):
                continue
            assert answer.body == BIG[:MIB] or answer.status == 410
            statuses.add(answer.status)
        return statuses

    with ThreadPoolExecutor(len(ids)) as threads:
        assert set().union(*threads.map(until_gone, ids)) == {200, 410}


# Downloads that count


@pytest.mark.parametrize("most", [1, 3])
@pytest.mark.parametrize("content", [b"", CONTENT, BIG[:MIB]], ids=["empty", "small", "large"])
def test_a_file_is_gone_after_as_many_downloads_as_it_may_have(site: Site, content: bytes, most: int) -> None:
    id_ = site.keep(content, b"Max-Downloads: %d" % most)
    key = site.key_of(id_)
    for _ in range(most):
        assert ask(site.url, id_).body == content
    assert key not in site.store.published()
    for method in (b"GET", b"HEAD", b"DELETE"):
        assert ask(site.url, id_, method=method).status == 410
    assert ask(site.url, id_ + "/meta").status == 410
    assert site.downloads(id_) == most
    assert site.state(id_) == "gone"


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
def test_a_client_that_closes_after_its_last_byte_has_downloaded_the_file(site: Site, version: bytes) -> None:
    """It need not be there any more when the service learns that everything has arrived."""
    for size in (1000, 100_000, MIB):
        id_ = site.keep(BIG[:size], b"Max-Downloads: 1")
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
            sock.connect(("127.0.0.1", site.service.port))
            sock.sendall(get(id_, version=version))
            end = BIG[size - 100 : size] + (b"\r\n0\r\n\r\n" if version == b"1.1" else b"")
            data = b""
            while not data.endswith(end):
                data = data[-200:] + sock.recv(65536)
        eventually(lambda: site.running() == 0)
        assert ask(site.url, id_).status == 410, size


LOOKS: dict[str, tuple[bytes, int, tuple[bytes, ...]]] = {
    "HEAD": (b"HEAD", 200, ()),
    "HEAD of a range": (b"HEAD", 200, (b"Range: bytes=0-",)),
    "a file that the client has": (b"GET", 304, (b"If-None-Match: *",)),
    "a failed condition": (b"GET", 412, (b'If-Match: "other"',)),
    "a range beyond the end": (b"GET", 416, (b"Range: bytes=5000-",)),
    "one piece again and again": (b"GET", 206, (b"Range: bytes=0-900",)),
    "pieces again and again": (b"GET", 206, (b"Range: bytes=0-100,200-999",)),
}


@pytest.mark.parametrize(("method", "status", "lines"), LOOKS.values(), ids=LOOKS)
def test_a_look_at_a_file_uses_nothing_up(site: Site, method: bytes, status: int, lines: tuple[bytes, ...]) -> None:
    id_ = site.keep(CONTENT, b"Max-Downloads: 1")
    for _ in range(5):
        assert ask(site.url, id_, *lines, method=method).status == status
    assert ask(site.url, id_).body == CONTENT
    assert ask(site.url, id_).status == 410


@pytest.mark.parametrize("lines", [(), (b"Range: bytes=0-",), (b"Range: bytes=0-9,20-",)])
def test_a_cut_download_uses_nothing_up(site: Site, lines: tuple[bytes, ...]) -> None:
    id_ = site.keep(BIG, b"Max-Downloads: 1")
    for _ in range(3):
        with ExitStack() as stack:
            sock = slow_reader(stack, site.url, get(id_, *lines))
            assert ask(site.url, id_).status == 410  # its place is taken, for it may come to its end
            reset(sock)
        eventually(lambda: site.running() == 0)
    assert site.downloads(id_) == 0
    assert ask(site.url, id_).body == BIG
    assert ask(site.url, id_).status == 410


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
def test_a_download_that_was_cut_and_resumed_counts_once(site: Site, version: bytes) -> None:
    id_ = site.keep(BIG, b"Max-Downloads: 2")
    for _ in range(2):
        offset = 0
        for pieces in (3, 10):
            lines = [b"Range: bytes=%d-" % offset] if offset else []
            with connection(site.url) as sock:
                sock.sendall(get(id_, *lines, version=version))
                data = b"".join(sock.recv(100_000) for _ in range(pieces))
            with pytest.raises(Cut) as cut:
                take(data)
            offset += len(cut.value.content)
        # The service may not have noticed yet that the client left.
        assert ask(site.url, id_, b"Range: bytes=%d-" % offset).body == BIG[offset:]
        eventually(lambda: site.running() == 0)
    assert site.downloads(id_) == 2
    assert site.state(id_) == "gone"


def test_an_answer_of_one_chunk_that_was_not_read_to_its_end_uses_nothing_up(site: Site) -> None:
    id_ = site.keep(BIG[:100_000], b"Max-Downloads: 1")
    for _ in range(5):
        with socket.socket() as sock:
            # The kernel of a client with an ordinary buffer takes all of it, read or not, and then it has arrived.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.connect(("127.0.0.1", site.service.port))
            sock.sendall(get(id_))
            eventually(lambda: bool(sock.recv(1, socket.MSG_PEEK)))
            reset(sock)
        eventually(lambda: site.running() == 0)
    assert site.downloads(id_) == 0


AGENTS = (b"User-Agent: one", b"User-Agent: other")


def test_a_client_that_gets_every_byte_in_pieces_has_downloaded_once(site: Site) -> None:
    id_ = site.keep(CONTENT, b"Max-Downloads: 2")
    for _ in range(2):
        for wanted in (b"0-499", b"400-600,700-799", b"-10", b"601-699", b"5000-,800-990"):
            assert ask(site.url, id_, AGENTS[0], b"Range: bytes=" + wanted).status in (206, 416)
    assert site.downloads(id_) == 2
    assert ask(site.url, id_, AGENTS[0], b"Range: bytes=0-0").status == 410


def test_a_range_of_everything_is_everything(site: Site) -> None:
    id_ = site.keep(CONTENT, b"Max-Downloads: 1")
    assert ask(site.url, id_, b"Range: bytes=0-").body == CONTENT
    assert ask(site.url, id_).status == 410


def test_pieces_of_different_clients_do_not_make_a_whole(site: Site) -> None:
    id_ = site.keep(CONTENT, b"Max-Downloads: 1")
    for agent, wanted in zip(AGENTS, (b"0-499", b"500-"), strict=True):
        assert ask(site.url, id_, agent, b"Range: bytes=" + wanted).status == 206
    assert site.downloads(id_) == 0
    for agent, wanted in zip(AGENTS, (b"500-", b"0-0"), strict=True):
        ask(site.url, id_, agent, b"Range: bytes=" + wanted)
    assert site.downloads(id_) == 1


def test_pieces_of_one_client_share_a_place_that_others_do_not_get(site: Site) -> None:
    id_ = site.keep(BIG, b"Max-Downloads: 1")
    with ExitStack() as stack:
        sock = slow_reader(stack, site.url, get(id_, AGENTS[0], b"Range: bytes=1-", b"Connection: close"))
        assert ask(site.url, id_, AGENTS[0], b"Range: bytes=5-9").body == BIG[5:10]
        assert ask(site.url, id_, AGENTS[1], b"Range: bytes=5-9").status == 410
        assert ask(site.url, id_, AGENTS[0]).status == 410  # a whole download is one by itself
        assert ask(site.url, id_, method=b"HEAD").status == 200
        assert take(read_to_end(sock))[0].body == BIG[1:]
    eventually(lambda: site.running() == 0)
    assert ask(site.url, id_, AGENTS[1], b"Range: bytes=5-9").status == 206
    assert ask(site.url, id_, AGENTS[0], b"Range: bytes=0-0").status == 206
    assert ask(site.url, id_, AGENTS[1]).status == 410


def is_gone(site: Site, id_: str) -> bool:
    return site.state(id_) == "gone"


def at_once(urls: Sequence[str], messages: Sequence[bytes]) -> list[Answer]:
    """The answers to all of these, sent as near to one moment as can be, to one service after the other."""
    with ExitStack() as stack, ThreadPoolExecutor(len(messages)) as threads:
        socks = [stack.enter_context(connection(urls[n % len(urls)])) for n in range(len(messages))]
        for sock, message in zip(socks, messages, strict=True):
            sock.sendall(message)
        return [take(data)[0] for data in threads.map(read_to_end, socks)]


@pytest.mark.parametrize(("content", "most"), [(CONTENT, 1), (BIG[:MIB], 1), (CONTENT, 7)])
def test_of_fifty_downloads_at_once_only_so_many_are_given(site: Site, content: bytes, most: int) -> None:
    id_ = site.keep(content, b"Max-Downloads: %d" % most)
    answers = at_once([site.url], [get(id_, b"Connection: close")] * 50)
    assert sorted(answer.status for answer in answers) == [200] * most + [410] * (50 - most)
    assert {answer.body for answer in answers if answer.status == 200} == {content}
    eventually(lambda: site.state(id_) == "gone")
    assert site.downloads(id_) == most


def test_of_fifty_downloads_at_once_two_replicas_give_one(two: tuple[Site, Site]) -> None:
    for content in (CONTENT, BIG[:MIB]):
        id_ = two[0].keep(content, b"Max-Downloads: 1")
        answers = at_once([site.url for site in two], [get(id_, b"Connection: close")] * 50)
        assert sorted(answer.status for answer in answers) == [200] + [410] * 49
        eventually(partial(is_gone, two[0], id_))
        assert two[0].downloads(id_) == 1
    assert "".join(site.store.complaints() for site in two) == ""


def test_sixteen_pieces_at_once_are_one_download(site: Site) -> None:
    for _ in range(3):
        id_ = site.keep(BIG[:MIB], b"Max-Downloads: 1")
        size = MIB // 16
        wanted = [b"Range: bytes=%d-%d" % (n * size, (n + 1) * size - 1) for n in range(16)]
        answers = at_once([site.url], [get(id_, AGENTS[0], line, b"Connection: close") for line in wanted])
        assert [answer.status for answer in answers] == [206] * 16
        assert b"".join(answer.body for answer in answers) == BIG[:MIB]
        eventually(partial(is_gone, site, id_))
        assert site.downloads(id_) == 1


def test_whole_cut_and_partial_downloads_mixed_count_exactly(site: Site) -> None:
    """As many as arrived whole, never more than allowed; a place that is given back is given away again."""
    content, most = BIG[: 4 * MIB], 6
    id_ = site.keep(content, b"Max-Downloads: %d" % most)

    def client(number: int) -> int:
        random, whole = Random(number), 0
        agent = b"User-Agent: %d" % number
        while True:
            if random.random() < 0.5:
                with connection(site.url) as sock:
                    sock.sendall(get(id_, agent, *random.choice([(), (b"Range: bytes=9-",)])))
                    sock.recv(10)
                    reset(sock)
            answer = ask(site.url, id_, agent, *random.choice([(), (b"Range: bytes=10-20",)]))
            whole += answer.status == 200
            assert answer.status != 200 or answer.body == content
            if site.state(id_) == "gone":
                return whole

    with ThreadPoolExecutor(6) as threads:
        assert sum(threads.map(client, range(6))) == most
    assert site.downloads(id_) == most


# Places that are held by the dead


def test_the_place_of_a_killed_replica_is_free_after_its_lease(two: tuple[Site, Site]) -> None:
    killed, other = two
    id_ = killed.keep(BIG, b"Max-Downloads: 1")
    with ExitStack() as stack:
        slow_reader(stack, killed.url, get(id_))
        killed.service.kill()
        assert ask(other.url, id_).status == 410
        assert other.running() == 1
        eventually(lambda: other.running() == 0, 4 * LEASE + 4)
    assert other.downloads(id_) == 0
    assert ask(other.url, id_).body == BIG
    assert ask(other.url, id_).status == 410
    assert "Traceback" not in other.store.log()


def test_a_service_that_was_killed_gives_the_place_back_itself(spawn: Spawn) -> None:
    service = spawn(lease_time=LEASE, **SETTINGS)
    site = on_sqlite(service)
    id_ = site.keep(BIG, b"Max-Downloads: 1")
    with ExitStack() as stack:
        slow_reader(stack, site.url, get(id_))
        service.kill()
    service.start()
    eventually(lambda: site.running() == 0, 4 * LEASE + 4)
    assert ask(site.url, id_).body == BIG


@pytest.mark.parametrize("whole", [True, False])
async def test_a_download_that_ends_without_a_database_is_recorded_later(
    spawn: Spawn, postgres: Postgres, whole: bool
) -> None:
    """The answer has gone out: nothing may follow it on its connection, and the place must not stay taken."""
    name = f"t{uuid4().hex}"
    url = postgres.create_database(name, template="template")
    async with FaultProxy(postgres.port) as proxy:
        service = await asyncio.to_thread(spawn, database_url=proxy.url(url), **{**SETTINGS, "database_timeout": 0.5})
        site = on_postgres(service, postgres, name)
        id_ = await asyncio.to_thread(site.keep, BIG, b"Max-Downloads: 1")
        with ExitStack() as stack:
            sock = await asyncio.to_thread(slow_reader, stack, site.url, get(id_))
            proxy.down()
            if whole:
                assert (await asyncio.to_thread(read_answer, sock)).status == 200
                left = "a download is left to the sweep"
                await asyncio.to_thread(eventually, lambda: left in site.store.log(), 5)
                sock.settimeout(0.3)
                with pytest.raises(TimeoutError):
                    await asyncio.to_thread(sock.recv, 1)
            else:
                reset(sock)
                await asyncio.to_thread(eventually, lambda: "left to the sweep" in site.store.log(), 5)
        await proxy.up()
        await asyncio.to_thread(eventually, lambda: site.running() == 0, 10)
        assert site.downloads(id_) == whole
        answer = await asyncio.to_thread(ask, site.url, id_)
        assert answer.status == (410 if whole else 200)
        assert "Traceback" not in site.store.log()
        await asyncio.to_thread(service.kill)
    postgres.drop_database(name)


# Keys and tokens


def test_a_key_is_free_when_its_file_was_downloaded_often_enough(site: Site) -> None:
    key = b"Idempotency-Key: " + uuid4().hex.encode()
    id_ = site.keep(CONTENT, key, b"Max-Downloads: 1")
    assert ask(site.url, id_).status == 200
    again = site.keep(CONTENT, key)
    assert again != id_
    assert (ask(site.url, id_).status, ask(site.url, again).status) == (410, 200)


@every_door
def test_an_upload_comes_with_the_token_that_deletes_it(store: Store, door: Door) -> None:
    answer = store.send(door(CONTENT))
    id_, token = stored(answer), answer.headers["delete-token"].encode()
    other = store.send(door(CONTENT)).headers["delete-token"].encode()
    assert len(token) >= 22  # 128 bits or more
    assert other != token
    for wrong in (other, b"", token[:-1], token + b"x", b"\xff", b"x" * 5000):
        detail = refused(ask(store.url, id_, b"Delete-Token: " + wrong, method=b"DELETE"), 403)
        assert "token" in detail
    assert store.get(id_) == CONTENT
    assert ask(store.url, id_, b"Delete-Token: " + token, method=b"DELETE").status == 204
    assert ask(store.url, id_, b"Delete-Token: " + token, method=b"DELETE").status == 404
    assert ask(store.url, UNKNOWN, b"Delete-Token: " + token, method=b"DELETE").status == 404


@every_door
def test_the_record_has_the_token_only_when_the_file_is_new(store: Store, door: Door) -> None:
    answer = store.send(door(CONTENT, lines=[b"Accept: application/json"]))
    body = json.loads(answer.body)
    [record] = body.get("files", [body])
    assert record["delete_token"] == answer.headers["delete-token"]
    assert "delete_token" not in store.meta(record["id"])
    assert b"token" not in store.call("GET", "/files")[1]


def test_every_file_of_a_form_has_a_token_of_its_own(store: Store) -> None:
    upload = form_of(part(b"one"), part(b"two"), lines=[b"Accept: application/json"])
    answer = store.send(upload)
    assert "delete-token" not in answer.headers
    first, second = json.loads(answer.body)["files"]
    swapped = b"Delete-Token: " + second["delete_token"].encode()
    assert ask(store.url, first["id"], swapped, method=b"DELETE").status == 403
    assert ask(store.url, second["id"], swapped, method=b"DELETE").status == 204


@pytest.mark.parametrize("token", [None, b"of a file that is gone"])
def test_what_is_gone_cannot_be_deleted(site: Site, token: bytes | None) -> None:
    id_ = site.keep(CONTENT, b"Max-Downloads: 1")
    ask(site.url, id_)
    lines = [] if token is None else [b"Delete-Token: " + token]
    refused(ask(site.url, id_, *lines, method=b"DELETE"), 410)


def test_a_repeated_upload_comes_with_a_new_token(site: Site) -> None:
    upload = raw(CONTENT, lines=[b"Idempotency-Key: " + uuid4().hex.encode()])
    answers = [site.store.send(upload) for _ in range(3)]
    [id_] = {stored(answer) for answer in answers}
    *old, last = [b"Delete-Token: " + answer.headers["delete-token"].encode() for answer in answers]
    for token in old:
        assert ask(site.url, id_, token, method=b"DELETE").status == 403
    assert ask(site.url, id_, last, method=b"DELETE").status == 204


def test_of_a_token_only_the_hash_is_kept(site: Site) -> None:
    answer = site.store.send(raw(CONTENT))
    id_, token = stored(answer), answer.headers["delete-token"]
    kept = "encode(delete_token, 'hex')" if "database_url" in site.service.settings else "lower(hex(delete_token))"
    assert site.column(id_, kept) == sha256(token.encode()).hexdigest()
    ask(site.url, id_, b"Delete-Token: " + token.encode() + b"x", method=b"DELETE")
    ask(site.url, id_, b"Delete-Token: " + token.encode(), method=b"DELETE")
    assert token not in site.store.log()
    for path in site.service.data_dir.rglob("*"):
        assert not path.is_file() or token.encode() not in path.read_bytes()
