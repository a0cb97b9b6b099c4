"""What of an answer has arrived, for answers that are counted."""

import asyncio
import os
import socket
import struct
import sys
from collections import deque
from collections.abc import Sequence
from typing import Any, Self

from aiohttp import web

from file_service.handlers.sending import Download, unacknowledged

LOOK = 0.02  # seconds between two looks at what is on its way
CLOSED = 7  # TCP_CLOSE (linux/include/net/tcp_states.h): reset by one side, or given up
INFO = struct.Struct("=B119xQ")  # tcpi_state and tcpi_bytes_acked of struct tcp_info (linux/include/uapi/linux/tcp.h)
LATEST = 4096  # chunks remembered: more than can be on their way at once
Span = tuple[int, int]


class Marked(Download):
    """A response that remembers where on the wire its chunks end."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._written = 0
        self._marks: deque[tuple[int, int]] = deque(maxlen=LATEST)  # length of a chunk, where it ends on the wire

    async def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send a chunk; it is remembered too when the connection breaks meanwhile."""
        try:
            await super().write(data)
        finally:
            self._mark(len(data), b"\r\n")

    async def write_eof(self, data: bytes = b"") -> None:
        """Send the only chunk, or the end."""
        try:
            await super().write_eof(data)
        finally:
            self._mark(len(data), b"\r\n0\r\n\r\n")

    def body_within(self, arrived: int) -> int:
        """How many bytes of the body are among the first `arrived` bytes of the answer on the wire."""
        return self._written - sum(min(length, max(end - arrived, 0)) for length, end in self._marks)

    def _mark(self, length: int, framing: bytes) -> None:
        if self._payload_writer is not None:
            self._written += length
            self._marks.append((length, self._payload_writer.output_size - (len(framing) if self.chunked else 0)))


class Arrival:
    """What the peer acknowledges of the answer that is sent while the block runs.

    A client may close the connection right after its last byte, and ours is closed with it: a second descriptor keeps
    the kernel's account of it (tcp(7), TCP_INFO) until the block ends. Only on Linux; elsewhere what was sent counts.
    """

    def __init__(self, request: web.Request) -> None:
        self._request = request
        self._socket: socket.socket | None = None
        self._before = 0
        self._sent = False

    def __enter__(self) -> Self:
        transport = self._request.transport
        if sys.platform == "linux" and transport is not None and not transport.is_closing():
            self._socket = socket.socket(fileno=os.dup(transport.get_extra_info("socket").fileno()))
            self._before = self._account()[1] + unacknowledged(self._request)
        return self

    def __exit__(self, *_: object) -> None:
        if self._socket is not None:
            self._socket.close()

    async def completed(self, idle: float) -> None:
        """All was sent: return when it has arrived, at a reset, or when nothing more arrives for `idle` seconds."""
        self._sent = True
        time = asyncio.get_running_loop().time
        (is_open, arrived), since = self._account(), time()
        while is_open and not self._is_all(arrived) and time() - since < idle:
            await asyncio.sleep(LOOK)
            before = arrived
            is_open, arrived = self._account()
            since = time() if arrived > before else since

    def of(self, spans: Sequence[Span], response: Marked) -> Sequence[Span]:
        """Which of the bytes `spans`, which `response` sends, have arrived; of several spans all or none.

        A reset connection has never brought everything: its peer may have dropped what it had not yet read.
        """
        is_open, arrived = self._account()
        if self._sent and (sys.platform != "linux" or (is_open and self._is_all(arrived))):
            return spans
        start, stop = spans[0]
        got = min(response.body_within(arrived - self._before), stop - start - 1)
        return [(start, start + got)] if got > 0 and len(spans) == 1 else ()

    def _is_all(self, arrived: int) -> bool:
        return arrived - self._before >= self._request.writer.output_size

    def _account(self) -> tuple[bool, int]:
        """Whether the connection is not reset, and how many bytes its peer has acknowledged in all."""
        if self._socket is None:
            return False, 0
        state, acknowledged = INFO.unpack(self._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, INFO.size))
        return state != CLOSED, int(acknowledged)
