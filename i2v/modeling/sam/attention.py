"""Multi-head attention, plain and with rotary positions."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from i2v.modeling.position_encoding import AxialRotary


class Attention(nn.Module):
    """Scaled dot-product attention with projections; the inner width may be smaller than the tokens'."""

    def __init__(
        self,
        embedding_dim: int,
        num_heads: int = 1,
        downsample_rate: int = 1,
        kv_in_dim: int | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        inner_dim = embedding_dim // downsample_rate
        if inner_dim % num_heads:
            raise ValueError(f"num_heads: expected a divisor of {inner_dim}, got {num_heads}")
        kv_in_dim = kv_in_dim or embedding_dim
        self.num_heads = num_heads
        self.dropout = dropout
        self.q_proj = nn.Linear(embedding_dim, inner_dim)
        self.k_proj = nn.Linear(kv_in_dim, inner_dim)
        self.v_proj = nn.Linear(kv_in_dim, inner_dim)
        self.out_proj = nn.Linear(inner_dim, embedding_dim)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Queries (B,N,C), keys and values (B,K,D) -> (B,N,C)."""
        return self._attend(self._heads(self.q_proj(q)), self._heads(self.k_proj(k)), self._heads(self.v_proj(v)))

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
        dropout = self.dropout if self.training else 0.0
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout)
        return self.out_proj(out.transpose(1, 2).flatten(2))


class RoPEAttention(Attention):
    """Attention whose queries and keys are rotated by their place on a grid.

    Keys may be several grids in a row, followed by tokens that have no place and stay as they are.
    """

    def __init__(
        self,
        embedding_dim: int,
        query_grid: tuple[int, int],
        key_grid: tuple[int, int],
        num_heads: int = 1,
        kv_in_dim: int | None = None,
        dropout: float = 0.0,
        rope_theta: float = 10000.0,
    ) -> None:
        """Grids are (columns, rows)."""
        super().__init__(embedding_dim, num_heads, kv_in_dim=kv_in_dim, dropout=dropout)
        head_dim = embedding_dim // num_heads
        self.rotate_queries = AxialRotary(head_dim, query_grid, rope_theta)
        self.rotate_keys = AxialRotary(head_dim, key_grid, rope_theta)

    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, num_unplaced_keys: int = 0, mask: Tensor | None = None
    ) -> Tensor:
        """Queries (B,N,C), keys and values (B,K,D) -> (B,N,C).

        ``num_unplaced_keys``: how many keys at the end are not rotated. ``mask`` (B,K): true where a key may be
        attended, or numbers to add to its scores.
        """
        queries = self.rotate_queries(self._heads(self.q_proj(q)))
        keys = self._heads(self.k_proj(k))
        num_placed = keys.shape[-2] - num_unplaced_keys
        placed, unplaced = keys.split((num_placed, num_unplaced_keys), dim=-2)
        keys = self.rotate_keys(placed)
        if num_unplaced_keys:
            keys = torch.cat((keys, unplaced), dim=-2)
        values = self._heads(self.v_proj(v))
        attend = None if mask is None else mask[:, None, None, :].expand(-1, self.num_heads, q.shape[1], -1)
        if attend is not None and attend.is_floating_point():
            attend = attend.to(queries.dtype)
        return self._attend(queries, keys, values, attend)
