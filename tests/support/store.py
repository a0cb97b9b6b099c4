"""A running service and a look behind its back: rows straight from the database, files from their place, its log."""

import json
import re
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPResponse
from typing import Any
from uuid import UUID

import psutil

from tests.support.doors import Upload
from tests.support.process import Service
from tests.support.raw import Answer, exchange

SOON = 2.0  # seconds within which what a failed request left must be gone
SECURITY = {
    "x-content-type-options": "nosniff",
    "content-security-policy": "default-src 'none'; sandbox; frame-ancestors 'none'",
    "cross-origin-resource-policy": "same-site",
    "referrer-policy": "no-referrer",
    "cache-control": "private",
    "server": "file-service",
}
COLUMNS = "SELECT id, attempt, state FROM file"
STORAGE = "file_service.storage.system"  # says why something is answered by 5xx
LINE = re.compile(r"^[-0-9]+ [:,0-9]+ (?P<level>[A-Z]+) (?P<logger>\S+) (?P<text>.*)$", re.MULTILINE)


@dataclass(frozen=True)
class Row:
    """What the database says of one attempt."""

    id: str
    attempt: str
    state: str


def sqlite_rows(service: Service) -> list[tuple[str, str, str]]:
    """All rows of a service on its embedded database."""
    with closing(sqlite3.connect(f"file:{service.data_dir}/file_service.db?mode=ro", uri=True, timeout=10)) as database:
        return list(database.execute(COLUMNS))


class Store:
    """One service as one test sees it: what was there before does not count."""

    def __init__(self, service: Service, query: Callable[[], list[tuple[str, str, str]]] | None = None) -> None:
        self.service = service
        self.url = service.url
        self._query = query or (lambda: sqlite_rows(service))
        self._start = len(service.output())
        self._before = set(self._rows())

    def send(self, upload: Upload | bytes) -> Answer:
        """Send a request on a connection of its own."""
        return exchange(self.url, bytes(upload))

    def call(self, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[HTTPResponse, bytes]:
        """A request by http.client, on a connection of its own; names of headers with _ for -."""
        with closing(HTTPConnection("127.0.0.1", self.service.port, timeout=20)) as client:
            client.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
            answer = client.getresponse()
            return answer, answer.read()

    def get(self, id_: str) -> bytes:
        """The bytes of a file, by a download."""
        answer, content = self.call("GET", f"/files/{id_}/")
        assert answer.status == 200
        return content

    def meta(self, id_: str) -> dict[str, Any]:
        """The record of a file."""
        answer, content = self.call("GET", f"/files/{id_}/meta")
        assert answer.status == 200
        return dict(json.loads(content))

    def rows(self) -> list[Row]:
        """The rows that were not there before the test."""
        return [row for row in self._rows() if row not in self._before]

    def _rows(self) -> list[Row]:
        return [Row(str(UUID(id_)), UUID(attempt).hex, state) for id_, attempt, state in self._query()]

    def published(self) -> set[str]:
        """Keys of the whole files in their place."""
        return self.service.place.published()

    def unfinished(self) -> set[str]:
        """Keys of the files being received, as far as their place shows them."""
        return self.service.place.unfinished()

    def begun(self) -> int:
        """How many uploads have got a place for their bytes; where that is not seen, a row."""
        if self.service.place.shows_small:
            return len(self.unfinished())
        return sum(row.state == "receiving" for row in self.rows())

    def key_of(self, id_: str) -> str:
        """The key of a file's bytes in its place."""
        (row,) = [row for row in self.rows() if row.id == id_]
        return row.attempt

    def forget(self) -> None:
        """Delete what the test has stored: looks at a place take the longer the more there is."""
        for row in self.rows():
            self.call("DELETE", f"/files/{row.id}/")

    def stray(self, ids: set[str]) -> str:
        """What the database and the place hold besides the files `ids`, or lack of them; empty when all is in order."""
        all_rows = self._rows()
        rows = [row for row in all_rows if row not in self._before]
        problems = {
            "rows": {row.id for row in rows} ^ ids,
            "unsettled": {row for row in rows if row.state != "stored"},
            "files": self.published() ^ {row.attempt for row in all_rows},
            "unfinished": self.unfinished(),
        }
        return str({what: found for what, found in problems.items() if found} or "")

    def holds(self, *ids: str, within: float = SOON) -> None:
        """Assert that of this test's requests exactly the files `ids` are stored, and nothing else is left of them."""
        eventually(lambda: not self.stray(set(ids)), within, lambda: self.stray(set(ids)))

    def log(self) -> str:
        """What the service has logged since the test began."""
        return self.service.output()[self._start :]

    def access(self) -> list[str]:
        """The access log since the test began: "127.0.0.1 POST /files 201 0 0.004"."""
        return [line["text"] for line in LINE.finditer(self.log()) if line["logger"] == "file_service.access"]

    def complaints(self) -> str:
        """What a request must never put into the log: warnings, errors, tracebacks, lines that are no log lines."""
        lines = [line for line in LINE.finditer(self.log()) if line["logger"] != STORAGE]
        wrong = [line[0] for line in lines if line["level"] not in ("INFO", "DEBUG")]
        return "\n".join([*wrong, *(line for line in self.log().splitlines() if not LINE.match(line))])

    def descriptors(self) -> int:
        """How many file descriptors the service has open."""
        return int(psutil.Process(self.service.pid).num_fds())


def eventually(
    holds: Callable[[], bool], within: float = SOON, otherwise: Callable[[], object] = lambda: "it never held"
) -> None:
    """Assert that `holds()` becomes true within so many seconds."""
    deadline = time.monotonic() + within
    while not holds():
        assert time.monotonic() < deadline, otherwise()
        time.sleep(0.01)


def stored(answer: Answer) -> str:
    """The id in a 201 of one file."""
    assert answer.status == 201, answer
    id_ = answer.body.decode()
    assert str(UUID(id_, version=4)) == id_
    return id_


def refused(answer: Answer, status: int, kind: str = "about:blank") -> str:
    """Assert that an answer is a problem (RFC 9457) of this status and type, with the headers every answer has.

    Returns its detail.
    """
    assert answer.status == status, answer
    assert answer.headers["content-type"].partition(";")[0] == "application/problem+json"
    assert SECURITY.items() <= answer.headers.items()
    problem = json.loads(answer.body)
    assert problem.keys() == {"type", "title", "status", "detail"}
    assert (problem["type"], problem["status"]) == (kind, status)
    assert problem["title"]
    assert problem["detail"]
    return str(problem["detail"])
