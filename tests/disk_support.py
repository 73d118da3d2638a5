"""Disks for tests: full ones, one that always works and a real one for root, and what a killed process leaves."""

from __future__ import annotations

import contextlib
import resource
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from i2v.utils.temporary import Temporary


def leave_folder(target: Path) -> Path:
    """The hidden folder that a process has left which was killed while it made a folder."""
    left = Temporary(target)
    left.make_folder()
    left._release()  # as the system does when a process ends
    return left.path


@contextlib.contextmanager
def largest_file(num_bytes: int) -> Iterator[None]:
    """Let every file of this process, and of those that it starts, be full at a size."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@contextlib.contextmanager
def small_disk(folder: Path, num_kib: int) -> Iterator[Path]:
    """A disk of a size, a multiple of 4 KiB, at a new folder; skips the test where none can be mounted."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={num_kib}k", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount a disk")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
