"""How much memory uploads to an object store take at full size: one of 5 GiB, and 20 of them at once.

    python -m tests.soak.s3_memory [FOLDER]

The lengths are not told. The store is one that forgets what it is sent (`tests/support/s3_sink.py`), so no disk is
needed; it takes some minutes. Prints a line for each measurement and ends with 1 when one breaks its bound above the
idle service: FILE_SERVICE_S3_MEMORY, and 3 MiB for each connection, as on a disk. Settings of the service can be given.
"""

import sys
import tempfile
from pathlib import Path

from tests.crash.transfers import MIB, sparse, upload, upload_at_once, upload_in_chunks
from tests.soak.memory import GIB, measured
from tests.soak.settings import given, say
from tests.support.process import Service
from tests.support.s3_sink import KEYS, sink

EACH = 3 * MIB
SIZE = 5 * GIB


def uploads(folder: Path, count: int) -> bool:
    """So many at once, by a service that has worked a little; whether they keep to the bound."""
    with sink() as store:
        running = Service({"data_dir": folder / f"data-{count}", **store, **given()}, command=KEYS)
        budget = int(running.settings.setdefault("s3_memory", 256 * MIB))
        try:
            running.start()
            upload(running, sparse(folder / "small", 20 * MIB))
            path, what = sparse(folder / "large", SIZE), f"{count} uploads of {SIZE // GIB} GiB"
            taken = measured(
                running, what, lambda: upload_at_once(running, path, count, upload_in_chunks), count * SIZE
            )
            return taken <= budget + count * EACH
        finally:
            running.kill()


def main() -> int:
    """Measure all; the exit code."""
    with tempfile.TemporaryDirectory(dir=Path(*sys.argv[1:2])) as name:
        within = [uploads(Path(name), count) for count in (1, 20)]
    say("within the bounds" if all(within) else "TOO MUCH")
    return 0 if all(within) else 1


if __name__ == "__main__":
    sys.exit(main())
