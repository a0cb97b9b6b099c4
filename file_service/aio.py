"""Small asyncio helpers that several layers share."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


async def uncancelled(work: Coroutine[Any, Any, T]) -> T:
    """Run `work` to its end even when the caller is cancelled; the cancellation is raised afterwards.

    A cancelled database call leaves its connection in an unknown state, and a cancelled disk write still runs in its
    thread: both must have ended before anything is cleaned up.
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
        if not task.cancelled():
            task.exception()  # retrieved, so that it is not reported as lost
        raise
