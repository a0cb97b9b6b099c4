"""How a file looks in an answer."""

import re
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from aiohttp import web

from file_service.digests import etag, format_digest
from file_service.model import File, Receipt

CANONICAL = r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"  # RFC 9562 section 5.4
MEDIA_RANGE = re.compile(r"\s*([^\s;,]+)\s*((?:;[^,]*)?)")


def path(id_: UUID) -> str:
    """The path of a file's link."""
    return f"/files/{id_}/"


def record(file: File, request: web.Request) -> dict[str, Any]:
    """The file record of the contract."""
    return {
        "id": str(file.id),
        "name": file.name,
        "size": file.size,
        "content_type": file.content_type,
        "sha256": file.sha256.hex(),
        "created_at": timestamp(file.created_at),
        "expires_at": file.expires_at and timestamp(file.expires_at),
        "url": f"{request.scheme}://{request.host}{path(file.id)}",
    }


def receipt_record(receipt: Receipt, request: web.Request) -> dict[str, Any]:
    """The record as the uploader sees it, once: with the token that deletes the file."""
    return {**record(receipt.file, request), "delete_token": receipt.delete_token}


def timestamp(moment: datetime) -> str:
    """RFC 3339, UTC."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def validators(file: File) -> dict[str, str]:
    """The headers that tell one file's bytes from another's."""
    return {"ETag": etag(file.sha256), "Repr-Digest": format_digest(file.sha256)}


def prefers_json(accept: str) -> bool:
    """Whether an Accept header (RFC 9110 section 12.5.1) ranks application/json above text/plain, the default."""
    return _quality(accept, "application/json") > _quality(accept, "text/plain")


def _quality(accept: str, wanted: str) -> float:
    """The weight of the most specific range that matches."""
    best = (-1, 0.0)
    for media, parameters in MEDIA_RANGE.findall(accept):
        ranks = {wanted: 2, f"{wanted.partition('/')[0]}/*": 1, "*/*": 0}
        weight = re.search(r";\s*q\s*=\s*([0-9.]+)", parameters, re.IGNORECASE)
        try:
            best = max(best, (ranks.get(media.lower(), -2), float(weight[1]) if weight else 1.0))
        except ValueError:
            continue
    return best[1] if best[0] >= 0 else 0.0
