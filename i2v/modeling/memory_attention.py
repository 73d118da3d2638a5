"""Conditions a frame on its memories (the attention of the paper's memory associator)."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from i2v.modeling.sam.attention import RoPEAttention
from i2v.modeling.structures import FrameFeatures, MemoryReadout

POSITION_WEIGHT = 0.1  # how strongly positions are mixed into the frame's tokens


class MemoryAttentionLayer(nn.Module):
    """Attention among the frame's tokens, attention to memory, MLP; a layer norm before each."""

    def __init__(
        self,
        self_attention: RoPEAttention,
        cross_attention: RoPEAttention,
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

    def forward(self, x: Tensor, memory: Tensor, memory_position: Tensor, num_pointer_tokens: int) -> Tensor:
        """Tokens (B or 1,N,C), memory (B,K,M), its positions (B,K,M) -> tokens (B,N,C).

        Tokens that all objects still share come as one: the attention among them is computed once.
        """
        y = self.norm1(x)
        x = x + self.dropout(self.self_attn(y, y, y))
        x = x.expand(memory.shape[0], -1, -1)
        # Positions take part in finding a memory, not in what is read from it.
        y = self.cross_attn_image(self.norm2(x), memory + memory_position, memory, num_pointer_tokens)
        x = x + self.dropout(y)
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

    def forward(self, features: FrameFeatures, readout: MemoryReadout) -> Tensor:
        """Frame features (B or 1,C,h,w) and what was read from memory -> conditioned features (B,C,h,w)."""
        placed = features.vision + POSITION_WEIGHT * features.position
        x = placed.flatten(2).transpose(1, 2)
        for layer in self.layers:
            args = (x, readout.tokens, readout.position, readout.num_pointer_tokens)
            if self.use_checkpoint and torch.is_grad_enabled():
                x = checkpoint(layer, *args, use_reentrant=False)
            else:
                x = layer(*args)
        return self.norm(x).transpose(1, 2).unflatten(-1, features.vision.shape[-2:])
