"""Settings: what they are when nothing is said, what they take, how they refuse, and what they never tell.

That help and README list them all stands in test_settings_lists.
"""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from pydantic import ValidationError

from file_service.cli import main
from file_service.settings import PREFIX, BadSettings, Settings, from_environment

KIB, MIB = 1 << 10, 1 << 20
DEFAULTS: dict[str, Any] = {
    "host": "127.0.0.1",
    "port": 8080,
    "data_dir": Path("data"),
    "database_url": "",
    "database_pool_size": 5,
    "database_timeout": 2.0,
    "storage": "local",
    "chunk_size": 256 * KIB,
    "block_size": 512 * KIB,
    "download_framing": "chunked",
    "max_file_size": None,
    "durable": True,
    "body_idle_timeout": 60.0,
    "send_idle_timeout": 60.0,
    "drain_timeout": 30.0,
    "sweep_interval": 60.0,
    "lease_time": 30.0,
    "default_expiry": None,
    "max_expiry": None,
    "gone_retention": 604_800.0,
    "workers": 1,
    "log_level": "info",
}
TEXT = {
    name for name, field in Settings.model_fields.items() if field.annotation in (str, Path, str | None, Path | None)
}
OUT_OF_RANGE = {
    "port": ["-1", "65536", "80.5"],
    "database_pool_size": ["0", "-1", "1.5"],
    "database_timeout": ["0", "-1", "nan"],
    "chunk_size": ["0", "4095", str(64 * MIB + 1)],
    "block_size": ["0", "4095", str(64 * MIB + 1)],
    "max_file_size": ["0", "-1", "1k", "1e9"],
    "durable": ["2", "maybe", ""],
    "body_idle_timeout": ["0", "-1", "nan", ""],
    "send_idle_timeout": ["0", "nan"],
    "drain_timeout": ["-0.1", "nan"],
    "sweep_interval": ["0", "-inf"],
    "lease_time": ["0"],
    "default_expiry": ["0", "-1"],
    "max_expiry": ["0"],
    "gone_retention": ["-1"],
    "workers": ["0", "two"],
    "storage": ["LOCAL", ""],
    "log_level": ["INFO", "trace"],
    "download_framing": ["length,chunked"],
    "database_url": [
        "mysql://host/db",
        "postgresql://host/db",
        "sqlite:///file",
        "nonsense",
        "://",
        "postgresql+asyncpg",
    ],
}
SECRET = "hunter2"


def variable(name: str) -> str:
    """The variable of a setting."""
    return PREFIX + name.upper()


def refusal(command: str, name: str, value: str) -> str:
    """What a command says to a bad value; it must end with 1 and no traceback, and name the variable."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(variable(name), value)
        with pytest.raises(BadSettings, match=f"^{variable(name)}: "):  # with a value it takes the command would go on
            from_environment()
    result = CliRunner().invoke(main, [command], env={variable(name): value})
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit)
    assert result.output.startswith(f"Error: {variable(name)}: ")
    assert result.output.count("\n") == 1
    return result.output


@pytest.mark.parametrize(("name", "default"), DEFAULTS.items())
def test_a_setting_has_its_default_when_nothing_is_said(name: str, default: object) -> None:
    found = getattr(from_environment(), name)
    assert (found, type(found)) == (default, type(default))


def test_the_database_is_in_the_data_folder_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    assert from_environment().database == "sqlite+aiosqlite:///data/file_service.db"
    monkeypatch.setenv("FILE_SERVICE_DATA_DIR", "/srv/files")
    assert from_environment().database == "sqlite+aiosqlite:////srv/files/file_service.db"
    monkeypatch.setenv("FILE_SERVICE_DATABASE_URL", "postgresql+asyncpg://host/db")
    assert from_environment().database == "postgresql+asyncpg://host/db"


@pytest.mark.parametrize("name", sorted({*Settings.model_fields} - TEXT))
def test_every_setting_that_is_no_text_refuses_nonsense(name: str) -> None:
    refusal("serve", name, "nonsense")


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in OUT_OF_RANGE.items() for value in values]
)
def test_a_value_that_cannot_be_used_stops_the_start_by_the_name_of_its_variable(name: str, value: str) -> None:
    refusal("serve", name, value)


@pytest.mark.parametrize(
    ("name", "value", "meant"),
    [
        ("host", "::1", "::1"),
        ("port", "0", 0),
        ("port", "65535", 65535),
        ("data_dir", "/srv/my files", Path("/srv/my files")),
        ("chunk_size", str(64 * MIB), 64 * MIB),
        ("block_size", "4096", 4096),
        ("download_framing", "length", "length"),
        ("max_file_size", "1", 1),
        ("max_file_size", "", None),
        ("durable", "false", False),
        ("durable", "0", False),
        ("drain_timeout", "0", 0.0),
        ("body_idle_timeout", "0.5", 0.5),
        ("default_expiry", "", None),
        ("gone_retention", "0", 0.0),
        ("log_level", "debug", "debug"),
    ],
)
def test_a_value_is_read_from_its_variable(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, meant: object
) -> None:
    monkeypatch.setenv(variable(name), value)
    assert getattr(from_environment(), name) == meant


def test_settings_stay_as_they_were_read(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = from_environment()
    monkeypatch.setenv("FILE_SERVICE_PORT", "1")
    assert settings.port == 8080
    for name in Settings.model_fields:
        with pytest.raises(ValidationError, match="frozen"):
            setattr(settings, name, None)


def test_other_commands_refuse_as_serve_does() -> None:
    refusal("migrate", "port", "http")


def test_a_process_ends_with_1_and_one_line(tmp_path: Path) -> None:
    environment = {**os.environ, "FILE_SERVICE_DATA_DIR": str(tmp_path / "data"), "FILE_SERVICE_LEASE_TIME": "soon"}
    command = [sys.executable, "-m", "file_service", "serve"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=30)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert "FILE_SERVICE_LEASE_TIME" in done.stderr
    assert not (tmp_path / "data").exists(), "a bad setting is noticed before anything is made"


@pytest.mark.parametrize(
    "url",
    [
        f"mysql://user:{SECRET}@host/db",
        f"postgresql://user:{SECRET}@host/db",
        f"postgresql+asyncpg:/user:{SECRET}@host/db",
        f"postgresql+asyncpg://user:{SECRET}@host:port/db",
        f"user:{SECRET}@host/db",
        SECRET,
        f" {SECRET}",
    ],
)
def test_a_bad_address_of_the_database_is_refused_without_its_password(url: str) -> None:
    assert SECRET not in refusal("serve", "database_url", url)
    with pytest.raises(BadSettings) as refused:
        from_environment(database_url=url)
    assert SECRET not in repr(refused.value)
    assert refused.value.__cause__ is None
    assert refused.value.__suppress_context__


def test_a_password_is_in_no_text_made_of_the_settings() -> None:
    settings = from_environment(database_url=f"postgresql+asyncpg://user:{SECRET}@host/db")
    for text in (repr(settings), str(settings), f"{settings}", repr([settings]), repr(vars(settings).keys())):
        assert SECRET not in text
    assert SECRET in settings.database
