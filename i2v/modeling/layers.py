"""Small layers shared by the whole model."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from i2v.modeling.fast_path import FastPathModule

# Size of the widest map of a strip: fits a CPU's cache, and is small enough for the allocator to reuse the same block.
STRIP_BYTES = 8 << 20


class LayerNorm2d(nn.Module):
    """Layer norm over the channels of each pixel of a map ``(B, C, H, W)``."""

    def __init__(self, num_channels: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(num_channels))
        self.bias = nn.Parameter(torch.zeros(num_channels))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Normalize a map ``(B, C, H, W)``; same shape."""
        return layer_norm_channels(x, self.weight, self.bias, self.eps)


class ChannelLayerNorm(nn.LayerNorm):
    """``nn.LayerNorm`` over axis 1 of a tensor ``(B, C, ...)``, such as a stack of frames ``(B, C, T, H, W)``."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalize a tensor ``(B, C, ...)``; same shape."""
        return layer_norm_channels(x, self.weight, self.bias, self.eps)


def layer_norm_channels(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """Layer norm over axis 1 of ``(B, C, ...)``, with ``weight`` and ``bias`` ``(C,)``; same shape."""
    # PyTorch's fused kernel only normalizes the last axis. With channels-last memory the move is free.
    return F.layer_norm(x.movedim(1, -1), weight.shape, weight, bias, eps).movedim(-1, 1)


class MLP(nn.Module):
    """Linear layers with ReLU between them and an optional sigmoid at the end."""

    def __init__(self, in_dim: int, hidden_dim: int, out_dim: int, num_layers: int, sigmoid: bool = False) -> None:
        super().__init__()
        widths = [in_dim, *[hidden_dim] * (num_layers - 1), out_dim]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))
        self.sigmoid = sigmoid

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(..., in_dim)`` to ``(..., out_dim)``."""
        for layer in self.layers[:-1]:
            x = F.relu(layer(x))
        x = self.layers[-1](x)
        return x.sigmoid() if self.sigmoid else x


class DropPath(nn.Module):
    """Stochastic depth: in training, drops a residual branch for whole samples."""

    def __init__(self, rate: float = 0.0) -> None:
        """Set the probability ``rate`` of dropping a sample's branch, 0 to 1."""
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """Drop samples of a branch ``(B, ...)``; same shape. Kept samples are scaled to preserve the mean."""
        if self.rate == 0.0 or not self.training:
            return x
        keep_rate = 1.0 - self.rate
        keep = x.new_empty(x.shape[0], *[1] * (x.dim() - 1)).bernoulli_(keep_rate)
        return x * keep / keep_rate


# Takes a map (B, C, H, W) and whether intermediate results may be overwritten in place.
StripFunction = Callable[[Tensor, bool], Tensor]


class StripModule(FastPathModule):
    """A module on feature maps whose fast implementation processes strips of rows, so that each fits a CPU's cache."""

    def in_strips(self, function: StripFunction, x: Tensor, width: int, stride: int = 1, halo: int = 1) -> Tensor:
        """Apply ``function`` to a map, in strips of rows on a CPU where the fast path is valid.

        With gradients every intermediate result has to be kept, so strips would save nothing: the map stays whole.

        Args:
            function: What to compute. Its second argument says whether it may overwrite intermediate results.
            x: ``(B, C, H, W)``.
            width: Channels of the widest intermediate map, counted at the resolution of ``x``.
            stride: Input rows per output row.
            halo: Output rows next to a strip's border that the border's padding affects. As many extra rows are
                computed on each side and cut off.

        Returns:
            ``(B, C', H/stride, W/stride)``.
        """
        if torch.is_grad_enabled() or not self.runs_fast():
            return function(x, False)
        batch, _, height, columns = x.shape
        rows = max(STRIP_BYTES // (batch * width * columns * stride * x.element_size()), 1)
        total = height // stride
        if rows >= total or height % stride or x.device.type != "cpu" or torch.compiler.is_compiling():
            return function(x, True)
        if halo and not self._strips_suffice(stride, halo):
            return function(x, True)
        strips = []
        for top in range(0, total, rows):
            bottom = min(top + rows, total)
            # `top` and `bottom` are output rows to keep, `first` and `last` those to compute. Multiplying by the stride
            # gives input rows.
            first, last = max(top - halo, 0), min(bottom + halo, total)
            strips.append(function(x[:, :, first * stride : last * stride], True)[:, :, top - first : bottom - first])
        return torch.cat(strips, dim=2)

    def _strips_suffice(self, stride: int, halo: int) -> bool:
        """Whether the module's convolutions, in order, have that stride, keep the size and reach no further."""
        total_stride, reach = 1, 0  # both in input rows
        for conv in (module for module in self.modules() if isinstance(module, nn.Conv2d)):
            if conv.padding[0] != conv.kernel_size[0] // 2:
                return False
            reach += conv.kernel_size[0] // 2 * total_stride
            total_stride *= conv.stride[0]
        return total_stride == stride and reach <= halo * stride


def gelu(x: Tensor, inplace: bool) -> Tensor:
    """GELU (exact form). ``inplace`` overwrites ``x``, which nothing else may then read."""
    return torch.ops.aten.gelu_(x) if inplace else F.gelu(x)


def zero_conv(in_dim: int, out_dim: int) -> nn.Conv2d:
    """Create a 1x1 convolution whose output is zero until it is trained, to extend a trained network."""
    conv = nn.Conv2d(in_dim, out_dim, 1)
    for parameter in conv.parameters():
        nn.init.zeros_(parameter)
    return conv
