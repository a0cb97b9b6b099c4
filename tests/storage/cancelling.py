"""Cancellation at every await of a coroutine, one after the other."""

import asyncio
import itertools
import types
from collections.abc import Callable, Coroutine, Generator
from typing import Any


async def cancelled_everywhere(
    work: Callable[[], Coroutine[Any, Any, Any]], afterwards: Callable[[], object], times: int = 1
) -> int:
    """Run `work` again and again, cancelled one await later each time, until it comes to its end; how often it did not.

    `times` cancellations hit that many awaits in a row, the later ones those of the cleanup. `afterwards` checks after
    every cancelled run. A cancellation that `work` swallows is an AssertionError.
    """
    for at in itertools.count(1):
        task: asyncio.Task[Any] = asyncio.create_task(_run(work(), range(at, at + times)))
        await asyncio.wait({task})
        if not task.cancelled():
            await task
            assert task.cancelling() == 0, f"the cancellation at await {at} was swallowed"
            return at - 1
        afterwards()
    raise AssertionError


async def _run(work: Coroutine[Any, Any, Any], at: range) -> Any:
    return await _interrupted(work, at)


@types.coroutine
def _interrupted(work: Coroutine[Any, Any, Any], at: range) -> Generator[Any, Any, Any]:
    """`await work`, in which the task cancels itself as soon as it waits for the `at`th time."""
    task = asyncio.current_task()
    assert task is not None
    error: BaseException | None = None
    for wait in itertools.count(1):
        try:
            awaited = work.throw(error) if error else work.send(None)
        except StopIteration as done:
            return done.value
        if wait in at:
            asyncio.get_running_loop().call_soon(task.cancel)
        try:
            error = None
            yield awaited
        except BaseException as thrown:  # noqa: BLE001 - it goes on into the coroutine
            error = thrown
    return None
