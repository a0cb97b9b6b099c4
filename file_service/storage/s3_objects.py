"""Requests about whole objects: look, delete, copy."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from math import ceil
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from file_service.aio import uncancelled
from file_service.storage.part_sizes import GIB
from file_service.storage.s3_parts import Altered, Part, abort
from file_service.storage.s3_retries import Patience, is_missing

if TYPE_CHECKING:
    from types_aiobotocore_s3.client import S3Client
    from types_aiobotocore_s3.type_defs import HeadObjectOutputTypeDef

COPIED = GIB  # bytes that one request copies: 5 GiB are allowed, but a store may take longer for them than a timeout
PARTS = 10_000
ABOUT = {"ContentType", "Metadata"}  # that CopyObject copies by itself


async def head(client: S3Client, place: Mapping[str, Any], patience: Patience) -> HeadObjectOutputTypeDef | None:
    """What HEAD says of the object at `place` (Bucket, Key), None when it is missing."""
    try:
        return await patience(lambda: client.head_object(**place))
    except ClientError as error:
        if is_missing(error):
            return None
        raise


async def deleted(client: S3Client, place: Mapping[str, Any], patience: Patience) -> None:
    """Delete an object; a missing one is fine."""
    try:
        await patience(lambda: client.delete_object(**place))
    except ClientError as error:
        if not is_missing(error):
            raise


async def moved(
    client: S3Client,
    source: Mapping[str, Any],
    target: Mapping[str, Any],
    patience: Patience,
    options: Mapping[str, Any],
) -> None:
    """Copy an object within the store, with its type and metadata, then delete it; a missing one is fine.

    It is deleted only when the copy has been seen at its whole size; `Altered` otherwise. An object of any size is
    copied, by UploadPartCopy where it is larger than one request takes. `options` are as for PutObject.
    """
    found = await head(client, source, patience)
    if found is None:
        return
    try:
        if found["ContentLength"] <= COPIED:
            copying: dict[str, Any] = {**target, "CopySource": dict(source), **options}
            await patience(lambda: client.copy_object(**copying), found["ContentLength"])
        else:
            about = {name: value for name, value in found.items() if name in ABOUT}
            await _copied_in_parts(
                client, source, target, patience, size=found["ContentLength"], options={**about, **options}
            )
    except ClientError as error:
        if is_missing(error) and await head(client, source, patience) is None:
            return
        raise
    copy = await head(client, target, patience)
    if copy is None or copy["ContentLength"] != found["ContentLength"]:
        raise Altered(f"{target['Key']} is not the copy of {source['Key']} that was made")
    await deleted(client, source, patience)


async def _copied_in_parts(
    client: S3Client,
    source: Mapping[str, Any],
    target: Mapping[str, Any],
    patience: Patience,
    *,
    size: int,
    options: Mapping[str, Any],
) -> None:
    step = max(COPIED, ceil(size / PARTS))
    begun = await patience(lambda: client.create_multipart_upload(**target, **options))
    upload: dict[str, Any] = {**target, "UploadId": begun["UploadId"]}
    parts: list[Part] = []
    try:
        for start in range(0, size, step):
            stop = min(size, start + step)
            wish: dict[str, Any] = {
                "PartNumber": len(parts) + 1,
                "CopySource": dict(source),
                "CopySourceRange": f"bytes={start}-{stop - 1}",
            }
            answer = await patience(partial(client.upload_part_copy, **upload, **wish), stop - start)
            parts.append(Part.of(len(parts) + 1, stop - start, answer["CopyPartResult"]))
        whole: Any = {"Parts": [part.completed for part in parts]}
        await patience(lambda: client.complete_multipart_upload(**upload, MultipartUpload=whole))
    except BaseException:
        await uncancelled(abort(client, upload, patience))
        raise
