"""A client of Telegram's Bot API for files: fetch them by their id, send them as documents; streamed both ways.

Memory does not grow with the size of a file. What fails for a passing reason is tried again: code 429 after the seconds
that Telegram asks for, 5xx and broken connections after growing pauses. The token is a part of every URL of this API;
it shows in no error, log, `repr` or trace.

The public server gives files of up to 20 MB ("getFile") and takes up to 50 MB ("Sending files"); one of your own may
have other limits (https://core.telegram.org/bots/api, "Using a Local Bot API Server").
"""

from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, aclosing
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from caio.python_aio_asyncio import AsyncioContext

from file_service.client.errors import LocalProblem, TransferError, local_problems
from file_service.client.fetching import part_file
from file_service.client.progress import Progress, unseen
from file_service.client.sending import Body, FileSource, Source, StreamSource
from file_service.clients.bot_api import (
    Chat,
    ChatMigrated,
    Document,
    File,
    FloodWait,
    Message,
    TelegramError,
    TelegramRefused,
    TelegramUnreachable,
    TooLarge,
)
from file_service.clients.bot_session import BotSession, received
from file_service.clients.form import Form
from file_service.names import DEFAULT_NAME

__all__ = [
    "Chat",
    "ChatMigrated",
    "Document",
    "File",
    "FloodWait",
    "Message",
    "TelegramClient",
    "TelegramError",
    "TelegramRefused",
    "TelegramUnreachable",
    "TooLarge",
]

API = "https://api.telegram.org"
DOWNLOAD_LIMIT, UPLOAD_LIMIT = 20 << 20, 50 << 20  # bytes, of the public server
BLOCK_SIZE = 256 << 10  # bytes read from a file and handed to the connection at once
IDLE = 60.0  # seconds

T = TypeVar("T")


class TelegramClient:
    """`async with TelegramClient(token) as telegram: file = await telegram.get_file(file_id)`

    The limits are bytes, None for none. `retries` is how many more tries a passing failure gets, each announced to
    `notice`; `idle` is the seconds in which something must move. Raises ValueError for what is no token or address.
    """

    def __init__(
        self,
        token: str,
        base_url: str = API,
        *,
        download_limit: int | None = DOWNLOAD_LIMIT,
        upload_limit: int | None = UPLOAD_LIMIT,
        retries: int = 3,
        idle: float = IDLE,
        notice: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._bot = BotSession(token, base_url, retries=retries, idle=idle, notice=notice)
        self._download_limit, self._upload_limit = download_limit, upload_limit
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        self._io = await self._stack.enter_async_context(AsyncioContext(32))  # type: ignore[no-untyped-call]
        await self._stack.enter_async_context(self._bot)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def get_file(self, file_id: str) -> File:
        """The file, ready to be downloaded for an hour at least (method getFile). Raises TransferError."""
        return await self._bot.persistently(partial(self._bot.call, "getFile", File, {"file_id": file_id}))

    async def download_file(
        self, file_path: str, destination_path: Path | str, *, size: int | None = None, progress: Progress = unseen
    ) -> Path:
        """Download to a file or into a folder; what is there is replaced, once all the bytes are on the disk.

        `file_path` and `size`, which is verified, are those of a `File`. Raises `TooLarge` and other TransferErrors.
        """
        with local_problems():
            async with part_file(Path(destination_path), self._io, replace=True) as part:
                part.offer(file_path)

                async def write(blocks: AsyncIterator[bytes]) -> Path:
                    await part.restart()
                    async for block in blocks:
                        await part.write(block)
                        progress(part.offset, size)
                    return await part.publish()

                return await self.read_file(file_path, write, size=size)

    async def read_file(
        self, file_path: str, reader: Callable[[AsyncIterator[bytes]], Awaitable[T]], *, size: int | None = None
    ) -> T:
        """The result of `reader`, which gets the file's bytes; it is called again, from the start, when they break off.

        The bytes end only when they are all there, `size` of them. Raises TransferError, and what `reader` raises.
        """

        async def attempt() -> T:
            async with self._bot.get(file_path) as answer:
                whole = answer.content_length if size is None else size
                wrong = TelegramUnreachable(f"Telegram did not send the {whole} bytes of the file.")
                async with aclosing(_measured(received(answer), whole, self._download_limit, wrong)) as blocks:
                    return await reader(blocks)

        return await self._bot.persistently(attempt)

    async def send_document(
        self,
        chat_id: int | str,
        document: Path | str | AsyncIterable[bytes],
        *,
        filename: str | None = None,
        caption: str | None = None,
        size: int | None = None,
        progress: Progress = unseen,
    ) -> Message:
        """Send a regular file, or a stream that is read once, as `filename` (a file's own when not given).

        `chat_id` is a number, or "@" and the name of a public channel; `caption` has up to 1024 characters. `size` says
        how long a stream will be, where that is known, and must be right. A stream is tried again only as long as
        nothing of it was read. The API cannot tell a repeated request from a new one: when its answer is lost, the
        document may arrive twice. Raises `TooLarge` and other TransferErrors.
        """
        with local_problems():
            source: Source = FileSource(Path(document)) if isinstance(document, Path | str) else StreamSource(document)
        source.size = size if source.size is None else source.size
        if source.size is not None and self._upload_limit is not None and source.size > self._upload_limit:
            raise TooLarge(self._upload_limit)
        # Without this Telegram makes photos and videos of some documents.
        fields = {"chat_id": str(chat_id), "disable_content_type_detection": "true"}
        if caption is not None:
            fields["caption"] = caption
        form = Form(fields, "document", filename or source.name or DEFAULT_NAME)
        body, wrong = Body(source.size, progress), LocalProblem(f"The stream did not have {source.size} bytes.")

        async def attempt() -> Message:
            with local_problems():
                async with source.opened(self._io, BLOCK_SIZE) as blocks:
                    body.begin(_measured(blocks, source.size, self._upload_limit, wrong))
                    return await self._bot.send("sendDocument", Message, form, body)

        return await self._bot.persistently(attempt, lambda: source.repeatable or not body.started)


async def _measured(
    blocks: AsyncIterator[bytes], size: int | None, limit: int | None, wrong: TransferError
) -> AsyncGenerator[bytes, None]:
    """The blocks; `TooLarge` past `limit` bytes, and `wrong` in place of the end when they are not `size` bytes."""
    offset = 0
    async for block in blocks:
        offset += len(block)
        if limit is not None and offset > limit:
            raise TooLarge(limit)
        if size is not None and offset > size:
            raise wrong
        yield block
    if size is not None and offset != size:
        raise wrong
