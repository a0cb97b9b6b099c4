"""Many files as one zip, computed from their rows: nothing is spooled, every byte of it can be asked for again."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from uuid import UUID

from file_service.errors import BadRequest
from file_service.model import File
from file_service.service.files import FileService
from file_service.service.streams import coalesced
from file_service.zip import FORMAT, Archive, Entry, layout, unique_names

BLOCK = 64 << 10  # heads of small files are sent together


@dataclass(frozen=True, slots=True)
class ZipFile:
    """An archive to be: its files in order and the layout of its bytes. `digest` names its contents."""

    files: Sequence[File]
    archive: Archive
    digest: bytes


class ArchiveService:
    """Archives of the files of a `FileService`."""

    def __init__(self, files: FileService) -> None:
        self._files = files

    async def open(self, ids: Sequence[UUID]) -> ZipFile:
        """The archive of these files; `NotFound` or `Gone` when one of them is not there.

        Raises `BadRequest` for a file that may be downloaded only so often: a range of an archive cannot be counted.
        """
        files = [await self._files.get(id_) for id_ in ids]
        if any(file.max_downloads is not None for file in files):
            raise BadRequest("A file that may be downloaded only so often cannot be part of an archive.")
        names = unique_names([file.name for file in files])
        entries = [Entry(name, file.size, file.crc32, file.created_at) for name, file in zip(names, files, strict=True)]
        digest = hashlib.sha256(str(FORMAT).encode())
        for entry, file in zip(entries, files, strict=True):
            digest.update(f"{entry.name}/{entry.size}/{entry.modified.timestamp()}/".encode() + file.sha256)
        return ZipFile(files, layout(entries), digest.digest())

    async def read(self, zip_file: ZipFile, start: int, stop: int) -> AsyncGenerator[bytes, None]:
        """The bytes [start, stop) of the archive; raises what `FileService.read` raises."""
        async with aclosing(self._pieces(zip_file, start, stop)) as pieces:
            async for block in coalesced(pieces, BLOCK):
                yield block

    async def _pieces(self, zip_file: ZipFile, start: int, stop: int) -> AsyncGenerator[bytes, None]:
        for segment in zip_file.archive.segments(start, stop):
            if isinstance(segment, bytes):
                yield segment
                continue
            file = zip_file.files[segment.index]
            async with aclosing(self._files.read(file, segment.start, segment.stop)) as chunks:
                async for chunk in chunks:
                    yield chunk
