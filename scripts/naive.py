"""What the service is measured against first: the shortest aiohttp program that does the job, one write a block.

usage: naive.py FOLDER PORT
"""

import sys
import uuid
from pathlib import Path

from aiofile import async_open
from aiohttp import web

FOLDER, PORT = Path(sys.argv[1]), int(sys.argv[2])
CHUNK = 65536


async def upload(request: web.Request) -> web.Response:
    """Write what arrives as it arrives."""
    name = str(uuid.uuid4())
    async with async_open(FOLDER / name, "wb") as file:
        async for block in request.content.iter_any():
            await file.write(block)
    return web.Response(status=201, headers={"Location": f"/files/{name}"})


async def download(request: web.Request) -> web.StreamResponse:
    """Send it back in chunks."""
    response = web.StreamResponse()
    await response.prepare(request)
    async with async_open(FOLDER / request.match_info["name"], "rb") as file:
        while chunk := await file.read(CHUNK):
            await response.write(bytes(chunk))
    return response


app = web.Application(client_max_size=0)
app.add_routes([web.post("/files", upload), web.get("/files/{name}", download)])
web.run_app(app, host="127.0.0.1", port=PORT, print=None)
