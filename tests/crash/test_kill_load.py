"""kill -9 at any moment, again and again, while clients store, repeat, read and delete; then the books are checked.

For hours instead of seconds: tests/soak/kill.py.
"""

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from random import Random, SystemRandom

from tests.crash.checker import all_rows, settled
from tests.crash.load import Clients
from tests.support.process import Service

LEASE, SWEEP = 0.3, 0.2
ROUNDS = 10
SLACK = 5.0  # seconds that a busy machine may add


async def test_killed_at_any_moment_it_keeps_its_word(database_url: str, spawn: Callable[..., Service]) -> None:
    seed = SystemRandom().getrandbits(32)
    clients = Clients(Random(seed))
    service = spawn(database_url=database_url, durable=True, lease_time=LEASE, sweep_interval=SWEEP, block_size=65536)
    await clients.kill(service, ROUNDS)
    rows = partial(all_rows, database_url)
    records = await settled(service.url, service.data_dir, rows, within=2 * LEASE + SWEEP + SLACK)
    assert clients.contradictions(records) == [], f"seed {seed}"
    command = [sys.executable, "-m", "file_service", "check"]
    environment = os.environ | {
        "FILE_SERVICE_DATA_DIR": str(service.data_dir),
        "FILE_SERVICE_DATABASE_URL": database_url,
    }
    check = await asyncio.to_thread(
        subprocess.run, command, env=environment, capture_output=True, text=True, check=False
    )
    assert check.returncode == 0, check.stdout + check.stderr
    told = {entry.told for entry in clients.entries}
    assert {"stored", "deleted", "no answer"} <= told, "the rounds were too short to tell anything"
