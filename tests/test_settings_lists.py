"""Every setting is documented where people look, and a bad one stops the start by its name."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from file_service.clients.commands import TOKEN
from file_service.settings import BadSettings, Settings, from_environment, table

README = Path(__file__).parent.parent / "README.md"
NAMES = {f"FILE_SERVICE_{name.upper()}" for name in Settings.model_fields}


def test_readme_lists_every_setting_with_its_default_and_meaning() -> None:
    rows = {tuple(cell.strip(" `") for cell in line.split("|")[1:4]) for line in README.read_text().splitlines()}
    assert set(table()) <= rows
    assert set(re.findall(r"FILE_SERVICE_[A-Z0-9_]+", README.read_text())) <= {*NAMES, TOKEN}


def test_help_lists_every_setting() -> None:
    command = [sys.executable, "-m", "file_service", "serve", "--help"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert set(re.findall(r"^\s+(FILE_SERVICE_[A-Z0-9_]+)\s", shown, re.MULTILINE)) == NAMES


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "http"),
        ("PORT", "70000"),
        ("DATABASE_URL", "mysql://user:secret@host/db"),
        ("DATABASE_URL", "nonsense secret"),
        ("MAX_FILE_SIZE", "-1"),
        ("CHUNK_SIZE", "1"),
        ("DURABLE", "perhaps"),
        ("DOWNLOAD_FRAMING", "gzip"),
        ("WORKERS", "0"),
        ("LEASE_TIME", "0"),
        ("LOG_LEVEL", "loud"),
    ],
)
def test_a_bad_value_stops_the_start_and_names_its_variable(name: str, value: str) -> None:
    environment = {**os.environ, f"FILE_SERVICE_{name}": value}
    command = [sys.executable, "-m", "file_service", "serve"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 1
    assert f"FILE_SERVICE_{name}" in done.stderr
    assert "secret" not in done.stderr
    assert "Traceback" not in done.stderr


def test_an_empty_value_is_none_where_none_means_no_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FILE_SERVICE_MAX_FILE_SIZE", "")
    assert from_environment().max_file_size is None


def test_the_password_of_the_database_is_not_in_the_repr() -> None:
    settings = from_environment(database_url="postgresql+asyncpg://user:secret@host/db")
    assert "secret" not in repr(settings) + str(settings)


def test_settings_are_frozen() -> None:
    settings = from_environment()
    with pytest.raises(ValueError, match="frozen"):
        settings.port = 1


def test_bad_settings_are_one_error_for_all() -> None:
    with pytest.raises(BadSettings, match=r"FILE_SERVICE_PORT.*FILE_SERVICE_WORKERS"):
        from_environment(port=-1, workers=0)
