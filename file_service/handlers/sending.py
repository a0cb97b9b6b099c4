"""Getting a streamed answer out: progress watched, memory bounded, and no short body that looks like a whole one."""

import asyncio
import fcntl
import logging
import socket
import struct
import sys
import termios
from collections.abc import AsyncIterator

from aiohttp import web

from file_service.errors import ServiceError

log = logging.getLogger(__name__)
TICKS = 4  # looks at the socket within one idle time


class Download(web.StreamResponse):
    """A streamed response whose headers leave together with its first bytes."""

    _send_headers_immediately = False  # aiohttp does so for its own whole responses; one packet instead of two


async def send(request: web.Request, response: web.StreamResponse, chunks: AsyncIterator[bytes], idle: float) -> None:
    """Send `chunks` as the body; a body of one chunk is one packet, headers included.

    What is wrong with the first two chunks is raised before the headers, and can still be answered. What goes wrong
    after the headers ends in a connection reset and is raised too: some clients take a plain close inside a chunked
    body for its end (wget 1.21). A reader that takes nothing for `idle` seconds is reset: ConnectionError.
    """
    begin = [await anext(chunks, b""), await anext(chunks, b"")]
    try:
        with Watch(request, idle):
            await response.prepare(request)
            if begin[1]:
                _reset_at_close(request, True)  # the kernel's close, too, should this process be killed meanwhile
                await _stream(response, begin, chunks)
                await _flushed(request)
                _reset_at_close(request, False)
            else:
                await response.write_eof(begin[0])
    except BaseException as error:
        if isinstance(error, ServiceError):
            log.warning("%s %s: cut: %s", request.method, request.rel_url.raw_path, error.detail)
        reset(request)
        raise


async def _stream(response: web.StreamResponse, begin: list[bytes], chunks: AsyncIterator[bytes]) -> None:
    while begin:
        await response.write(begin.pop(0))  # not kept while the rest is sent
    async for chunk in chunks:
        await response.write(chunk)
    await response.write_eof()


async def _flushed(request: web.Request) -> None:
    """Return when the kernel has all of it: nobody watches over what stays in our own buffer."""
    if request.transport is not None:
        request.transport.set_write_buffer_limits(0)
        await request.writer.drain()
    if request.transport is not None:
        request.transport.set_write_buffer_limits()


class Watch:
    """Resets the connection when its peer acknowledges nothing for `idle` seconds although bytes wait for it."""

    def __init__(self, request: web.Request, idle: float) -> None:
        self._request, self._idle = request, idle
        self._loop = asyncio.get_running_loop()
        self._taken, self._since = -1, self._loop.time()
        self._timer = self._loop.call_later(idle / TICKS, self._look)

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()

    def _look(self) -> None:
        waiting, now = unacknowledged(self._request), self._loop.time()
        taken = self._request.writer.output_size - waiting
        if taken > self._taken or not waiting:
            self._taken, self._since = taken, now
        elif now - self._since >= self._idle:
            log.info("%s %s: the client stopped reading", self._request.method, self._request.rel_url.raw_path)
            reset(self._request)
            return
        self._timer = self._loop.call_later(self._idle / TICKS, self._look)


def unacknowledged(request: web.Request) -> int:
    """Bytes handed over that the peer has not acknowledged: those in our buffer and the kernel's (tcp(7), SIOCOUTQ)."""
    transport = request.transport
    if transport is None or transport.is_closing():
        return 0
    queued = 0
    connection = transport.get_extra_info("socket")
    if sys.platform == "linux" and connection is not None:
        queued = struct.unpack("i", fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, b"\0" * 4))[0]
    return int(transport.get_write_buffer_size()) + queued


def reset(request: web.Request) -> None:
    """End the connection with RST instead of FIN."""
    _reset_at_close(request, True)
    if request.transport is not None:
        request.transport.abort()


def _reset_at_close(request: web.Request, wanted: bool) -> None:
    """Whether the end of the connection is RST instead of FIN (socket(7), SO_LINGER)."""
    transport = request.transport
    if transport is None or transport.is_closing():  # its descriptor may be another's by now
        return
    connection = transport.get_extra_info("socket")
    if connection is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", wanted, 0))
