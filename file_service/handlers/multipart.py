"""A streaming reader of multipart/form-data bodies (RFC 7578; RFC 2046, section 5.1).

Content is handed on as it comes, not spooled, not decoded. A form is complete only when its closing boundary was seen
and the body has ended. What is ambiguous is refused, lest a file be cut where its sender meant none: lines end in CRLF
alone, headers are neither folded nor repeated, and a line that begins with the boundary but is no boundary line is an
error ("it is sufficient that the boundary appear in its entirety following the CRLF", RFC 2046, section 5.1.1).
"""

import re
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass

from file_service.errors import BadRequest, TooLarge

_NAME = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
# An unquoted value runs to the next ";": some senders leave a boundary with "=" or "/" without the quotes of RFC 2045.
_PARAMETER = rf';[ \t]*(?:({_NAME})=(?:"((?:[^"\\]|\\.)*)"|([^";\s]+)))?[ \t]*'
# Possessive: spaces before and after an empty parameter match in many ways, none of which is worth a second try.
_FORM_DATA = re.compile(rf"[ \t]*multipart/form-data[ \t]*((?:{_PARAMETER})*+)", re.IGNORECASE)
_BOUNDARY = re.compile(r"[0-9A-Za-z'()+_,\-./:=? ]{0,69}[0-9A-Za-z'()+_,\-./:=?]")
_HEADER = re.compile(rf"({_NAME}):([^\0\r\n]*)".encode())
_AFTER_CLOSE = re.compile(rb"[ \t]*(?:\r\n|\Z)")
_CRLF = b"\r\n"
_BLANK_LINE = b"\r\n\r\n"


class MalformedForm(BadRequest):
    """The body is not a complete, unambiguous form."""


class FormTooLarge(TooLarge):
    """The form has more parts, or a longer field, than is taken."""


@dataclass(frozen=True)
class FormLimits:
    """What a form may cost besides the content of its files; sizes are bytes, those of headers a part's."""

    parts: int = 1000
    headers: int = 16
    header_bytes: int = 16 * 1024
    field_bytes: int = 64 * 1024
    preamble: int = 4 * 1024
    epilogue: int = 4 * 1024


DEFAULT_LIMITS = FormLimits()


def boundary_of(content_type: str) -> bytes:
    """The boundary that a Content-Type header names, 1 to 70 characters (RFC 2046, section 5.1.1).

    Raises MalformedForm unless the type is multipart/form-data and has exactly one boundary, a valid one.
    """
    if not (form_data := _FORM_DATA.fullmatch(content_type)):
        raise MalformedForm("The content type is not multipart/form-data with a boundary.")
    parameters = re.findall(_PARAMETER, form_data[1])
    boundaries: list[str] = [quoted or plain for name, quoted, plain in parameters if name.lower() == "boundary"]
    if len(boundaries) != 1 or not _BOUNDARY.fullmatch(boundaries[0]):
        raise MalformedForm("The content type must name one boundary, of 1 to 70 characters (RFC 2046 section 5.1.1).")
    return boundaries[0].encode("ascii")


async def form_parts(
    chunks: AsyncIterator[bytes], boundary: bytes, limits: FormLimits = DEFAULT_LIMITS
) -> AsyncIterator["FormPart"]:
    """Yield the parts of the body `chunks` in order; what a part's consumer leaves unread is skipped before the next.

    The form is complete when this ends without an error, not before: nothing of it may be kept until then.
    Raises MalformedForm for a body that is cut or not a form, FormTooLarge for more than `limits.parts` parts.
    """
    body = _Body(chunks, boundary)
    await body.skip_preamble(limits.preamble)
    count = 0
    while (head := await body.read_head(limits.header_bytes)) is not None:
        if (count := count + 1) > limits.parts:
            raise FormTooLarge(f"The form has more than {limits.parts} parts.")
        part = FormPart(_part_headers(head, limits.headers), body, limits.field_bytes)
        yield part
        await part.skip()
    await body.skip_epilogue(limits.epilogue)


class FormPart:
    """One part of a form: its headers and, to be read once, its content.

    Header names are in lower case; values are UTF-8, other bytes as lone surrogates (PEP 383).
    """

    def __init__(self, headers: Mapping[str, str], body: "_Body", field_bytes: int) -> None:
        self.headers = headers
        self._body = body
        self._field_bytes = field_bytes
        self._taken = False
        self._passed = False

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the content in non-empty blocks, about as large as the body brings them.

        Raises MalformedForm where the body ends before the part; RuntimeError rather than pass for an empty or shorter
        part when it is asked for a second time, or read on after the form has gone to its next part.
        """
        if self._taken:
            raise RuntimeError("the content of a part can be read only once")
        self._taken = True
        while chunk := await self._read():
            yield chunk

    async def read(self) -> bytes:
        """Return the content whole, for a field: raises FormTooLarge beyond `FormLimits.field_bytes`."""
        content = bytearray()
        async for chunk in self.chunks():
            if len(content) + len(chunk) > self._field_bytes:
                raise FormTooLarge(f"A field of the form is longer than {self._field_bytes} bytes.")
            content += chunk
        return bytes(content)

    async def text(self) -> str:
        """Return the content of a field as text, UTF-8 as RFC 7578, section 5.1.2 has it; raises as `read` does."""
        try:
            return (await self.read()).decode()
        except UnicodeDecodeError as error:
            raise MalformedForm("A field of the form is not UTF-8.") from error

    async def skip(self) -> None:
        """Pass over what is left of the content; `form_parts` does so before the next part."""
        while await self._read():
            pass
        self._passed = True

    async def _read(self) -> bytes:
        if self._passed:
            raise RuntimeError("the form has gone on to its next part")
        return await self._body.read()


class _Body:
    """The body as alternating content and heads (what follows a delimiter), read forward only.

    A delimiter is CRLF, two hyphens and the boundary, so its only CR is its first byte: partial matches cannot overlap,
    searching stays linear, and the last CR of a block decides alone whether its end has to wait for the next block.
    """

    def __init__(self, chunks: AsyncIterator[bytes], boundary: bytes) -> None:
        self._chunks = chunks
        self._delimiter = _CRLF + b"--" + boundary
        self._block = _CRLF  # so that a boundary on the first line of the body follows a CRLF too
        self._at = 0
        self._in_content = False

    async def skip_preamble(self, limit: int) -> None:
        await self._enter_content()
        size = 0
        while chunk := await self.read():
            if (size := size + len(chunk)) > limit:
                raise MalformedForm(f"The first boundary of the form does not come within {limit} bytes.")

    async def read_head(self, limit: int) -> bytes | None:
        """What stands between a delimiter and the content it opens; None if it is the closing one."""
        await self._fill(2)
        if self._block.startswith(b"--", self._at):
            self._at += 2
            return None
        searched, most = 0, limit + len(_BLANK_LINE)
        while (end := self._block.find(_BLANK_LINE, self._at + searched)) < 0 and self._unread < most:
            searched = max(0, self._unread - len(_BLANK_LINE) + 1)
            await self._more()
        if not 0 <= end - self._at <= limit:
            raise MalformedForm(f"The headers of a part are longer than {limit} bytes.")
        head = self._block[self._at : end]
        self._at = end + len(_CRLF)
        await self._enter_content()
        return head

    async def read(self) -> bytes:
        """The next piece of content; empty once its delimiter is passed."""
        while self._in_content:
            end = self._block.find(self._delimiter, self._at)
            self._in_content = end < 0
            piece = self._block[self._at : self._clear_end() if end < 0 else end]
            self._at += len(piece) + (0 if end < 0 else len(self._delimiter))
            if piece:
                return piece
            if self._in_content:
                await self._more()
        return b""

    async def skip_epilogue(self, limit: int) -> None:
        """Read the body to its end; what follows the closing boundary line has no meaning (RFC 2046, section 5.1.1)."""
        rest = self._block[self._at :]
        while len(rest) <= limit and (chunk := await anext(self._chunks, None)) is not None:
            rest += chunk
        if len(rest) > limit:
            raise MalformedForm(f"The body goes on for more than {limit} bytes after the end of the form.")
        if not _AFTER_CLOSE.match(rest):
            raise MalformedForm("The closing boundary of the form does not stand alone on its line.")

    @property
    def _unread(self) -> int:
        return len(self._block) - self._at

    async def _enter_content(self) -> None:
        # The CRLF before the content is the delimiter's own if nothing stands between them: no preamble, or a part of
        # headers alone ("body-part := MIME-part-headers [CRLF *OCTET]").
        await self._fill(len(self._delimiter))
        self._in_content = not self._block.startswith(self._delimiter, self._at)
        self._at += len(_CRLF) if self._in_content else len(self._delimiter)

    def _clear_end(self) -> int:
        """The offset in the block up to which it cannot belong to a delimiter that ends in a later block."""
        cr = self._block.rfind(b"\r", max(self._at, len(self._block) - len(self._delimiter) + 1))
        return cr if cr >= 0 and self._delimiter.startswith(self._block[cr:]) else len(self._block)

    async def _fill(self, size: int) -> None:
        while self._unread < size:
            await self._more()

    async def _more(self) -> None:
        if (chunk := await anext(self._chunks, None)) is None:
            raise MalformedForm("The body ends before the closing boundary of the form.")
        self._block = self._block[self._at :] + chunk
        self._at = 0


def _part_headers(head: bytes, limit: int) -> dict[str, str]:
    """The headers of a part, after the padding that a boundary line may end in; raises MalformedForm."""
    padding, *lines = head.split(_CRLF)
    if padding.strip(b" \t"):
        raise MalformedForm("A boundary of the form does not stand alone on its line.")
    if len(lines) > limit:
        raise MalformedForm(f"A part has more than {limit} headers.")
    headers: dict[str, str] = {}
    for line in lines:
        if not (header := _HEADER.fullmatch(line)):
            raise MalformedForm("A header of a part is not 'name: value' on one line.")
        name = header[1].decode("ascii").lower()
        if name in headers:
            raise MalformedForm(f"A part has two {name} headers.")
        headers[name] = header[2].strip(b" \t").decode("utf-8", "surrogateescape")
    _refuse_unreadable(headers)
    return headers


def _refuse_unreadable(headers: Mapping[str, str]) -> None:
    if "content-disposition" not in headers:
        raise MalformedForm("A part has no Content-Disposition.")
    if headers.get("content-type", "").partition("/")[0].strip().lower() == "multipart":
        raise MalformedForm("A part is itself multipart: send each file as a part of the form (RFC 7578 section 4.3).")
    if headers.get("content-transfer-encoding", "binary").lower() not in {"7bit", "8bit", "binary"}:
        raise MalformedForm("A part has a transfer encoding: send its bytes as they are (RFC 7578 section 4.7).")
