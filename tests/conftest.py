"""Fixtures that every test may use: both databases, the service in this process, the service as a process."""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from file_service.db.migrate import migrate
from file_service.server import listening
from file_service.settings import Settings
from tests.support.places import PLACES, LocalPlace, Place
from tests.support.postgres import Postgres
from tests.support.process import Service

pytest_plugins = ["tests.support.scheduling", "tests.support.strict"]
DATABASES = ("sqlite", "postgresql")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--storage", type=_storages, help=f"the storages to run tests/http on, of {','.join(PLACES)}")


def _storages(value: str) -> list[str]:
    names = value.split(",")
    if unknown := {*names} - PLACES.keys():
        raise pytest.UsageError(f"--storage: there is no {', '.join(sorted(unknown))}")
    return names


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the caller's shell says about the service, tests say it themselves."""
    import os

    for name in [*os.environ]:
        if name.startswith(("FILE_SERVICE_", "AWS_")):
            monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A running PostgreSQL with a migrated template database; for tests that leave it running."""
    with Postgres() as server:
        migrate(server.create_database("template"))
        yield server


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated SQLite database to copy."""
    path = tmp_path_factory.mktemp("template") / "file_service.db"
    migrate(f"sqlite+aiosqlite:///{path}")
    return path


@pytest.fixture(params=DATABASES)
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A fresh, migrated database, once of either kind."""
    if request.param == "sqlite":
        template: Path = request.getfixturevalue("sqlite_template")
        path = tmp_path / "fresh.db"
        path.write_bytes(template.read_bytes())
        yield f"sqlite+aiosqlite:///{path}"
        return
    server: Postgres = request.getfixturevalue("postgres")
    name = f"t{uuid4().hex}"
    yield server.create_database(name, template="template")
    server.drop_database(name)


@pytest.fixture
def settings(tmp_path: Path, sqlite_template: Path) -> Callable[..., Settings]:
    """A maker of settings for a service on a free port over a fresh folder; keyword arguments override."""

    def make(**overrides: Any) -> Settings:
        folder = Path(overrides.get("data_dir", tmp_path / "data"))
        database = folder / "file_service.db"
        if "database_url" not in overrides and not database.exists():
            folder.mkdir(parents=True, exist_ok=True)
            database.write_bytes(sqlite_template.read_bytes())
        return Settings(**{"port": 0, "data_dir": folder, "durable": False, "drain_timeout": 1.0, **overrides})

    return make


@pytest.fixture
def placed() -> Callable[[Path], Place]:
    """Where the services of a test keep their bytes, by their folder."""
    return LocalPlace


@pytest.fixture
async def serve(
    settings: Callable[..., Settings], placed: Callable[[Path], Place], tmp_path: Path
) -> AsyncIterator[Callable[..., Any]]:
    """`url = await serve(max_file_size=5)` runs the service in this process until the test ends."""
    async with AsyncExitStack() as stack:

        async def start(**overrides: Any) -> str:
            place = placed(overrides.get("data_dir", tmp_path / "data"))
            stack.enter_context(place.here())
            return await stack.enter_async_context(listening(settings(**{**place.settings, **overrides})))

        yield start


@pytest.fixture
async def url(database_url: str, serve: Callable[..., Any]) -> str:
    """The address of a service with default settings, once on either database."""
    return str(await serve(database_url=database_url))


@pytest.fixture
def spawn(tmp_path: Path, placed: Callable[[Path], Place]) -> Iterator[Callable[..., Service]]:
    """`service = spawn(lease_time=1)` starts the service as a process of its own and waits until it is ready."""
    with ExitStack() as stack:

        def start(
            *, wait: bool = True, command: tuple[str, ...] = (), place: Place | None = None, **overrides: Any
        ) -> Service:
            settings = {"data_dir": tmp_path / "data", **overrides}
            service = Service(settings, command, place or placed(settings["data_dir"]))
            stack.callback(service.kill)
            return service.start(wait=wait)

        yield start
