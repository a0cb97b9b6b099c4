"""Uploads, downloads and small requests of the service and its peers, on this machine, in one interleaved run.

Every round visits every peer once, so that what disturbs the machine disturbs them all; the first round only warms up.
Wall seconds are curl's, CPU seconds those of the server's processes, small requests a second are wrk's with 16
connections. Only ratios within one run mean anything. Peers that are not installed are left out: nginx (with its dav
module), copyparty, rclone, caddy, and @tus/server (npm, in a folder named by TUSNODE).
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from http import HTTPStatus
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urljoin, urlsplit

from scripts.bench_peers import Peer, peers, running

CURL, WRK, DD = (shutil.which(name) or name for name in ("curl", "wrk", "dd"))


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
    """One upload, one download, many ranges."""
    gib = blob.stat().st_size / (1 << 30)
    before = cpu(peer)
    seconds, link = curl(*peer.upload(peer.base, blob))
    note("upload s/GiB", seconds / gib)
    note("upload CPU s/GiB", (cpu(peer) - before) / gib)
    before = cpu(peer)
    seconds, _ = curl(link)
    note("download s/GiB", seconds / gib)
    note("download CPU s/GiB", (cpu(peer) - before) / gib)
    if (ranges := read_ranges(link, blob.stat().st_size)) is not None:
        note("1,000 ranges s", ranges)
    subprocess.run([CURL, "-sS", "-X", "DELETE", "-o", os.devnull, link], check=False, capture_output=True)
    for left in (peer.folder / "files").glob("*"):
        left.unlink()


def read_ranges(link: str, size: int) -> float | None:
    """Seconds for a thousand random ranges of 1 MiB, one after the other on one connection; None without ranges."""
    where = urlsplit(link)
    length, start = min(1 << 20, size), time.monotonic()
    with closing(HTTPConnection(str(where.hostname), where.port)) as connection:
        for _ in range(1000):
            offset = random.randrange(size - length + 1)  # noqa: S311 - nobody is to be kept from guessing it
            connection.request("GET", where.path, headers={"Range": f"bytes={offset}-{offset + length - 1}"})
            answer = connection.getresponse()
            if answer.status != HTTPStatus.PARTIAL_CONTENT:
                return None
            while answer.read(1 << 18):
                pass
    return time.monotonic() - start


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
