"""Random tensors for batches that are composed on any device."""

from __future__ import annotations

import math

import torch
from torch import Tensor


class RandomDraws:
    """Random tensors on a device. Small ones are drawn on the CPU, so that they are the same for every device."""

    def __init__(self, generator: torch.Generator, device: torch.device) -> None:
        self._generator, self._device = generator, device

    def uniform(self, shape: tuple[int, ...], low: float = 0.0, high: float = 1.0) -> Tensor:
        values = torch.rand(shape, generator=self._generator) * (high - low) + low
        return values.to(self._device, non_blocking=True)

    def normal(self, shape: tuple[int, ...]) -> Tensor:
        return torch.randn(shape, generator=self._generator).to(self._device, non_blocking=True)

    def integers(self, limit: int, count: int) -> Tensor:
        return torch.randint(limit, (count,), generator=self._generator).to(self._device, non_blocking=True)

    def weighted(self, weights: Tensor, count: int) -> Tensor:
        """``count`` indices by their weights (O,)."""
        edges = weights.double().cumsum(0)
        chance = torch.rand(count, generator=self._generator, dtype=torch.float64).to(self._device)
        return torch.searchsorted(edges, chance * edges[-1]).clamp(max=len(weights) - 1)

    def weighted_rows(self, weights: Tensor) -> Tensor:
        """One index for each row of weights (B,O)."""
        edges = weights.double().cumsum(1)
        chance = torch.rand(len(weights), 1, generator=self._generator, dtype=torch.float64).to(self._device)
        return torch.searchsorted(edges, chance * edges[:, -1:])[:, 0].clamp(max=weights.shape[1] - 1)

    def paths(self, count: int, steps: int, channels: int) -> Tensor:
        """Smooth paths (count,steps,channels) that begin at 0 and reach about 1: a drift and a swing."""
        time = torch.linspace(0, 1, steps).view(1, -1, 1) if steps > 1 else torch.zeros(1, 1, 1)
        drift = torch.randn((count, 1, channels), generator=self._generator)
        swing = 0.6 * torch.randn((count, 1, channels), generator=self._generator)
        phase = 2 * math.pi * torch.rand((count, 1, channels), generator=self._generator)
        turns = 1.5 * math.pi * (0.5 + torch.rand((count, 1, channels), generator=self._generator))
        path = drift * time + swing * (torch.sin(turns * time + phase) - torch.sin(phase))
        return path.to(self._device, non_blocking=True)

    def on_device(self) -> torch.Generator:
        """A generator of the device's own, for what is large."""
        seed = int(torch.randint(2**62, (), generator=self._generator))
        return torch.Generator(self._device).manual_seed(seed)
