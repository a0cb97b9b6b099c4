"""The operating system's errors in our words, and its page cache."""

import errno
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

from file_service.errors import ServiceError, StorageFailed, StorageFull, Unavailable

log = logging.getLogger(__name__)
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
AWAY = {errno.ENOENT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EMFILE, errno.ENFILE, errno.ENODEV, errno.ESTALE}


@contextmanager
def renamed() -> Iterator[None]:
    """Turn an operating system error into one of ours; aiofile's native backends lose the number, not the text."""
    try:
        yield
    except (OSError, SystemError) as error:
        log.warning("storage: %s", error)
        raise translated(error) from error


def translated(error: OSError | SystemError) -> ServiceError:
    """The service's error for `error`."""
    numbers = {error.errno} if isinstance(error, OSError) else {n for n in FULL if os.strerror(n) in str(error)}
    if numbers & FULL:
        return StorageFull()
    return Unavailable("storage") if numbers & AWAY else StorageFailed()


def read_cached(fd: int, start: int, count: int) -> bytes:
    """Up to `count` bytes from `start` out of the page cache; BlockingIOError when the disk would have to be asked.

    preadv(2), RWF_NOWAIT, tells whether the first and the last byte are there; what lies between came with them. A
    filesystem or system that has no such flag counts as one that would have to be asked.
    """
    byte = bytearray(1)
    try:
        for place in (start, start + count - 1):
            os.preadv(fd, [byte], place, os.RWF_NOWAIT)
    except (OSError, AttributeError) as error:
        raise BlockingIOError from error
    return os.pread(fd, count, start)
