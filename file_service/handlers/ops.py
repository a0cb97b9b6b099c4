"""Health: is the process alive, and can it do its work."""

import asyncio
from collections.abc import Awaitable, Callable

from aiohttp import web

from file_service.errors import ServiceError
from file_service.handlers.keys import PARTS, STATE

PATIENCE = 3.0  # seconds a part may take to answer


async def live(_: web.Request) -> web.Response:
    """200 as long as the event loop turns."""
    return web.json_response({"status": "ok"})


async def ready(request: web.Request) -> web.Response:
    """200 when every part answers, else 503 naming those that do not."""
    parts = request.app[PARTS]
    problems = await asyncio.gather(*(_problem(check) for check in parts.values()))
    failing = {part: problem for part, problem in zip(parts, problems, strict=True) if problem}
    if request.app[STATE].draining:
        failing["service"] = "It is shutting down."
    status = "failing" if failing else "ok"
    return web.json_response({"status": status, "failing": failing}, status=503 if failing else 200)


async def _problem(check: Callable[[], Awaitable[None]]) -> str | None:
    try:
        async with asyncio.timeout(PATIENCE):
            await check()
    except ServiceError as error:
        return error.detail
    except TimeoutError:
        return "It does not answer in time."
    return None
