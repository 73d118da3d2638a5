"""Memory attention: conditions a frame's features on memories (the attention of the memory associator)."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from i2v.modeling.fast_path import FastPathModule, is_unmodified
from i2v.modeling.memory.memory_cross_attention import MemoryCrossAttention
from i2v.modeling.memory.readout import MemoryReadout
from i2v.modeling.sam.attention import RoPEAttention
from i2v.modeling.structures import FrameFeatures

POSITION_WEIGHT = 0.1  # weight of the positional encoding that is added to the frame's tokens


class MemoryAttentionLayer(nn.Module):
    """Self-attention of the frame's tokens, cross-attention to memory, MLP; pre-norm throughout."""

    def __init__(
        self,
        self_attention: RoPEAttention,
        cross_attention: MemoryCrossAttention,
        d_model: int = 256,
        dim_feedforward: int = 512,
        dropout: float = 0.1,
    ) -> None:
        """Create the layer.

        Args:
            self_attention: Attention of width ``d_model`` on the frame's grid.
            cross_attention: Attention of width ``d_model`` to memories.
            d_model: Width ``C`` of the frame's tokens.
            dim_feedforward: Hidden width of the MLP.
            dropout: Rate on every residual branch and inside the MLP, in training.
        """
        super().__init__()
        self.self_attn = self_attention
        self.cross_attn_image = cross_attention
        self.linear1 = nn.Linear(d_model, dim_feedforward)
        self.linear2 = nn.Linear(dim_feedforward, d_model)
        self.norm1 = nn.LayerNorm(d_model)
        self.norm2 = nn.LayerNorm(d_model)
        self.norm3 = nn.LayerNorm(d_model)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, readout: MemoryReadout | None, self_attended: bool = False) -> Tensor:
        """Run the layer, or one of its halves.

        Args:
            x: The frame's tokens ``(B, N, C)``.
            readout: Memories of ``B`` objects. ``None``: stop after self-attention.
            self_attended: Whether ``x`` comes from a call that stopped there; continue with cross-attention.

        Returns:
            ``(B, N, C)``.
        """
        if not self_attended:
            # No positions are added here or below: RoPE inside the attentions encodes them.
            y = self.norm1(x)
            x = x + self.dropout(self.self_attn(y, y, y))
        if readout is None:
            return x
        x = x + self.dropout(self.cross_attn_image(self.norm2(x), readout))
        y = self.linear2(self.dropout(F.relu(self.linear1(self.norm3(x)))))
        return x + self.dropout(y)


class MemoryAttention(FastPathModule):
    """A stack of memory attention layers, initialized as copies of one layer."""

    def __init__(
        self, layer: MemoryAttentionLayer, num_layers: int = 4, d_model: int = 256, use_checkpoint: bool = False
    ) -> None:
        """Create the stack.

        Args:
            layer: The layer to copy.
            num_layers: Number of copies.
            d_model: Width ``C`` of the frame's tokens.
            use_checkpoint: Whether to recompute layers in the backward pass, which saves memory in training.
        """
        super().__init__()
        self.layers = nn.ModuleList(copy.deepcopy(layer) for _ in range(num_layers))
        self.norm = nn.LayerNorm(d_model)
        self.use_checkpoint = use_checkpoint

    def forward(self, features: FrameFeatures, readouts: Sequence[MemoryReadout]) -> list[Tensor]:
        """Condition a frame on several readouts.

        Args:
            features: Frame features, batch ``B`` or 1.
            readouts: Memories of ``B`` objects each.

        Returns:
            Conditioned features ``(B, C, h, w)`` for each readout.
        """
        tokens = (features.vision + POSITION_WEIGHT * features.position).flatten(2).transpose(1, 2)
        # Self-attention of the first layer sees no memory, so all readouts can share it. A layer that was wrapped,
        # replaced or hooked is always called as a whole, and so is one in training: its dropout differs by object.
        first = self.layers[0]
        is_plain = type(first) is MemoryAttentionLayer and is_unmodified(first)
        in_training = any(module.training for module in first.modules())
        share_self_attention = self.backend == "fast" and is_plain and not in_training
        if share_self_attention:
            tokens = self._run(first, tokens, None)
        conditioned = (self._condition(tokens, readout, share_self_attention) for readout in readouts)
        return [x.transpose(1, 2).unflatten(-1, features.vision.shape[-2:]) for x in conditioned]

    def _condition(self, x: Tensor, readout: MemoryReadout, self_attended: bool) -> Tensor:
        first, *others = self.layers
        x = x.expand(readout.tokens.shape[0], -1, -1)  # objects share the frame until they attend to their own memories
        x = self._run(first, x, readout, True) if self_attended else self._run(first, x, readout)
        for layer in others:
            x = self._run(layer, x, readout)
        return self.norm(x)

    def _run(self, layer: nn.Module, *args: Tensor | MemoryReadout | bool | None) -> Tensor:
        if self.use_checkpoint and torch.is_grad_enabled():
            return checkpoint(layer, *args, use_reentrant=False)
        return layer(*args)
