"""The wheel works without the checkout, and the locks are what pyproject.toml asks for."""

import ast
import importlib.metadata
import os
import re
import sqlite3
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from file_service import __version__

ROOT = Path(__file__).parent.parent
LOCKS = {
    "requirements.lock": [""],
    "requirements-build.lock": ["build"],
    "requirements-dev.lock": ["", "build", "dev"],
}


def run(*command: str | Path, folder: Path, **environment: str) -> str:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("FILE_SERVICE_", "PYTHON"))}
    done = subprocess.run(
        command, cwd=folder, env=inherited | environment, text=True, capture_output=True, check=False, timeout=100
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    options = ["--quiet", "--no-deps", "--no-index", "--no-build-isolation"]
    run(sys.executable, "-m", "pip", "wheel", *options, "--wheel-dir", folder, ROOT, folder=folder)
    (built,) = folder.iterdir()
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin folder of a new environment with the wheel in it, and what the wheel needs on loan from this one."""
    home = tmp_path_factory.mktemp("installed")
    venv.create(home, symlinks=True)
    site = Path(sysconfig.get_path("purelib", "venv", {"base": str(home)}))
    # A .pth in the borrowed folder is not read, so an editable install of this checkout stays out of sight.
    (site / "borrowed.pth").write_text(sysconfig.get_path("purelib"))
    options = ["--quiet", "--no-deps", "--no-index", "--no-warn-script-location"]
    run(sys.executable, "-m", "pip", "--python", home / "bin/python", "install", *options, wheel, folder=home)
    return home / "bin"


def locked(lock: str) -> dict[str, str]:
    pins = re.findall(r"^([\w.-]+)==(\S+)", (ROOT / lock).read_text(), re.MULTILINE)
    return {canonicalize_name(name): version for name, version in pins}


def wanted(*groups: str) -> list[Requirement]:
    """What pyproject.toml names: the project's dependencies under "", else those of a dependency group."""
    content = tomllib.loads((ROOT / "pyproject.toml").read_text())
    lists = content["dependency-groups"] | {"": content["project"]["dependencies"]}
    return [Requirement(line) for group in groups for line in lists[group] if isinstance(line, str)]


def test_the_wheel_holds_the_package_and_the_migrations_alone(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names} == {"file_service", f"file_service-{__version__}.dist-info"}
    revisions = {path.name for path in (ROOT / "migrations/versions").glob("*.py")}
    assert revisions == {Path(name).name for name in names if name.startswith("file_service/migrations/versions/")}
    assert "file_service/migrations/env.py" in names


def test_the_installed_command_explains_itself(installed: Path) -> None:
    page = run(installed / "file-service", "--help", folder=installed)
    assert {"serve", "migrate", "send", "fetch"} <= set(re.findall(r"^  (\w+)", page, re.MULTILINE))


def test_the_installed_command_migrates_without_the_checkout(installed: Path, tmp_path: Path) -> None:
    code = "import file_service.db.migrate as m; print(m.scripts())"
    scripts = Path(run(installed / "python", "-c", code, folder=tmp_path).strip())
    assert scripts.is_relative_to(installed.parent)

    run(installed / "file-service", "migrate", folder=tmp_path, FILE_SERVICE_DATA_DIR=str(tmp_path / "data"))
    database = sqlite3.connect(tmp_path / "data/file_service.db")
    tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    database.close()
    assert {"alembic_version", "file"} <= tables


def test_every_import_is_asked_for_by_name() -> None:
    names = {
        alias.name if isinstance(node, ast.Import) else str(node.module)
        for path in [*(ROOT / "file_service").rglob("*.py"), *(ROOT / "migrations").rglob("*.py")]
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    foreign = {name.split(".")[0] for name in names} - sys.stdlib_module_names - {"file_service"}
    foreign -= {"types_aiobotocore_s3"}  # for the type checker alone, in the group of the developers
    distributions = importlib.metadata.packages_distributions()
    asked = {canonicalize_name(requirement.name) for requirement in wanted("")}
    assert {name for name in foreign if asked.isdisjoint(map(canonicalize_name, distributions[name]))} == set()


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_names_hashes_and_no_address(lock: str) -> None:
    text = (ROOT / lock).read_text()
    assert all("--hash=sha256:" in entry for entry in re.split(r"^(?=\w)", text, flags=re.MULTILINE)[1:])
    assert not re.search(r"://|^-", text, re.MULTILINE)


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_has_what_is_asked_for(lock: str) -> None:
    versions = locked(lock)
    asked = wanted(*LOCKS[lock])
    assert [str(r) for r in asked if versions.get(canonicalize_name(r.name), "") not in r.specifier] == []


def test_the_locks_agree() -> None:
    everything = locked("requirements-dev.lock")
    assert locked("requirements.lock").items() <= everything.items()
    assert locked("requirements-build.lock").items() <= everything.items()
