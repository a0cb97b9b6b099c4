"""One process, or several that share the port (SO_REUSEPORT) under a supervisor that replaces those that die."""

import ctypes
import logging
import signal
import subprocess
import sys
import time

from file_service.errors import ServiceError
from file_service.server import log_to_stderr, run
from file_service.settings import Settings

log = logging.getLogger(__name__)
COULD_NOT_START = 1
LOOK = 0.5  # seconds between two looks at the workers
PARENT_DEATH_SIGNAL = 1
WORKER = (sys.executable, "-m", "file_service", "serve", "--worker")


def serve_alone(settings: Settings, *, reuse_port: bool = False) -> int:
    """Serve in this process; the exit code, with the reason on stderr when the service could not start."""
    if reuse_port:
        _stop_with_the_supervisor()
    try:
        run(settings, reuse_port=reuse_port)
    except (OSError, ServiceError) as error:
        sys.stderr.write(f"file-service: could not start: {error}\n")
        return COULD_NOT_START
    return 0


def _stop_with_the_supervisor() -> None:
    """Have the kernel send SIGTERM when the parent is gone, even by SIGKILL (PR_SET_PDEATHSIG, prctl(2); Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PARENT_DEATH_SIGNAL, signal.SIGTERM)


def supervise(settings: Settings) -> int:
    """Serve with as many processes as the settings say; the exit code."""
    if settings.workers == 1:
        return serve_alone(settings)
    log_to_stderr(settings.log_level)
    stopping = False

    def stop(*_: object) -> None:
        nonlocal stopping
        stopping = True

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    workers = [subprocess.Popen(WORKER) for _ in range(settings.workers)]
    while not stopping:
        time.sleep(LOOK)
        for place, worker in enumerate(workers):
            if worker.poll() == COULD_NOT_START:
                stopping = True
            elif worker.returncode is not None and not stopping:
                log.error("worker %d ended with %d and is replaced", worker.pid, worker.returncode)
                workers[place] = subprocess.Popen(WORKER)
    for worker in workers:
        worker.terminate()
    codes = {worker.wait() for worker in workers}
    return 0 if codes <= {0, -signal.SIGTERM} else COULD_NOT_START  # a worker that was still starting dies of SIGTERM
