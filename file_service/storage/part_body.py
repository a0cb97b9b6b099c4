"""The bytes of a part: gathered in memory of their own, and sent from there."""

from __future__ import annotations

import mmap
import os
from collections.abc import AsyncIterator

PIECE = 256 << 10  # bytes handed to the connection at once


class PartBuffer:
    """Room for `size` bytes, which take memory page by page as they come and give all of it back at once.

    Anonymous memory (mmap(2)), since the heap keeps what is freed between two things that live longer; no huge
    pages, of which the first byte would take a whole one.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.used = 0
        self._memory = mmap.mmap(-1, size)
        if hasattr(mmap, "MADV_NOHUGEPAGE"):
            self._memory.madvise(mmap.MADV_NOHUGEPAGE)

    @property
    def room(self) -> int:
        """Bytes it still takes."""
        return self.size - self.used

    def write(self, piece: memoryview) -> None:
        """Append."""
        self._memory[self.used : self.used + len(piece)] = piece
        self.used += len(piece)

    def content(self) -> memoryview:
        """What was written; the memory lives as long as anybody holds this."""
        return memoryview(self._memory)[: self.used]


class PartBody:
    """Bytes as botocore measures and signs them (a file) and as aiohttp sends them (pieces), without another copy.

    botocore would put plain bytes into an io.BytesIO, and aiohttp copy that as a whole.
    """

    def __init__(self, data: memoryview) -> None:
        self._data = data
        self._position = 0

    def __len__(self) -> int:
        return len(self._data)

    async def __aiter__(self) -> AsyncIterator[memoryview]:
        for start in range(0, len(self._data), PIECE):
            yield self._data[start : start + PIECE]

    def tell(self) -> int:
        """See io.IOBase.tell."""
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """See io.IOBase.seek."""
        self._position = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: len(self)}[whence]
        return self._position

    def read(self, size: int = -1) -> bytes:
        """See io.RawIOBase.read."""
        stop = len(self) if size < 0 else self._position + size
        piece = bytes(self._data[self._position : stop])
        self._position += len(piece)
        return piece
