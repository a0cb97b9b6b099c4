"""A service that is to die, and the one that is started on what it left."""

import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.crash.checker import DATABASE, Row, settled, sqlite_rows
from tests.crash.killing import SETTINGS
from tests.support.process import Service

GRACE, SWEEP = 0.2, 0.1
SLACK = 4.0  # seconds that a busy machine may add


@pytest.fixture
def started(spawn: Callable[..., Service], tmp_path: Path, sqlite_template: Path) -> Callable[..., Service]:
    """`service = started(lease)`: a durable service on a new folder."""

    def start(lease: float, **overrides: Any) -> Service:
        (tmp_path / "data").mkdir(exist_ok=True)
        shutil.copy(sqlite_template, tmp_path / "data" / DATABASE)
        return spawn(lease_time=lease, **{**SETTINGS, **overrides})

    return start


@pytest.fixture
def recovered(serve: Callable[..., Awaitable[str]]) -> Callable[..., Awaitable[tuple[str, dict[str, dict[str, Any]]]]]:
    """`url, records = await recovered(data_dir, lease)`: start on what a service with that lease left, nothing done by
    hand; the address and, once all is settled, the records.
    """

    async def recover(data_dir: Path, lease: float) -> tuple[str, dict[str, dict[str, Any]]]:
        async def rows() -> list[Row]:
            return sqlite_rows(data_dir)

        url = await serve(data_dir=data_dir, durable=True, lease_time=GRACE, sweep_interval=SWEEP)
        return url, await settled(url, data_dir, rows, lease + 3 * GRACE + SWEEP + SLACK)

    return recover
