"""What a failed S3 request means, and which are worth another try.

botocore's own retries are switched off where we make the client: they know nothing of a part damaged on its way
(BadDigest), of credentials or clocks that are put right meanwhile, or of a server that stops reading, which no timeout
of aiohttp ends; and two layers of retries multiply. A client that brings them along works all the same.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import TypeVar

import aiohttp
from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError, IncompleteReadError
from botocore.exceptions import ConnectionError as NoConnection
from botocore.parsers import ResponseParserError
from tenacity import AsyncRetrying, retry_if_exception, stop_after_attempt, stop_after_delay, wait_random_exponential

T = TypeVar("T")
BROKEN = (HTTPClientError, NoConnection, IncompleteReadError, aiohttp.ClientError, OSError, TimeoutError)
FAILURES = (ClientError, BotoCoreError, ResponseParserError, *BROKEN)
SLOWEST = 64 << 10  # bytes a second; a request whose body goes slower is dead
AGAIN = {
    "BadDigest",
    "ConditionalRequestConflict",
    "ExpiredToken",
    "IncompleteBody",
    "InternalError",
    "OperationAborted",
    "RequestTimeTooSkewed",
    "RequestTimeout",
    "ServiceUnavailable",
    "SlowDown",
    "TokenRefreshRequired",
    "XAmzContentSHA256Mismatch",
}
AGAIN_STATUSES = {429, 500, 502, 503, 504}


def code_of(error: BaseException) -> str:
    """The store's word for the error: `NoSuchKey`; a bare status for an answer to HEAD; empty when none answered."""
    return error.response.get("Error", {}).get("Code", "") if isinstance(error, ClientError) else ""


def status_of(error: BaseException) -> int:
    """The HTTP status of the answer, 0 when there was none."""
    if not isinstance(error, ClientError):
        return 0
    return error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)


def is_missing(error: BaseException) -> bool:
    """Whether the store knows no such object or upload; a missing bucket is another matter."""
    return status_of(error) == HTTPStatus.NOT_FOUND and code_of(error) != "NoSuchBucket"


def is_transient(error: BaseException) -> bool:
    """Whether the same request may well succeed later."""
    if isinstance(error, ClientError):
        return code_of(error) in AGAIN or status_of(error) in AGAIN_STATUSES
    return isinstance(error, (*BROKEN, ResponseParserError))


@dataclass(frozen=True, slots=True)
class Patience:
    """How often a request is tried, and how long one try may take.

    `first` and `longest` are the seconds within which the first and the last pause lie, at random; no try begins after
    `total` seconds. `timeout` seconds may pass without an answer; a request with a body has time to send it on top.
    """

    attempts: int = 8
    first: float = 0.2
    longest: float = 10.0
    total: float = 120.0
    timeout: float = 60.0

    async def __call__(self, call: Callable[[], Awaitable[T]], size: int = 0) -> T:
        """The result of `call`, a request with a body of `size` bytes; the last error when all tries failed."""
        retrying = AsyncRetrying(
            retry=retry_if_exception(is_transient),
            stop=stop_after_attempt(self.attempts) | stop_after_delay(self.total),
            wait=wait_random_exponential(multiplier=self.first, max=self.longest),
            reraise=True,
        )
        return await retrying(self._once, call, size)

    async def _once(self, call: Callable[[], Awaitable[T]], size: int) -> T:
        async with asyncio.timeout(self.timeout + size / SLOWEST):
            return await call()
