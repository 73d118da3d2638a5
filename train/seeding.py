"""Seeds derived from what a draw is for. They follow from the step number, so a run needs to save no RNG state."""

from __future__ import annotations

import numpy as np
import torch


def derive_seed(*parts: int) -> int:
    """Derive a 64-bit seed from non-negative numbers; seeds of different numbers are independent."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0])


def generator_for(device: torch.device, *parts: int) -> torch.Generator:
    """Create a generator on a device, seeded by :func:`derive_seed` of ``parts``."""
    return torch.Generator(device).manual_seed(derive_seed(*parts))
