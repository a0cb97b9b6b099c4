"""`python -m tests.support.memory_service serve`: the service with `MemoryStorage` in the place of the storage that the
settings name. DATA_DIR/memory.sock tells and changes what is in it: a line of JSON in, a line of JSON out, a connection
each.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import Any
from unittest import mock
from uuid import UUID

from file_service import app, cli
from file_service.settings import Settings
from tests.support.memory_storage import MemoryStorage

SOCKET = "memory.sock"
LONGEST = 1 << 27  # bytes in a line: a file in hex, and more


@asynccontextmanager
async def memory_storage(settings: Settings) -> AsyncIterator[MemoryStorage]:
    """Stands for `app.chosen_storage`."""
    storage = MemoryStorage(chunk_size=settings.chunk_size)
    path = settings.data_dir / SOCKET
    path.unlink(missing_ok=True)
    server = await asyncio.start_unix_server(partial(_answer, _questions(storage)), path, limit=LONGEST)
    try:
        yield storage
    finally:
        server.close()


@contextmanager
def in_place() -> Iterator[None]:
    """While the block runs an application that starts takes the memory for its storage."""
    with mock.patch.object(app, "chosen_storage", memory_storage):
        yield


def _questions(storage: MemoryStorage) -> dict[str, Callable[..., Any]]:
    def put(key: str, content: str) -> None:
        storage.published[UUID(key)] = bytes.fromhex(content)

    def lose(key: str) -> None:
        del storage.published[UUID(key)]

    return {
        "published": lambda: [key.hex for key in storage.published],
        "staged": lambda: [key.hex for key in storage.staged],
        "read": lambda key: storage.published[UUID(key)].hex(),
        "put": put,
        "lose": lose,
    }


async def _answer(
    questions: dict[str, Callable[..., Any]], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    name, *arguments = json.loads(await reader.readline())
    writer.write(json.dumps(questions[name](*arguments)).encode() + b"\n")
    await writer.drain()
    writer.close()


if __name__ == "__main__":
    with in_place():
        cli.main(prog_name="file-service")
