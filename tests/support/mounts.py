"""Disks for tests: small, full, read-only, taken away. Whatever a test does to them, they are unmounted in the end.

Unmounting is lazy (umount(8), -l): the folder is empty at once, the disk itself goes with the last file open on it.
"""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

CAP_SYS_ADMIN = 1 << 21  # capabilities(7)


def _may_mount() -> bool:
    status = Path("/proc/self/status")
    lines = dict(line.split(":", 1) for line in status.read_text().splitlines()) if status.exists() else {}
    return bool(int(lines.get("CapEff", "0"), 16) & CAP_SYS_ADMIN) and shutil.which("mount") is not None


needs_mount = pytest.mark.skipif(not _may_mount(), reason="mounting needs Linux and root with CAP_SYS_ADMIN")
needs_ext4 = pytest.mark.skipif(shutil.which("mkfs.ext4") is None, reason="mkfs.ext4 (package e2fsprogs) is missing")


@contextmanager
def tmpfs(folder: Path, *, size: str = "16m", inodes: int = 0) -> Iterator[Path]:
    """An empty disk of `size` (tmpfs(5)) with room for so many files and folders; 0: no limit."""
    with _mounted(folder, "-t", "tmpfs", "-o", f"size={size},nr_inodes={inodes},mode=700", "tmpfs"):
        yield folder


@contextmanager
def bound(source: Path, folder: Path) -> Iterator[Path]:
    """The folder `source`, seen at `folder` as by a mount of its own."""
    source.mkdir(exist_ok=True)
    with _mounted(folder, "--bind", str(source)):
        yield folder


@contextmanager
def ext4(folder: Path, image: Path, *, megabytes: int = 16) -> Iterator[Path]:
    """A disk in the file `image`, which turns read-only at its first error."""
    with image.open("wb") as file:
        file.truncate(megabytes << 20)
    _run("mkfs.ext4", "-q", str(image))
    with _mounted(folder, "-o", "loop,errors=remount-ro", str(image)):
        yield folder


def fail_ext4(folder: Path) -> None:
    """Make an ext4 disk find an error in itself (/sys/fs/ext4/DEVICE/trigger_fs_error)."""
    device = subprocess.check_output(["findmnt", "-no", "SOURCE", str(folder)], text=True).strip()
    Path("/sys/fs/ext4", Path(device).name, "trigger_fs_error").write_text("test\n")


def remount(folder: Path, options: str) -> None:
    """Change the options of a disk, such as `ro`."""
    _run("mount", "-o", f"remount,{options}", str(folder))


def unmount(folder: Path) -> None:
    """Take the disk away: what was its folder is the bare mountpoint."""
    _run("umount", "-l", str(folder))


def fill(folder: Path, leave: int) -> Path:
    """Use a disk up but for `leave` bytes; delete the returned file to have the room back."""
    space = os.statvfs(folder)
    filler = folder / "filler"
    with filler.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, space.f_bavail * space.f_frsize - leave)
    return filler


def use_up_inodes(folder: Path, leave: int) -> Path:
    """Leave room for so many more files and folders; remove the returned folder to have the others back."""
    filler = folder / "filler"
    filler.mkdir()
    for number in range(os.statvfs(folder).f_favail - leave):
        (filler / str(number)).touch()
    return filler


@contextmanager
def _mounted(folder: Path, *arguments: str) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    _run("mount", *arguments, str(folder))
    try:
        yield
    finally:
        while subprocess.run(["mountpoint", "-q", str(folder)], check=False).returncode == 0:
            unmount(folder)


def _run(*command: str) -> None:
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise OSError(f"{' '.join(command)}: {done.stderr.strip()}")
