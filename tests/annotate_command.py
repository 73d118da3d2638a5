"""`i2v annotate` in a process of its own, as a user runs it."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path

from support import TINY

ROOT = Path(__file__).parents[1]


class Command:
    """The command, running until the block ends."""

    def __init__(self, *arguments: str | Path) -> None:
        line = [sys.executable, "-m", "i2v", "annotate", "--config", str(TINY), "--device", "cpu", "--no-browser"]
        self.process = subprocess.Popen(
            [*line, *map(str, arguments)], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self.said: list[str] = []

    def __enter__(self) -> Command:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()

    def address(self) -> str:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said.append(line)
            if found := re.search(r"open (http://\S+)", line):
                return found[1]
        raise AssertionError(self.process.communicate())

    def interrupt(self) -> tuple[int, str]:
        self.process.send_signal(signal.SIGINT)
        status = self.process.wait(60)
        assert self.process.stderr is not None
        return status, self.process.stderr.read()
