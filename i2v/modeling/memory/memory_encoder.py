"""Memory encoder: fuses frame features and a mask into the memory of an object on that frame."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from i2v.modeling.layers import DropPath, LayerNorm2d
from i2v.modeling.position_encoding import sine_encoding_2d


class MaskDownSampler(nn.Module):
    """Downsamples a mask to the feature map, with strided convolutions that widen it by ``stride**2`` each."""

    def __init__(
        self, embed_dim: int = 256, kernel_size: int = 3, stride: int = 2, padding: int = 1, total_stride: int = 16
    ) -> None:
        """Create the convolutions.

        Args:
            embed_dim: Output channels ``C``.
            kernel_size: Kernel of each strided convolution.
            stride: Stride of each.
            padding: Padding of each.
            total_stride: Stride of them all together, a power of ``stride``.

        Raises:
            ValueError: If ``total_stride`` is not a power of ``stride``.
        """
        super().__init__()
        num_steps = round(math.log(total_stride, stride))
        if stride**num_steps != total_stride:
            raise ValueError(f"total_stride: expected a power of {stride}, got {total_stride}")
        layers: list[nn.Module] = []
        # Each step divides the area by stride**2 and multiplies the channels by it: the total size stays.
        width = 1
        for _ in range(num_steps):
            layers += [
                nn.Conv2d(width, width * stride**2, kernel_size, stride, padding),
                LayerNorm2d(width * stride**2),
                nn.GELU(),
            ]
            width *= stride**2
        self.encoder = nn.Sequential(*layers, nn.Conv2d(width, embed_dim, 1))

    def forward(self, mask: Tensor) -> Tensor:
        """Downsample scaled masks ``(B, 1, S, S)`` to ``(B, C, h, w)``."""
        return self.encoder(mask)


class CXBlock(nn.Module):
    """ConvNeXt block with a learned scale on its residual branch (Liu et al., CVPR 2022)."""

    def __init__(
        self,
        dim: int,
        kernel_size: int = 7,
        padding: int = 3,
        drop_path: float = 0.0,
        layer_scale_init_value: float = 1e-6,
    ) -> None:
        """Create the block.

        Args:
            dim: Channels.
            kernel_size: Kernel of the depthwise convolution.
            padding: Its padding.
            drop_path: Rate of stochastic depth.
            layer_scale_init_value: Initial scale of the residual branch.
        """
        super().__init__()
        self.gamma = nn.Parameter(torch.full((dim,), layer_scale_init_value))
        self.dwconv = nn.Conv2d(dim, dim, kernel_size, padding=padding, groups=dim)
        self.norm = LayerNorm2d(dim)
        self.pwconv1 = nn.Linear(dim, 4 * dim)
        self.pwconv2 = nn.Linear(4 * dim, dim)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """Run the block on a map ``(B, C, h, w)``; same shape."""
        # Pointwise convolutions are linear layers on channels-last maps.
        branch = self.norm(self.dwconv(x)).permute(0, 2, 3, 1)
        branch = self.gamma * self.pwconv2(F.gelu(self.pwconv1(branch)))
        return x + self.drop_path(branch.permute(0, 3, 1, 2))


class Fuser(nn.Module):
    """A stack of blocks, initialized as copies of one block."""

    def __init__(self, layer: nn.Module, num_layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(copy.deepcopy(layer) for _ in range(num_layers))

    def forward(self, x: Tensor) -> Tensor:
        """Run the blocks on a map ``(B, C, h, w)``; same shape."""
        for layer in self.layers:
            x = layer(x)
        return x


class MemoryEncoder(nn.Module):
    """Fuses frame features and masks into memories.

    Attributes:
        position: Positional encoding ``(1, M, h, w)`` of the memories, a non-persistent buffer.
    """

    position: Tensor

    def __init__(
        self, mask_downsampler: MaskDownSampler, fuser: Fuser, grid: int, out_dim: int = 64, in_dim: int = 256
    ) -> None:
        """Create the encoder.

        Args:
            mask_downsampler: Masks to maps of ``in_dim`` channels.
            fuser: Blocks of ``in_dim`` channels.
            grid: Side ``h = w`` of the feature map.
            out_dim: Memory channels ``M``.
            in_dim: Feature channels ``C``.
        """
        super().__init__()
        self.mask_downsampler = mask_downsampler
        self.pix_feat_proj = nn.Conv2d(in_dim, in_dim, 1)
        self.fuser = fuser
        self.out_proj = nn.Conv2d(in_dim, out_dim, 1) if out_dim != in_dim else nn.Identity()
        # The same for all frames: it is kept once here, and added when memories are read.
        self.register_buffer("position", sine_encoding_2d(grid, grid, out_dim), persistent=False)

    def forward(self, vision: Tensor, masks: Sequence[Tensor]) -> list[Tensor]:
        """Encode memories of several groups of objects on a frame.

        Args:
            vision: Features of the frame ``(B or 1, C, h, w)``, before memory attention.
            masks: Scaled masks ``(B, 1, S, S)`` of each group.

        Returns:
            Memory features ``(B, M, h, w)`` of each group.
        """
        # The projected features do not depend on the masks, so all groups share them.
        projected = self.pix_feat_proj(vision)
        return [self.out_proj(self.fuser(projected + self.mask_downsampler(mask))) for mask in masks]
