"""The one table of routes. `{slash}` makes a path with and without its trailing slash the same resource."""

from aiohttp import web

from file_service.handlers import archive, download, files, imports, metrics, ops, upload
from file_service.handlers.body import expect
from file_service.handlers.records import CANONICAL

SLASH = "{slash:/?}"
IMPORT = f"/imports/{{id:{CANONICAL}}}"
FILE = f"/files/{{id:{CANONICAL}}}"
NAME = "/files/{name:(?s:.+)}"
NO_FILE = rf"/files/{{name:(?s:(?!{CANONICAL}(?:/meta)?/?\Z).+)}}"


def add_routes(app: web.Application) -> None:
    """Register every resource."""
    router = app.router
    router.add_route("POST", f"/files{SLASH}", upload.post, expect_handler=expect)
    router.add_get(f"/files{SLASH}", files.list_)
    router.add_route("GET", f"{FILE}{SLASH}", download.download)
    router.add_route("HEAD", f"{FILE}{SLASH}", download.download)
    router.add_route("DELETE", f"{FILE}{SLASH}", files.delete)
    router.add_get(f"{FILE}/meta{SLASH}", files.meta)
    router.add_route("PUT", NAME, upload.put, expect_handler=expect)
    router.add_route("*", NO_FILE, files.missing)
    router.add_get("/archive.zip", archive.archive)
    router.add_route("POST", f"/imports{SLASH}", imports.add, expect_handler=expect)
    router.add_get(f"{IMPORT}{SLASH}", imports.get)
    router.add_delete(f"{IMPORT}{SLASH}", imports.cancel)
    router.add_get("/metrics", metrics.metrics)
    router.add_get("/health/live", ops.live)
    router.add_get("/health/ready", ops.ready)
