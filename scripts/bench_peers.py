"""The servers that are measured: the service and its peers, as far as they are installed here."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).parent
TUSNODE = """import { Server } from '@tus/server'
import { FileStore } from '@tus/file-store'
const [directory, port] = process.argv.slice(2)
const server = new Server({ path: '/files', datastore: new FileStore({ directory }) })
server.listen({ host: '127.0.0.1', port: Number(port) })
"""
NGINX = """daemon off; worker_processes 2; pid {folder}/pid; error_log {folder}/error.log; {user}
events {{ worker_connections 1024; }}
http {{ access_log off; sendfile on; tcp_nopush on; client_max_body_size 0; client_body_temp_path {folder}/t0;
  proxy_temp_path {folder}/t1; fastcgi_temp_path {folder}/t2; uwsgi_temp_path {folder}/t3; scgi_temp_path {folder}/t4;
  server {{ listen 127.0.0.1:{port}; root {folder};
    location /files {{ dav_methods PUT DELETE; create_full_put_path on; }} }} }}
"""


@dataclass
class Peer:
    """A server: how to start it in a folder on a port, and the curl arguments that upload a file to `base`."""

    name: str
    command: Callable[[Path, int], list[str]]
    upload: Callable[[str, Path], list[str]]
    environment: dict[str, str] = field(default_factory=dict)
    results: dict[str, list[float]] = field(default_factory=dict)
    base: str = ""
    folder: Path = Path()
    pid: int = 0

    def note(self, what: str, value: float) -> None:
        """Keep a measurement."""
        self.results.setdefault(what, []).append(value)


def put(base: str, path: Path) -> list[str]:
    """PUT under a fresh name."""
    return ["-T", str(path), f"{base}/files/{time.monotonic_ns()}"]


def post(base: str, path: Path) -> list[str]:
    """POST of the plain bytes."""
    return ["-X", "POST", "-T", str(path), f"{base}/files"]


def tus(base: str, path: Path) -> list[str]:
    """One POST that creates and fills a tus upload."""
    length = f"Upload-Length: {path.stat().st_size}"
    headers = ("Tus-Resumable: 1.0.0", length, "Content-Type: application/offset+octet-stream")
    return [*(part for header in headers for part in ("-H", header)), *post(base, path)]


def peers(durable: bool) -> Iterator[Peer]:
    """Those that are installed here."""
    program = str(Path(sys.executable).with_name("file-service"))
    quiet = {"FILE_SERVICE_LOG_LEVEL": "warning", "FILE_SERVICE_DURABLE": str(durable).lower()}

    yield Peer("file_service", lambda _, __: [program, "serve"], post, quiet)
    yield Peer("naive", lambda folder, port: [sys.executable, str(HERE / "naive.py"), str(folder), str(port)], post)
    if shutil.which("nginx"):
        yield Peer("nginx", nginx, put)
    python = os.environ.get("PEERS_PYTHON", sys.executable)
    if subprocess.run([python, "-c", "import copyparty"], capture_output=True, check=False).returncode == 0:
        yield Peer(
            "copyparty",
            lambda folder, port: [
                python,
                "-m",
                "copyparty",
                "-q",
                "-i",
                "127.0.0.1",
                "-p",
                str(port),
                "-v",
                f"{folder}::rwd",
            ],
            put,
        )
    if rclone := shutil.which("rclone"):
        yield Peer(
            "rclone",
            lambda folder, port: [
                rclone,
                "serve",
                "webdav",
                str(folder),
                "--addr",
                f"127.0.0.1:{port}",
                "--config",
                os.devnull,
            ],
            put,
        )
    if (home := os.environ.get("TUSNODE")) and shutil.which("node"):
        script = Path(home) / "bench-server.mjs"
        script.write_text(TUSNODE)
        yield Peer("@tus/server", lambda folder, port: ["node", str(script), str(folder), str(port)], tus)


def nginx(folder: Path, port: int) -> list[str]:
    """nginx as a plain PUT and GET server."""
    user = "user root;" if os.geteuid() == 0 else ""
    (folder / "nginx.conf").write_text(NGINX.format(folder=folder, port=port, user=user))
    return ["nginx", "-c", str(folder / "nginx.conf")]


@contextmanager
def running(peer: Peer, folder: Path) -> Iterator[None]:
    """The peer's server, listening, in a fresh folder."""
    (folder / "files").mkdir(parents=True)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    own = {"FILE_SERVICE_DATA_DIR": str(folder), "FILE_SERVICE_PORT": str(port), "XDG_CONFIG_HOME": str(folder)}
    with (folder / "output").open("wb") as output:
        process = subprocess.Popen(
            peer.command(folder, port),
            env={**os.environ, **own, **peer.environment},
            cwd=folder,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    peer.base, peer.folder, peer.pid = f"http://127.0.0.1:{port}", folder, process.pid
    try:
        wait_for(port, peer)
        yield
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
        shutil.rmtree(folder, ignore_errors=True)


def wait_for(port: int, peer: Peer) -> None:
    """Return when the port answers."""
    for _ in range(200):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise SystemExit(f"{peer.name} did not start")
