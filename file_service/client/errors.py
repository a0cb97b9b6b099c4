"""What can go wrong with a transfer, as one tree, and the borders where foreign errors become part of it.

TransferError
├── AnsweredError
│   ├── RefusedByServer     an answer 3xx or 4xx
│   └── ServerFailed        an answer 5xx, or one that cannot be right
├── ServerUnreachable       no connection, or it broke, or nothing moved any more
├── ImportFailed            the server did not get the file that it was to import
├── DigestMismatch          the bytes at the other end are not those at this end
└── LocalProblem            a file here cannot be read or written, or changed meanwhile
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import aiohttp

PASSING = frozenset({408, 429, 502, 503, 504})  # statuses that another try may not get


class TransferError(Exception):
    """A file was not sent or not fetched; the text says why. `passing`: the same again may go well."""

    passing = False


class AnsweredError(TransferError):
    """The server answered, and not with what was asked for. `retry_after` is seconds, None when not told."""

    def __init__(self, status: int, detail: str, retry_after: float | None = None) -> None:
        super().__init__(f"{detail} ({status})")
        self.status, self.detail, self.retry_after = status, detail, retry_after
        self.passing = status in PASSING


class RefusedByServer(AnsweredError):
    """A status of 300 to 499: the request would have to change."""


class ServerFailed(AnsweredError):
    """A status of 500 or more, or a success that makes no sense."""


class ServerUnreachable(TransferError):
    """There was no answer."""

    def __init__(self, reason: str, *, passing: bool = True) -> None:
        super().__init__(reason)
        self.passing = passing


class ImportFailed(TransferError):
    """The import failed, or somebody else cancelled it; the text is the server's."""


class DigestMismatch(TransferError):
    """The SHA-256 that the server announced is not that of the bytes here."""

    def __init__(self) -> None:
        super().__init__("The SHA-256 of the bytes here is not the one that the server has.")


class LocalProblem(TransferError):
    """This end failed."""


@contextmanager
def local_problems() -> Iterator[None]:
    """Turn OSError into `LocalProblem`."""
    try:
        yield
    except OSError as error:
        named = f"{error.filename}: {error.strerror}." if error.filename else error.strerror
        raise LocalProblem(named or str(error)) from error


@contextmanager
def network_problems() -> Iterator[None]:
    """Turn what aiohttp raises, and a timeout, into `ServerUnreachable`."""
    try:
        yield
    except (aiohttp.ClientError, TimeoutError) as error:
        passing = not isinstance(error, (aiohttp.ClientSSLError, aiohttp.ClientConnectorCertificateError))
        raise ServerUnreachable(_reason(error), passing=passing) from error


_REASONS: dict[type[Exception], str] = {
    aiohttp.ClientConnectorCertificateError: "The server's certificate does not prove who it is.",
    aiohttp.ClientPayloadError: "The connection broke in the middle of the answer.",
    aiohttp.ServerDisconnectedError: "The server closed the connection without an answer.",
    TimeoutError: "The server did not answer, or took nothing, for too long.",
}


def _reason(error: Exception) -> str:
    """What went wrong, without the address: it may hold a password or a signature."""
    for kind, reason in _REASONS.items():
        if isinstance(error, kind):
            return reason
    if isinstance(error, aiohttp.ClientConnectorError):
        return f"No connection to {error.host}:{error.port}: {_meaning(error.os_error)}."
    if isinstance(error, OSError):
        return f"The connection broke: {_meaning(error)}."
    return f"The request failed ({type(error).__name__})."


def _meaning(error: OSError) -> str:
    """The system's words; those of asyncio and aiohttp for the same number hold addresses."""
    if error.errno and error.errno > 0:
        return os.strerror(error.errno)
    return error.strerror or type(error).__name__
