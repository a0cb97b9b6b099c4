"""How much memory the service takes, at full size: 50 uploads of 1 GiB at once, 50 slow readers, one upload of 8 GiB.

    python -m tests.soak.memory [FOLDER]

FOLDER (the current one by default) needs 55 GB of free disk while the test runs, which takes some minutes. Prints a
line for each measurement and ends with 1 when one breaks its bound: 150 MiB above the idle service for fifty
transfers, and for the large upload what one of 64 MiB takes and 4 MiB of noise. Settings of the service can be given as
usual, such as FILE_SERVICE_BLOCK_SIZE=1048576.
"""

import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.crash.transfers import MIB, forget_peak, peak, read_slowly, readers, sparse, upload, upload_at_once
from tests.soak.settings import given, say
from tests.support.process import Service

GIB = 1 << 30
TRANSFERS = 50
FIFTY = 150 * MIB  # what so many transfers may take above the idle service
NOISE = 4 * MIB
RATE, SECONDS = 200_000, 60.0  # bytes a second of a slow reader, and how long it goes on


@contextmanager
def service(folder: Path) -> Iterator[Service]:
    """A service that has worked a little; it and its files are gone afterwards."""
    running = Service({"data_dir": folder / "data", "durable": False, **given()})
    try:
        running.start()
        upload(running, sparse(folder / "small", 1000))
        yield running
    finally:
        running.kill()
        shutil.rmtree(folder / "data", ignore_errors=True)


def measured(running: Service, what: str, transfer: Callable[[], object], size: int) -> int:
    """Run `transfer` of `size` bytes in all; the bytes of memory it took at its peak."""
    idle, start = forget_peak(running), time.monotonic()
    transfer()
    seconds, taken = time.monotonic() - start, peak(running) - idle
    speed = f"{size / MIB / seconds:.0f} MiB/s" if size else ""
    say(f"{what}: {idle / MIB:.0f} MiB idle, {taken / MIB:+.1f} MiB at the peak, {seconds:.0f} s {speed}")
    return taken


def uploads(folder: Path, count: int, size: int) -> int:
    """So many at once."""
    with service(folder) as running:
        path = sparse(folder / "large", size)
        what = f"{count} uploads of {size // MIB} MiB"
        return measured(running, what, lambda: upload_at_once(running, path, count), count * size)


def downloads(folder: Path, count: int, size: int) -> int:
    """So many at once, slowly read."""
    with service(folder) as running:
        id_ = upload(running, sparse(folder / "large", size))

        def read() -> None:
            with readers(running, id_, count) as socks:
                read_slowly(socks, RATE, SECONDS)

        return measured(running, f"{count} slow readers of {size // MIB} MiB", read, 0)


def main() -> int:
    """Measure all; the exit code."""
    with tempfile.TemporaryDirectory(dir=Path(*sys.argv[1:2])) as name:
        folder = Path(name)
        small = uploads(folder, 1, 64 * MIB)
        within = [
            uploads(folder, 1, 8 * GIB) <= small + NOISE,
            downloads(folder, TRANSFERS, GIB) <= FIFTY,
            uploads(folder, TRANSFERS, GIB) <= FIFTY,
        ]
    say("within the bounds" if all(within) else "TOO MUCH")
    return 0 if all(within) else 1


if __name__ == "__main__":
    sys.exit(main())
