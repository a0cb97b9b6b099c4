"""Another server on a loopback address, that says and does what it is told, byte by byte."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from ssl import SSLContext

NOW = struct.pack("ii", 1, 0)  # closing then sends RST (socket(7))


@dataclass
class Visit:
    """A request, as it stood on the wire, and the connection to answer it on."""

    head: bytes
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    @property
    def path(self) -> str:
        return self.head.split()[1].decode()

    async def say(self, *pieces: bytes, pause: float = 0.02) -> None:
        """Send the pieces one by one, so that they arrive one by one."""
        for number, piece in enumerate(pieces):
            await asyncio.sleep(pause if number else 0)
            self.writer.write(piece)
            await self.writer.drain()

    async def answer(self, body: bytes = b"", *headers: str, status: int = 200) -> None:
        """A complete answer with a Content-Length."""
        lines = [f"HTTP/1.1 {status} Whatever", f"Content-Length: {len(body)}", *headers]
        await self.say("\r\n".join([*lines, "", ""]).encode() + body)

    async def redirect(self, location: str, status: int = 302) -> None:
        """Send the client elsewhere."""
        await self.answer(b"elsewhere", f"Location: {location}", status=status)

    def reset(self) -> None:
        """Break the connection off with RST."""
        self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NOW)
        self.writer.transport.abort()

    async def until_left(self) -> None:
        """Return when the client has closed the connection."""
        with suppress(ConnectionError):
            while await self.reader.read(65536):
                continue


Conversation = Callable[[Visit], Awaitable[None]]


async def hello(visit: Visit) -> None:
    """What is answered unless a test says otherwise."""
    await visit.answer(b"hello")


@dataclass
class Upstream:
    """`conversations` by path; every request is in `heads`."""

    url: str = ""
    conversations: dict[str, Conversation] = field(default_factory=dict)
    heads: list[bytes] = field(default_factory=list)

    def says(self, conversation: Conversation, path: str = "/file") -> str:
        """The URL under which this is said."""
        self.conversations[path.partition("?")[0]] = conversation
        return self.url + path

    def sends(self, *pieces: bytes, path: str = "/file", pause: float = 0.02) -> str:
        """The URL under which these bytes are sent, then the connection is closed."""
        return self.says(lambda visit: visit.say(*pieces, pause=pause), path)

    async def converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            visit = Visit(await reader.readuntil(b"\r\n\r\n"), reader, writer)
            self.heads.append(visit.head)
            await self.conversations.get(visit.path.partition("?")[0], hello)(visit)
        except (ConnectionError, asyncio.IncompleteReadError):
            return  # the client has left
        finally:
            writer.close()


@asynccontextmanager
async def upstream_server(host: str = "127.0.0.1", ssl: SSLContext | None = None) -> AsyncIterator[Upstream]:
    """The server, listening at its `url`."""
    upstream, running = Upstream(), set[asyncio.Task[None]]()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        running.add(task)
        with suppress(asyncio.CancelledError):
            await upstream.converse(reader, writer)

    server = await asyncio.start_server(connected, host, 0, ssl=ssl)
    port = server.sockets[0].getsockname()[1]
    upstream.url = f"{'https' if ssl else 'http'}://{f'[{host}]' if ':' in host else host}:{port}"
    try:
        yield upstream
    finally:
        server.close()
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
