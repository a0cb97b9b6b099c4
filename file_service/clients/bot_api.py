"""What Telegram's Bot API answers: objects and errors. Pure.

Source: https://core.telegram.org/bots/api, sections "Making requests", "ResponseParameters", "File", "Message". Fields
that are not named here are ignored, as the API asks of its clients: it adds new ones.

TransferError
├── TelegramError           an answer that says no, or makes no sense: its code, its description
│   └── TelegramRefused     a code 4xx
│       ├── FloodWait       too many requests: the seconds to wait
│       ├── ChatMigrated    the group is a supergroup now: the new chat id
│       └── TooLarge        more bytes than this server takes or gives
└── TelegramUnreachable     no connection, or it broke, or nothing moved any more
"""

import json
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from http import HTTPStatus
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, NonNegativeInt, ValidationError

from file_service.client.answers import MAX_DETAIL, printable
from file_service.client.errors import AnsweredError, RefusedByServer, ServerUnreachable

SENSELESS = "This is no answer of the Bot API: is the address right?"


class TelegramError(AnsweredError):
    """The answer was an error. `code` is like a status of HTTP; `passing`: the same again may go well."""

    def __init__(self, code: int, description: str, retry_after: float | None = None) -> None:
        super().__init__(code, printable(description[:MAX_DETAIL]), retry_after)
        self.code, self.description = code, self.detail
        self.passing = code == HTTPStatus.TOO_MANY_REQUESTS or code >= HTTPStatus.INTERNAL_SERVER_ERROR


class TelegramRefused(TelegramError, RefusedByServer):
    """The request would have to change, or to wait."""


class FloodWait(TelegramRefused):
    """Too many requests; the next one may come after `retry_after` seconds."""

    retry_after: float

    def __init__(self, retry_after: float, description: str = "Too Many Requests") -> None:
        super().__init__(HTTPStatus.TOO_MANY_REQUESTS, description, retry_after)


class ChatMigrated(TelegramRefused):
    """The group has become a supergroup; it is `chat_id` now."""

    def __init__(self, chat_id: int, description: str = "The group is a supergroup now") -> None:
        super().__init__(HTTPStatus.BAD_REQUEST, description)
        self.chat_id = chat_id


class TooLarge(TelegramRefused):
    """The file has more than `limit` bytes, which the server would refuse; found out here."""

    def __init__(self, limit: int) -> None:
        super().__init__(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"The file has more than {limit} bytes, the limit.")
        self.limit = limit


class TelegramUnreachable(ServerUnreachable):
    """There was no answer, or not all of it."""


class _Object(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class File(_Object):
    """A file that is ready to be downloaded, for an hour at least, by its `file_path`.

    `file_id` is this bot's; `file_unique_id` is the same for every bot, and fetches nothing. `file_size` is bytes.
    """

    file_id: str
    file_unique_id: str
    file_size: NonNegativeInt | None = None
    file_path: str | None = None


class Document(_Object):
    """A file in a message. Telegram may have changed its name: it keeps letters, digits and some punctuation."""

    file_id: str
    file_unique_id: str
    file_name: str | None = None
    mime_type: str | None = None
    file_size: NonNegativeInt | None = None


class Chat(_Object):
    """Where a message is."""

    id: int


class Message(_Object):
    """A message that was sent."""

    message_id: int
    date: datetime
    chat: Chat
    document: Document | None = None
    caption: str | None = None


Kind = TypeVar("Kind", bound=_Object)


def answered(status: int, content: bytes, kind: type[Kind]) -> Kind:
    """The result in the answer, a `kind`. Raises `TelegramError`."""
    envelope = _object(content)
    if status != HTTPStatus.OK or envelope.get("ok") is not True:
        raise refusal(status, content)
    try:
        return kind.model_validate(envelope.get("result"))
    except ValidationError:
        raise TelegramError(status, SENSELESS) from None


def refusal(status: int, content: bytes) -> TelegramError:
    """The error that an answer stands for, in its own words where it has any."""
    envelope = _object(content)
    code, words, more = envelope.get("error_code"), envelope.get("description"), envelope.get("parameters")
    if not isinstance(code, int) or not isinstance(words, str):  # the words of a proxy on the way
        code, words = status, _phrase(status)
    parameters: Mapping[str, Any] = more if isinstance(more, dict) else {}
    wait, chat_id = parameters.get("retry_after"), parameters.get("migrate_to_chat_id")
    if code == HTTPStatus.TOO_MANY_REQUESTS and isinstance(wait, int) and wait >= 0:
        return FloodWait(wait, words)
    if isinstance(chat_id, int):
        return ChatMigrated(chat_id, words)
    refused = HTTPStatus.BAD_REQUEST <= code < HTTPStatus.INTERNAL_SERVER_ERROR
    return (TelegramRefused if refused else TelegramError)(code, words)


def _phrase(status: int) -> str:
    if status < HTTPStatus.BAD_REQUEST:
        return SENSELESS
    with suppress(ValueError):
        return HTTPStatus(status).phrase
    return "No explanation"


def _object(content: bytes) -> dict[str, Any]:
    with suppress(ValueError, RecursionError):
        if isinstance(value := json.loads(content), dict):
            return value
    return {}
