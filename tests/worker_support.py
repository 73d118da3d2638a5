"""What the worker processes of a test do; here, because they have to be able to import it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from i2v.utils.worker_pool import worker_pool
from i2v.video.frame_source import FrameSource
from test_pvs.workers import Work


def start_counting() -> Work[str]:
    """Jobs: "ok" takes four steps, "bad" fails at its second, "die" ends the process."""

    def work(job: str) -> Iterator[float]:
        for step in range(1, 5):
            if job == "bad" and step == 2:
                raise ValueError("this one is bad")
            if job == "die":
                os._exit(7)
            yield step / 4

    return work


def fail_to_start() -> Work[str]:
    raise RuntimeError("no model here")


def start_waiting(started: Path) -> None:
    """Two processes that say that they are there, and wait for long."""
    with worker_pool(2) as pool:
        list(pool.map(_wait, [started / "a", started / "b"]))


def _wait(path: Path) -> None:
    path.touch()
    time.sleep(300)


def checksum(source: FrameSource, frame: int) -> int:
    """A number that tells the pixels of a frame from those of others."""
    return int(source.read(frame).astype(np.int64).sum())


class Checksums:
    """A data set, as DataLoader takes it, of the checksums of an opened video's first frames."""

    def __init__(self, source: FrameSource, num_frames: int) -> None:
        self.source = source
        self.num_frames = num_frames

    def __len__(self) -> int:
        return self.num_frames

    def __getitem__(self, index: int) -> int:
        return checksum(self.source, index)
