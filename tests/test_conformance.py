"""The numbers of the published code on deterministic weights: the short cases; `make conformance` runs all."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.timeout(900)
def test_the_short_cases_equal_the_published_code() -> None:
    command = [sys.executable, "tests/conformance/check.py", "--fast"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=880)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "7 passed, 0 failed, 0 skipped" in run.stdout
