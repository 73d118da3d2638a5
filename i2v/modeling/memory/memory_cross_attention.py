"""Attention to what was read from memory, in the form that suits the machine."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from i2v.modeling.memory.grid_attention import AxisMaps, GridMemory
from i2v.modeling.sam.attention import RoPEAttention
from i2v.modeling.structures import MemoryReadout


@dataclass(frozen=True)
class TokenMemory:
    """Memories of B objects as any attention takes them: keys and values (B,K,M), what to add to scores (B,K)."""

    keys: Tensor
    values: Tensor
    num_unplaced: int
    bias: Tensor | None


Memory = TokenMemory | tuple[GridMemory, ...]


class MemoryReader(RoPEAttention):
    """Attention to a readout: positions take part in finding a memory, not in what is read from it.

    In plain terms, of queries q and of memory tokens m with positions p::

        keys = rotate(k_proj(m + p));  values = v_proj(m)
        out_proj(softmax(rotate(q_proj(q)) @ keys.T / sqrt(C)) @ values)

    A GPU and training run just that, through a fused kernel. A CPU, which has no gradient to keep, does a third of the
    work for the same result: a softmax average and a projection may change places, so memories are averaged with their
    M channels and projected once for every query; scores are taken by
    :class:`~i2v.modeling.memory.grid_attention.GridMemory`.
    """

    def prepare(self, readout: MemoryReadout, foreground_only: bool = False) -> Memory:
        """What :meth:`forward` reads from; made once, it may be read by all layers with the same grid."""
        if torch.is_grad_enabled() or readout.tokens.device.type != "cpu":
            keys = readout.tokens + readout.position
            bias = readout.log_counts(foreground_only)
            return TokenMemory(keys, readout.tokens, readout.num_pointer_tokens, bias)
        parts = readout.split()
        counts = [part.foreground_counts()[0] if foreground_only else part.counts for part in parts]
        grid = self.rotate_keys.grid
        return tuple(GridMemory.lay_out(part, grid, count) for part, count in zip(parts, counts, strict=True))

    def forward(self, queries: Tensor, memory: Memory) -> Tensor:  # type: ignore[override]
        """Queries (B,N,C) -> (B,N,C)."""
        if isinstance(memory, TokenMemory):
            return super().forward(queries, memory.keys, memory.values, memory.num_unplaced, memory.bias)
        heads = self.rotate_queries(self._heads(self.q_proj(queries))) * self.head_dim**-0.5
        maps = self._axis_maps(heads.dtype)
        # Without strict=True, which PyTorch 2.6 cannot compile.
        averages = [
            torch.stack([part.to(heads.dtype).average(q, m) for q, m in zip(objects, maps)])  # noqa: B905
            for objects, part in zip(heads, memory)  # noqa: B905
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
