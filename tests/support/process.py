"""The service as a process: started like a user would, stopped, killed, frozen."""

import atexit
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import psutil

from tests.support.places import LocalPlace, Place

START_SECONDS = 20.0


def free_port() -> int:
    """A port that was free a moment ago, and is none of those that the kernel gives to clients (ip(7))."""
    while True:
        port = 10_000 + secrets.randbelow(22_000)
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


class Service:
    """`Service({"data_dir": path, "lease_time": 1}).start()`; settings by their names, the port is chosen here.

    `command` goes before the service's own, e.g. ("strace", ...). Everything it prints is in `output()`. Its
    bytes are in `place`, by default in its folder.
    """

    def __init__(self, settings: dict[str, Any], command: tuple[str, ...] = (), place: Place | None = None) -> None:
        self.place = place or LocalPlace(Path(settings["data_dir"]))
        self.settings = {"port": free_port(), "durable": False, **self.place.settings, **settings}
        self.url = f"http://127.0.0.1:{self.settings['port']}"
        self.data_dir = Path(self.settings["data_dir"])
        self._command = command
        self._process: subprocess.Popen[bytes] | None = None
        self._log = Path(tempfile.mkstemp(prefix="file-service-", suffix=".log")[1])
        atexit.register(self._log.unlink, missing_ok=True)  # a test may read it when the service has gone

    @property
    def port(self) -> int:
        return int(self.settings["port"])

    @property
    def pid(self) -> int:
        """The id of the service's own process, below whatever `command` wraps around it."""
        assert self._process is not None
        process = psutil.Process(self._process.pid)
        while self._command and (children := process.children()):
            process = children[0]
        return process.pid

    @property
    def environment(self) -> dict[str, str]:
        """What it runs in; for commands that are to find the same database and storage."""
        plain = {k: v for k, v in os.environ.items() if not k.startswith(("FILE_SERVICE_", "AWS_"))}
        own = {f"FILE_SERVICE_{name.upper()}": str(value) for name, value in self.settings.items()}
        return {**plain, **self.place.environment, **own}

    def start(self, *, wait: bool = True) -> Self:
        """Start it (again), and wait until it listens."""
        with self._log.open("ab") as log:
            command = [*self._command, sys.executable, "-m", self.place.module, "serve"]
            self._process = subprocess.Popen(
                command, env=self.environment, stdout=log, stderr=log, start_new_session=True
            )
        if wait:
            self.wait_until_listening()
        return self

    def wait_until_listening(self) -> None:
        """Return when the port answers; RuntimeError with the output when the process ended instead."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            with socket.socket() as probe:
                probe.settimeout(0.2)
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            if self.returncode() is not None:
                break
            time.sleep(0.02)
        raise RuntimeError(f"the service did not start: {self.output()[-2000:]}")

    def returncode(self) -> int | None:
        """The exit code, or None while it runs."""
        return None if self._process is None else self._process.poll()

    def wait(self, timeout: float = 20) -> int:
        """Wait for its end; the exit code."""
        assert self._process is not None
        return self._process.wait(timeout)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the service's own process."""
        os.kill(self.pid, number)

    def terminate(self) -> int:
        """SIGTERM, then the exit code."""
        self.signal(signal.SIGTERM)
        return self.wait()

    def kill(self) -> None:
        """SIGKILL to the whole group; nothing when it does not run."""
        if self._process is not None and self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(10)

    def rss(self, field: str = "VmRSS") -> int:
        """Resident memory in bytes; `VmHWM` for its peak (proc(5))."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        found = re.search(rf"^{field}:\s+(\d+) kB", status, re.MULTILINE)
        assert found
        return int(found[1]) * 1024

    def output(self) -> str:
        """Everything printed so far, over all starts."""
        return self._log.read_text(errors="replace")
