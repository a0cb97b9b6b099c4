"""REDbot, which checks a resource for conformance to HTTP: conditions, ranges, caching, lengths (https://redbot.org).

It runs from the PyPI wheel in a virtual environment of its own, `.venv-redbot` in the checkout, made when it is needed
first: sniffpy, which it requires, installs a package called `tests`, and that would hide ours.
"""

import fcntl
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

VERSION = "2.7.1"
ENVIRONMENT = Path(__file__).parents[2] / ".venv-redbot"


def program() -> Path:
    """The program, installed if need be; CalledProcessError when that is not possible."""
    ENVIRONMENT.mkdir(exist_ok=True)
    with (ENVIRONMENT / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = ENVIRONMENT / VERSION
        if not done.exists():
            (ENVIRONMENT / ".gitignore").write_text("*\n")
            subprocess.run([sys.executable, "-m", "venv", "--clear", ENVIRONMENT / "python"], check=True)
            pip = [str(ENVIRONMENT / "python/bin/pip"), "install", "--quiet", "--disable-pip-version-check"]
            subprocess.run([*pip, f"redbot=={VERSION}"], check=True, capture_output=True)
            done.touch()
    return ENVIRONMENT / "python/bin/redbot"


def notes(url: str) -> list[dict[str, Any]]:
    """What it has to say: `note_id`, `level` (GOOD, INFO, WARN, BAD) and `summary` of each remark."""
    done = subprocess.run([program(), "-o", "har", url], capture_output=True, check=True, timeout=60)
    return [note for entry in json.loads(done.stdout)["log"]["entries"] for note in entry["_red_messages"]]
