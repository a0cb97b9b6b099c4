"""Memory is bounded by the number of connections, whatever the size of the files and the haste of the clients.

At full size, with 50 transfers of 1 GiB: tests/soak/memory.py.
"""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.crash.transfers import MIB, forget_peak, peak, read_slowly, readers, sparse, upload, upload_at_once
from tests.support.process import Service

TRANSFERS = 16
EACH = 3 * MIB  # 50 of them within 150 MiB
NOISE = 4 * MIB

pytestmark = pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux tells the peak")


@pytest.fixture
def service(spawn: Callable[..., Service], tmp_path: Path) -> Service:
    """A service that has worked a little, so that everything it needs is loaded."""
    running = spawn()
    upload(running, sparse(tmp_path / "small", 1000))
    return running


def test_many_uploads_at_once(service: Service, tmp_path: Path) -> None:
    path = sparse(tmp_path / "large", 64 * MIB)
    idle = forget_peak(service)
    upload_at_once(service, path, TRANSFERS)
    assert peak(service) - idle < TRANSFERS * EACH + NOISE


def test_many_slow_readers(service: Service, tmp_path: Path) -> None:
    id_ = upload(service, sparse(tmp_path / "large", 256 * MIB))
    idle = forget_peak(service)
    with readers(service, id_, TRANSFERS) as socks:
        read_slowly(socks, rate=100_000, seconds=2)
    assert peak(service) - idle < TRANSFERS * EACH + NOISE


def test_a_large_upload_takes_no_more_than_a_small_one(service: Service, tmp_path: Path) -> None:
    peaks = []
    for size in (64 * MIB, 1024 * MIB):
        idle = forget_peak(service)
        upload(service, sparse(tmp_path / "file", size))
        peaks.append(peak(service) - idle)
    assert peaks[1] <= peaks[0] + NOISE
