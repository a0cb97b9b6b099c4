"""Programs from PyPI that may not share an environment with the tests."""

import fcntl
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def programs(name: str, version: str) -> Path:
    """The folder with the programs of a wheel in an environment of its own, `.venv-<name>` in the checkout.

    It is made when it is needed first; CalledProcessError when that is not possible.
    """
    folder = ROOT / f".venv-{name}"
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = folder / version
        if not done.exists():
            (folder / ".gitignore").write_text("*\n")
            subprocess.run([sys.executable, "-m", "venv", "--clear", folder / "python"], check=True)
            pip = [str(folder / "python/bin/pip"), "install", "--quiet", "--disable-pip-version-check"]
            subprocess.run([*pip, f"{name}=={version}"], check=True, capture_output=True)
            done.touch()
    return folder / "python/bin"
