"""Files are whole or absent, after interrupts and on a full disk too."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from i2v.utils.files import replacing
from i2v.utils.signals import interrupts_deferred

ROOT = Path(__file__).parents[1]


def test_replacing_keeps_the_old_file_when_the_block_fails(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError), replacing(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    with replacing(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_an_interrupt_waits_for_the_end_of_the_block() -> None:
    before = signal.getsignal(signal.SIGINT)
    steps = []
    with pytest.raises(KeyboardInterrupt), interrupts_deferred():
        with interrupts_deferred():
            signal.raise_signal(signal.SIGINT)
            steps.append("inner")
        steps.append("outer")
    assert steps == ["inner", "outer"]
    assert signal.getsignal(signal.SIGINT) is before


FULL_DISK = """
import resource, sys
import numpy as np
from pathlib import Path
from i2v.results.export import write_label_png
from i2v.results.masks_json import RleJson
from i2v.results.overlay import VideoWriter

class Score:
    object_score, iou = 1.0, 1.0

def video(path):
    with VideoWriter(path) as writer:
        for _ in range(400):
            writer.write(rng.integers(0, 256, (96, 128, 3), dtype=np.uint8))

def rle(path):
    with RleJson(path, {1: 1}) as writer:
        for frame in range(100):
            writer.write(frame, rng.integers(0, 2, (96, 128), dtype=np.uint8), {1: Score})

def png(path):
    write_label_png(path, rng.integers(0, 256, (300, 300), dtype=np.uint8))

rng = np.random.default_rng(0)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))  # writing beyond fails, as on a full disk
for name, write in (("a.mp4", video), ("a.json", rle), ("a.png", png)):
    try:
        write(Path(sys.argv[1]) / name)
        print("written")
    except OSError as error:
        print(error)
"""


def test_a_full_disk_is_reported_and_leaves_nothing_half_written(tmp_path: Path) -> None:
    command = [sys.executable, "-c", FULL_DISK, str(tmp_path)]
    finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    lines = finished.stdout.splitlines()
    assert lines[0] == f"[Errno 27] File too large: '{tmp_path / 'a.mp4'}'"
    assert lines[1] == f"[Errno 27] File too large: '{tmp_path / 'a.json'}'"
    assert "File too large" in lines[2]
    # Of the JSON the frames before are kept, of the others nothing can be.
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
    frames = json.loads((tmp_path / "a.json").read_text())["frames"]
    assert [record["frame"] for record in frames] == list(range(len(frames)))
    assert 1 < len(frames) < 100
