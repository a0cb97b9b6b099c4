"""A skipped test fails the run where everything a test needs has to be there."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.strict import STATUS

ROOT = Path(__file__).parent.parent
TESTS = """
import pytest

def test_runs():
    pass

def test_needs_a_tool():
    pytest.skip("no such tool")

def test_fails():
    assert False
"""


@pytest.mark.parametrize(
    ("ci", "options", "code"),
    [
        ("true", ["-kruns or needs"], STATUS),
        ("true", ["-n1"], STATUS),
        ("true", ["-kruns"], 0),
        ("true", ["-kruns or fails"], 1),
        ("", ["-kruns or needs"], 0),
    ],
)
def test_a_skip_fails_the_run_in_ci_alone(tmp_path: Path, ci: str, options: list[str], code: int) -> None:
    (tmp_path / "test_it.py").write_text(TESTS)
    command = [sys.executable, "-m", "pytest", "-p", "tests.support.strict", *options, "test_it.py"]
    environment = os.environ | {"CI": ci, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    assert ("nothing may be skipped" in done.stdout) == (code == STATUS)
