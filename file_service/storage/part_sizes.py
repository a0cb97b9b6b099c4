"""How an object is cut into parts.

Amazon S3 User Guide, "Amazon S3 multipart upload limits": parts 1 to 10,000, each of 5 MiB to 5 GiB, the last of any
size. Other stores allow 5 TiB for the whole where Amazon now allows 48.8, so 5 TiB is what the sizes are made to reach.
"""

from dataclasses import dataclass
from math import ceil

KIB, MIB, GIB, TIB = 1 << 10, 1 << 20, 1 << 30, 1 << 40
LARGEST = 5 * GIB


class TooManyParts(Exception):
    """The object would need more parts than a store takes."""


@dataclass(frozen=True, slots=True)
class PartSizes:
    """The size in bytes of each part, by its number alone: whoever sends part n, it has the same place in the object.

    With a known `length` all parts are as large as the longest object needs, `part_size` at least. Without one they
    begin at `part_size` and grow so slowly that a stream of a few GiB is still cut small, and so far that all of them
    together reach `reach`: the sum of 3 * (n / N)**2 over n = 1..N is N at least, so the mean part is `reach / N`.
    `equal` keeps every part at `part_size`, as Cloudflare R2 wants it. No part is larger than `largest`, which is what
    the memory allows; a smaller `largest` ends the growth, and the reach, early.
    """

    part_size: int = 8 * MIB
    smallest: int = 5 * MIB
    largest: int = LARGEST
    length: int | None = None
    equal: bool = False
    parts: int = 10_000
    reach: int = 5 * TIB

    def __post_init__(self) -> None:
        if not 0 < self.smallest <= self.part_size <= self.largest <= LARGEST:
            raise ValueError(f"parts of {self.part_size} bytes: {self.smallest} to {self.largest} can be had")
        if self.length is not None and self.length > self.parts * self._fitting(self.length):
            raise TooManyParts(f"{self.length} bytes do not fit into {self.parts} parts that can be had")

    def size(self, number: int) -> int:
        """The size of part `number`, counted from 1; `TooManyParts` past the last that a store takes."""
        if number > self.parts:
            raise TooManyParts(f"more than {self.parts} parts")
        if self.length is not None:
            return self._fitting(self.length)
        growth = 0 if self.equal else max(0, 3 * (self.reach / self.parts - self.part_size))
        return min(self.largest, self.part_size + ceil(growth * (number / self.parts) ** 2))

    def _fitting(self, length: int) -> int:
        return self.part_size if self.equal else min(self.largest, max(self.part_size, ceil(length / self.parts)))
