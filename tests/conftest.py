"""Fixtures of all tests."""

from __future__ import annotations

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
