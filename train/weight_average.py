"""An exponential moving average of a model's weights, which is what is used in the end."""

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

WARM_UP_STEPS = 10  # the share of the step n that the average keeps is at most n / (n + 10)


class WeightAverage:
    """Averages the weights of a model, the latest steps counting most.

    ``decay`` (below 1): the share of the average that a step keeps; it looks back over about 1 / (1 - decay) steps. At
    the start it looks back over a part of the steps so far: else the first weights would stay in it for long.
    """

    def __init__(self, model: nn.Module, decay: float = 0.998) -> None:
        if not 0 < decay < 1:
            raise ValueError(f"decay: expected a number between 0 and 1, got {decay}")
        self._decay = decay
        self._average = AveragedModel(model, multi_avg_fn=self._blend)

    @property
    def model(self) -> nn.Module:
        """A model with the averaged weights."""
        return self._average.module

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Take a step's weights in. Statistics of batch norms are taken as they are."""
        self._average.update_parameters(model)

    def save(self, path: Path) -> None:
        """Write the averaged weights as a checkpoint for inference, with the number of steps in them."""
        save_checkpoint(self.model, path, averaged_steps=int(self._average.n_averaged))

    def state(self) -> dict[str, Any]:
        """What :meth:`load_state` goes on from."""
        return {"model": self.model.state_dict(), "steps": int(self._average.n_averaged)}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from what :meth:`state` gave. Raises CheckpointError if that is of another model."""
        report = compare_state_dict(self.model, state["model"])
        if not report.fits:
            raise CheckpointError(f"the averaged weights do not fit the model: {report.describe()}")
        self.model.load_state_dict(state["model"])
        self._average.n_averaged.fill_(int(state["steps"]))

    def resume(self, path: Path) -> None:
        """Go on from a file that :meth:`save` wrote; without one the average begins with the model's weights."""
        if path.exists():
            load_checkpoint(self.model, path)
            steps = read_checkpoint_info(path).metadata.get("averaged_steps", 1)
            self._average.n_averaged.fill_(int(steps))

    def _blend(self, averaged: Sequence[Tensor], current: Sequence[Tensor], num_averaged: Tensor | int) -> None:
        steps = float(num_averaged)
        weight = 1 - min(self._decay, steps / (steps + WARM_UP_STEPS))
        for old, new in zip(averaged, current, strict=True):
            old.lerp_(new.to(old.dtype), weight)
