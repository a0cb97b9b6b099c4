"""The border: whatever S3, botocore and aiohttp raise gets one of our names here.

What is logged is the operation and the store's code for the error, never its message or the request: some stores
repeat the access key or the string that was signed in them.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus

from botocore.exceptions import ClientError

from file_service.errors import ServiceError, StorageFailed, StorageFull, TooLarge, Unavailable
from file_service.storage.part_sizes import TooManyParts
from file_service.storage.s3_parts import Altered
from file_service.storage.s3_retries import FAILURES, code_of, is_transient, status_of

log = logging.getLogger(__name__)
# Amazon has no full disk; these are the words of MinIO, Ceph, Backblaze and others for one, and for a quota.
FULL = {"InsufficientStorage", "QuotaExceeded", "XMinioAdminBucketQuotaExceeded", "XMinioStorageFull", "CapExceeded"}
# What an operator puts right, or another process has undone: the same upload may succeed later.
AWAY_STATUSES = {401, 403, 404, 409, 412}
AWAY = {"InvalidPart", "InvalidPartOrder", "AuthorizationHeaderMalformed", "PermanentRedirect"}


@contextmanager
def renamed() -> Iterator[None]:
    """Turn what a request raised into one of our errors."""
    try:
        yield
    except TooManyParts as error:
        raise TooLarge(f"The file is too large for the object store as it is set up: {error}.") from None
    except Altered as error:
        log.critical("s3: %s: do not trust this store, or the proxy before it", error)
        raise StorageFailed("The object store did not keep the bytes it was sent; nothing was stored.") from None
    except FAILURES as error:
        log.warning("s3: %s", described(error))
        raise translated(error) from None


def translated(error: BaseException) -> ServiceError:
    """The service's error for `error`."""
    code, status = code_of(error), status_of(error)
    if code in FULL or status == HTTPStatus.INSUFFICIENT_STORAGE:
        return StorageFull()
    if not isinstance(error, ClientError) or is_transient(error) or status in AWAY_STATUSES or code in AWAY:
        return Unavailable("storage")
    return StorageFailed()


def described(error: BaseException) -> str:
    """One line for the log."""
    if isinstance(error, ClientError):
        return f"{error.operation_name}: {code_of(error)} ({status_of(error)})"
    return type(error).__name__
