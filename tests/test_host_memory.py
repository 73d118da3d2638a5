"""What becomes of freed memory, seen from outside: in processes of their own, as it is a setting of the process."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

needs_glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of glibc")

# Eight blocks of 16 MiB come and go, as those of a frame do, and the pages are counted that had to be cleared for five
# rounds. First every block is had from the system: glibc may come to that by itself, or not.
SCRIPT = """
import ctypes, resource
import torch
from i2v.host_memory import keep_freed_memory

M_MMAP_THRESHOLD = -3

def frame():
    return sum(float(block[0]) for block in [torch.ones(4 << 20) for _ in range(8)])

def cleared():
    frame(), frame()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        frame()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

assert ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, 128 << 10)
print(cleared(), keep_freed_memory(), cleared())
"""


def run(**environment: str) -> tuple[int, str, int]:
    """Pages cleared before, what the function said, and pages cleared after."""
    own = {"MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES"}
    inherited = {name: value for name, value in os.environ.items() if name not in own}
    command = [sys.executable, "-c", SCRIPT]
    done = subprocess.run(command, env={**inherited, **environment}, capture_output=True, text=True, check=True)
    before, said, after = done.stdout.split()
    return int(before), said, int(after)


@needs_glibc
def test_freed_memory_is_used_again():
    before, said, after = run()
    assert said == "True"
    assert after < before / 4


@needs_glibc
def test_the_users_own_settings_stand():
    before, said, after = run(MALLOC_TRIM_THRESHOLD_="131072")
    assert said == "False"
    assert after > before / 2
