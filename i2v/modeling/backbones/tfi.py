"""TFI, the temporal feature integrator: enriches a frame's features with the frames before it (paper section 3.2)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from i2v.modeling.fast_path import FastPathModule, is_unmodified
from i2v.modeling.layers import ChannelLayerNorm, LayerNorm2d


class TemporalStem(nn.Conv3d):
    """Patch-embedding convolution over a window of frames, ``(B, 3, T, S, S)`` to ``(B, C, T, h, w)``.

    Convolution is linear, so each time slice of the output is a sum of contributions of single frames. A frame's
    contributions are the same in every window, so they are computed once and cached: ``stem(windows)`` equals ``join``
    of the ``per_frame`` results of the windows' frames.
    """

    def __init__(self, dim: int, kernel_length: int, patch: int) -> None:
        """Create the convolution.

        Args:
            dim: Output channels ``C``.
            kernel_length: Frames ``K`` under the kernel, odd.
            patch: Side of a patch in pixels, which is also the spatial stride.
        """
        super().__init__(
            3, dim, (kernel_length, patch, patch), stride=(1, patch, patch), padding=(kernel_length // 2, 0, 0)
        )

    def per_frame(self, frames: Tensor) -> Tensor:
        """Compute the contributions of frames to the time slices around them.

        Args:
            frames: ``(B, 3, S, S)``.

        Returns:
            ``(B, K, C, h, w)``: contribution ``k`` goes to the slice ``K // 2 - k`` after the frame.
        """
        # Each temporal position of the kernel becomes a 2-D kernel: (C, 3, K, p, p) to (K*C, 3, p, p).
        kernels = self.weight.permute(2, 0, 1, 3, 4).flatten(0, 1)
        frames = frames.contiguous(memory_format=torch.channels_last)
        return F.conv2d(frames, kernels, stride=self.stride[1:]).unflatten(1, (self.kernel_size[0], self.out_channels))

    def join(self, per_frame: Sequence[Tensor]) -> Tensor:
        """Sum the contributions of a window's frames.

        Args:
            per_frame: Results of ``per_frame`` for ``T`` frames, oldest first.

        Returns:
            Time slices ``(T, B, C, h, w)``, as with zero padding before and after the window.
        """
        radius = self.kernel_size[0] // 2
        assert self.bias is not None
        slices = []
        for t in range(len(per_frame)):
            neighbours = range(max(t - radius, 0), min(t + radius + 1, len(per_frame)))
            first, *others = (per_frame[i][:, i - t + radius] for i in neighbours)
            slices.append(sum(others, start=first.to(self.bias.dtype)) + self.bias[:, None, None])
        # Unlike `stack`, `cat` keeps channels-last memory.
        return torch.cat(slices).unflatten(0, (len(per_frame), -1))


class TemporalConv(FastPathModule):
    """A spatial and a temporal convolution. Their names end with the block's index, as in published checkpoints."""

    def __init__(self, dim: int, hidden_dim: int, temporal_kernel: int, index: int) -> None:
        """Create the convolutions.

        Args:
            dim: Input and output channels ``C``.
            hidden_dim: Channels between the two.
            temporal_kernel: Time slices under the temporal kernel, odd.
            index: Index of the block in its ``TemporalNet``.
        """
        super().__init__()
        self._names = (f"c_fc1_{index}", f"c_fc2_{index}")
        spatial = nn.Conv3d(dim, hidden_dim, (1, 3, 3), padding=(0, 1, 1))
        temporal = nn.Conv3d(hidden_dim, dim, (temporal_kernel, 1, 1), padding=(temporal_kernel // 2, 0, 0))
        self.add_module(self._names[0], spatial)
        self.add_module(self._names[1], temporal)

    def forward(self, slices: Tensor, num_outputs: int) -> Tensor:
        """Compute ``temporal(quick_gelu(spatial(x)))``.

        Args:
            slices: Time slices ``(T, B, C, h, w)``.
            num_outputs: How many of the last slices to compute.

        Returns:
            ``(num_outputs, B, C, h, w)``.
        """
        spatial, temporal = (self.get_submodule(name) for name in self._names)
        if not self._runs_as_products(spatial, temporal):
            out = temporal(quick_gelu(spatial(slices.movedim(0, 2))))
            return out.movedim(2, 0)[len(slices) - num_outputs :]
        # The weights are those of 3-D convolutions, but 2-D convolutions and matrix products are several times faster,
        # with gradients, too.
        assert isinstance(spatial, nn.Conv3d) and isinstance(temporal, nn.Conv3d) and temporal.bias is not None
        mixed = F.conv2d(slices.flatten(0, 1), spatial.weight[:, :, 0], spatial.bias, padding=1)
        mixed = quick_gelu(mixed).unflatten(0, slices.shape[:2])
        weight = temporal.weight[..., 0, 0].to(mixed.dtype)
        return convolve_slices(mixed.movedim(2, -1), weight, temporal.bias, num_outputs).movedim(-1, 2)

    def _runs_as_products(self, spatial: nn.Module, temporal: nn.Module) -> bool:
        """Whether the two are the convolutions of the constructor. Training changes nothing: they have no dropout."""
        if self.backend != "fast" or not (is_unmodified(spatial) and is_unmodified(temporal)):
            return False
        if not (isinstance(spatial, nn.Conv3d) and isinstance(temporal, nn.Conv3d)) or temporal.bias is None:
            return False
        length = temporal.kernel_size[0]
        return (
            (spatial.kernel_size, spatial.padding) == ((1, 3, 3), (0, 1, 1))
            and (temporal.kernel_size, temporal.padding) == ((length, 1, 1), (length // 2, 0, 0))
            and length % 2 == 1
            and spatial.stride == temporal.stride == (1, 1, 1)
            and spatial.groups == temporal.groups == 1
        )


def convolve_slices(slices: Tensor, weight: Tensor, bias: Tensor, num_outputs: int) -> Tensor:
    """Convolve time slices along time with zero padding, one matrix product per kernel position.

    Args:
        slices: ``(T, ..., C)``.
        weight: ``(C', C, K)``, ``K`` odd.
        bias: ``(C',)``.
        num_outputs: How many of the last slices to compute.

    Returns:
        ``(num_outputs, ..., C')``.
    """
    radius, first = weight.shape[-1] // 2, len(slices) - num_outputs
    # The centre position reaches every output slice, so it creates the result, and the others are added in place.
    out = F.linear(slices[first:], weight[..., radius], bias)
    for offset in (o for o in range(-radius, radius + 1) if o != 0):
        # Input slices start..stop add to the output slices `offset` earlier; slices outside the window count as zero.
        start, stop = max(first + offset, 0), min(len(slices) + offset, len(slices))
        target = out[start - offset - first : stop - offset - first]
        # `flatten` of leading slices is a view, so the product is added to `out` itself.
        target.flatten(0, -2).addmm_(slices[start:stop].flatten(0, -2), weight[..., radius + offset].t())
    return out


class TemporalNet(nn.Module):
    """Residual blocks that mix space, then time."""

    def __init__(self, dim: int, num_blocks: int, mlp_ratio: float, temporal_kernel: int) -> None:
        """Create the blocks.

        Args:
            dim: Channels ``C``.
            num_blocks: Number of blocks.
            mlp_ratio: Hidden channels of a block over ``dim``.
            temporal_kernel: Time slices under a temporal kernel, odd.
        """
        super().__init__()
        self.lns = nn.ModuleList(ChannelLayerNorm(dim) for _ in range(num_blocks))
        self.temporal_net = nn.ModuleList(
            TemporalConv(dim, int(dim * mlp_ratio), temporal_kernel, i) for i in range(num_blocks)
        )
        self._block_radius = temporal_kernel // 2

    @property
    def temporal_radius(self) -> int:
        """Temporal receptive field: how many slices before and after an output slice it depends on."""
        return self._block_radius * len(self.lns)

    def forward(self, slices: Tensor, num_outputs: int) -> Tensor:
        """Run the blocks, ``x = quick_gelu(x + block(norm(x)))``.

        Args:
            slices: Time slices ``(T, B, C, h, w)``.
            num_outputs: How many of the last slices to compute.

        Returns:
            ``(num_outputs, B, C, h, w)``.
        """
        # Each block computes only the slices in the receptive field of the result, which shrinks from block to block.
        radius = self.temporal_radius
        for norm, block in zip(self.lns, self.temporal_net, strict=True):
            slices = slices[-(num_outputs + radius) :]
            radius -= self._block_radius
            num_needed = min(num_outputs + radius, len(slices))
            normed = norm(slices.flatten(0, 1)).unflatten(0, slices.shape[:2])
            slices = quick_gelu(slices[-num_needed:] + block(normed, num_needed))
        return slices


class Fuse(nn.Module):
    """Fuses the concatenated integration and temporal paths into one of them."""

    def __init__(self, in_dim: int, out_dim: int) -> None:
        super().__init__()
        self.fuse = nn.Sequential(nn.Conv2d(in_dim, out_dim, 1), LayerNorm2d(out_dim), nn.GELU())

    def forward(self, joined: Tensor) -> Tensor:
        """Map ``(B, in_dim, h, w)`` to ``(B, out_dim, h, w)``."""
        return self.fuse(joined)


class IntegrationNet(nn.Module):
    """Refines the integration path after a fusion."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.layer = nn.Sequential(nn.Conv2d(dim, dim, 3, padding=1), LayerNorm2d(dim), nn.GELU())

    def forward(self, x: Tensor) -> Tensor:
        """Refine a map ``(B, C, h, w)``; same shape."""
        return self.layer(x)


class TFI(nn.Module):
    """A light spatio-temporal network over a window of frames that exchanges features with the image trunk.

    Each stage has two paths. The *temporal* path runs over all frames of the window, the *integration* path over the
    current frame. The temporal path receives the integrated frame as its last time slice.
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
        """Create the network.

        Args:
            d_model_list: Channels of the trunk maps that the stages read.
            selected_layers: Indices of these maps.
            t_window: Frames ``T`` in a window, the current frame included.
            t_patch_size: Frames under the stem's kernel.
            s_patch_size: Side of the stem's patches in pixels, which is its stride.
            temporal_dim: Channels of the temporal path.
            integration_dim: Channels of the integration path, which are the output's.
            temporal_loop_layers: Blocks per stage of the temporal path.
            temporal_conv_mlp_ratio: Hidden channels of a block over ``temporal_dim``.
            temporal_kernel_size: Time slices under a block's temporal kernel.
        """
        super().__init__()
        self.t_window = t_window
        self.selected_layers = tuple(selected_layers)
        joined = integration_dim + temporal_dim
        stages = range(len(d_model_list))
        self.temporal_stem = TemporalStem(temporal_dim, t_patch_size, s_patch_size)
        self.input_linears = nn.ModuleList(nn.Conv2d(dim, integration_dim, 1) for dim in d_model_list)
        # The last of these has no effect, as no stage follows to read its output; published checkpoints contain it.
        self.integration2temporal_nets = nn.ModuleList(Fuse(joined, temporal_dim) for _ in stages)
        self.temporal2integration_nets = nn.ModuleList(Fuse(joined, integration_dim) for _ in stages)
        self.temporal_nets = nn.ModuleList(
            TemporalNet(temporal_dim, temporal_loop_layers, temporal_conv_mlp_ratio, temporal_kernel_size)
            for _ in stages
        )
        self.integration_nets = nn.ModuleList(IntegrationNet(integration_dim) for _ in stages)
        self.apply(_init_conv)

    def forward(self, maps: Sequence[Tensor], stem_features: Sequence[Tensor]) -> Tensor:
        """Integrate the maps of frames with their windows.

        Args:
            maps: Image trunk maps of the current frames ``(B, C_i, H_i, W_i)``.
            stem_features: Results of ``TemporalStem.per_frame`` for the ``T`` frames of the windows, oldest first.

        Returns:
            Features ``(B, C, h, w)``.
        """
        temporal = self.temporal_stem.join(stem_features)
        grid = temporal.shape[-2:]
        carry: Tensor | None = None
        for i, (level, num_slices) in enumerate(zip(self.selected_layers, self._num_slices_needed(), strict=True)):
            temporal = self.temporal_nets[i](temporal, num_slices)
            image = self.input_linears[i](_resize_to(maps[level], grid))
            image = image if carry is None else image + carry
            # The last slice of the temporal path is the current frame.
            joined = torch.cat((image, temporal[-1]), dim=1)
            integrated = self.temporal2integration_nets[i](joined)
            carry = self.integration_nets[i](integrated)
            if i + 1 < len(self.selected_layers):
                # Hand the integrated frame to the temporal path, in place of its last slice.
                last = self.integration2temporal_nets[i](joined)
                slices = torch.cat((temporal[:-1].flatten(0, 1), last))
                temporal = slices.unflatten(0, temporal.shape[:2])
        assert carry is not None
        return carry + integrated

    def _num_slices_needed(self) -> list[int]:
        """How many of each stage's last time slices lie in the receptive field of the result."""
        needed = [1]  # of the last stage, only the current frame
        for net in reversed(self.temporal_nets[1:]):
            assert isinstance(net, TemporalNet)
            needed.append(min(needed[-1] + net.temporal_radius, self.t_window))
        return needed[::-1]


def quick_gelu(x: Tensor) -> Tensor:
    """Sigmoid approximation of GELU, as in CLIP."""
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
