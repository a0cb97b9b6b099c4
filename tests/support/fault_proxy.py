"""A TCP proxy in front of PostgreSQL that can be down, and that loses a COMMIT or the answer to it.

It understands just as much of the protocol as that takes: a transaction is what a connection sends from its BEGIN on,
the driver sends COMMIT in one piece, and the server's next bytes answer it (PostgreSQL documentation, "Message Flow").
"""

import asyncio
import socket
import struct
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from typing import Self

from sqlalchemy.engine import make_url

PIECE = 1 << 16
RESET = struct.pack("ii", 1, 0)  # socket(7), SO_LINGER: close() sends RST
COMMITTED = b"COMMIT\0"  # the tag of CommandComplete


class Loss(Enum):
    """What becomes of a COMMIT."""

    REQUEST = "it never reaches the server, and the connection breaks: rolled back"
    ANSWER = "it reaches the server, and the connection breaks before the answer: committed"
    SILENCE = "it reaches the server, and nobody ever hears of it: committed"


@dataclass(frozen=True)
class Fault:
    """What to lose: the COMMIT of a transaction in which the client sent `containing`; and whether to be down then."""

    loss: Loss
    containing: bytes
    stay_down: bool


@dataclass(eq=False)
class _Link:
    """One client's connection and ours to the server."""

    client: asyncio.StreamWriter
    server: asyncio.StreamWriter
    sent: bytes = b""
    fault: Fault | None = None

    def cut(self) -> None:
        """Reset both sides."""
        for writer in (self.client, self.server):
            with suppress(OSError):
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            writer.transport.abort()


class FaultProxy:
    """`async with FaultProxy(5432) as proxy: connect(proxy.url(url))`; it needs the loop it was made in.

    `lost` is set when a COMMIT was lost; `stay_down` keeps the proxy down from then on.
    """

    def __init__(self, upstream: int) -> None:
        self.lost = asyncio.Event()
        self.port = 0
        self._upstream = upstream
        self._links: set[_Link] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self._armed: Fault | None = None

    async def __aenter__(self) -> Self:
        await self.up()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.down()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def url(self, url: str) -> str:
        """The address `url` by way of this proxy."""
        return make_url(url).set(port=self.port).render_as_string(hide_password=False)

    async def up(self) -> None:
        """Take connections, on the same port as before."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    def down(self) -> None:
        """Cut every connection and refuse new ones."""
        if self._server is not None:
            self._server.close()
            self._server = None
        self.cut()

    def cut(self) -> None:
        """Cut every connection."""
        for link in list(self._links):
            link.cut()

    def lose(self, loss: Loss, containing: bytes = b"", *, stay_down: bool = False) -> None:
        """Lose the next COMMIT of a transaction in which the client sent the bytes `containing`."""
        self.lost.clear()
        self._armed = Fault(loss, containing, stay_down)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            from_server, to_server = await asyncio.open_connection("127.0.0.1", self._upstream)
        except OSError:
            writer.transport.abort()
            return
        link = _Link(writer, to_server)
        self._links.add(link)
        try:
            await asyncio.gather(self._requests(reader, link), self._answers(from_server, link))
        finally:
            self._links.discard(link)

    async def _requests(self, reader: asyncio.StreamReader, link: _Link) -> None:
        with suppress(OSError):
            while data := await reader.read(PIECE):
                link.sent = data if b"BEGIN" in data else link.sent + data
                if b"COMMIT" in data and self._armed and self._armed.containing in link.sent:
                    link.fault, self._armed = self._armed, None
                if link.fault and link.fault.loss is Loss.REQUEST:
                    self._lost(link, link.fault)
                    break
                link.server.write(data)
                await link.server.drain()
        link.server.transport.abort()

    async def _answers(self, reader: asyncio.StreamReader, link: _Link) -> None:
        answer = b""
        with suppress(OSError):
            while data := await reader.read(PIECE):
                answer += data if link.fault else b""
                if link.fault is None:
                    link.client.write(data)
                    await link.client.drain()
                elif COMMITTED in answer:
                    self._lost(link, link.fault)
        link.client.transport.abort()

    def _lost(self, link: _Link, fault: Fault) -> None:
        if fault.loss is not Loss.SILENCE:
            link.cut()
        if fault.stay_down:
            self.down()
        self.lost.set()
