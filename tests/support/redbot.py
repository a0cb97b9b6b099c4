"""REDbot, which checks a resource for conformance to HTTP: conditions, ranges, caching, lengths (https://redbot.org).

It runs from the PyPI wheel in a virtual environment of its own, `.venv-redbot` in the checkout, made when it is needed
first: sniffpy, which it requires, installs a package called `tests`, and that would hide ours.
"""

import json
import subprocess
from pathlib import Path
from typing import Any

from tests.support.wheel import programs

VERSION = "2.7.1"


def program() -> Path:
    """The program; CalledProcessError when it cannot be installed."""
    return programs("redbot", VERSION) / "redbot"


def notes(url: str) -> list[dict[str, Any]]:
    """What it has to say: `note_id`, `level` (GOOD, INFO, WARN, BAD) and `summary` of each remark."""
    done = subprocess.run([program(), "-o", "har", url], capture_output=True, check=True, timeout=60)
    return [note for entry in json.loads(done.stdout)["log"]["entries"] for note in entry["_red_messages"]]
