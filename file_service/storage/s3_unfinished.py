"""What an unfinished write has in the bucket: multipart uploads with their parts, and a tail.

S3 gives back no part, and takes no short one but the last, so the bytes that fill no part yet are kept in an object of
their own, `<key>.tail`. Its metadata say where they begin and which multipart upload they follow. It stays until the
next one replaces it, since a part that is stored later contains it: a process may die at any moment, and no offset that
was acknowledged is lost. Parts have their places by number, so what several processes left can only fit together.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from file_service.errors import NotFound
from file_service.storage.part_sizes import PartSizes
from file_service.storage.s3_objects import deleted, head
from file_service.storage.s3_parts import Part, abort, body_of
from file_service.storage.s3_retries import Patience, is_missing

if TYPE_CHECKING:
    from types_aiobotocore_s3.client import S3Client

log = logging.getLogger(__name__)
TAIL = ".tail"
BASE, UPLOAD = "base", "upload"


@dataclass(frozen=True, slots=True)
class Tail:
    """`size` bytes from offset `base` on; `upload_id` is empty when there was no part before them."""

    base: int
    upload_id: str
    size: int


@dataclass(frozen=True, slots=True)
class Kept:
    """What a write can go on with; `tail` is how many bytes of the tail follow the parts."""

    upload_id: str | None
    parts: tuple[Part, ...]
    tail: int


class Unfinished:
    """The unfinished writes under one key of a bucket."""

    def __init__(self, client: S3Client, bucket: str, key: str, patience: Patience) -> None:
        self._client = client
        self._patience = patience
        self._bucket = bucket
        self._key = key
        self.tail_place: dict[str, Any] = {"Bucket": bucket, "Key": f"{key}{TAIL}"}

    async def find(self, sizes: PartSizes) -> Kept:
        """What is there to go on with; `NotFound` when it is nothing, or less than was acknowledged.

        A process that died may have left more than one upload: the one that the tail names counts, else the longest.
        The others are aborted.
        """
        tail, ids = await self._tail(), await self._uploads()
        parts = {id_: whole(await self._parts(id_) or [], sizes) for id_ in ids}
        chosen = (tail and tail.upload_id) or max(parts, key=lambda id_: _end(parts[id_]), default="")
        kept = parts.get(chosen, ())
        offset = _end(kept)
        if tail is None and not offset:
            raise NotFound("No such upload.")
        if tail and offset != tail.base and offset < tail.base + tail.size:
            log.warning("s3: the store has dropped parts of %s", self._key)
            raise NotFound("No such upload: the object store has dropped it.")
        for id_ in ids:
            if id_ != chosen or not kept:
                await self._abort(id_)
        return Kept(chosen if kept else None, kept, tail.size if tail and offset == tail.base else 0)

    async def keep_tail(self, base: int, upload_id: str | None, data: memoryview) -> None:
        """Store `data`, which begins at the offset `base`, in place of the tail before."""
        body = await body_of(self._client, data)
        marks = {BASE: str(base), UPLOAD: upload_id or ""}
        await self._patience(lambda: self._client.put_object(**self.tail_place, **body, Metadata=marks), len(data))

    async def drop_tail(self) -> None:
        """Delete the tail; a missing one is fine."""
        await deleted(self._client, self.tail_place, self._patience)

    async def drop(self) -> None:
        """Abort every upload and delete the tail."""
        await self.drop_uploads()
        await self.drop_tail()

    async def drop_uploads(self) -> None:
        """Abort every upload, also those of processes that died."""
        for id_ in await self._uploads():
            await self._abort(id_)

    async def size(self) -> int | None:
        """The bytes in all uploads and in the tail; None when there is neither."""
        tail = await head(self._client, self.tail_place, self._patience)
        parts = [parts for id_ in await self._uploads() if (parts := await self._parts(id_)) is not None]
        if tail is None and not parts:
            return None
        return sum(_end(each) for each in parts) + (tail["ContentLength"] if tail else 0)

    async def _abort(self, id_: str) -> None:
        await abort(self._client, {"Bucket": self._bucket, "Key": self._key, "UploadId": id_}, self._patience)

    async def _uploads(self) -> list[str]:
        pages = self._client.get_paginator("list_multipart_uploads")

        async def listed() -> list[str]:
            found = pages.paginate(Bucket=self._bucket, Prefix=self._key)
            return [u["UploadId"] async for page in found for u in page.get("Uploads", []) if u["Key"] == self._key]

        return await self._patience(listed)

    async def _parts(self, id_: str) -> list[Part] | None:
        """The parts, None when the upload has come to its end since it was listed."""
        pages = self._client.get_paginator("list_parts")

        async def listed() -> list[Part]:
            found = pages.paginate(Bucket=self._bucket, Key=self._key, UploadId=id_)
            return [Part.of(p["PartNumber"], p["Size"], p) async for page in found for p in page.get("Parts", [])]

        try:
            return await self._patience(listed)
        except ClientError as error:
            if is_missing(error):
                return None
            raise

    async def _tail(self) -> Tail | None:
        found = await head(self._client, self.tail_place, self._patience)
        if found is None:
            return None
        marks = {name.lower(): value for name, value in found["Metadata"].items()}
        return Tail(int(marks[BASE]), marks.get(UPLOAD, ""), found["ContentLength"])


def whole(parts: Iterable[Part], sizes: PartSizes) -> tuple[Part, ...]:
    """The parts from the first on, without a gap, that are full, and the one that ends the object.

    Another short one is left over from a completion that did not happen; nothing was acknowledged since.
    """
    kept: list[Part] = []
    for part in sorted(parts, key=lambda part: part.number):
        ends = _end(kept) + part.size == sizes.length
        if part.number != len(kept) + 1 or not (ends or part.size == sizes.size(part.number)):
            break
        kept.append(part)
    return tuple(kept)


def _end(parts: Iterable[Part]) -> int:
    return sum(part.size for part in parts)
