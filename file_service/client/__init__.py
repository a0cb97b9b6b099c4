"""A client of the service: send a file or a stream, fetch a link; the bytes are verified at both ends.

What fails for a passing reason is tried again: a file is sent under the Idempotency-Key of the first try, so that a
lost answer does not store it twice; a download goes on where it broke. Memory does not grow with the size of a file.
"""

from file_service.client.answers import Stored
from file_service.client.client import Client
from file_service.client.errors import (
    AnsweredError,
    DigestMismatch,
    LocalProblem,
    RefusedByServer,
    ServerFailed,
    ServerUnreachable,
    TransferError,
)

__all__ = [
    "AnsweredError",
    "Client",
    "DigestMismatch",
    "LocalProblem",
    "RefusedByServer",
    "ServerFailed",
    "ServerUnreachable",
    "Stored",
    "TransferError",
]
