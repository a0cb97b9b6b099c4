"""Whether an answer has arrived, for answers that are counted."""

import asyncio
import os
import socket
import struct
import sys
from typing import Self

from aiohttp import web

from file_service.handlers.sending import unacknowledged

LOOK = 0.02  # seconds between two looks at what is on its way
CLOSED = 7  # TCP_CLOSE (linux/include/net/tcp_states.h): reset by one side, or given up
INFO = struct.Struct("=B119xQ")  # tcpi_state and tcpi_bytes_acked of struct tcp_info (linux/include/uapi/linux/tcp.h)


class Arrival:
    """What the peer acknowledges of the answer that is sent while the block runs.

    A client may close the connection right after its last byte, and ours is closed with it: a second descriptor keeps
    the kernel's account of it (tcp(7), TCP_INFO) until the block ends. Only on Linux; elsewhere what was sent counts.
    """

    def __init__(self, request: web.Request) -> None:
        self._request = request
        self._socket: socket.socket | None = None
        self._before = 0

    def __enter__(self) -> Self:
        transport = self._request.transport
        if sys.platform == "linux" and transport is not None and not transport.is_closing():
            self._socket = socket.socket(fileno=os.dup(transport.get_extra_info("socket").fileno()))
            self._before = _account(self._socket)[1] + unacknowledged(self._request)
        return self

    def __exit__(self, *_: object) -> None:
        if self._socket is not None:
            self._socket.close()

    async def complete(self, idle: float) -> bool:
        """Whether all of it arrives; False when nothing more does for `idle` seconds, or the connection is reset."""
        if self._socket is None:
            return sys.platform != "linux"
        time = asyncio.get_running_loop().time
        wanted = self._before + self._request.writer.output_size
        state, arrived = _account(self._socket)
        since = time()
        while state != CLOSED and arrived < wanted and time() - since < idle:
            await asyncio.sleep(LOOK)
            before = arrived
            state, arrived = _account(self._socket)
            since = time() if arrived > before else since
        return state != CLOSED and arrived >= wanted


def _account(connection: socket.socket) -> tuple[int, int]:
    """The state of a connection, and how many bytes its peer has acknowledged in all."""
    state, acknowledged = INFO.unpack(connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, INFO.size))
    return int(state), int(acknowledged)
