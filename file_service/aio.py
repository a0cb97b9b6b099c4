"""Small asyncio helpers that several layers share."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


async def uncancelled(work: Coroutine[Any, Any, T], unwanted: Callable[[T], object] | None = None) -> T:
    """Run `work` to its end even when the caller is cancelled; the cancellation is raised afterwards.

    A cancelled database call leaves its connection in an unknown state, and a cancelled disk write still runs in its
    thread: both must have ended before anything is cleaned up. What `work` returned goes to `unwanted` when nobody is
    there any more to take it: a file just opened has to be closed.
    """
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        while not task.done():
            try:
                await asyncio.wait({task})
            except asyncio.CancelledError:
                continue
        # An exception that is looked at is not reported as lost.
        if not task.cancelled() and task.exception() is None and unwanted is not None:
            unwanted(task.result())
        raise
