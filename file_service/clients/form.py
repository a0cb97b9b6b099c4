"""A multipart/form-data body (RFC 7578) with one file in it, made while it is sent.

The form of aiohttp has no length once a part is a stream, and its way with names is not the one Telegram reads: of
`filename` the Bot API server undoes percent-coding, `filename*` it ignores (tdlib, td/net/HttpReader.cpp).
"""

from collections.abc import AsyncGenerator, AsyncIterable, Mapping
from secrets import token_hex

from file_service.names import DEFAULT_NAME, sanitize_name

ESCAPES = str.maketrans({"%": "%25", '"': "%22", "\r": "%0D", "\n": "%0A"})


class Form:
    """Text `fields`, then the file in the field `name`, offered as `filename`."""

    def __init__(self, fields: Mapping[str, str], name: str, filename: str) -> None:
        boundary = token_hex(16)  # 128 bits: no file has it but one made after it was known
        self.content_type = f"multipart/form-data; boundary={boundary}"
        start = f"--{boundary}\r\nContent-Disposition: form-data; name="
        shown = (sanitize_name(filename) or DEFAULT_NAME).translate(ESCAPES)
        head = "".join(f'{start}"{key}"\r\n\r\n{value}\r\n' for key, value in fields.items())
        head += f'{start}"{name}"; filename="{shown}"\r\nContent-Type: application/octet-stream\r\n\r\n'
        self._head = head.encode("utf-8", "replace")
        self._tail = f"\r\n--{boundary}--\r\n".encode()

    def length(self, size: int) -> int:
        """Bytes of the body around a file of `size` bytes."""
        return len(self._head) + size + len(self._tail)

    async def body(self, file: AsyncIterable[bytes]) -> AsyncGenerator[bytes, None]:
        """The body around the bytes of `file`."""
        yield self._head
        async for block in file:
            yield block
        yield self._tail
