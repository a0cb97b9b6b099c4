"""Sending takes the same memory whatever the size: measured in a process of its own."""

import asyncio
import os
import sys
from pathlib import Path

import pytest

from tests.clients.bot_server import TOKEN, BotServer

ROOT = Path(__file__).parent.parent.parent
SIZE = 512 << 20  # bytes
GROWTH = 32 << 10  # KiB
SENDER = """
import asyncio, sys
from pathlib import Path
from file_service.clients.telegram import TelegramClient

def peak():
    return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0])

async def blocks(size):
    for _ in range(size >> 20):
        yield bytes(1 << 20)

async def main(token, url, path, size):
    async with TelegramClient(token, url, upload_limit=None) as client:
        await client.send_document(1, blocks(8 << 20), size=8 << 20)
        before = peak()
        for document in (path, blocks(size)):
            await client.send_document(1, document)
        print(peak() - before)

token, url, path, size = sys.argv[1:]
asyncio.run(main(token, url, path, int(size)))
"""


@pytest.mark.timeout(120)
async def test_half_a_gibibyte_is_sent_in_constant_memory(server: BotServer, tmp_path: Path) -> None:
    large = tmp_path / "large"
    large.touch()
    os.truncate(large, SIZE)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    arguments = [sys.executable, "-c", SENDER, TOKEN, server.url, str(large), str(SIZE)]
    process = await asyncio.create_subprocess_exec(*arguments, env=environment, stdout=asyncio.subprocess.PIPE)
    output, _ = await process.communicate()
    assert process.returncode == 0
    assert [call.size for call in server.calls] == [8 << 20, SIZE, SIZE]
    assert "Content-Length" in server.calls[1].headers
    assert "Content-Length" not in server.calls[2].headers
    assert len({call.sha256 for call in server.calls[1:]}) == 1
    assert int(output) < GROWTH
