"""The steps of an upload and of a delete: every system call that changes the disk, and the answer.

Found with strace; `test_every_call_that_changes_something_has_its_death` keeps the tables complete.
"""

from dataclasses import dataclass
from random import Random

from tests.crash.checker import Debris

BLOCK = 4096  # what the services of these tests write at once
ANSWER = "write"  # as uvloop sends


@dataclass(frozen=True)
class Step:
    """Death before the `when`th `call` on the path `where` (see `places`), with `sent` of the request sent before.

    `left` is what lies there afterwards; it also proves that the signal came when it should.
    """

    name: str
    sent: str
    call: str
    where: str
    left: Debris
    when: int = 1

    @property
    def lease(self) -> float:
        """Seconds; a step in the database needs room between two beats, the others are the sooner over."""
        return 2.0 if self.where == "wal" else 0.3

    def __str__(self) -> str:
        return self.name.replace(" ", "-")


ONE, TWO = Random(1).randbytes(16 * BLOCK), Random(2).randbytes(8 * BLOCK)

NOTHING = Debris()
BEGUN = Debris(("receiving",))
OPEN = Debris(("receiving",), temporary=1)
BOTH = Debris(("receiving",), temporary=1, published=1)
PUBLISHED = Debris(("receiving",), published=1)
STORED = Debris(("stored",), published=1)

RAW = [
    Step("intent written", "nothing", "pwrite64", "wal", NOTHING),
    Step("intent synced", "nothing", "fdatasync", "wal", BEGUN),
    Step("temporary file opened", "nothing", "openat", "tmp", BEGUN, when=2),  # the first opens the folder
    Step("temporary file there", "nothing", "close", "tmp", OPEN),
    Step("first write", "head", "pwrite64", "file", OPEN),
    Step("last write", "most", "pwrite64", "file", OPEN),
    Step("file synced", "most", "fsync", "file", OPEN),
    Step("file closed", "most", "close", "file", OPEN),
    Step("first folder made", "most", "mkdirat", "objects", OPEN),
    Step("first folder synced", "most", "fsync", "objects", OPEN),
    Step("second folder made", "most", "mkdirat", "first", OPEN),
    Step("second folder synced", "most", "fsync", "first", OPEN),
    Step("linked", "most", "linkat", "tmp", OPEN),
    Step("unlinked", "most", "unlinkat", "tmp", BOTH),
    Step("folder synced", "most", "fsync", "shard", PUBLISHED),
    Step("folder closed", "most", "close", "shard", PUBLISHED),
    Step("row written", "most", "pwrite64", "wal", PUBLISHED),
    Step("row synced", "most", "fdatasync", "wal", STORED),
    Step("answered", "most", ANSWER, "connection", STORED),
]

TWO_BEGUN = ("receiving", "receiving")
FORM = [
    Step("first file linked", "most of the first", "linkat", "tmp", OPEN),
    Step("first file unlinked", "most of the first", "unlinkat", "tmp", BOTH),
    Step("first folder synced", "most of the first", "fsync", "shard", PUBLISHED),
    Step("second intent synced", "most of the first", "fdatasync", "wal", Debris(TWO_BEGUN, published=1)),
    Step("second file synced", "most", "fsync", "file", Debris(TWO_BEGUN, temporary=1, published=1)),
    Step("second file linked", "most", "linkat", "tmp", Debris(TWO_BEGUN, temporary=1, published=1)),
    Step("second file unlinked", "most", "unlinkat", "tmp", Debris(TWO_BEGUN, temporary=1, published=2)),
    Step("second folder synced", "most", "fsync", "shard", Debris(TWO_BEGUN, published=2)),
    Step("rows written", "most", "pwrite64", "wal", Debris(TWO_BEGUN, published=2)),
    Step("rows synced", "most", "fdatasync", "wal", Debris(("stored", "stored"), published=2)),
    Step("answered", "most", ANSWER, "connection", Debris(("stored", "stored"), published=2)),
]

DELETE = [
    Step("deletion written", "nothing", "pwrite64", "wal", STORED),
    Step("deletion synced", "nothing", "fdatasync", "wal", Debris(("deleting",), published=1)),
    Step("temporary file unlinked", "nothing", "unlinkat", "tmp", Debris(("deleting",), published=1)),
    Step("file unlinked", "nothing", "unlinkat", "shard", Debris(("deleting",), published=1)),
    Step("folder synced", "nothing", "fsync", "shard", Debris(("deleting",))),
    Step("folder closed", "nothing", "close", "shard", Debris(("deleting",))),
    Step("row removed", "nothing", "fdatasync", "wal", NOTHING, when=2),
    Step("answered", "nothing", ANSWER, "connection", NOTHING),
]
