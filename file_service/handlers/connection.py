"""One connection: what is answered to bytes that are no request, and how long a refused body is read on."""

import logging
import re
from typing import Any

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from file_service.handlers.middlewares import failures, problem, protect

log = logging.getLogger(__name__)
KEEPALIVE = 75.0  # seconds an idle connection, or one that sends no headers, is kept
LINGER = 10.0  # seconds a refused body is read on, so that its client sees the answer and not a reset
BRIEF = 1.0  # seconds for the same when the answer ends the connection: its client is silent, waits, or sends no HTTP


class Connection(web.RequestHandler):
    """aiohttp's, with answers in our form."""

    __slots__ = ()

    def __init__(self, manager: web.Server, **options: Any) -> None:
        options |= {"access_log": None, "auto_decompress": False}
        super().__init__(manager, keepalive_timeout=KEEPALIVE, lingering_time=LINGER, **options)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """A problem, for what no handler gets to see: the connection ends with it."""
        detail = "The service failed; the reason is in its log."
        if isinstance(exc, HttpProcessingError):
            reason = re.split("[:\n]", exc.message)[0].rstrip(".")  # after which its bytes are shown
            log.info("%s not HTTP: %a", request.remote, reason)
            detail = f"This cannot be read as HTTP: {reason}."
        else:
            failures.error("a request failed outside of its handler", exc_info=exc)
        if request.writer.output_size:
            raise ConnectionError("An answer has begun, no other can be sent.")
        response = problem(status, detail)
        protect(response)
        response.force_close()
        return response

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Send the answer."""
        if resp.keep_alive is False:
            self._lingering_time = BRIEF
        return await super().finish_response(request, resp, start_time)
