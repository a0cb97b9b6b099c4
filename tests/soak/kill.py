"""kill -9 for as long as you like: rounds of work and death, the books checked every twenty (see tests/crash/load.py).

    python -m tests.soak.kill ROUNDS [SEED]

A round takes about a second. Ends with 1 and the contradictions as soon as there is one. Settings of the service can be
given as usual, such as FILE_SERVICE_DATABASE_URL for a PostgreSQL database made for this.
"""

import asyncio
import sys
import tempfile
from functools import partial
from pathlib import Path
from random import Random, SystemRandom

from tests.crash.checker import all_rows, settled
from tests.crash.load import Clients
from tests.soak.settings import given, say
from tests.support.process import Service

AUDIT = 20  # rounds between two
LEASE, SWEEP = 1.0, 0.5
RECLAIMED = 2 * LEASE + SWEEP + 10.0  # seconds; the last are what a busy machine may add


async def soak(folder: Path, rounds: int, seed: int) -> int:
    """The exit code."""
    settings = {"data_dir": folder, "durable": True, "lease_time": LEASE, "sweep_interval": SWEEP} | given()
    rows = partial(all_rows, str(settings.get("database_url", f"sqlite+aiosqlite:///{folder}/file_service.db")))
    service, clients = Service(settings).start(), Clients(Random(seed))
    try:
        for done in range(AUDIT, rounds + AUDIT, AUDIT):
            await clients.kill(service, AUDIT)
            records = await settled(service.url, folder, rows, RECLAIMED)
            wrong = clients.contradictions(records)
            say(f"{done} rounds, {len(clients.entries)} uploads, {len(records)} files, {len(wrong)} wrong")
            if wrong:
                say("\n".join(wrong))
                return 1
    finally:
        service.kill()
    return 0


def main() -> int:
    """Soak; the exit code."""
    rounds, seed = int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else SystemRandom().getrandbits(32)
    say(f"seed {seed}")
    with tempfile.TemporaryDirectory() as name:
        return asyncio.run(soak(Path(name), rounds, seed))


if __name__ == "__main__":
    sys.exit(main())
