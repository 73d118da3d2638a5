"""Small layers used all over the model, each defined once."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from i2v.modeling.fast_path import FastPathModule

# What a strip of a map may take, small enough for a CPU's cache and for its allocator to use the same memory again.
STRIP_BYTES = 8 << 20


class LayerNorm2d(nn.Module):
    """Normalizes the channels of every pixel of an image-like tensor (B,C,H,W)."""

    def __init__(self, num_channels: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(num_channels))
        self.bias = nn.Parameter(torch.zeros(num_channels))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return layer_norm_channels(x, self.weight, self.bias, self.eps)


class ChannelLayerNorm(nn.LayerNorm):
    """``nn.LayerNorm`` over axis 1 of a tensor (B,C,...), such as a stack of frames (B,C,T,H,W)."""

    def forward(self, x: Tensor) -> Tensor:
        return layer_norm_channels(x, self.weight, self.bias, self.eps)


def layer_norm_channels(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """Layer norm over axis 1. The channels are moved last because PyTorch has fast kernels only for that."""
    return F.layer_norm(x.movedim(1, -1), weight.shape, weight, bias, eps).movedim(-1, 1)


class MLP(nn.Module):
    """Linear layers with ReLU between them, and a sigmoid at the end where asked for."""

    def __init__(self, in_dim: int, hidden_dim: int, out_dim: int, num_layers: int, sigmoid: bool = False) -> None:
        super().__init__()
        widths = [in_dim, *[hidden_dim] * (num_layers - 1), out_dim]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))
        self.sigmoid = sigmoid

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers[:-1]:
            x = F.relu(layer(x))
        x = self.layers[-1](x)
        return x.sigmoid() if self.sigmoid else x


class DropPath(nn.Module):
    """Stochastic depth: drops a residual branch for whole samples while training."""

    def __init__(self, rate: float = 0.0) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        if self.rate == 0.0 or not self.training:
            return x
        keep = 1.0 - self.rate
        kept = x.new_empty(x.shape[0], *[1] * (x.dim() - 1)).bernoulli_(keep)
        return x * kept / keep


Step = Callable[[Tensor, bool], Tensor]  # a map (B,C,H,W), and whether what is made on the way may be overwritten


class StripModule(FastPathModule):
    """A module on maps, whose fast implementation goes through them in strips of rows.

    What it makes on the way then fits a CPU's cache.
    """

    def in_strips(self, step: Step, x: Tensor, width: int, stride: int = 1, halo: int = 1) -> Tensor:
        """``step`` of a map (B,C,H,W), on a CPU in strips where the fast path is open.

        ``width``: channels of the widest map on the way, had it as many pixels as ``x``. ``stride``: rows of the input
        for one of the output. ``halo``: rows of the output that a strip's border can spoil; so many more are computed
        on each side and cut off. Where gradients are wanted all has to be kept anyway: then it is one strip.
        """
        if torch.is_grad_enabled() or not self.runs_fast():
            return step(x, False)
        batch, _, height, columns = x.shape
        rows = max(STRIP_BYTES // (batch * width * columns * stride * x.element_size()), 1)
        total = height // stride
        if rows >= total or height % stride or x.device.type != "cpu" or torch.compiler.is_compiling():
            return step(x, True)
        strips = []
        for top in range(0, total, rows):
            bottom = min(top + rows, total)
            first, last = max(top - halo, 0), min(bottom + halo, total)
            strips.append(step(x[:, :, first * stride : last * stride], True)[:, :, top - first : bottom - first])
        return torch.cat(strips, dim=2)


def gelu(x: Tensor, overwrite: bool) -> Tensor:
    """GELU; ``overwrite``: in place of a tensor that nobody else reads."""
    return torch.ops.aten.gelu_(x) if overwrite else F.gelu(x)
