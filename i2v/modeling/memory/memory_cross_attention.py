"""Cross-attention from a frame's tokens to memory tokens (paper section 3.3)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from i2v.modeling.fast_path import FastPathModule
from i2v.modeling.memory.grid_attention import AxisKeyProjections
from i2v.modeling.memory.readout import MemoryReadout
from i2v.modeling.sam.attention import RoPEAttention


@dataclass(frozen=True, eq=False)
class MemoryKeysAndValues:
    """Memories of ``B`` objects in the form that any attention takes.

    Attributes:
        keys: ``(B, N, M)``, tokens plus positional encodings.
        values: ``(B, N, M)``, tokens without them.
        num_pointer_tokens: Keys at the end that belong to object pointers and have no position on the grid.
        bias: ``(B, N)`` to add to attention scores, or ``None``.
    """

    keys: Tensor
    values: Tensor
    num_pointer_tokens: int
    bias: Tensor | None

    @classmethod
    def from_readout(cls, readout: MemoryReadout, foreground_only: bool) -> MemoryKeysAndValues:
        """Make keys and values of a readout."""
        keys = readout.tokens + readout.position
        return cls(keys, readout.tokens, readout.num_pointer_tokens, readout.log_counts(foreground_only))


class MemoryCrossAttention(RoPEAttention, FastPathModule):
    """Attention to a memory readout.

    For queries ``q`` and memory tokens ``m`` with positional encodings ``p``, the reference implementation computes::

        keys = rotate(k_proj(m + p));  values = v_proj(m)
        out_proj(softmax(rotate(q_proj(q)) @ keys.T / sqrt(C)) @ values)

    The fast implementation, for CPUs without gradients, does a third of the work for the same result up to round-off.
    Softmax averaging and the value projection commute, so it averages memory tokens of ``M`` channels first and
    projects once per query. Scores come from ``i2v.modeling.memory.grid_attention.GridMemory``.
    """

    def forward(  # type: ignore[override]
        self, queries: Tensor, readout: MemoryReadout, foreground_only: bool = False
    ) -> Tensor:
        """Attend to memories.

        Args:
            queries: ``(B, N, C)``, one grid in row-major order.
            readout: Memories of ``B`` objects.
            foreground_only: Whether to read only tokens on the object's mask, and object pointers.

        Returns:
            ``(B, N, C)``.
        """
        if torch.is_grad_enabled() or queries.device.type != "cpu" or not self.runs_fast():
            memory = MemoryKeysAndValues.from_readout(readout, foreground_only)
            return super().forward(queries, memory.keys, memory.values, memory.num_pointer_tokens, memory.bias)
        heads = self.rotate_queries(self._split_heads(self.q_proj(queries))) * self.head_dim**-0.5
        projections = self._key_projections(heads.dtype)
        memories = readout.on_grid(self.rotate_keys.grid, foreground_only)
        # (B, H, N, M), object by object and head by head. Without strict=True, which PyTorch 2.6 cannot compile.
        averages = [
            torch.stack([memory.to(heads.dtype).average(q, p) for q, p in zip(object_heads, projections)])  # noqa: B905
            for object_heads, memory in zip(heads, memories)  # noqa: B905
        ]
        return self._project_averages(torch.stack(averages))

    @property
    def head_dim(self) -> int:
        """Channels per head."""
        return self.rotate_keys.num_channels

    def _key_projections(self, dtype: torch.dtype) -> list[AxisKeyProjections]:
        """Rotate the key projection of every head. Recomputed on each call, so that it is never out of date."""
        # Bias as a last input channel: it multiplies the 1 that follows the channels of each token.
        projection = torch.cat((self.k_proj.weight, self.k_proj.bias[:, None]), dim=1)
        by_axis = (self.rotate_keys.rotate_by_axis(head.t()) for head in projection.split(self.head_dim))
        return [AxisKeyProjections(columns.to(dtype), rows.to(dtype)) for columns, rows in by_axis]

    def _project_averages(self, averages: Tensor) -> Tensor:
        """Apply ``v_proj`` and ``out_proj`` to averaged tokens ``(B, H, N, M)``; returns ``(B, N, C)``.

        Nothing nonlinear lies between the two, so they are folded into one matrix ``(C, H*M)``.
        """
        num_heads, width = averages.shape[1], averages.shape[-1]
        out = self.out_proj.weight.unflatten(1, (num_heads, -1))
        # Per head h: (C, D) @ (D, M), with D channels per head.
        folded = torch.einsum("chd,hdm->chm", out, self.v_proj.weight.unflatten(0, (num_heads, -1))).flatten(1)
        bias = self.out_proj.weight @ self.v_proj.bias + self.out_proj.bias
        tokens = averages.transpose(1, 2).reshape(len(averages), -1, num_heads * width)
        return F.linear(tokens.to(folded.dtype), folded, bias)
