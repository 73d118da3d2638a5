"""ModuleMethods: what scripts written for SAM 2 call on a predictor, which is a ``torch.nn.Module`` there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from omegaconf import DictConfig
from torch import Tensor, nn

from i2v.hub import push_to_hub, save_pretrained
from i2v.inference.precision import Precision, default_dtype
from i2v.modeling.i2v_model import I2VModel

_Self = TypeVar("_Self", bound="ModuleMethods")


class ModuleMethods:
    """A predictor's model, its device and precision, under the names that a module has them.

    Predictors are no modules: they hold one. These methods pass on to it, and return the predictor where a module
    returns itself.
    """

    config: DictConfig | None = None
    """The config that the predictor was built from; ``None`` if it was not built by one of the builders."""

    def __init__(self, model: I2VModel, precision: Precision) -> None:
        """Hold a model and the precision of its computation."""
        self._model = model
        self._precision = precision

    @property
    def model(self) -> I2VModel:
        """The network."""
        return self._model

    @property
    def device(self) -> torch.device:
        """Device of the model."""
        return self.model.device

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the computation."""
        return self._precision.dtype

    @property
    def image_size(self) -> int:
        """Side of the square model image in pixels."""
        return self.model.image_size

    @property
    def training(self) -> bool:
        """Whether the model is in training mode."""
        return self.model.training

    def to(self: _Self, device: Any = None, dtype: torch.dtype | None = None) -> _Self:
        """Move the model to a device, change the precision of the computation, or both.

        The weights keep their dtype. Where the precision was the old device's default, it becomes the new one's. States
        opened before belong to the old device: open them anew.

        Args:
            device: The device; a dtype here is taken for ``dtype``.
            dtype: float32, bfloat16 or float16.

        Returns:
            The predictor.

        Raises:
            ValueError: If the device is not available, or the dtype is another one.
        """
        # Imported here because builders import predictors.
        from i2v.build_i2v import resolve_device, resolve_dtype

        if isinstance(device, torch.dtype):
            device, dtype = None, device
        target = self.device if device is None else resolve_device(device)
        if dtype is None and self.dtype == default_dtype(self.device):
            dtype = default_dtype(target)
        precision = replace(self._precision, dtype=resolve_dtype(dtype or self.dtype, target))
        if target != self.device or precision != self._precision:
            self.model.to(target)
            self._adopt(precision)
        return self

    def cuda(self: _Self, device: int | None = None) -> _Self:
        """Move the model to an NVIDIA GPU, see ``to``."""
        return self.to("cuda" if device is None else f"cuda:{device}")

    def cpu(self: _Self) -> _Self:
        """Move the model to the CPU, see ``to``."""
        return self.to("cpu")

    def eval(self: _Self) -> _Self:
        """Put the model into evaluation mode, in which builders return it."""
        self.model.eval()
        return self

    def parameters(self) -> Iterator[nn.Parameter]:
        """Iterate over the model's parameters."""
        return self.model.parameters()

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Iterate over the model's parameters with their names."""
        return self.model.named_parameters()

    def state_dict(self) -> dict[str, Tensor]:
        """Return the model's weights by name, as in a checkpoint."""
        return self.model.state_dict()

    def save_pretrained(
        self, folder: str | os.PathLike[str], overwrite: bool = False, dtype: torch.dtype | str | None = None
    ) -> Path:
        """Save weights and config as a folder that ``from_pretrained`` reads; see ``i2v.hub.save_pretrained``."""
        return save_pretrained(self.model, self.config, folder, overwrite, dtype)

    def push_to_hub(self, repo_id: str, **options: Any) -> str:
        """Save weights and config on the Hugging Face hub, and return their address; see ``i2v.hub.push_to_hub``."""
        return push_to_hub(self.model, self.config, repo_id, **options)

    def _adopt(self, precision: Precision) -> None:
        """Compute in another precision, or on another device, from now on."""
        self._precision = precision
