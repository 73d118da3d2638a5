"""Processes that work for another one end with it, however that ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def processes_of(group: int) -> list[int]:
    """Those that are still there, the dead that nobody has asked for aside."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            state, _, its_group = (entry / "stat").read_text().rpartition(")")[2].split()[:3]
        except OSError:
            continue  # it has ended meanwhile
        if int(its_group) == group and state != "Z":
            found.append(int(entry.name))
    return found


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs Linux's list of processes")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_no_process_of_a_pool_outlives_its_parent(tmp_path: Path, number: signal.Signals) -> None:
    code = f"import sys; sys.path.insert(0, {str(ROOT / 'tests')!r}); from pathlib import Path\n"
    code += f"import worker_support; worker_support.start_waiting(Path({str(tmp_path)!r}))"
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
    parent = subprocess.Popen([sys.executable, "-c", code], env=environment, start_new_session=True)
    deadline = time.monotonic() + 60
    while len(list(tmp_path.iterdir())) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert len(processes_of(parent.pid)) >= 3
    parent.send_signal(number)
    parent.wait(60)
    while left := processes_of(parent.pid):
        assert time.monotonic() < deadline, left
        time.sleep(0.05)
