"""EfficientNet-Lite as an image trunk (Tan and Le, ICML 2019, without squeeze-and-excitation and with ReLU6)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from i2v.modeling.backbones.tiny_vit import ConvBN
from i2v.modeling.layers import LayerNorm2d
from i2v.video.frame_loader import MEAN, STD

Variant = Literal["lite0", "lite1", "lite2"]

STEM_WIDTH = 32
BATCH_NORM_EPS = 1e-3
PIXEL_MEAN, PIXEL_SCALE = 127 / 255, 128 / 255  # what the ImageNet weights were trained with, of pixels in 0..1
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
_TAPPED_STAGES = (1, 2, 3, 4)  # whose outputs are the maps at strides 4, 8, 16 and 16


class SameConvBN(ConvBN):
    """A convolution with TensorFlow's SAME padding, and its batch norm.

    With stride 2 the padding depends on the size of the input, and the odd pixel of it goes to the right and bottom.
    """

    def __init__(self, in_dim: int, out_dim: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> None:
        super().__init__(in_dim, out_dim, kernel, stride, groups)
        self.bn.eps = BATCH_NORM_EPS
        if stride > 1:
            self.c.padding = (0, 0)  # the input is padded by hand

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B,in,H,W) -> (B,out,ceil(H/stride),ceil(W/stride))."""
        kernel, stride = self.c.kernel_size[0], self.c.stride[0]
        if stride > 1:
            down, right = (same_padding(size, kernel, stride) for size in x.shape[-2:])
            x = F.pad(x, (right // 2, right - right // 2, down // 2, down - down // 2))
        return super().forward(x)


class InvertedResidual(nn.Module):
    """Expand, depthwise, project; added to the input where that has the same shape."""

    def __init__(self, in_dim: int, out_dim: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = in_dim * expansion
        self.expand = SameConvBN(in_dim, hidden) if expansion > 1 else None
        self.depthwise = SameConvBN(hidden, hidden, kernel, stride, groups=hidden)
        self.project = SameConvBN(hidden, out_dim)
        self.is_residual = stride == 1 and in_dim == out_dim

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B,in,H,W) -> (B,out,H/stride,W/stride)."""
        y = x if self.expand is None else F.relu6(self.expand(x))
        y = self.project(F.relu6(self.depthwise(y)))
        return x + y if self.is_residual else y


class EfficientNetLite(nn.Module):
    """Image trunk: frames -> five feature maps at strides 4, 8, 16, 16 and 16, like :class:`TinyViT`.

    The last map is the neck: stage 5 (stride 16) and, with all seven stages, stage 7 (stride 32), which knows more of
    what things are, projected to ``out_dim`` channels and added.
    """

    pixel_scale: Tensor
    pixel_shift: Tensor

    def __init__(self, variant: Variant = "lite0", num_stages: int = 7, out_dim: int = 256) -> None:
        """``num_stages``: 7 for all, 5 to stop at stride 16. Raises ValueError for others, and unknown variants."""
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
        self.map_widths = (*(widths[i + 1] for i in _TAPPED_STAGES), out_dim)
        self.neck_lateral = nn.Conv2d(widths[5], out_dim, 1)
        self.neck_deep = nn.Conv2d(widths[7], out_dim, 1) if num_stages == 7 else None
        self.neck_norm = LayerNorm2d(out_dim)
        # Frames come normalized by ImageNet's statistics; these weights want (x - 127) / 128.
        mean, std = torch.tensor(MEAN).view(3, 1, 1), torch.tensor(STD).view(3, 1, 1)
        self.register_buffer("pixel_scale", std / PIXEL_SCALE, persistent=False)
        self.register_buffer("pixel_shift", (mean - PIXEL_MEAN) / PIXEL_SCALE, persistent=False)

    def forward(self, frames: Tensor) -> list[Tensor]:
        """Normalized frames (B,3,S,S) -> maps (B,.,S/4,S/4), (B,.,S/8,S/8) and three of (B,.,S/16,S/16)."""
        stages = self.stages(frames)
        neck = self.neck_lateral(stages[4])
        if self.neck_deep is not None:
            deep = self.neck_deep(stages[6])
            neck = neck + F.interpolate(deep, size=neck.shape[-2:], mode="bilinear", align_corners=False)
        return [*(stages[i] for i in _TAPPED_STAGES), self.neck_norm(neck)]

    def stages(self, frames: Tensor) -> list[Tensor]:
        """The outputs of all stages for normalized frames (B,3,S,S)."""
        x = frames * self.pixel_scale + self.pixel_shift
        x = F.relu6(self.stem(x.contiguous(memory_format=torch.channels_last)))
        outputs = []
        for number, block in enumerate(self.blocks):
            x = block(x)
            if number in self._stage_ends:
                outputs.append(x)
        return outputs


def round_width(width: float, divisor: int = 8) -> int:
    """The multiple of ``divisor`` nearest to a width, but no less than nine tenths of it."""
    rounded = max(divisor, int(width + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * width else rounded


def same_padding(size: int, kernel: int, stride: int) -> int:
    """Pixels that TensorFlow's SAME adds along an axis of ``size`` pixels, both sides together."""
    return max((math.ceil(size / stride) - 1) * stride + kernel - size, 0)
