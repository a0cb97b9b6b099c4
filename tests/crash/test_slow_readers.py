"""A reader that has stopped is cut after SEND_IDLE_TIMEOUT, one that is slow is not, and nobody else notices either."""

import select
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from tests.crash.transfers import MIB, read_slowly, read_to_the_end, readers, sparse, upload
from tests.support.doors import request
from tests.support.process import Service
from tests.support.raw import exchange
from tests.support.store import eventually

IDLE = 1.0
LATE = 1.5  # seconds that the service may take longer to notice
STALLED, SLOW_READERS = 50, 4
SIZE = 16 * MIB
SLOW, LONG = 20_000, 3 * IDLE  # bytes a second: a chunk of 256 KiB takes 13 seconds


@pytest.fixture
def service(spawn: Callable[..., Service]) -> Service:
    """A service that soon loses patience."""
    return spawn(send_idle_timeout=IDLE)


@pytest.fixture
def id_(service: Service, tmp_path: Path) -> str:
    """A file that does not fit into the buffers of a connection."""
    return upload(service, sparse(tmp_path / "large", SIZE))


def cuts(socks: list[socket.socket], meanwhile: Callable[[], object], within: float) -> list[float]:
    """When the service ended each of the connections, in seconds from now; nothing is read (poll(2), POLLHUP)."""
    start = time.monotonic()
    times: list[float] = []
    watch = select.poll()
    for sock in socks:
        watch.register(sock, 0)
    while len(times) < len(socks) and time.monotonic() - start < within:
        for ended, _ in watch.poll(10):
            watch.unregister(ended)
            times.append(time.monotonic() - start)
        meanwhile()
    return times


def held(service: Service) -> int:
    """How many connections of clients and how many stored files the service has open."""
    process = psutil.Process(service.pid)
    connections = [found for found in process.net_connections("tcp") if found.status != "LISTEN"]
    objects = str(service.data_dir / "objects")
    return len(connections) + sum(found.path.startswith(objects) for found in process.open_files())


def test_readers_that_stop_are_cut_and_nobody_else_notices(service: Service, id_: str) -> None:
    latencies: list[float] = []

    def healthy() -> None:
        start = time.monotonic()
        assert exchange(service.url, bytes(request(b"GET", b"/health/live"))).status == 200
        latencies.append(time.monotonic() - start)

    with readers(service, id_, STALLED) as socks:
        assert held(service) == 2 * STALLED
        times = cuts(socks, healthy, within=IDLE + LATE)
        assert len(times) == STALLED
        assert min(times) >= IDLE / 2
        eventually(lambda: held(service) == 0)
    assert sorted(latencies)[len(latencies) * 95 // 100] < IDLE / 2
    assert service.output().count("stopped reading") == STALLED
    assert "Traceback" not in service.output()


def test_readers_that_are_slow_are_not_cut(service: Service, id_: str) -> None:
    with readers(service, id_, SLOW_READERS) as socks:
        slowly = read_slowly(socks, SLOW, LONG)
        assert slowly <= SLOW_READERS * SLOW * LONG
        with ThreadPoolExecutor(SLOW_READERS) as threads:
            assert slowly + sum(threads.map(read_to_the_end, socks)) == SLOW_READERS * SIZE
    assert "stopped reading" not in service.output()


def test_a_reader_that_stops_in_the_middle_is_cut_too(service: Service, id_: str) -> None:
    with readers(service, id_, 1) as socks:
        read_slowly(socks, 500_000, IDLE)
        (time_,) = cuts(socks, lambda: None, within=IDLE + LATE)
        assert time_ >= IDLE / 2
