"""EfficientNet-Lite as an image trunk (Tan and Le, ICML 2019, with ReLU6 and without squeeze-and-excitation)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from i2v.modeling.backbones.tiny_vit import ConvBN
from i2v.modeling.fast_path import FastPathModule, is_unmodified
from i2v.modeling.layers import LayerNorm2d
from i2v.modeling.structures import IMAGE_MEAN, IMAGE_STD

Variant = Literal["lite0", "lite1", "lite2"]

STEM_WIDTH = 32
BATCH_NORM_EPS = 1e-3
PIXEL_MEAN, PIXEL_SCALE = 127 / 255, 128 / 255  # normalization of the ImageNet weights, for pixels in 0..1
# Width and depth multipliers.
_MULTIPLIERS: dict[str, tuple[float, float]] = {"lite0": (1.0, 1.0), "lite1": (1.0, 1.1), "lite2": (1.1, 1.2)}


@dataclass(frozen=True)
class _StageSpec:
    kernel: int
    stride: int
    expansion: int
    width: int
    depth: int


_STAGES = (
    _StageSpec(3, 1, 1, 16, 1),
    _StageSpec(3, 2, 6, 24, 2),
    _StageSpec(5, 2, 6, 40, 2),
    _StageSpec(3, 2, 6, 80, 3),
    _StageSpec(5, 1, 6, 112, 3),
    _StageSpec(5, 2, 6, 192, 4),
    _StageSpec(3, 1, 6, 320, 1),
)
_OUTPUT_STAGES = (1, 2, 3, 4)  # stages whose outputs are the maps at strides 4, 8, 16 and 16


class SameConvBN(ConvBN):
    """A convolution with TensorFlow's SAME padding, then batch norm.

    With stride 2 the padding depends on the size of the input, and an odd pixel goes to the right or bottom.
    """

    def __init__(self, in_dim: int, out_dim: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> None:
        super().__init__(in_dim, out_dim, kernel, stride, groups)
        self.bn.eps = BATCH_NORM_EPS
        if stride > 1:
            self.c.padding = (0, 0)  # `forward` pads the input, as nn.Conv2d only pads both sides equally

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, in_dim, H, W)`` to ``(B, out_dim, ceil(H/stride), ceil(W/stride))``."""
        stride = self.c.stride[0]
        if stride == 1 or not self.folds() or x.device.type != "cpu":
            return super().forward(self.pad(x))
        # A padded copy of the map costs a CPU as much as the convolution. The same comes of equal padding on both sides
        # and a kernel that begins with zeros where that is one too many.
        left, right, top, bottom = self._padding(x)
        kernel, bias = self.folded()
        kernel = F.pad(kernel, (right - left, 0, bottom - top, 0))
        return F.conv2d(x, kernel, bias, stride, (bottom, right), groups=self.c.groups)

    def pad(self, x: Tensor) -> Tensor:
        """Pad an input as the convolution itself does not."""
        return x if self.c.stride[0] == 1 else F.pad(x, self._padding(x))

    def _padding(self, x: Tensor) -> tuple[int, int, int, int]:
        """Pixels on the left, right, top and bottom."""
        kernel, stride = self.c.kernel_size[0], self.c.stride[0]
        pad_y, pad_x = (same_padding(size, kernel, stride) for size in x.shape[-2:])
        return pad_x // 2, pad_x - pad_x // 2, pad_y // 2, pad_y - pad_y // 2


class InvertedResidual(FastPathModule):
    """Inverted bottleneck: expansion, depthwise convolution, projection, and a residual if the shape is kept."""

    def __init__(self, in_dim: int, out_dim: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = in_dim * expansion
        self.expand = SameConvBN(in_dim, hidden) if expansion > 1 else None
        self.depthwise = SameConvBN(hidden, hidden, kernel, stride, groups=hidden)
        self.project = SameConvBN(hidden, out_dim)
        self.is_residual = stride == 1 and in_dim == out_dim

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, in_dim, H, W)`` to ``(B, out_dim, ceil(H/stride), ceil(W/stride))``."""
        inplace = not torch.is_grad_enabled() and self.runs_fast()
        y = x if self.expand is None else F.relu6(self.expand(x), inplace)
        y = self.project(F.relu6(self.depthwise(y), inplace))
        if not self.is_residual:
            return y
        return y.add_(x) if inplace else x + y


class EfficientNetLite(nn.Module):
    """Image trunk with five output maps at strides 4, 8, 16, 16 and 16, like ``TinyViT``.

    The last map is the neck: stage 5 (stride 16) and, with all seven stages, the more semantic stage 7 (stride 32), are
    projected to ``out_dim`` channels and added.

    Attributes:
        map_widths: Channels of the five output maps.
    """

    pixel_scale: Tensor  # (3, 1, 1), with pixel_shift: from ImageNet's normalization to that of these weights
    pixel_shift: Tensor

    def __init__(self, variant: Variant = "lite0", num_stages: int = 7, out_dim: int = 256) -> None:
        """Create the trunk.

        Args:
            variant: ``"lite0"``, ``"lite1"`` or ``"lite2"``.
            num_stages: 7 for the whole network, 5 to stop at stride 16.
            out_dim: Channels of the neck.

        Raises:
            ValueError: If ``variant`` or ``num_stages`` is none of these.
        """
        super().__init__()
        if variant not in _MULTIPLIERS:
            raise ValueError(f"variant: expected one of {', '.join(_MULTIPLIERS)}, got {variant!r}")
        if num_stages not in (5, 7):
            raise ValueError(f"num_stages: expected 5 or 7, got {num_stages}")
        width_multiplier, depth_multiplier = _MULTIPLIERS[variant]
        self.stem = SameConvBN(3, STEM_WIDTH, 3, stride=2)
        self.blocks = nn.ModuleList()
        self._stage_ends: list[int] = []
        widths = [STEM_WIDTH]
        for number, stage in enumerate(_STAGES[:num_stages]):
            is_outer = number in (0, len(_STAGES) - 1)  # the Lite variants do not deepen the first and last stage
            depth = stage.depth if is_outer else math.ceil(stage.depth * depth_multiplier)
            width = round_width(stage.width * width_multiplier)
            for i in range(depth):
                in_dim, stride = (widths[-1], stage.stride) if i == 0 else (width, 1)
                self.blocks.append(InvertedResidual(in_dim, width, stage.kernel, stride, stage.expansion))
            widths.append(width)
            self._stage_ends.append(len(self.blocks) - 1)
        self.map_widths = (*(widths[i + 1] for i in _OUTPUT_STAGES), out_dim)
        self.neck_lateral = nn.Conv2d(widths[5], out_dim, 1)
        self.neck_deep = nn.Conv2d(widths[7], out_dim, 1) if num_stages == 7 else None
        self.neck_norm = LayerNorm2d(out_dim)
        # Frames are normalized by ImageNet's mean and deviation, but these weights expect (x - 127) / 128.
        mean, std = torch.tensor(IMAGE_MEAN).view(3, 1, 1), torch.tensor(IMAGE_STD).view(3, 1, 1)
        self.register_buffer("pixel_scale", std / PIXEL_SCALE, persistent=False)
        self.register_buffer("pixel_shift", (mean - PIXEL_MEAN) / PIXEL_SCALE, persistent=False)

    def forward(self, frames: Tensor) -> list[Tensor]:
        """Compute feature maps.

        Args:
            frames: ``(B, 3, S, S)`` normalized RGB.

        Returns:
            Five maps ``(B, C_i, S/s, S/s)`` at strides ``s`` of 4, 8, 16, 16 and 16.
        """
        stages = self.stages(frames)
        neck = self.neck_lateral(stages[4])
        if self.neck_deep is not None:
            deep = self.neck_deep(stages[6])
            neck = neck + F.interpolate(deep, size=neck.shape[-2:], mode="bilinear", align_corners=False)
        return [*(stages[i] for i in _OUTPUT_STAGES), self.neck_norm(neck)]

    def stages(self, frames: Tensor) -> list[Tensor]:
        """Outputs of all stages for normalized frames ``(B, 3, S, S)``."""
        x = frames * self.pixel_scale + self.pixel_shift
        x = self.stem(x.contiguous(memory_format=torch.channels_last))
        x = F.relu6(x, inplace=not torch.is_grad_enabled() and self.stem.runs_fast() and is_unmodified(self.stem))
        outputs = []
        for number, block in enumerate(self.blocks):
            x = block(x)
            if number in self._stage_ends:
                outputs.append(x)
        return outputs


def round_width(width: float, divisor: int = 8) -> int:
    """Round a width to the nearest multiple of ``divisor`` that is at least 0.9 times the width."""
    rounded = max(divisor, int(width + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * width else rounded


def same_padding(size: int, kernel: int, stride: int) -> int:
    """Total padding in pixels, both sides together, that TensorFlow's SAME adds to an axis of ``size`` pixels."""
    return max((math.ceil(size / stride) - 1) * stride + kernel - size, 0)
