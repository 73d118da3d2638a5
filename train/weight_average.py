"""Exponential moving average (EMA) of the weights of a model, for inference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from i2v.checkpoint import (
    CheckpointError,
    compare_state_dict,
    load_checkpoint,
    read_checkpoint_info,
    save_checkpoint,
)

WARM_UP_STEPS = 10  # at step n the decay is at most n / (n + 10)


class WeightAverage:
    """Exponential moving average of the weights of a model.

    The decay is lower during the first steps, so that the initial weights are forgotten quickly.
    """

    def __init__(self, model: nn.Module, decay: float = 0.998) -> None:
        """Start with the weights of the model.

        Args:
            model: The model, which is copied.
            decay: Fraction (0..1, exclusive) of the average that a step keeps; it averages over about 1 / (1 - decay)
                steps.

        Raises:
            ValueError: If ``decay`` is out of range.
        """
        if not 0 < decay < 1:
            raise ValueError(f"decay: expected a number between 0 and 1, got {decay}")
        self._decay = decay
        self._average = AveragedModel(model, multi_avg_fn=self._blend)

    @property
    def model(self) -> nn.Module:
        """The model with averaged weights."""
        return self._average.module

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Update the average with the weights after a step; batch norm statistics are copied."""
        self._average.update_parameters(model)

    def save(self, path: Path) -> None:
        """Write the averaged weights as a checkpoint for inference, with the number of averaged steps as metadata."""
        save_checkpoint(self.model, path, averaged_steps=int(self._average.n_averaged))

    def state(self) -> dict[str, Any]:
        """State for :meth:`load_state`."""
        return {"model": self.model.state_dict(), "steps": int(self._average.n_averaged)}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restore a state.

        Args:
            state: What :meth:`state` returned.

        Raises:
            CheckpointError: If it is that of another model.
        """
        report = compare_state_dict(self.model, state["model"])
        if not report.fits:
            raise CheckpointError(f"the averaged weights do not fit the model: {report.describe()}")
        steps = int(state["steps"])  # before anything is loaded, as it may be missing
        self.model.load_state_dict(state["model"])
        self._average.n_averaged.fill_(steps)

    def resume(self, path: Path) -> None:
        """Restore what :meth:`save` wrote; if there is no such file, the average is unchanged.

        Raises:
            CheckpointError: If the file is not a checkpoint of this model.
        """
        if path.exists():
            load_checkpoint(self.model, path)
            steps = read_checkpoint_info(path).metadata.get("averaged_steps", 1)
            self._average.n_averaged.fill_(int(steps))

    def _blend(self, averaged: Sequence[Tensor], current: Sequence[Tensor], num_averaged: Tensor | int) -> None:
        steps = float(num_averaged)
        weight = 1 - min(self._decay, steps / (steps + WARM_UP_STEPS))
        for old, new in zip(averaged, current, strict=True):
            old.lerp_(new.to(old.dtype), weight)
