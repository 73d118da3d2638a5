"""Fixtures of all tests."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from support import make_predictor, render_video

from i2v.i2v_video_predictor import I2VVideoPredictor

# Tests run side by side, and tiny sums gain nothing from more threads.
torch.set_num_threads(1)


@pytest.fixture
def predictor() -> I2VVideoPredictor:
    return make_predictor()


@pytest.fixture
def video() -> np.ndarray:
    return render_video()


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Debian's chromium. CI installs it, so nothing may pass these tests over there."""
    chromium = shutil.which("chromium")
    if chromium is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("no browser: apt-get install chromium")
    from playwright.sync_api import sync_playwright  # only where it is used, as most tests do without

    with sync_playwright() as tools:
        launched = tools.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield launched
        launched.close()
