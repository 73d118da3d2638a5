"""Frame features and a mask -> what is remembered of an object on that frame."""

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
    """Brings a mask (B,1,S,S) to the size and width of the features (B,C,h,w), four times as wide at each step."""

    def __init__(
        self, embed_dim: int = 256, kernel_size: int = 3, stride: int = 2, padding: int = 1, total_stride: int = 16
    ) -> None:
        super().__init__()
        num_steps = round(math.log(total_stride, stride))
        if stride**num_steps != total_stride:
            raise ValueError(f"total_stride: expected a power of {stride}, got {total_stride}")
        layers: list[nn.Module] = []
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
        return self.encoder(mask)


class CXBlock(nn.Module):
    """ConvNeXt block with a learned scale on its residual branch."""

    def __init__(
        self,
        dim: int,
        kernel_size: int = 7,
        padding: int = 3,
        drop_path: float = 0.0,
        layer_scale_init_value: float = 1e-6,
    ) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((dim,), layer_scale_init_value))
        self.dwconv = nn.Conv2d(dim, dim, kernel_size, padding=padding, groups=dim)
        self.norm = LayerNorm2d(dim)
        self.pwconv1 = nn.Linear(dim, 4 * dim)
        self.pwconv2 = nn.Linear(4 * dim, dim)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        branch = self.norm(self.dwconv(x)).permute(0, 2, 3, 1)
        branch = self.gamma * self.pwconv2(F.gelu(self.pwconv1(branch)))
        return x + self.drop_path(branch.permute(0, 3, 1, 2))


class Fuser(nn.Module):
    """A stack of blocks that start as copies of one."""

    def __init__(self, layer: nn.Module, num_layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(copy.deepcopy(layer) for _ in range(num_layers))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


class MemoryEncoder(nn.Module):
    """Fuses features and mask into a memory of ``out_dim`` channels; owns the code of a memory's positions."""

    position: Tensor

    def __init__(
        self, mask_downsampler: MaskDownSampler, fuser: Fuser, grid: int, out_dim: int = 64, in_dim: int = 256
    ) -> None:
        super().__init__()
        self.mask_downsampler = mask_downsampler
        self.pix_feat_proj = nn.Conv2d(in_dim, in_dim, 1)
        self.fuser = fuser
        self.out_proj = nn.Conv2d(in_dim, out_dim, 1) if out_dim != in_dim else nn.Identity()
        self.register_buffer("position", sine_encoding_2d(grid, grid, out_dim), persistent=False)

    def forward(self, vision: Tensor, masks: Sequence[Tensor]) -> list[Tensor]:
        """Features (B or 1,C,h,w) and scaled masks (B,1,S,S) of B objects each -> memory features (B,M,h,w) for each.

        The features' projection knows nothing of masks: it is computed once.
        """
        projected = self.pix_feat_proj(vision)
        return [self.out_proj(self.fuser(projected + self.mask_downsampler(mask))) for mask in masks]
