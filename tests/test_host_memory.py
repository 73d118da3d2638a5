"""What becomes of freed memory, seen from outside: in processes of their own, as it is a setting of the process."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

needs_glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of glibc")

# Eight blocks of 16 MiB come and go, as those of a frame do; then the pages are counted that had to be cleared for it.
SCRIPT = """
import resource, sys
import torch
from i2v.host_memory import keep_freed_memory

print(keep_freed_memory() if sys.argv[1] == "keep" else None)

def frame():
    return sum(float(block[0]) for block in [torch.ones(4 << 20) for _ in range(8)])

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

frame(), frame()
before = faults()
for _ in range(5):
    frame()
print(faults() - before)
"""


def run(argument: str, **environment: str) -> tuple[str, int]:
    """What the function said, and pages cleared in five rounds."""
    own = {"MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES"}
    inherited = {name: value for name, value in os.environ.items() if name not in own}
    command = [sys.executable, "-c", SCRIPT, argument]
    done = subprocess.run(command, env={**inherited, **environment}, capture_output=True, text=True, check=True)
    said, count = done.stdout.split()
    return said, int(count)


@needs_glibc
def test_freed_memory_is_used_again():
    pages_of_a_round = 8 * (16 << 20) // os.sysconf("SC_PAGESIZE")
    _, by_default = run("leave")
    said, kept = run("keep")
    assert said == "True"
    assert kept < pages_of_a_round / 2
    assert by_default > pages_of_a_round


@needs_glibc
def test_the_users_own_settings_stand():
    said, count = run("keep", MALLOC_TRIM_THRESHOLD_="131072")
    assert said == "False"
    assert count > 8 * (16 << 20) // os.sysconf("SC_PAGESIZE")
