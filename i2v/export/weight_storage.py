"""How the weights of an exported part are stored. They are turned to float32 when a runtime loads or runs the part."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

SMALLEST_STORED = 1 << 10  # weights with fewer numbers, such as biases and norms, stay float32: they are no burden
_LARGEST = 127


class HalfWeight(nn.Module):
    """A weight stored in float16."""

    def forward(self, stored: Tensor) -> Tensor:
        """Return the weight in float32."""
        return stored.float()

    def right_inverse(self, weight: Tensor) -> tuple[Tensor]:
        """Return what is stored of a weight."""
        return (weight.half(),)  # a tuple, as PyTorch lets a single tensor not change its type


class Int8Weight(nn.Module):
    """A weight ``(N, ...)`` stored as int8, with one scale for each of its ``N`` rows."""

    def forward(self, stored: Tensor, scale: Tensor) -> Tensor:
        """Return the weight in float32."""
        return stored.float() * scale

    def right_inverse(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Return what is stored of a weight: the nearest of 255 multiples of the scale, and the scale."""
        scale = weight.abs().amax(dim=tuple(range(1, weight.dim())), keepdim=True).clamp(min=1e-12) / _LARGEST
        return (weight / scale).round().to(torch.int8), scale


def store_weights(module: nn.Module, weight_type: str) -> None:
    """Store the large weights of a module, in place, in a smaller type.

    Args:
        module: The module. Its weights no longer require gradients.
        weight_type: The type, one of ``i2v.export.description.WEIGHT_TYPES``.
    """
    module.requires_grad_(False)
    if weight_type == "float32":
        return
    for owner in list(module.modules()):
        for name, weight in list(owner.named_parameters(recurse=False)):
            if weight.dim() > 1 and weight.numel() >= SMALLEST_STORED:
                kind = HalfWeight if weight_type == "float16" else Int8Weight
                # Unsafe means that the stored type may differ.
                parametrize.register_parametrization(owner, name, kind(), unsafe=True)
