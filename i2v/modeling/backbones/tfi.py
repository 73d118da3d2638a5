"""TFI, the temporal feature integrator: image features enhanced by the frames just before (paper section 3.2)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from i2v.modeling.layers import ChannelLayerNorm, LayerNorm2d


class TemporalStem(nn.Conv3d):
    """A convolution over the patches of T frames, (B,3,T,S,S) -> (B,C,T,h,w), computed frame by frame.

    A convolution is linear: each time slice of its output is a sum over frames of what one frame adds to it. That is
    the same in every window that a frame is part of, so it is computed once. For any windows, ``stem(windows)`` equals
    ``stem.join`` of :meth:`per_frame` of their frames.
    """

    def __init__(self, dim: int, kernel_length: int, patch: int) -> None:
        super().__init__(
            3, dim, (kernel_length, patch, patch), stride=(1, patch, patch), padding=(kernel_length // 2, 0, 0)
        )

    def per_frame(self, frames: Tensor) -> Tensor:
        """Frames (B,3,S,S) -> (B,K,C,h,w): what they add to the slices from K // 2 after to K // 2 before them."""
        kernels = self.weight.permute(2, 0, 1, 3, 4).flatten(0, 1)
        frames = frames.contiguous(memory_format=torch.channels_last)
        return F.conv2d(frames, kernels, stride=self.stride[1:]).unflatten(1, (self.kernel_size[0], self.out_channels))

    def join(self, per_frame: Sequence[Tensor]) -> Tensor:
        """:meth:`per_frame` of T frames, oldest first -> time slices (T,B,C,h,w); zero padding around the window."""
        reach = self.kernel_size[0] // 2
        assert self.bias is not None
        slices = []
        for t in range(len(per_frame)):
            near = range(max(t - reach, 0), min(t + reach + 1, len(per_frame)))
            first, *others = (per_frame[i][:, i - t + reach] for i in near)
            slices.append(sum(others, start=first.to(self.bias.dtype)) + self.bias[:, None, None])
        # Unlike `stack`, `cat` keeps the channels last in memory.
        return torch.cat(slices).unflatten(0, (len(per_frame), -1))


class TemporalConv(nn.Module):
    """One spatial and one temporal convolution; their names carry the index that the checkpoint gives them."""

    def __init__(self, dim: int, hidden_dim: int, temporal_kernel: int, index: int) -> None:
        super().__init__()
        self._names = (f"c_fc1_{index}", f"c_fc2_{index}")
        spatial = nn.Conv3d(dim, hidden_dim, (1, 3, 3), padding=(0, 1, 1))
        temporal = nn.Conv3d(hidden_dim, dim, (temporal_kernel, 1, 1), padding=(temporal_kernel // 2, 0, 0))
        self.add_module(self._names[0], spatial)
        self.add_module(self._names[1], temporal)

    def forward(self, slices: Tensor, num: int) -> Tensor:
        """The last ``num`` time slices of ``temporal(quick_gelu(spatial(x)))``, from slices (T,B,C,h,w).

        As 3-D convolutions the two would be several times slower.
        """
        spatial, temporal = (self.get_submodule(name) for name in self._names)
        assert isinstance(spatial, nn.Conv3d) and isinstance(temporal, nn.Conv3d) and temporal.bias is not None
        mixed = F.conv2d(slices.flatten(0, 1), spatial.weight[:, :, 0], spatial.bias, padding=1)
        mixed = quick_gelu(mixed).unflatten(0, slices.shape[:2])
        weight = temporal.weight[..., 0, 0].to(mixed.dtype)
        return mix_slices(mixed.movedim(2, -1), weight, temporal.bias, num).movedim(-1, 2)


def mix_slices(slices: Tensor, weight: Tensor, bias: Tensor, num: int) -> Tensor:
    """Convolve time slices (T,...,C) with a kernel (C',C,K) along time and return the last ``num`` slices (num,...,C').

    What lies before the first slice and after the last one counts as zero. One matrix product for every kernel position.
    """
    reach, first = weight.shape[-1] // 2, len(slices) - num
    out = F.linear(slices[first:], weight[..., reach], bias)
    for offset in (o for o in range(-reach, reach + 1) if o != 0):
        start, stop = max(first + offset, 0), min(len(slices) + offset, len(slices))
        target = out[start - offset - first : stop - offset - first]
        target.flatten(0, -2).addmm_(slices[start:stop].flatten(0, -2), weight[..., reach + offset].t())
    return out


class TemporalNet(nn.Module):
    """Residual blocks that mix space, then time."""

    def __init__(self, dim: int, num_blocks: int, mlp_ratio: float, temporal_kernel: int) -> None:
        super().__init__()
        self.lns = nn.ModuleList(ChannelLayerNorm(dim) for _ in range(num_blocks))
        self.temporal_net = nn.ModuleList(
            TemporalConv(dim, int(dim * mlp_ratio), temporal_kernel, i) for i in range(num_blocks)
        )
        self._reach = temporal_kernel // 2

    @property
    def reach(self) -> int:
        """How many slices before and after one have a say in what becomes of it."""
        return self._reach * len(self.lns)

    def forward(self, slices: Tensor, num: int) -> Tensor:
        """Time slices (T,B,C,h,w) -> the last ``num`` of those that the blocks make of them.

        ``quick_gelu(x + block(norm(x)))``, block after block, for just the slices that reach the result.
        """
        reach = self.reach
        for norm, block in zip(self.lns, self.temporal_net, strict=True):
            slices = slices[-(num + reach) :]
            reach -= self._reach
            wanted = min(num + reach, len(slices))
            normed = norm(slices.flatten(0, 1)).unflatten(0, slices.shape[:2])
            slices = quick_gelu(slices[-wanted:] + block(normed, wanted))
        return slices


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
        self.temporal_stem = TemporalStem(temporal_dim, t_patch_size, s_patch_size)
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

    def forward(self, maps: Sequence[Tensor], stem_features: Sequence[Tensor]) -> Tensor:
        """Trunk maps of the frames (B,.,.,.), stem features of the T frames of their windows -> features (B,C,h,w)."""
        temporal = self.temporal_stem.join(stem_features)
        grid = temporal.shape[-2:]
        carry: Tensor | None = None
        for i, (level, num) in enumerate(zip(self.selected_layers, self._slices_needed(), strict=True)):
            temporal = self.temporal_nets[i](temporal, num)
            image = self.input_linears[i](_resize_to(maps[level], grid))
            image = image if carry is None else image + carry
            joined = torch.cat((image, temporal[-1]), dim=1)
            integrated = self.temporal2integration_nets[i](joined)
            carry = self.integration_nets[i](integrated)
            if i + 1 < len(self.selected_layers):
                last = self.integration2temporal_nets[i](joined)
                slices = torch.cat((temporal[:-1].flatten(0, 1), last))
                temporal = slices.unflatten(0, temporal.shape[:2])
        assert carry is not None
        return carry + integrated

    def _slices_needed(self) -> list[int]:
        """How many of the last time slices of each stage reach the result: of the last stage, only the last one."""
        needed = [1]
        for net in reversed(self.temporal_nets[1:]):
            assert isinstance(net, TemporalNet)
            needed.append(min(needed[-1] + net.reach, self.t_window))
        return needed[::-1]


def quick_gelu(x: Tensor) -> Tensor:
    """The cheap GELU of CLIP."""
    return x * (1.702 * x).sigmoid_()


def _resize_to(x: Tensor, grid: Sequence[int]) -> Tensor:
    if x.shape[-2:] == torch.Size(grid):
        return x
    return F.interpolate(x, size=tuple(grid), mode="bilinear", align_corners=False)


def _init_conv(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d | nn.Conv3d):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
