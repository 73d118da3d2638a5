"""Cross-attention from a frame's tokens to those of its memories (paper section 3.3)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from i2v.modeling.fast_path import FastPathModule
from i2v.modeling.memory.grid_attention import AxisMaps
from i2v.modeling.memory.readout import MemoryReadout
from i2v.modeling.sam.attention import RoPEAttention


@dataclass(frozen=True, eq=False)
class TokenMemory:
    """Memories of B objects as any attention takes them: keys and values (B,K,M), what to add to scores (B,K).

    ``num_unplaced``: how many keys at the end have no place on the grid, as they are object pointers.
    """

    keys: Tensor
    values: Tensor
    num_unplaced: int
    bias: Tensor | None

    @classmethod
    def of(cls, readout: MemoryReadout, foreground_only: bool) -> TokenMemory:
        """Positions take part in finding a memory, not in what is read from it."""
        keys = readout.tokens + readout.position
        return cls(keys, readout.tokens, readout.num_pointer_tokens, readout.log_counts(foreground_only))


class MemoryCrossAttention(RoPEAttention, FastPathModule):
    """Attention to a readout of memories.

    Of queries q and of memory tokens m with positions p, the reference implementation computes::

        keys = rotate(k_proj(m + p));  values = v_proj(m)
        out_proj(softmax(rotate(q_proj(q)) @ keys.T / sqrt(C)) @ values)

    The fast one, for CPUs and without gradients, does a third of the work for the same result: a softmax average and a
    projection may change places, so memories are averaged with their M channels and projected once for every query;
    scores are taken by :class:`~i2v.modeling.memory.grid_attention.GridMemory`.
    """

    def forward(  # type: ignore[override]
        self, queries: Tensor, readout: MemoryReadout, foreground_only: bool = False
    ) -> Tensor:
        """Queries (B,N,C) and a readout of B objects -> (B,N,C). ``foreground_only``: read where the masks were."""
        if torch.is_grad_enabled() or queries.device.type != "cpu" or not self.runs_fast():
            memory = TokenMemory.of(readout, foreground_only)
            return super().forward(queries, memory.keys, memory.values, memory.num_unplaced, memory.bias)
        heads = self.rotate_queries(self._heads(self.q_proj(queries))) * self.head_dim**-0.5
        maps = self._axis_maps(heads.dtype)
        memories = readout.on_grid(self.rotate_keys.grid, foreground_only)
        # Without strict=True, which PyTorch 2.6 cannot compile.
        averages = [
            torch.stack([part.to(heads.dtype).average(q, m) for q, m in zip(objects, maps)])  # noqa: B905
            for objects, part in zip(heads, memories)  # noqa: B905
        ]
        return self._project(torch.stack(averages))

    @property
    def head_dim(self) -> int:
        return self.rotate_keys.num_channels

    def _axis_maps(self, dtype: torch.dtype) -> list[AxisMaps]:
        """The key projection of every head. Made anew each time, so that it is never older than the weights."""
        projection = torch.cat((self.k_proj.weight, self.k_proj.bias[:, None]), dim=1)
        by_axis = (self.rotate_keys.by_axis(head.t()) for head in projection.split(self.head_dim))
        return [AxisMaps(columns.to(dtype), rows.to(dtype)) for columns, rows in by_axis]

    def _project(self, averages: Tensor) -> Tensor:
        """Averaged tokens (B,H,N,M) through ``v_proj`` and ``out_proj``, folded into one matrix -> (B,N,C)."""
        num_heads, width = averages.shape[1], averages.shape[-1]
        out = self.out_proj.weight.unflatten(1, (num_heads, -1))
        folded = torch.einsum("chd,hdm->chm", out, self.v_proj.weight.unflatten(0, (num_heads, -1))).flatten(1)
        bias = self.out_proj.weight @ self.v_proj.bias + self.out_proj.bias
        tokens = averages.transpose(1, 2).reshape(len(averages), -1, num_heads * width)
        return F.linear(tokens.to(folded.dtype), folded, bias)
