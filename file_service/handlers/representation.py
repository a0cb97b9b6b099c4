"""The headers that describe a file's bytes, and when a browser may show them instead of saving them."""

from datetime import UTC
from email.utils import format_datetime
from functools import lru_cache

from file_service.handlers.conditions import Facts
from file_service.handlers.records import validators
from file_service.model import File
from file_service.names import format_disposition

# Types that cannot run script in our origin, whatever their bytes are, as long as nothing is sniffed. No HTML, XML,
# SVG, PDF or script: those are only ever saved.
INLINE = frozenset(
    (
        *("text/plain", "image/png", "image/jpeg", "image/gif", "image/bmp", "image/webp", "image/avif"),
        *("audio/wave", "audio/wav", "audio/x-wav", "audio/x-pn-wav", "audio/webm", "audio/ogg", "audio/mpeg"),
        *("audio/mp4", "audio/flac", "video/mp4", "video/webm", "video/ogg", "application/ogg"),
    )
)


@lru_cache(maxsize=1024)
def described(file: File, inline: bool) -> tuple[Facts, dict[str, str]]:
    """What conditions are held against, and the headers of every answer with the file's bytes.

    `inline` is the client's wish; it counts only for the types in `INLINE`.
    """
    modified = file.created_at.astimezone(UTC).replace(microsecond=0)
    media_type = file.content_type.partition(";")[0].strip().lower()
    inline = inline and media_type in INLINE
    headers = {
        **validators(file),
        "Last-Modified": format_datetime(modified, usegmt=True),
        "Content-Type": file.content_type,
        "Content-Disposition": format_disposition(file.name, kind="inline" if inline else "attachment"),
        "Accept-Ranges": "bytes",
    }
    if inline and media_type == "text/plain":
        headers["Content-Type"] = "text/plain; charset=utf-8"  # a browser must not guess another one
    return Facts(file.size, headers["ETag"], modified), headers
