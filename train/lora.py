"""LoRA: low-rank changes of the weights of linear layers, which are trained in place of the weights themselves.

The layers keep their classes' behaviour: a weight W reads as W + (alpha / rank) B A, whoever asks for it. Hu et al.,
"LoRA: Low-Rank Adaptation of Large Language Models", 2021.
"""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from i2v.checkpoint import CheckpointError, read_content
from i2v.errors import brief

# What PyTorch calls the parts of a weight that is changed, behind the name of its layer.
_ORIGINAL, _CHANGE = ".parametrizations.weight.original", ".parametrizations.weight.0."


@dataclass(frozen=True)
class LoraSettings:
    """``modules``: wildcards over the names of linear layers. ``rank`` of a change, and ``alpha``: its strength."""

    modules: Sequence[str]
    rank: int = 8
    alpha: float = 16.0

    def __post_init__(self) -> None:
        if self.rank < 1 or not self.alpha > 0:
            raise ValueError(f"lora: expected a rank of at least 1 and an alpha above 0, got {self.rank}, {self.alpha}")


class LowRankChange(nn.Module):
    """Adds (alpha / rank) B A to a weight (out, in). B begins with zeros, so that nothing is changed at first."""

    def __init__(self, weight: Tensor, rank: int, alpha: float) -> None:
        super().__init__()
        out_dim, in_dim = weight.shape
        self.scale = alpha / rank
        self.a = nn.Parameter(weight.new_empty(rank, in_dim))
        self.b = nn.Parameter(weight.new_zeros(out_dim, rank))
        nn.init.kaiming_uniform_(self.a, a=math.sqrt(5))

    def forward(self, weight: Tensor) -> Tensor:
        return weight + self.scale * (self.b @ self.a)


def add_adapters(model: nn.Module, settings: LoraSettings) -> list[str]:
    """Freeze a model and give its linear layers low-rank changes, which alone are trained; the layers' names.

    ValueError if a wildcard matches nothing, or all of them no linear layer.
    """
    layers = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    chosen: dict[str, nn.Linear] = {}
    for pattern in settings.modules:
        # A part without linear layers, such as a trunk of convolutions, has nothing to change; a typo names no part.
        if not any(fnmatch.fnmatchcase(name, pattern) for name, _ in model.named_modules()):
            raise ValueError(f"trainer.lora.modules: no part of the model is called {pattern!r}")
        chosen |= {name: layer for name, layer in layers.items() if fnmatch.fnmatchcase(name, pattern)}
    if not chosen:
        raise ValueError(f"trainer.lora.modules: no linear layer is called any of {list(settings.modules)}")
    model.requires_grad_(False)
    for layer in chosen.values():
        change = LowRankChange(layer.weight, settings.rank, settings.alpha)
        parametrize.register_parametrization(layer, "weight", change)
    return list(chosen)


def has_adapters(model: nn.Module) -> bool:
    """Whether low-rank changes have been added to a model."""
    return any(isinstance(module, LowRankChange) for module in model.modules())


def merged_state(model: nn.Module) -> dict[str, Tensor]:
    """The state of a model by the names of one without adapters, the changes worked into the weights."""
    state: dict[str, Tensor] = {}
    for name, value in model.state_dict().items():
        if name.endswith(_ORIGINAL):
            layer = name.removesuffix(_ORIGINAL)
            state[f"{layer}.weight"] = model.get_submodule(layer).weight.detach()  # type: ignore[operator]
        elif _CHANGE not in name:
            state[name] = value
    return state


def adapter_state(model: nn.Module) -> dict[str, dict[str, Tensor]]:
    """The changes alone, by the names of their layers: scale, A and B."""
    return {
        name.removesuffix(_CHANGE.removesuffix(".")): {
            "scale": torch.tensor(module.scale),
            "a": module.a.detach(),
            "b": module.b.detach(),
        }
        for name, module in model.named_modules()
        if isinstance(module, LowRankChange)
    }


def merge_adapters(model: nn.Module, path: Path) -> None:
    """Work the changes of a file into the weights of the model that they were trained on.

    CheckpointError for a file of another kind, and for changes that do not fit; the model is then as it was.
    """
    content = read_content(path, mapped=False).get("lora")
    if not isinstance(content, dict) or not content:
        raise CheckpointError(f"{path}: expected adapters under the key 'lora'")
    layers = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    changed: dict[str, Tensor] = {}
    for name, change in content.items():
        try:
            delta = change["scale"] * (change["b"] @ change["a"])
            changed[name] = layers[name].weight.detach() + delta.to(layers[name].weight)
        except (LookupError, TypeError, AttributeError, RuntimeError) as error:
            raise CheckpointError(f"{path}: the adapter of {brief(name)} does not fit the model: {error}") from error
    for name, weight in changed.items():
        with torch.no_grad():
            layers[name].weight.copy_(weight)
