"""TFI, the temporal feature integrator: image features enhanced by the frames just before (paper section 3.2)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from i2v.modeling.layers import ChannelLayerNorm, LayerNorm2d


class TemporalConv(nn.Module):
    """One spatial and one temporal convolution; their names carry the index that the checkpoint gives them."""

    def __init__(self, dim: int, hidden_dim: int, temporal_kernel: int, index: int) -> None:
        super().__init__()
        self._names = (f"c_fc1_{index}", f"c_fc2_{index}")
        spatial = nn.Conv3d(dim, hidden_dim, (1, 3, 3), padding=(0, 1, 1))
        temporal = nn.Conv3d(hidden_dim, dim, (temporal_kernel, 1, 1), padding=(temporal_kernel // 2, 0, 0))
        self.add_module(self._names[0], spatial)
        self.add_module(self._names[1], temporal)

    def forward(self, x: Tensor) -> Tensor:
        spatial, temporal = (self.get_submodule(name) for name in self._names)
        return temporal(quick_gelu(spatial(x)))


class TemporalNet(nn.Module):
    """Residual blocks that mix space, then time. (B,C,T,h,w) -> the same."""

    def __init__(self, dim: int, num_blocks: int, mlp_ratio: float, temporal_kernel: int) -> None:
        super().__init__()
        self.lns = nn.ModuleList(ChannelLayerNorm(dim) for _ in range(num_blocks))
        self.temporal_net = nn.ModuleList(
            TemporalConv(dim, int(dim * mlp_ratio), temporal_kernel, i) for i in range(num_blocks)
        )

    def forward(self, x: Tensor) -> Tensor:
        for norm, block in zip(self.lns, self.temporal_net, strict=True):
            x = quick_gelu(x + block(norm(x)))
        return x


class Fuse(nn.Module):
    """Joins the image path and the temporal path into one of them."""

    def __init__(self, in_dim: int, out_dim: int) -> None:
        super().__init__()
        self.fuse = nn.Sequential(nn.Conv2d(in_dim, out_dim, 1), LayerNorm2d(out_dim), nn.GELU())

    def forward(self, joined: Tensor) -> Tensor:
        return self.fuse(joined)


class IntegrationNet(nn.Module):
    """Refines the image path after a fusion."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.layer = nn.Sequential(nn.Conv2d(dim, dim, 3, padding=1), LayerNorm2d(dim), nn.GELU())

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


class TFI(nn.Module):
    """Runs a light 3-D network over a window of frames, which exchanges with the image features stage by stage.

    Two paths meet in each stage: the *temporal* one over all frames of the window, the *integration* one over the
    frame itself. The temporal path receives the integrated frame as its last time slice.
    """

    def __init__(
        self,
        d_model_list: Sequence[int] = (160, 320, 256),
        selected_layers: Sequence[int] = (2, 3, 4),
        t_window: int = 5,
        t_patch_size: int = 5,
        s_patch_size: int = 16,
        temporal_dim: int = 96,
        integration_dim: int = 256,
        temporal_loop_layers: int = 3,
        temporal_conv_mlp_ratio: float = 1.0,
        temporal_kernel_size: int = 3,
    ) -> None:
        super().__init__()
        self.t_window = t_window
        self.selected_layers = tuple(selected_layers)
        joined = integration_dim + temporal_dim
        stages = range(len(d_model_list))
        self.temporal_stem = nn.Conv3d(
            3,
            temporal_dim,
            (t_patch_size, s_patch_size, s_patch_size),
            stride=(1, s_patch_size, s_patch_size),
            padding=(t_patch_size // 2, 0, 0),
        )
        self.input_linears = nn.ModuleList(nn.Conv2d(dim, integration_dim, 1) for dim in d_model_list)
        # The last of these is in the checkpoint and has no effect: no stage follows that would read it.
        self.integration2temporal_nets = nn.ModuleList(Fuse(joined, temporal_dim) for _ in stages)
        self.temporal2integration_nets = nn.ModuleList(Fuse(joined, integration_dim) for _ in stages)
        self.temporal_nets = nn.ModuleList(
            TemporalNet(temporal_dim, temporal_loop_layers, temporal_conv_mlp_ratio, temporal_kernel_size)
            for _ in stages
        )
        self.integration_nets = nn.ModuleList(IntegrationNet(integration_dim) for _ in stages)
        self.apply(_init_conv)

    def forward(self, maps: Sequence[Tensor], windows: Tensor) -> Tensor:
        """Trunk maps of the frames (B,.,.,.) and their windows (B,3,T,S,S) -> features (B,C,h,w)."""
        temporal = self.temporal_stem(windows)
        grid = temporal.shape[-2:]
        num_stages = len(self.selected_layers)
        carry: Tensor | None = None
        for i, level in enumerate(self.selected_layers):
            temporal = self.temporal_nets[i](temporal)
            image = self.input_linears[i](_resize_to(maps[level], grid))
            image = image if carry is None else image + carry
            joined = torch.cat((image, temporal[:, :, -1]), dim=1)
            integrated = self.temporal2integration_nets[i](joined)
            carry = self.integration_nets[i](integrated)
            if i + 1 < num_stages:
                last = self.integration2temporal_nets[i](joined)
                temporal = torch.cat((temporal[:, :, :-1], last[:, :, None]), dim=2)
        assert carry is not None
        return carry + integrated


def quick_gelu(x: Tensor) -> Tensor:
    """The cheap GELU of CLIP."""
    return x * torch.sigmoid(1.702 * x)


def _resize_to(x: Tensor, grid: Sequence[int]) -> Tensor:
    if x.shape[-2:] == torch.Size(grid):
        return x
    return F.interpolate(x, size=tuple(grid), mode="bilinear", align_corners=False)


def _init_conv(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d | nn.Conv3d):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
