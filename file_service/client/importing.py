"""Imports: the server fetches a file from somewhere else while we wait."""

import asyncio
from contextlib import suppress
from http import HTTPStatus
from typing import Any

from yarl import URL

from file_service.client.answers import Answer, json_object, printable, refusal
from file_service.client.client import Client
from file_service.client.errors import ImportFailed, ServerFailed, TransferError
from file_service.client.progress import Progress, unseen

POLL = 0.3  # seconds between two looks
CANCEL_PATIENCE = 10.0  # seconds that a cancelled wait may go on to cancel the import as well


async def import_url(client: Client, url: str, *, name: str | None = None, progress: Progress = unseen) -> str:
    """Have the server at `client` (its `/imports`) store what is at `url`; the link to it.

    When the wait is cancelled, so is the import. Raises TransferError, `ImportFailed` when the file cannot be had.
    """
    # Not repeated, since nobody could tell a lost request from a lost answer; and left to come to its end, since an
    # import without its answer cannot be cancelled.
    queueing = asyncio.ensure_future(client.ask("POST", json={"url": url, "name": name}, repeatable=False))
    try:
        return await _imported(client, _place(await asyncio.shield(queueing)), progress)
    except asyncio.CancelledError:
        with suppress(TransferError, TimeoutError):
            async with asyncio.timeout(CANCEL_PATIENCE):
                await client.ask("DELETE", _place(await queueing))
        raise


async def _imported(client: Client, place: str, progress: Progress) -> str:
    """Wait for the end; the link to the file."""
    while True:
        answer = await client.ask("GET", place)
        if answer.status != HTTPStatus.OK:
            raise refusal(answer)
        record = json_object(answer.content)
        with suppress(TypeError):
            progress(record.get("bytes") or 0, record.get("total"))
        match record:
            case {"state": "done", "file_id": str(id_)}:
                return str(answer.url.join(URL(f"../files/{id_}/")))
            case {"state": "failed" | "cancelled" as state, **rest}:
                raise ImportFailed(_reason(state, rest))
            case {"state": "pending" | "running"}:
                await asyncio.sleep(POLL)
            case _:
                raise ServerFailed(answer.status, "The answer makes no sense: is this a file service?")


def _place(answer: Answer) -> str:
    """Where the import is."""
    if answer.status != HTTPStatus.ACCEPTED or "Location" not in answer.headers:
        raise refusal(answer)
    return answer.headers["Location"]


def _reason(state: str, record: dict[str, Any]) -> str:
    return printable(str(record.get("error") or f"The import was {state}."))
