"""A throw-away OpenStack Swift that speaks S3: strict about signatures, digests, part sizes and part order.

It runs from the PyPI wheel in a virtual environment of its own, `.venv-swift` in the checkout, which is made when it is
needed first. One node: account, container, object and proxy server, one process each, without memcached. Parts may be
of any size (`min_segment_size`), and many small ones are read as fast as a few (`rate_limit_under_size`). Linux only:
Swift keeps its metadata in extended attributes.
"""

import os
import shutil
import socket
import subprocess
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Self

from tests.support.wheel import programs

VERSION = "2.38.3"
USER, KEY = "test:tester", "testing"
START_SECONDS = 20.0
BACKENDS = ("account", "container", "object")
FILTERS = ("catch_errors", "gatekeeper", "listing_formats", "bulk", "copy", "dlo", "symlink")

SWIFT = """
[swift-hash]
swift_hash_path_suffix = test
[storage-policy:0]
name = gold
default = yes
"""

BACKEND = """
[DEFAULT]
bind_ip = 127.0.0.1
bind_port = {port}
swift_dir = {etc}
devices = {devices}
mount_check = false
workers = 0
log_level = ERROR
fallocate_reserve = 0
[pipeline:main]
pipeline = {name}-server
[app:{name}-server]
use = egg:swift#{name}
"""

PROXY = """
[DEFAULT]
bind_ip = 127.0.0.1
bind_port = {port}
swift_dir = {etc}
workers = 0
log_level = ERROR
[pipeline:main]
pipeline = catch_errors gatekeeper listing_formats bulk s3api tempauth copy slo dlo symlink proxy-server
[app:proxy-server]
use = egg:swift#proxy
allow_account_management = true
account_autocreate = true
[filter:s3api]
use = egg:swift#s3api
location = us-east-1
s3_acl = false
min_segment_size = 1
[filter:slo]
use = egg:swift#slo
max_manifest_segments = 10000
rate_limit_under_size = 0
[filter:tempauth]
use = egg:swift#tempauth
user_test_tester = testing .admin
"""

RINGS = """
from swift.common.ring import RingBuilder
for name, port in {ports!r}.items():
    builder = RingBuilder(2, 1, 0)
    place = dict(ip="127.0.0.1", port=port, replication_ip="127.0.0.1", replication_port=port)
    builder.add_dev(dict(id=0, region=1, zone=1, device="sda", weight=1.0, meta="", **place))
    builder.rebalance()
    builder.get_ring().save({etc!r} + "/" + name + ".ring.gz")
"""


class Swift:
    """`with Swift() as server:` listens at `server.url`; the user is `USER`, its key `KEY`."""

    def __init__(self) -> None:
        self._programs = programs("swift", VERSION)
        self._base = Path(tempfile.mkdtemp(prefix="swift-"))
        self._etc = self._base / "etc"
        self._ports = dict(zip((*BACKENDS, "proxy"), _free_ports(len(BACKENDS) + 1), strict=True))
        self._stack = ExitStack()
        self.url = f"http://127.0.0.1:{self._ports['proxy']}"

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.callback(shutil.rmtree, self._base, ignore_errors=True)
            self._configure()
            for name in self._ports:
                self._start(name, stack)
            self._wait()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _configure(self) -> None:
        self._etc.mkdir()
        (self._base / "node/sda").mkdir(parents=True)
        self._write("swift.conf", SWIFT)
        for name in BACKENDS:
            self._write(f"{name}-server.conf", BACKEND.format(name=name, **self._facts(name)))
        plain = "".join(f"[filter:{name}]\nuse = egg:swift#{name}\n" for name in FILTERS)
        self._write("proxy-server.conf", PROXY.format(**self._facts("proxy")) + plain)
        ports = {name: self._ports[name] for name in BACKENDS}
        code = RINGS.format(ports=ports, etc=str(self._etc))
        python = [str(self._programs / "python"), "-W", "ignore", "-c", code]
        subprocess.run(python, check=True, cwd=self._base, env=self._environment(), capture_output=True)

    def _facts(self, name: str) -> dict[str, object]:
        return {"port": self._ports[name], "etc": self._etc, "devices": self._base / "node"}

    def _write(self, name: str, text: str) -> None:
        (self._etc / name).write_text(text)

    def _environment(self) -> dict[str, str]:
        return {"PATH": os.environ["PATH"], "SWIFT_DIR": str(self._etc)}

    def _start(self, name: str, stack: ExitStack) -> None:
        program, settings = self._programs / f"swift-{name}-server", self._etc / f"{name}-server.conf"
        command = [*_dying_with_us(), str(self._programs / "python"), "-W", "ignore", str(program), str(settings)]
        log = stack.enter_context((self._base / f"{name}.log").open("wb"))
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self._base, env=self._environment())
        stack.callback(_stop, process)

    def _wait(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        for name, port in self._ports.items():
            while not _listens(port):
                if time.monotonic() > deadline:
                    raise RuntimeError(f"Swift did not start: {(self._base / f'{name}.log').read_text()[-2000:]}")
                time.sleep(0.02)


def _dying_with_us() -> list[str]:
    """The beginning of a command that ends when this process does, even by SIGKILL (setpriv(1)); empty without it."""
    found = shutil.which("setpriv")
    return [found, "--pdeathsig", "TERM", "--"] if found else []


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(0.2)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [sock.getsockname()[1] for sock in sockets]


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
