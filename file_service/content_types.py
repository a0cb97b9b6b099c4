"""Media types as HTTP carries them (RFC 9110 section 8.3.1)."""

import re

TYPE = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+/[!#$%&'*+.^_`|~0-9A-Za-z-]+")
MAX_TYPE = 255
DEFAULT_TYPE = "application/octet-stream"
FORM_DEFAULT = "application/x-www-form-urlencoded"  # what `curl --data-binary` claims for every file


def content_type(header: str | None) -> str:
    """The type to keep: `header` when it reads like one, else `application/octet-stream`."""
    header = (header or "").strip()
    plain = header.partition(";")[0].strip().lower()
    usable = TYPE.fullmatch(plain) and plain != FORM_DEFAULT and len(header) <= MAX_TYPE and header.isprintable()
    return header if usable and header.isascii() else DEFAULT_TYPE
