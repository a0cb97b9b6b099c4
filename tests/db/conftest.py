"""The repositories on a fresh database of either kind."""

from collections.abc import AsyncIterator

import pytest

from file_service.db.engine import Database, connected
from file_service.db.files import Files
from file_service.db.replicas import Replicas


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    async with connected(database_url, pool_size=5, timeout=2, durable=False) as database:
        yield database


@pytest.fixture
def files(database: Database) -> Files:
    return Files(database)


@pytest.fixture
def replicas(database: Database) -> Replicas:
    return Replicas(database)
