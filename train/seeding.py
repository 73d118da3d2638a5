"""Seeds made from what a draw is for. Nothing random has to be saved with a run: a step's number gives its draws."""

from __future__ import annotations

import numpy as np
import torch


def derive_seed(*parts: int) -> int:
    """One 64-bit seed from several non-negative numbers; seeds of different numbers are unrelated."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0])


def generator_for(device: torch.device, *parts: int) -> torch.Generator:
    """A generator on a device, seeded by :func:`derive_seed`."""
    return torch.Generator(device).manual_seed(derive_seed(*parts))
