"""Everything the service can refuse or fail at, as one tree. Facts only; statuses are the handlers' business.

ServiceError
├── BadRequest              the request makes no sense as sent
│   └── DigestMismatch      the bytes are not those the client announced
├── Forbidden               the delete token is not the file's
├── NotFound
├── Gone                    it expired, or was downloaded as often as it may be
├── Superseded              a later request with the same Idempotency-Key took over
├── LengthRequired          neither a length nor chunked framing
├── TooLarge
├── UnsupportedEncoding     Content-Encoding on an upload
├── KeyReused               an Idempotency-Key used before for another body
├── BodyIdle                the body made no progress
├── UrlRefused              a URL that is not imported
├── UrlFailed               a URL that could not be fetched to its end
├── ImportEnded             too late to cancel it
├── Damaged                 the stored bytes are gone or cut
├── StorageFailed           the disk or the object store reported an error
├── StorageFull             no space, no inodes, quota reached
└── Unavailable             a part the service needs does not answer
"""

from uuid import UUID


class ServiceError(Exception):
    """Base of the tree; `detail` is a sentence a person can act on."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class BadRequest(ServiceError):
    """The request is malformed."""


class DigestMismatch(BadRequest):
    """The received bytes do not have the digest that the client sent for them."""

    def __init__(self, algorithm: str) -> None:
        super().__init__(f"The {algorithm} digest of the received bytes is not the one sent; nothing was stored.")
        self.algorithm = algorithm


class Forbidden(ServiceError):
    """The client may not do that."""


class Gone(ServiceError):
    """The file's time or its downloads are used up."""

    def __init__(self) -> None:
        super().__init__("This file has expired or was downloaded as often as it may be.")


class NotFound(ServiceError):
    """No such resource."""

    def __init__(self, detail: str = "No such file.") -> None:
        super().__init__(detail)


class Superseded(ServiceError):
    """Another attempt owns the Idempotency-Key now; this one has left nothing behind."""

    def __init__(self) -> None:
        super().__init__("A later request with the same Idempotency-Key took this upload over.")


class LengthRequired(ServiceError):
    """The body has neither a Content-Length nor chunked framing (RFC 9110 section 15.5.12)."""

    def __init__(self) -> None:
        super().__init__("Send a Content-Length, or Transfer-Encoding: chunked.")


class TooLarge(ServiceError):
    """A limit on the body or one of its parts is exceeded."""


class UnsupportedEncoding(ServiceError):
    """The body is coded; the service stores bytes exactly as sent and decodes nothing."""

    def __init__(self, coding: str) -> None:
        super().__init__(f"Content-Encoding {coding!r} is not accepted: send the plain bytes.")


class KeyReused(ServiceError):
    """The Idempotency-Key belongs to a file with other bytes."""

    def __init__(self) -> None:
        super().__init__("This Idempotency-Key was used for another body.")


class BodyIdle(ServiceError):
    """The request body made no progress for `seconds`."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"The request body made no progress for {seconds:g} seconds.")


class UrlRefused(ServiceError):
    """A URL that is not imported; the detail tells nothing about our network."""


class UrlFailed(ServiceError):
    """A URL that could not be fetched to its end; the detail does not contain it."""


class ImportEnded(ServiceError):
    """The import is over, with the outcome `state`."""

    def __init__(self, state: str) -> None:
        super().__init__(f"This import is {state} already.")
        self.state = state


class Damaged(ServiceError):
    """The bytes of a stored file are missing or cut short."""

    def __init__(self, key: UUID) -> None:
        super().__init__("The stored bytes of this file are damaged.")
        self.key = key


class StorageFailed(ServiceError):
    """The storage reported an input/output error."""

    def __init__(self, detail: str = "The storage reported an error; nothing was stored.") -> None:
        super().__init__(detail)


class StorageFull(ServiceError):
    """No space is left, or a quota is reached."""

    def __init__(self) -> None:
        super().__init__("No space is left in the storage.")


class Unavailable(ServiceError):
    """A part of the service does not answer; `part` is `database` or `storage`."""

    def __init__(self, part: str, detail: str = "") -> None:
        super().__init__(detail or f"The {part} does not answer at the moment.")
        self.part = part
