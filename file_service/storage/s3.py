"""Files in a bucket of Amazon S3, or of a store that speaks its protocol.

In the bucket, under one prefix:

    .file-service       the identity marker
    <key>               published files
    <key> (multipart)   the parts of a write that is under way or suspended
    <key>.tail          the bytes of a suspended write that fill no part yet
    quarantine/         what `file-service check --repair` found without an owner

Limits: 10,000 parts a file, none larger than half of the memory they may take (`part_sizes`, `part_memory`).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

from file_service.aio import uncancelled
from file_service.errors import Damaged, Unavailable
from file_service.storage.base import NO_METADATA, Found, Linked, Listed, Marked, Metadata, Storage
from file_service.storage.multipart_upload import MultipartUploader
from file_service.storage.part_memory import PartMemory
from file_service.storage.part_sizes import MIB, PartSizes
from file_service.storage.s3_client import s3_client
from file_service.storage.s3_errors import renamed
from file_service.storage.s3_inventory import Inventory
from file_service.storage.s3_links import presigned
from file_service.storage.s3_marker import Marker
from file_service.storage.s3_objects import deleted
from file_service.storage.s3_reading import Reading, dropped
from file_service.storage.s3_retries import Patience
from file_service.storage.s3_unfinished import Unfinished
from file_service.storage.s3_writer import S3Writer, sizes_of

if TYPE_CHECKING:
    from types_aiobotocore_s3.client import S3Client

PROMPT = Patience(attempts=1, timeout=5.0)  # who asks for readiness has no time for a second try


@asynccontextmanager
async def s3_storage(
    bucket: str,
    *,
    endpoint_url: str | None = None,
    region: str | None = None,
    prefix: str = "",
    part_size: int = 8 * MIB,
    smallest_part: int = 5 * MIB,
    equal_parts: bool = False,
    memory: int = 256 * MIB,
    storage_class: str | None = None,
    path_style: bool | None = None,
    ca_file: Path | None = None,
    chunk_size: int = 256 << 10,
    redirect: bool = False,
    public_url: str | None = None,
    patience: Patience | None = None,
) -> AsyncIterator[S3Storage]:
    """A storage in `bucket` below `prefix`; reads come in chunks of `chunk_size` bytes. See `s3_client` for the rest.

    `memory` bounds the bytes that the parts of all uploads take together. ValueError unless
    `smallest_part <= part_size <= memory / 2`. With `redirect` it gives links away, to `public_url` where clients know
    the store by another address than `endpoint_url`.
    """
    patience, parts = patience or Patience(), PartMemory(memory)
    sizes = PartSizes(part_size, smallest_part, parts.largest, equal=equal_parts)
    options = {"StorageClass": storage_class} if storage_class else {}
    opening = partial(s3_client, region=region, path_style=path_style, ca_file=ca_file, timeout=patience.timeout)
    async with (
        opening(endpoint_url) as client,
        opening(public_url or endpoint_url) if redirect else nullcontext() as linking,
    ):
        yield S3Storage(
            client,
            bucket,
            prefix,
            sizes=sizes,
            memory=parts,
            options=options,
            chunk_size=chunk_size,
            patience=patience,
            linking=linking,
        )


class S3Storage:
    """`Storage`, `Marked` and `Listed` in a bucket."""

    def __init__(
        self,
        client: S3Client,
        bucket: str,
        prefix: str,
        *,
        sizes: PartSizes,
        memory: PartMemory,
        options: Mapping[str, Any],
        chunk_size: int,
        patience: Patience,
        linking: S3Client | None = None,
    ) -> None:
        self.client = client
        self.memory = memory
        self._bucket = bucket
        self._prefix = prefix
        self._sizes = sizes
        self._options = options
        self._chunk_size = chunk_size
        self._patience = patience
        self._linking = linking
        self._marker = Marker(client, bucket, prefix)
        self._inventory = Inventory(client, bucket, prefix, patience, options)
        self._identity: UUID | None = None

    async def create(self, key: UUID, *, length: int | None = None, metadata: Metadata = NO_METADATA) -> S3Writer:
        """Begin; the bucket sees nothing before a part is full. The parts are made to hold `length` bytes, if known.

        Raises `TooLarge` when they cannot.
        """
        with renamed():
            sizes = replace(self._sizes, length=length)
        return S3Writer(self, key, sizes, self._uploader(key, sizes, metadata=metadata))

    async def resume(self, key: UUID, token: str) -> S3Writer:
        """Go on after the parts and the tail that are in the bucket."""
        sizes = sizes_of(token, self._sizes)
        with renamed():
            unfinished = self.unfinished(key)
            kept = await unfinished.find(sizes)
            uploader = self._uploader(key, sizes, upload_id=kept.upload_id, parts=kept.parts)
            tail = self._reading(unfinished.tail_place, key, 0, kept.tail)
            try:
                chunk = await tail.first() if kept.tail else b""
                while chunk:
                    await uploader.write(chunk)
                    chunk = await tail.chunk()
            except BaseException:
                await uncancelled(uploader.stop())
                raise
            finally:
                tail.close()
        return S3Writer(self, key, sizes, uploader, resumed=True)

    async def read(self, key: UUID, start: int = 0, stop: int | None = None) -> AsyncGenerator[bytes, None]:
        """See `Storage.read`; while the caller sends one chunk the next is on its way."""
        reading = self._reading(self.place(key), key, start, stop)
        ahead: asyncio.Task[bytes] | None = None
        try:
            chunk = await self._first(reading)
            while chunk:
                ahead = asyncio.create_task(reading.chunk())
                yield chunk
                with renamed():
                    chunk = await ahead
        finally:
            try:
                if ahead is not None:
                    await uncancelled(dropped(ahead))
            finally:
                reading.close()

    async def delete(self, key: UUID) -> None:
        """Abort every multipart upload of the key, also those of processes that died; then delete tail and object."""
        with renamed():
            await self.unfinished(key).drop()
            await deleted(self.client, self.place(key), self._patience)

    async def link(self, key: UUID, headers: Mapping[str, str], seconds: int) -> str | None:
        """See `Linked.link`."""
        with renamed():
            return None if self._linking is None else await presigned(self._linking, self.place(key), headers, seconds)

    async def check(self) -> None:
        """The marker is ours.

        To read it takes the endpoint, the credentials, the bucket and the right one at that, which HeadBucket would not
        tell. Nothing is written: a bucket over its quota still serves downloads, and uploads say it themselves.
        """
        await self._require(PROMPT)

    async def identity(self) -> UUID | None:
        """What the marker says."""
        with renamed():
            self._identity = await self._marker.read(self._patience)
        return self._identity

    async def mark(self, identity: UUID) -> None:
        """Write the marker, unless there is one."""
        if await self.identity() is None:
            with renamed():
                await self._marker.write(identity, self._patience)
            await self.identity()

    def list(self, digit: str) -> AsyncGenerator[Found, None]:
        """See `Inventory.list`."""
        return self._inventory.list(digit)

    async def find(self, key: UUID) -> Sequence[Found]:
        """See `Listed.find`. A missing object in the wrong bucket says nothing about the file."""
        found = await self._inventory.find(key)
        if not found:
            await self._require(self._patience)
        return found

    async def quarantine(self, found: Found) -> None:
        """See `Inventory.quarantine`."""
        await self._inventory.quarantine(found)

    def place(self, key: UUID) -> dict[str, Any]:
        """Bucket and key of the object."""
        return {"Bucket": self._bucket, "Key": f"{self._prefix}{key.hex}"}

    def unfinished(self, key: UUID) -> Unfinished:
        """What is there of a write under the key."""
        return Unfinished(self.client, self._bucket, self.place(key)["Key"], self._patience)

    async def _require(self, patience: Patience) -> None:
        with renamed():
            if await self._marker.read(patience) != self._identity:
                raise Unavailable("storage", "The bucket is not the one this service was started on.")

    def _reading(self, place: dict[str, Any], key: UUID, start: int, stop: int | None) -> Reading:
        return Reading(self.client, place, key, start, stop, chunk_size=self._chunk_size, patience=self._patience)

    def _uploader(self, key: UUID, sizes: PartSizes, **begun: Any) -> MultipartUploader:
        return MultipartUploader(
            self.client,
            self._bucket,
            self.place(key)["Key"],
            sizes=sizes,
            memory=self.memory,
            patience=self._patience,
            attempt=key.hex,
            options=self._options,
            **begun,
        )

    async def _first(self, reading: Reading) -> bytes:
        try:
            with renamed():
                return await reading.first()
        except Damaged:
            await self.check()  # a missing object in the wrong bucket says nothing about the file
            raise


_: tuple[type[Storage], type[Marked], type[Listed], type[Linked]] = (S3Storage, S3Storage, S3Storage, S3Storage)
