"""Conditions a frame on its memories (the attention of the paper's memory associator)."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from i2v.modeling.memory.memory_cross_attention import Memory, MemoryReader
from i2v.modeling.sam.attention import RoPEAttention
from i2v.modeling.structures import FrameFeatures, MemoryReadout

POSITION_WEIGHT = 0.1  # how strongly positions are mixed into the frame's tokens


class MemoryAttentionLayer(nn.Module):
    """Attention among the frame's tokens, attention to memory, MLP; a layer norm before each."""

    def __init__(
        self,
        self_attention: RoPEAttention,
        cross_attention: MemoryReader,
        d_model: int = 256,
        dim_feedforward: int = 512,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.self_attn = self_attention
        self.cross_attn_image = cross_attention
        self.linear1 = nn.Linear(d_model, dim_feedforward)
        self.linear2 = nn.Linear(dim_feedforward, d_model)
        self.norm1 = nn.LayerNorm(d_model)
        self.norm2 = nn.LayerNorm(d_model)
        self.norm3 = nn.LayerNorm(d_model)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, memory: Memory) -> Tensor:
        """Tokens (B,N,C) and memories of B objects -> tokens (B,N,C)."""
        return self.read(self.look_around(x), memory)

    def look_around(self, x: Tensor) -> Tensor:
        """Attention among the frame's tokens (B,N,C)."""
        y = self.norm1(x)
        return x + self.dropout(self.self_attn(y, y, y))

    def read(self, x: Tensor, memory: Memory) -> Tensor:
        """Attention of tokens (B,N,C) to memories of B objects, then the MLP."""
        x = x + self.dropout(self.cross_attn_image(self.norm2(x), memory))
        y = self.linear2(self.dropout(F.relu(self.linear1(self.norm3(x)))))
        return x + self.dropout(y)


class MemoryAttention(nn.Module):
    """A stack of layers that start as copies of one."""

    def __init__(
        self, layer: MemoryAttentionLayer, num_layers: int = 4, d_model: int = 256, use_checkpoint: bool = False
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(copy.deepcopy(layer) for _ in range(num_layers))
        self.norm = nn.LayerNorm(d_model)
        self.use_checkpoint = use_checkpoint

    def forward(self, features: FrameFeatures, readouts: Sequence[MemoryReadout]) -> list[Tensor]:
        """Frame features (B or 1,C,h,w) and readouts of B objects each -> conditioned features (B,C,h,w) for each.

        The first layer's tokens know nothing of memory yet: what they say to each other is computed once.
        """
        placed = features.vision + POSITION_WEIGHT * features.position
        shared = self._run(self._stack[0].look_around, placed.flatten(2).transpose(1, 2))
        return [self._condition(shared, readout, features.vision.shape[-2:]) for readout in readouts]

    def _condition(self, shared: Tensor, readout: MemoryReadout, grid: torch.Size) -> Tensor:
        first, *others = self._stack
        memory = first.cross_attn_image.prepare(readout)
        x = self._run(first.read, shared.expand(len(readout.tokens), -1, -1), memory)
        for layer in others:
            x = self._run(layer, x, memory)
        return self.norm(x).transpose(1, 2).unflatten(-1, grid)

    @property
    def _stack(self) -> list[MemoryAttentionLayer]:
        return [layer for layer in self.layers if isinstance(layer, MemoryAttentionLayer)]

    def _run(self, step: Callable[..., Tensor], *args: Tensor | Memory) -> Tensor:
        if self.use_checkpoint and torch.is_grad_enabled():
            return checkpoint(step, *args, use_reentrant=False)
        return step(*args)
