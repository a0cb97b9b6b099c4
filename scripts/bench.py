"""Uploads, downloads and small requests of the service and its peers, on this machine, in one interleaved run.

Every round visits every peer once, so that what disturbs the machine disturbs them all; the first round only warms up.
Wall seconds are curl's, CPU seconds those of the server's processes, small requests a second are wrk's with 16
connections. Only ratios within one run mean anything. Peers that are not installed are left out: nginx (with its dav
module), copyparty, rclone, caddy, and @tus/server (npm, in a folder named by TUSNODE).
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urljoin

HERE = Path(__file__).parent
CURL, WRK, DD = (shutil.which(name) or name for name in ("curl", "wrk", "dd"))
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


def curl(*arguments: str, output: Path | str = os.devnull) -> tuple[float, str]:
    """Seconds, and the address of what was uploaded or fetched."""
    told = "%{time_total} %{url_effective} %header{location}"
    command = [CURL, "-sS", "--fail", "-H", "Expect:", "-o", str(output), "-w", told, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    seconds, url, *location = done.stdout.split()
    return float(seconds), urljoin(url, location[0]) if location else url


def cpu(peer: Peer) -> float:
    """Seconds of user and system time of the peer's process group, finished children included (proc(5))."""
    ticks = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[2]) == peer.pid:
            ticks += sum(int(number) for number in fields[11:15])
    return ticks / os.sysconf("SC_CLK_TCK")


def measure(peer: Peer, blob: Path, note: Callable[[str, float], None]) -> None:
    """One upload, one download."""
    gib = blob.stat().st_size / (1 << 30)
    before = cpu(peer)
    seconds, link = curl(*peer.upload(peer.base, blob))
    note("upload s/GiB", seconds / gib)
    note("upload CPU s/GiB", (cpu(peer) - before) / gib)
    before = cpu(peer)
    seconds, _ = curl(link)
    note("download s/GiB", seconds / gib)
    note("download CPU s/GiB", (cpu(peer) - before) / gib)
    subprocess.run([CURL, "-sS", "-X", "DELETE", "-o", os.devnull, link], check=False, capture_output=True)
    for left in (peer.folder / "files").glob("*"):
        left.unlink()


def measure_small(peer: Peer, small: Path) -> None:
    """GETs of one small file a second."""
    _, link = curl(*peer.upload(peer.base, small))
    out = subprocess.run([WRK, "-t1", "-c16", "-d3s", link], capture_output=True, text=True, check=True).stdout
    if "Non-2xx" not in out:
        peer.note("small GET/s", float(out.partition("Requests/sec:")[2].split()[0]))


def durable_write(blob: Path, folder: Path, note: Callable[[str, float], None]) -> None:
    """What the disk itself takes: dd with one fsync at the end."""
    start = time.monotonic()
    target = folder / "dd"
    subprocess.run([DD, f"if={blob}", f"of={target}", "bs=1M", "conv=fsync"], check=True, capture_output=True)
    note("upload s/GiB", (time.monotonic() - start) / (blob.stat().st_size / (1 << 30)))
    target.unlink()


def table(rows: dict[str, dict[str, list[float]]]) -> str:
    """Medians with their spread, as Markdown."""
    columns = list(dict.fromkeys(what for results in rows.values() for what in results))
    lines = ["| server | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for name, results in rows.items():
        cells = [cell(results.get(what)) for what in columns]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def cell(values: list[float] | None) -> str:
    """`median (smallest-largest)`."""
    if not values:
        return ""
    digits = 0 if max(values) > 100 else 2  # noqa: PLR2004 - rates have no use for decimals
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f}-{max(values):.{digits}f})"


def main() -> None:
    """Read the arguments, run, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=1024, help="MiB of the large file")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", help="names of peers, separated by commas")
    parser.add_argument("--durable", action="store_true", help="let the service sync, beside dd conv=fsync")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()), help="on the disk to be measured")
    options = parser.parse_args()
    chosen = [peer for peer in peers(options.durable) if not options.only or peer.name in options.only.split(",")]
    with tempfile.TemporaryDirectory(dir=options.folder) as folder, ExitStack() as stack:
        blob, small = Path(folder) / "blob", Path(folder) / "small"
        subprocess.run(
            [DD, "if=/dev/urandom", f"of={blob}", "bs=1M", f"count={options.size}"], check=True, capture_output=True
        )
        small.write_bytes(os.urandom(16384))
        for peer in chosen:
            stack.enter_context(running(peer, Path(folder) / peer.name.replace("/", "-")))
        rows = run(chosen, blob, small, Path(folder), options)
    print(table(rows))


def run(
    chosen: list[Peer], blob: Path, small: Path, folder: Path, options: argparse.Namespace
) -> dict[str, dict[str, list[float]]]:
    """All rounds; the results by name."""
    disk: dict[str, list[float]] = {}
    for number in range(options.rounds + 1):
        for peer in chosen:
            measure(peer, blob, peer.note if number else lambda *_: None)
        if options.durable:
            durable_write(blob, folder, lambda what, value: disk.setdefault(what, []).append(value))
    if shutil.which("wrk"):
        for peer in chosen * max(1, options.rounds // 2):
            measure_small(peer, small)
    return {peer.name: peer.results for peer in chosen} | ({"dd conv=fsync": disk} if disk else {})


if __name__ == "__main__":
    main()
