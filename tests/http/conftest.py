"""The tests of the HTTP contract run on every storage: one service for all of them, looked at from both sides; what
differs starts its own."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from tests.http.storages import storages_of, with_database
from tests.support.places import PLACES, Place
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
Start = Callable[..., Service]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "storage" in metafunc.fixturenames:
        asked = metafunc.config.getoption("storage")
        module = Path(str(metafunc.module.__file__)).stem
        storages = storages_of(module, metafunc.function.__name__, asked)
        metafunc.parametrize("storage", storages, indirect=True, scope="module")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """A test that `--storage` leaves nothing of is not skipped, there is just no such test."""
    none = {item for item in items if not _meant(getattr(item, "callspec", None))}
    config.hook.pytest_deselected(items=[*none])
    items[:] = [item for item in items if item not in none]


def _meant(callspec: Any) -> bool:
    params = callspec.params if callspec else {}
    if "storage" not in params:
        return True
    # pytest puts a mark of its own in the place of a parameter that has no values.
    return params["storage"] in PLACES and with_database(params["storage"], params.values())


@pytest.fixture(scope="module")
def storage(request: pytest.FixtureRequest) -> str:
    """The name of the storage that the test runs on."""
    return str(request.param)


@pytest.fixture
def placed(storage: str) -> Callable[[Path], Place]:
    """On the storage of the test; services of one folder share their place."""
    return cache(PLACES[storage])


@pytest.fixture(scope="module")
def start(storage: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    """`service = start(download_framing="length")` is there for the tests of a module, and must end well."""
    with ExitStack() as stack:
        yield lambda **settings: _started(stack, storage, tmp_path_factory.mktemp("module"), settings)


@pytest.fixture(scope="session")
def _on_sqlite(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Service]]:
    """The service of a storage, started when it is first asked for."""
    with ExitStack() as stack:

        @cache
        def service(storage: str) -> Service:
            folder = tmp_path_factory.mktemp("http")
            shutil.copy(sqlite_template, folder / "file_service.db")
            return _started(stack, storage, folder, SETTINGS)

        yield service


@pytest.fixture(scope="session")
def _on_postgres(
    postgres: Postgres, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str], tuple[Service, str]]]:
    """The same with the name of its database."""
    with ExitStack() as stack:

        @cache
        def service(storage: str) -> tuple[Service, str]:
            name = f"t{uuid4().hex}"
            url = postgres.create_database(name, template="template")
            stack.callback(postgres.drop_database, name)
            settings = {**SETTINGS, "database_url": url}
            return _started(stack, storage, tmp_path_factory.mktemp("http"), settings), name

        yield service


@pytest.fixture(scope="module")
def service(storage: str, _on_sqlite: Callable[[str], Service]) -> Service:
    """The one that `store` watches."""
    return _on_sqlite(storage)


@pytest.fixture
def store(service: Service) -> Iterator[Store]:
    """The service, which takes files up to `MAX_FILE_SIZE`; afterwards nothing may be half stored or in the log."""
    yield from _watched(Store(service))


@pytest.fixture(params=["sqlite", "postgresql"])
def either_store(request: pytest.FixtureRequest, storage: str) -> Iterator[Store]:
    """`store` on either database."""
    if request.param == "sqlite":
        yield from _watched(Store(request.getfixturevalue("service")))
        return
    server: Postgres = request.getfixturevalue("postgres")
    service, database = request.getfixturevalue("_on_postgres")(storage)

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


def _started(stack: ExitStack, storage: str, folder: Path, settings: dict[str, Any]) -> Service:
    service = Service({"data_dir": folder, **settings}, place=PLACES[storage](folder)).start()
    stack.callback(_ended, service)
    return service


def _ended(service: Service) -> None:
    assert service.terminate() == 0


def _watched(store: Store) -> Iterator[Store]:
    yield store
    assert store.complaints() == ""
    store.holds(*(row.id for row in store.rows()))
    store.forget()
