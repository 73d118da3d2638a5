"""Multi-head attention, plain and with rotary positions (RoPE)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from i2v.modeling.position_encoding import AxialRotary


class Attention(nn.Module):
    """Multi-head scaled dot-product attention whose inner width may be smaller than the tokens' width."""

    def __init__(
        self,
        embedding_dim: int,
        num_heads: int = 1,
        downsample_rate: int = 1,
        kv_in_dim: int | None = None,
        dropout: float = 0.0,
    ) -> None:
        """Create the projections.

        Args:
            embedding_dim: Width ``C`` of queries and outputs.
            num_heads: Heads, a divisor of the inner width.
            downsample_rate: ``C`` over the inner width.
            kv_in_dim: Width ``D`` of keys and values, ``C`` by default.
            dropout: Rate on attention weights in training.

        Raises:
            ValueError: If ``num_heads`` does not divide the inner width.
        """
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
        """Attend.

        Args:
            q: Queries ``(B, N, C)``.
            k: Keys ``(B, L, D)``.
            v: Values ``(B, L, D)``.

        Returns:
            ``(B, N, C)``.
        """
        q, k, v = self.q_proj(q), self.k_proj(k), self.v_proj(v)
        return self._attend(self._split_heads(q), self._split_heads(k), self._split_heads(v))

    def _split_heads(self, x: Tensor) -> Tensor:
        """``(B, N, H*d)`` to ``(B, H, N, d)``."""
        return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
        """Attend with split heads, merge them and project."""
        dropout = self.dropout if self.training else 0.0
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout)
        return self.out_proj(out.transpose(1, 2).flatten(2))


class RoPEAttention(Attention):
    """Attention whose queries and keys are rotated by their position on a grid.

    Keys may be several grids in a row, followed by tokens without a position, such as object pointers. These are not
    rotated.
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
        """Create the projections and the rotation tables.

        Args:
            embedding_dim: Width ``C`` of queries and outputs, which is also the inner width.
            query_grid: (columns, rows) of the queries' grid.
            key_grid: (columns, rows) of one grid of keys.
            num_heads: Heads, a divisor of ``C``.
            kv_in_dim: Width ``D`` of keys and values, ``C`` by default.
            dropout: Rate on attention weights in training.
            rope_theta: Base of the rotation frequencies.
        """
        super().__init__(embedding_dim, num_heads, kv_in_dim=kv_in_dim, dropout=dropout)
        head_dim = embedding_dim // num_heads
        self.rotate_queries = AxialRotary(head_dim, query_grid, rope_theta)
        self.rotate_keys = AxialRotary(head_dim, key_grid, rope_theta)

    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, num_k_exclude_rope: int = 0, mask: Tensor | None = None
    ) -> Tensor:
        """Attend with rotated queries and keys.

        Args:
            q: Queries ``(B, N, C)``, one grid in row-major order.
            k: Keys ``(B, L, D)``.
            v: Values ``(B, L, D)``.
            num_k_exclude_rope: Keys at the end that are not rotated.
            mask: ``(B, L)``: bool, true where a key may be attended to, or float, added to the key's scores.

        Returns:
            ``(B, N, C)``.
        """
        queries = self.rotate_queries(self._split_heads(self.q_proj(q)))
        keys = self._split_heads(self.k_proj(k))
        # Several grids of keys share one table of rotations: memories of all frames have the same grid positions.
        num_rotated = keys.shape[-2] - num_k_exclude_rope
        grid_keys, other_keys = keys.split((num_rotated, num_k_exclude_rope), dim=-2)
        keys = self.rotate_keys(grid_keys)
        if num_k_exclude_rope:
            keys = torch.cat((keys, other_keys), dim=-2)
        values = self._split_heads(self.v_proj(v))
        # The mask is the same for all heads and queries; expanding (B, L) to (B, H, N, L) copies nothing.
        attn_mask = None if mask is None else mask[:, None, None, :].expand(-1, self.num_heads, q.shape[1], -1)
        if attn_mask is not None and attn_mask.is_floating_point():
            # Scaled dot-product attention wants a float mask in the dtype of the queries, also under autocast.
            attn_mask = attn_mask.to(queries.dtype)
        return self._attend(queries, keys, values, attn_mask)
