"""Power cuts without hardware: a copy of a mounted disk's image is the disk as the cut leaves it.

What nobody has synced is in the page cache of the mounted file system alone, and so not in the image. ext4 is told to
commit its journal only every five minutes, and not to save those who rename without a sync (ext4(5), noauto_da_alloc).
"""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.mounts import needs_ext4, needs_mount

MEGABYTES = 48
CORRECTED = 1  # e2fsck(8): what it found is mended

needs_disks = [
    needs_mount,
    needs_ext4,
    pytest.mark.skipif(not Path("/dev/loop-control").exists(), reason="there are no loop devices"),
]


@contextmanager
def disk(folder: Path, image: Path) -> Iterator[Path]:
    """An empty disk, mounted at `folder`."""
    with image.open("wb") as file:
        file.truncate(MEGABYTES << 20)
    _run("mkfs.ext4", "-q", image)
    with _mounted(image, folder, "noauto_da_alloc,commit=300"):
        yield folder


def cut(image: Path, copy: Path) -> None:
    """Cut the power of the disk in `image`, at this moment and for this copy alone."""
    _run("cp", "--sparse=always", image, copy)


@contextmanager
def repaired(image: Path, folder: Path) -> Iterator[Path]:
    """A disk after a cut, checked and mounted as a machine does when it starts."""
    done = subprocess.run(["e2fsck", "-p", image], check=False, capture_output=True, text=True)
    assert done.returncode <= CORRECTED, done.stdout + done.stderr
    with _mounted(image, folder, "defaults"):
        yield folder


def settle(folder: Path) -> None:
    """Bring everything that is on the disk so far past any power cut (syncfs(2))."""
    _run("sync", "--file-system", folder)


@contextmanager
def _mounted(image: Path, folder: Path, options: str) -> Iterator[None]:
    folder.mkdir()
    _run("mount", "-o", f"loop,{options}", image, folder)
    try:
        yield
    finally:
        _run("umount", "-l", folder)


def _run(*command: str | Path) -> None:
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}: {done.stderr}"
