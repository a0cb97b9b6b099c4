"""The memory that the parts of all uploads take together.

A part takes memory as its bytes come, so that a slow client holds no more than it has sent, and gives it back when it
is uploaded. Many uploads that each hold half a part could then wait for each other for ever. They cannot, because the
last `largest` bytes are never given out piece by piece: once only they are left, whoever waits longest gets, as soon as
there is room, the whole rest of its part at once. Such a part waits for nobody any more; it is filled, uploaded and
given back, and then all memory but what unfinished parts hold is free again, which is `largest` or more: enough for
the rest of any part.
"""

from __future__ import annotations

import asyncio
from collections import deque


class PartMemory:
    """A budget of `size` bytes for parts of at most `largest` bytes each; those who wait are served in order."""

    def __init__(self, size: int, largest: int | None = None) -> None:
        self.size = size
        self.largest = size // 2 if largest is None else largest
        self.free = size
        self._waiting: deque[tuple[PartShare, asyncio.Future[None]]] = deque()
        if not 0 < self.largest <= size:
            raise ValueError(f"parts of {self.largest} bytes do not fit into a memory of {size}")

    def share(self, part: int) -> PartShare:
        """The share of a part of at most `part` bytes; it holds nothing yet."""
        if part > self.largest:
            raise ValueError(f"a part of {part} bytes is larger than {self.largest}")
        return PartShare(self, part)

    def take(self, size: int) -> bool:
        """Take `size` bytes unless the last ones would be touched; they are, as long as anybody waits."""
        if self.free - size < self.largest:
            return False
        self.free -= size
        return True

    async def rest(self, share: PartShare) -> None:
        """Wait until the whole rest of `share` is taken."""
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append((share, turn))
        self._serve()
        try:
            await turn
        except asyncio.CancelledError:
            self._serve()  # those behind it may have their turn now
            raise

    def give_back(self, size: int) -> None:
        """Put `size` bytes back."""
        self.free += size
        self._serve()

    def _serve(self) -> None:
        while self._waiting:
            share, turn = self._waiting[0]
            if not turn.cancelled():
                if self.free < share.missing:
                    return
                self.free -= share.missing
                share.held = share.part
                turn.set_result(None)
            self._waiting.popleft()


class PartShare:
    """What one part holds: `held` bytes taken, `used` of them filled."""

    def __init__(self, memory: PartMemory, part: int) -> None:
        self.part = part
        self.held = 0
        self.used = 0
        self._memory = memory

    @property
    def missing(self) -> int:
        """Bytes not yet taken."""
        return self.part - self.held

    async def grow(self, size: int) -> None:
        """Have room for `size` more bytes; waits while there is none."""
        lacking = self.used + size - self.held
        if lacking > 0:
            if self._memory.take(lacking):
                self.held += lacking
            else:
                await self._memory.rest(self)
        self.used += size

    def release(self) -> None:
        """Give everything back; repeatable."""
        held, self.held, self.used = self.held, 0, 0
        self._memory.give_back(held)
