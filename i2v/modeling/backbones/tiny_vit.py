"""TinyViT (Wu et al., ECCV 2022), the image trunk of TinySAM, here with the feature map of every stage as output."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from i2v.modeling.fast_path import FastPathModule, is_unmodified
from i2v.modeling.layers import DropPath, LayerNorm2d, StripModule, gelu

HEAD_DIM = 32  # channels per attention head in all stages


class ConvBN(FastPathModule):
    """A convolution without bias, then batch norm: ``bn(c(x))``. Odd kernels are padded to keep the size."""

    def __init__(self, in_dim: int, out_dim: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.c = nn.Conv2d(in_dim, out_dim, kernel, stride, kernel // 2, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(out_dim)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, in_dim, H, W)`` to ``(B, out_dim, H/stride, W/stride)``."""
        if not self.folds():
            return self.bn(self.c(x))
        kernel, bias = self.folded()
        return F.conv2d(x, kernel, bias, self.c.stride, self.c.padding, groups=self.c.groups)

    def folds(self) -> bool:
        """Whether the batch norm may be folded into the convolution, also with gradients: statistics are frozen."""
        if self.backend != "fast" or self.bn.training or not (is_unmodified(self.c) and is_unmodified(self.bn)):
            return False
        # Either may have been replaced, such as by a convolution with its batch norm already folded in.
        return isinstance(self.c, nn.Conv2d) and self.c.bias is None and isinstance(self.bn, nn.BatchNorm2d)

    def folded(self) -> tuple[Tensor, Tensor]:
        """Fold the batch norm into the convolution; returns kernel ``(out_dim, in_dim/groups, k, k)`` and bias.

        Recomputed on every call, so that it is never out of date; that takes little of the convolution's time.
        """
        norm, dtype = self.bn, self.c.weight.dtype
        assert norm.running_mean is not None and norm.running_var is not None
        # In double precision each weight is rounded only once. MPS has no double precision.
        fold_dtype = torch.float32 if norm.running_var.device.type == "mps" else torch.float64
        scale = norm.weight * torch.rsqrt(norm.running_var.to(fold_dtype) + norm.eps)
        kernel, bias = self.c.weight * scale[:, None, None, None], norm.bias - norm.running_mean * scale
        return kernel.to(dtype), bias.to(dtype)


class PatchEmbed(StripModule):
    """Patch embedding: two convolutions of stride 2, with GELU between them."""

    def __init__(self, in_chans: int, dim: int) -> None:
        super().__init__()
        self.seq = nn.Sequential(ConvBN(in_chans, dim // 2, 3, stride=2), nn.GELU(), ConvBN(dim // 2, dim, 3, stride=2))
        # The map between the two has dim / 2 channels and a quarter of the frame's pixels.
        self._width = dim // 8

    def forward(self, x: Tensor) -> Tensor:
        """Embed frames ``(B, 3, S, S)`` as patches ``(B, dim, S/4, S/4)``."""
        return self.in_strips(lambda strip, _: self.seq(strip), x, width=self._width, stride=4)


class MBConv(StripModule):
    """Inverted bottleneck: 1x1 expansion, 3x3 depthwise convolution, 1x1 projection, residual, GELU."""

    def __init__(self, dim: int, expand_ratio: float, drop_path: float) -> None:
        super().__init__()
        hidden = int(dim * expand_ratio)
        self.conv1 = ConvBN(dim, hidden)
        self.conv2 = ConvBN(hidden, hidden, 3, groups=hidden)
        self.conv3 = ConvBN(hidden, dim)
        self.drop_path = DropPath(drop_path)
        nn.init.zeros_(self.conv3.bn.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Run the block on a map ``(B, C, H, W)``; same shape."""
        return self.in_strips(self._block, x, width=self.conv1.c.out_channels)

    def _block(self, x: Tensor, inplace: bool) -> Tensor:
        y = gelu(self.conv2(gelu(self.conv1(x), inplace)), inplace)
        return gelu(x + self.drop_path(self.conv3(y)), inplace)


class Downsample(StripModule):
    """Transition between stages: 1x1, 3x3 depthwise (strided) and 1x1 convolution."""

    def __init__(self, in_dim: int, out_dim: int, stride: int) -> None:
        super().__init__()
        self.conv1 = ConvBN(in_dim, out_dim)
        self.conv2 = ConvBN(out_dim, out_dim, 3, stride=stride, groups=out_dim)
        self.conv3 = ConvBN(out_dim, out_dim)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, in_dim, H, W)`` to ``(B, out_dim, H/stride, W/stride)``."""
        return self.in_strips(self._block, x, width=self.conv1.c.out_channels, stride=self.conv2.c.stride[0])

    def _block(self, x: Tensor, inplace: bool) -> Tensor:
        return self.conv3(gelu(self.conv2(gelu(self.conv1(x), inplace)), inplace))


class WindowAttention(nn.Module):
    """Self-attention inside square windows, with a learned bias per head, row distance and column distance."""

    attention_bias_idxs: Tensor  # (n, n): index of the bias for each pair of the window's n positions

    def __init__(self, dim: int, num_heads: int, window: int) -> None:
        super().__init__()
        if dim != num_heads * HEAD_DIM:
            raise ValueError(f"num_heads: expected {dim // HEAD_DIM} for width {dim}, got {num_heads}")
        self.num_heads = num_heads
        self.norm = nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        self.attention_biases = nn.Parameter(torch.zeros(num_heads, window * window))
        # One bias per pair of absolute row and column distances, which are numbered row-major.
        index = torch.arange(window * window)
        rows, columns = index // window, index % window
        distance = (rows[:, None] - rows).abs() * window + (columns[:, None] - columns).abs()
        self.register_buffer("attention_bias_idxs", distance, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Attend within windows of tokens ``(num_windows, n, C)``; same shape."""
        # The projection is head-major: q, k and v of one head are adjacent, so heads are split first.
        q, k, v = self.qkv(self.norm(x)).unflatten(-1, (self.num_heads, 3 * HEAD_DIM)).transpose(1, 2).chunk(3, dim=-1)
        # Gathered on every call, so that the bias is never out of date.
        bias = self.attention_biases[:, self.attention_bias_idxs].to(q.dtype)
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=bias[None].expand(x.shape[0], -1, -1, -1))
        return self.proj(out.transpose(1, 2).flatten(2))


class FeedForward(FastPathModule):
    """Pre-norm MLP of a transformer block."""

    def __init__(self, dim: int, hidden_dim: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.fc1 = nn.Linear(dim, hidden_dim)
        self.fc2 = nn.Linear(hidden_dim, dim)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Run the MLP on tokens ``(..., C)``; same shape."""
        inplace = not torch.is_grad_enabled() and self.runs_fast()
        return self.drop(self.fc2(self.drop(gelu(self.fc1(self.norm(x)), inplace))))


class TransformerBlock(StripModule):
    """Window attention, a depthwise convolution that connects the windows, MLP."""

    def __init__(
        self, dim: int, num_heads: int, window: int, mlp_ratio: float, dropout: float, drop_path: float
    ) -> None:
        super().__init__()
        self.window = window
        self.attn = WindowAttention(dim, num_heads, window)
        self.local_conv = ConvBN(dim, dim, 3, groups=dim)
        self.mlp = FeedForward(dim, int(dim * mlp_ratio), dropout)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """Run the block on a map ``(B, C, H, W)``; same shape."""
        # Channels-last maps, so these permutations copy nothing.
        tokens = x.permute(0, 2, 3, 1)
        tokens = tokens + self.drop_path(self._attend(tokens))
        x = self.local_conv(tokens.permute(0, 3, 1, 2))  # no residual around this one
        return self.in_strips(self._feed_forward, x, width=self.mlp.fc1.out_features, halo=0)

    def _attend(self, tokens: Tensor) -> Tensor:
        """Attend in windows over tokens ``(B, H, W, C)``; same shape."""
        batch, height, width, dim = tokens.shape
        size = self.window
        # Zeros complete the windows at the bottom and right. They are not masked: the weights were trained with them.
        pad_bottom, pad_right = -height % size, -width % size
        padded = F.pad(tokens, (0, 0, 0, pad_right, 0, pad_bottom)) if pad_right or pad_bottom else tokens
        rows, columns = (height + pad_bottom) // size, (width + pad_right) // size
        # (B, rows, size, columns, size, C) to (B, rows, columns, size, size, C), one window per row and column.
        windows = padded.view(batch, rows, size, columns, size, dim).transpose(2, 3)
        out = self.attn(windows.reshape(-1, size * size, dim))
        out = out.view(batch, rows, columns, size, size, dim).transpose(2, 3)
        return out.reshape(batch, height + pad_bottom, width + pad_right, dim)[:, :height, :width]

    def _feed_forward(self, x: Tensor, _: bool) -> Tensor:
        tokens = x.permute(0, 2, 3, 1)
        return (tokens + self.drop_path(self.mlp(tokens))).permute(0, 3, 1, 2)


class Stage(nn.Module):
    """Blocks of equal width, then the transition to the next stage."""

    def __init__(self, blocks: Sequence[nn.Module], downsample: nn.Module | None, use_checkpoint: bool) -> None:
        """Create the stage.

        Args:
            blocks: Blocks that keep the shape of a map.
            downsample: The transition, or ``None`` for the last stage.
            use_checkpoint: Whether to recompute blocks in the backward pass, which saves memory in training.
        """
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.downsample = downsample
        self.use_checkpoint = use_checkpoint

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, C, H, W)`` to ``(B, C', H', W')``, the shape after the transition."""
        for block in self.blocks:
            if self.use_checkpoint and torch.is_grad_enabled():
                x = checkpoint(block, x, use_reentrant=False)
            else:
                x = block(x)
        return x if self.downsample is None else self.downsample(x)


class TinyViT(nn.Module):
    """Image trunk with five output maps: patches, three stages, neck. The first stage is convolutional."""

    def __init__(
        self,
        in_chans: int = 3,
        num_classes: int = 1000,
        embed_dims: Sequence[int] = (64, 128, 160, 320),
        depths: Sequence[int] = (2, 2, 6, 2),
        num_heads: Sequence[int] = (2, 4, 5, 10),
        window_sizes: Sequence[int] = (7, 7, 14, 7),
        strides: Sequence[int] = (2, 2, 1),
        mlp_ratio: float = 4.0,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        out_dim: int = 256,
        use_checkpoint: bool = False,
    ) -> None:
        """Create the trunk.

        Args:
            in_chans: Channels of a frame.
            num_classes: Classes of the ImageNet classifier, whose weights are kept but not used.
            embed_dims: Channels of each stage.
            depths: Blocks of each stage.
            num_heads: Heads of each stage; the first entry is not used.
            window_sizes: Side of each stage's attention windows; the first entry is not used.
            strides: Stride of each transition.
            mlp_ratio: Hidden width of a block over its width.
            drop_rate: Dropout in the MLPs.
            drop_path_rate: Stochastic depth of the last block; rates rise linearly from 0.
            out_dim: Channels of the neck.
            use_checkpoint: Whether to recompute blocks in the backward pass, which saves memory in training.

        Raises:
            ValueError: If a width is not the number of heads times 32.
        """
        super().__init__()
        self.patch_embed = PatchEmbed(in_chans, embed_dims[0])
        drop_paths = torch.linspace(0, drop_path_rate, sum(depths)).tolist()
        transitions = [Downsample(a, b, s) for (a, b), s in zip(pairwise(embed_dims), strides, strict=True)]
        self.layers = nn.ModuleList()
        for i, (dim, depth) in enumerate(zip(embed_dims, depths, strict=True)):
            rates = [drop_paths.pop(0) for _ in range(depth)]
            blocks: list[nn.Module] = (
                [MBConv(dim, mlp_ratio, rate) for rate in rates]
                if i == 0
                else [
                    TransformerBlock(dim, num_heads[i], window_sizes[i], mlp_ratio, drop_rate, rate) for rate in rates
                ]
            )
            self.layers.append(Stage(blocks, transitions[i] if i < len(transitions) else None, use_checkpoint))
        # Classifier of the ImageNet model: unused, but part of published checkpoints.
        self.norm_head = nn.LayerNorm(embed_dims[-1])
        self.head = nn.Linear(embed_dims[-1], num_classes)
        self.apply(_init_linear)
        self.neck = nn.Sequential(
            nn.Conv2d(embed_dims[-1], out_dim, 1, bias=False),
            LayerNorm2d(out_dim),
            nn.Conv2d(out_dim, out_dim, 3, padding=1, bias=False),
            LayerNorm2d(out_dim),
        )

    def forward(self, frames: Tensor) -> list[Tensor]:
        """Compute feature maps.

        Args:
            frames: ``(B, 3, S, S)`` normalized RGB.

        Returns:
            Five maps ``(B, C_i, S/s, S/s)`` at strides ``s`` of 4, 8, 16, 16 and 16: the patches, all stages but the
            last, and the neck on the last stage.
        """
        # Channels-last memory is what window attention needs, and what convolutions are fastest with.
        maps = [self.patch_embed(frames.contiguous(memory_format=torch.channels_last))]
        for layer in self.layers:
            maps.append(layer(maps[-1]))
        maps[-1] = self.neck(maps[-1])
        return maps


def _init_linear(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
