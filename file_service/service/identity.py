"""Telling our storage from a wrong, foreign or unmounted one, before anything is written into it."""

from uuid import uuid4

from file_service.db.replicas import Replicas
from file_service.errors import StorageFailed
from file_service.storage.base import Marked


async def recognise(storage: Marked, replicas: Replicas, *, adopt: bool = True) -> None:
    """Check that storage and database belong together; on the very first start, bring them together.

    A database that knows no storage adopts the marker it finds, if it may `adopt`. Raises `StorageFailed` when the
    database knows another storage than the one that is there, or knows none and may not.
    """
    known, found = await replicas.storage_identity(), await storage.identity()
    if known is None and not adopt:
        raise StorageFailed("The database is empty: it never belonged to this storage.")
    if found is None and known is None:
        await storage.mark(uuid4())
        found = await storage.identity()
    if found is not None and known is None:
        known = await replicas.adopt_storage(found)
    if found is None:
        raise StorageFailed("The storage has no marker although the database knows it: is its disk mounted?")
    if found != known:
        raise StorageFailed("The storage belongs to another database.")
