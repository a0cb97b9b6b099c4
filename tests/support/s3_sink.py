"""An S3 server without a disk: it takes objects of any size as fast as they come and remembers how long they were.

For measuring what uploads cost the service, where a real server would be the bottleneck and fill a disk. It keeps the
content of small objects only, and checks nothing. `python -m tests.support.s3_sink PORT` until SIGTERM.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from uuid import uuid4
from xml.sax.saxutils import escape

from aiohttp import web

from tests.support.process import free_port

KEYS = ("env", "AWS_ACCESS_KEY_ID=key", "AWS_SECRET_ACCESS_KEY=secret")
KEPT = 64 << 10  # bytes up to which the content of an object is kept
READ_AHEAD = 1 << 20


@dataclass
class Object:
    """What is known of an object, or of a multipart upload."""

    metadata: dict[str, str]
    size: int = 0
    content: bytearray = field(default_factory=bytearray)

    async def take(self, request: web.Request) -> None:
        """Count the body."""
        async for chunk in request.content.iter_any():
            self.size += len(chunk)
            if self.size <= KEPT:
                self.content += chunk


class Sink:
    """The server."""

    def __init__(self) -> None:
        self.objects: dict[str, Object] = {}
        self.uploads: dict[str, Object] = {}

    async def answer(self, request: web.Request) -> web.Response:
        """Any request, by its method and the parameter that tells its operation (S3 API reference)."""
        upload = self.uploads.get(request.query.get("uploadId", ""))
        match request.method:
            case "PUT":
                target = upload or self.objects.setdefault(request.path, Object(_metadata(request)))
                await target.take(request)
                return web.Response(headers={"ETag": '"sink"'})
            case "POST" if upload is None:
                id_ = uuid4().hex
                self.uploads[id_] = Object(_metadata(request))
                return _xml("InitiateMultipartUploadResult", UploadId=id_)
            case "POST":
                await request.read()
                self.objects[request.path] = self.uploads.pop(request.query["uploadId"])
                return _xml("CompleteMultipartUploadResult", ETag='"sink"')
            case "GET" | "HEAD" if request.path in self.objects:
                return self._object(request)
        return _xml("Error", 404, Code="NoSuchKey")

    def _object(self, request: web.Request) -> web.Response:
        found = self.objects[request.path]
        if request.method == "GET":
            return web.Response(headers=found.metadata, body=bytes(found.content))
        return web.Response(headers={**found.metadata, "Content-Length": str(found.size)})


def _metadata(request: web.Request) -> dict[str, str]:
    return {name: value for name, value in request.headers.items() if name.lower().startswith("x-amz-meta-")}


def _xml(root: str, status: int = 200, **elements: str) -> web.Response:
    inside = "".join(f"<{name}>{escape(value)}</{name}>" for name, value in elements.items())
    return web.Response(status=status, text=f"<{root}>{inside}</{root}>", content_type="application/xml")


@contextmanager
def sink() -> Iterator[dict[str, str]]:
    """A server in a process of its own; the settings of a service on it, which is to be started by `KEYS`."""
    port = free_port()
    process = subprocess.Popen([sys.executable, "-m", "tests.support.s3_sink", str(port)])
    try:
        while not _listens(port):
            assert process.poll() is None, "the server did not start"
            time.sleep(0.05)
        yield {"storage": "s3", "s3_bucket": "sink", "s3_endpoint_url": f"http://127.0.0.1:{port}"}
    finally:
        process.terminate()
        process.wait(10)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def main() -> None:
    """Serve."""
    app = web.Application(handler_args={"read_bufsize": READ_AHEAD, "access_log": None})
    app.router.add_route("*", "/{path:.*}", Sink().answer)
    web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), print=None)


if __name__ == "__main__":
    main()
