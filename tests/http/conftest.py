"""One service for all tests of the HTTP contract, looked at from both sides; what differs starts its own."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from tests.support.postgres import Postgres
from tests.support.process import Service
from tests.support.store import COLUMNS, Store

MAX_FILE_SIZE = 1 << 20
# No sweep: what is gone after a request was removed by that request.
SETTINGS = {
    "max_file_size": MAX_FILE_SIZE,
    "block_size": 16_384,
    "body_idle_timeout": 10,
    "sweep_interval": 3600,
    "drain_timeout": 0,
}


@pytest.fixture(scope="session")
def _service(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("http")
    shutil.copy(sqlite_template, folder / "file_service.db")
    service = Service({"data_dir": folder, **SETTINGS}).start()
    yield service
    assert service.terminate() == 0


@pytest.fixture(scope="session")
def _on_postgres(postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Service, str]]:
    name = f"t{uuid4().hex}"
    url = postgres.create_database(name, template="template")
    service = Service({"data_dir": tmp_path_factory.mktemp("http"), "database_url": url, **SETTINGS}).start()
    yield service, name
    assert service.terminate() == 0
    postgres.drop_database(name)


@pytest.fixture
def store(_service: Service) -> Iterator[Store]:
    """The service, which takes files up to `MAX_FILE_SIZE`; afterwards nothing may be half stored or in the log."""
    yield from _watched(Store(_service))


@pytest.fixture(params=["sqlite", "postgresql"])
def either_store(request: pytest.FixtureRequest) -> Iterator[Store]:
    """`store` on either database."""
    if request.param == "sqlite":
        yield from _watched(Store(request.getfixturevalue("_service")))
        return
    server: Postgres = request.getfixturevalue("postgres")
    service, database = request.getfixturevalue("_on_postgres")

    def rows() -> list[tuple[str, str, str]]:
        lines = server.sql(COLUMNS, database).splitlines()
        return [(id_, attempt, state) for id_, attempt, state in (line.split("|") for line in lines)]

    yield from _watched(Store(service, rows))


@pytest.fixture
def store_with(spawn: Callable[..., Service], sqlite_template: Path, tmp_path: Path) -> Iterator[Callable[..., Store]]:
    """`store_with(body_idle_timeout=1)` starts a service of its own."""
    started: list[Store] = []

    def start(**overrides: Any) -> Store:
        (tmp_path / "data").mkdir()
        shutil.copy(sqlite_template, tmp_path / "data" / "file_service.db")
        started.append(Store(spawn(**{**SETTINGS, **overrides})))
        return started[-1]

    yield start
    for store in started:
        assert store.complaints() == ""


def _watched(store: Store) -> Iterator[Store]:
    yield store
    assert store.complaints() == ""
    store.holds(*(row.id for row in store.rows()))
