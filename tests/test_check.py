"""`file-service check`: every planted fault is named, nothing healthy is, repair is safe and repeatable."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from urllib.request import Request, urlopen
from uuid import uuid4

import pytest

from tests.support.process import Service

Spawn = Callable[..., Service]


def check(service: Service, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command on the service's folder."""
    environment = {**os.environ, "FILE_SERVICE_DATA_DIR": str(service.data_dir)}
    command = [sys.executable, "-m", "file_service", "check", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def store(service: Service, data: bytes) -> str:
    """The path of a new file's link."""
    with urlopen(Request(f"{service.url}/files", data=data, method="POST")) as answer:
        return str(answer.headers["Location"])


def objects(service: Service) -> list[Path]:
    """The published files, oldest first."""
    return sorted(service.data_dir.glob("objects/*/*/*"), key=lambda path: path.stat().st_mtime_ns)


def plant(service: Service, folder: str, data: bytes) -> Path:
    """A file that nobody owns."""
    name = uuid4().hex
    path = service.data_dir / folder / ("" if folder == "tmp" else f"{name[:2]}/{name[2:4]}") / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def test_a_healthy_store_has_nothing_wrong_while_it_runs(spawn: Spawn) -> None:
    service = spawn()
    for number in range(3):
        store(service, b"x" * number)
    done = check(service)
    assert (done.returncode, done.stdout) == (0, "3 objects, 3 files: nothing wrong\n"), done.stderr


def test_every_planted_fault_is_named_and_repaired_once(spawn: Spawn) -> None:
    service = spawn()
    links = [store(service, data) for data in (b"whole", b"missing", b"cut short")]
    _, missing, cut = objects(service)
    saved = missing.read_bytes()
    missing.unlink()
    os.truncate(cut, 1)
    orphan, staged = plant(service, "objects", b"orphan"), plant(service, "tmp", b"half")

    dry = check(service)
    assert dry.returncode == 1
    assert sorted(line.rsplit(" ", 2)[0] for line in dry.stdout.splitlines()[:-1]) == sorted(
        [
            f"orphan object {as_uuid(orphan)}",
            f"orphan staged {as_uuid(staged)}",
            *(f"damaged file {link.split('/')[2]}" for link in links[1:]),
        ]
    )
    assert orphan.exists(), "without --repair nothing is changed"
    assert staged.exists()

    assert check(service, "--repair").returncode == 1
    quarantine = service.data_dir / "quarantine"
    assert {path.name for path in quarantine.iterdir()} == {orphan.name, f"{staged.name}.staged"}
    assert check(service).returncode == 0, "a second run finds nothing new"
    missing.write_bytes(saved)
    assert "whole again" in check(service, "--repair").stdout
    with urlopen(service.url + links[1]) as answer:
        assert answer.read() == saved


def test_a_folder_of_another_database_is_refused(spawn: Spawn, tmp_path: Path) -> None:
    service = spawn()
    store(service, b"x")
    marker = service.data_dir / ".file-service"
    marker.write_text(f"{uuid4()}\n")
    done = check(service, "--repair")
    assert done.returncode == 2
    assert "another database" in done.stderr
    assert len(objects(service)) == 1


@pytest.mark.parametrize("count", [100, 101])
def test_repair_refuses_when_more_is_wrong_than_can_be_believed(spawn: Spawn, count: int) -> None:
    service = spawn()
    for _ in range(count):
        plant(service, "objects", b"x")
    done = check(service, "--repair")
    assert done.returncode == (1 if count == 100 else 2)
    assert len(objects(service)) == (0 if count == 100 else count)


def as_uuid(path: Path) -> str:
    """The key in a file's name as reports write it."""
    from uuid import UUID

    return str(UUID(hex=path.name))
