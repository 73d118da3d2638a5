"""What becomes of freed memory, seen from outside: in processes of their own, as it is a setting of the process."""

from __future__ import annotations

import ctypes
import gc
import os
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from i2v.host_memory import keep_freed_memory
from i2v.i2v_video_predictor import I2VVideoPredictor
from i2v.results.overlay import VideoWriter

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


@needs_glibc
@pytest.mark.parametrize("value", ["0", "false", "OFF", "no"])
def test_the_variable_turns_it_off(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("I2V_KEEP_FREED_MEMORY", value)
    assert not keep_freed_memory()


def test_the_variable_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("I2V_KEEP_FREED_MEMORY", "maybe")
    with pytest.raises(ValueError, match="I2V_KEEP_FREED_MEMORY: expected 0 or 1, got 'maybe'"):
        keep_freed_memory()


class _Mallinfo(ctypes.Structure):
    """What glibc's mallinfo2() returns, see `man mallinfo`."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in [
            "arena",
            "ordblks",
            "smblks",
            "hblks",
            "hblkhd",
            "usmblks",
            "fsmblks",
            "uordblks",
            "fordblks",
            "keepcost",
        ]
    ]


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallinfo2"), reason="needs glibc 2.33")
def test_no_memory_is_lost_over_videos(predictor: I2VVideoPredictor, video: np.ndarray, tmp_path: Path) -> None:
    """What is allocated counts: resident memory goes on holding some of what was freed."""
    with VideoWriter(tmp_path / "a.mp4") as writer:
        for frame in video:
            writer.write(frame)
    mallinfo = ctypes.CDLL(None).mallinfo2
    mallinfo.restype = _Mallinfo
    allocated = []
    for _ in range(16):
        with predictor.init_state(tmp_path / "a.mp4") as state:
            predictor.add_new_points_or_box(state, 0, 1, points=[[19, 19]], labels=[1])
            assert len(list(predictor.propagate_in_video(state))) == len(video)
        del state
        gc.collect()
        now = mallinfo()
        allocated.append(now.uordblks + now.hblkhd)
    assert allocated[-1] - allocated[5] < 1 << 20  # ten videos of 12 frames; one frame at model size has 48 KiB
