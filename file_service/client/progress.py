"""How those who wait learn how far a transfer is."""

from collections.abc import Callable

Progress = Callable[[int, int | None], None]  # bytes so far, bytes in all where known


def unseen(_done: int, _total: int | None) -> None:
    """Progress that nobody looks at."""
