"""Fast attention to memories at their own width ``M``: memory keys and values are never projected or rotated.

Rotary attention scores a projected query with a projected, rotated key. Both the key's projection and its rotation are
linear in the memory token, so they can be moved to the query's side; and since softmax weights sum to one, the value
projection can be applied to the averaged tokens. What remains are matrix products ``M`` channels wide.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

MAX_SCORES = 1 << 22  # scores in a tile of queries; more would not fit the caches
TILE_MULTIPLE = 32  # tiles of a multiple of this many queries fill vector registers
SAFE_SUM_RANGE = (1e-30, 1e30)  # sums of exp(score) in this range have lost nothing to underflow or overflow


@dataclass(frozen=True, eq=False)
class AxisKeyProjections:
    """The key projection of one head, rotated for every column and for every row of the grid.

    A key is a projected token whose channels are rotated: the first half by its column ``x``, the second by its row
    ``y``. Its score with a query ``q`` is ``token @ columns[x] @ q[:C/2] + token @ rows[y] @ q[C/2:]``, where a token
    is its ``M`` channels followed by a 1 that carries the projection's bias.

    Attributes:
        columns: ``(X, M+1, C/2)`` for ``X`` columns.
        rows: ``(Y, M+1, C/2)`` for ``Y`` rows.
    """

    columns: Tensor
    rows: Tensor


@dataclass(frozen=True, eq=False)
class GridMemory:
    """One object's memories, laid out for ``average``: ``T`` grids of ``Y`` rows and ``X`` columns, ``n`` pointers.

    Every token is followed by a 1. Keys are tokens plus their positional encoding. Values are tokens times their count:
    0 for a token that must not be read, 2 for one that stands for two, and so on.

    Attributes:
        by_row: Spatial keys ``(Y, T*X, M+1)``.
        by_column: The same keys ``(X, Y*T, M+1)``.
        pointers: Keys of the object pointers ``(n, M+1)``.
        values: ``(Y*T*X + n, M+1)``, spatial tokens first, ordered by row, frame, column.
    """

    by_row: Tensor
    by_column: Tensor
    pointers: Tensor
    values: Tensor

    @classmethod
    def from_tokens(
        cls, tokens: Tensor, position: Tensor, num_spatial: int, grid: tuple[int, int], counts: Tensor | None
    ) -> GridMemory:
        """Lay out the tokens of one object.

        Args:
            tokens: ``(N, M)``, spatial tokens first, grid after grid in row-major order.
            position: Positional encodings ``(N, M)``.
            num_spatial: Number of spatial tokens; the others are object pointers.
            grid: (columns, rows).
            counts: How many times each token counts, ``(N,)``. ``None``: once.
        """
        columns, rows = grid
        # The extra channel of ones turns the bias of a projection into one more weight. In `values` it sums the softmax
        # weights, which gives the denominator for free.
        tokens = F.pad(tokens, (0, 1), value=1.0)
        keys = tokens.clone()
        keys[:, :-1] += position
        values = tokens if counts is None else tokens * counts[:, None]
        # (T, Y, X, M+1)
        spatial_keys, spatial_values = (x[:num_spatial].view(-1, rows, columns, x.shape[1]) for x in (keys, values))
        return cls(
            by_row=spatial_keys.transpose(0, 1).flatten(1, 2),
            by_column=spatial_keys.permute(2, 1, 0, 3).flatten(1, 2),
            pointers=keys[num_spatial:],
            values=torch.cat((spatial_values.transpose(0, 1).flatten(0, 2), values[num_spatial:])),
        )

    def to(self, dtype: torch.dtype) -> GridMemory:
        """Convert all tensors to ``dtype``."""
        tensors = (self.by_row, self.by_column, self.pointers, self.values)
        return GridMemory(*(t.to(dtype) for t in tensors))

    @torch.compiler.disable
    def average(self, queries: Tensor, projections: AxisKeyProjections) -> Tensor:
        """Average the tokens, weighted by the softmax of their scores. Not differentiable.

        Args:
            queries: ``(N, C)`` queries of one head, rotated and scaled.
            projections: The key projection of that head.

        Returns:
            ``(N, M)`` float32, before the value projection.
        """
        # Queries run along the last axis of everything below, so that scores by column can be added in place to those
        # by row. Tiles of queries bound the size of the score matrix.
        buffers = _Buffers.allocate(self, queries, projections)
        averages, subtract_max = [], False
        for tile in queries.split(buffers.scores.shape[1]):
            sums = self._weighted_sums(tile, projections, buffers, subtract_max)
            if not subtract_max and not _is_safe(sums[-1]):
                # These scores are too large for exp without subtracting the maximum; later tiles will be similar.
                subtract_max = True
                sums = self._weighted_sums(tile, projections, buffers, subtract_max)
            averages.append((sums[:-1] / sums[-1]).t())
        return torch.cat(averages)

    def _weighted_sums(
        self, queries: Tensor, projections: AxisKeyProjections, buffers: _Buffers, subtract_max: bool
    ) -> Tensor:
        """Sum ``exp(score)`` times the tokens for a tile of ``n`` queries.

        ``subtract_max`` makes exp safe for any scores, at the price of a pass over them.

        Returns:
            ``(M+1, n)`` float32; the last row is the sum of ``exp(score)`` alone.
        """
        scores = self._scores(queries, projections, buffers)
        if subtract_max:
            # Tokens with count 0 take no part in the maximum, and are clamped so that they cannot overflow.
            excluded = (self.values[:, -1] == 0)[:, None]
            scores.sub_(scores.masked_fill(excluded, -torch.inf).amax(dim=0)).clamp_(max=0)
        return self._sum_values(scores.exp_()).float()

    def _sum_values(self, weights: Tensor) -> Tensor:
        """Sum the values with weights ``(keys, n)`` -> ``(M+1, n)``, with a share of the keys for each thread.

        The result is narrow and the sum is long, so a plain matrix product would leave most threads idle.
        """
        num_keys = len(self.values)
        shares = max(n for n in range(1, torch.get_num_threads() + 1) if num_keys % n == 0)
        if shares == 1:
            return self.values.t() @ weights
        tokens, weights = (x.unflatten(0, (shares, -1)) for x in (self.values, weights))
        return torch.bmm(tokens.transpose(1, 2), weights).sum(dim=0)

    def _scores(self, queries: Tensor, projections: AxisKeyProjections, buffers: _Buffers) -> Tensor:
        """Scores ``(keys, n)`` of all keys, in the order of ``values``, with a tile of queries ``(n, C)``."""
        by_column, by_row = queries.t().chunk(2)
        num_queries = len(queries)
        scores = buffers.scores[:, :num_queries]
        # Move the key projection to the queries: (X*(M+1), n) and (Y*(M+1), n), then (X, M+1, n) and (Y, M+1, n).
        columns = torch.mm(projections.columns.flatten(0, 1), by_column, out=buffers.columns[:, :num_queries])
        rows = torch.mm(projections.rows.flatten(0, 1), by_row, out=buffers.rows[:, :num_queries])
        columns, rows = (x.unflatten(0, (-1, self.values.shape[1])) for x in (columns, rows))
        spatial, pointers = scores.split((len(scores) - len(self.pointers), len(self.pointers)))
        # Row part, written as (Y, T*X, n); the column part is added in place through a view (X, Y*T, n) of the same.
        torch.bmm(self.by_row, rows, out=spatial.unflatten(0, (len(rows), -1)))
        spatial.unflatten(0, (-1, len(columns))).transpose(0, 1).baddbmm_(self.by_column, columns)
        # Pointers are not rotated. Column 0 and row 0 have angle 0, so their projections are the unrotated ones.
        pointers.copy_(self.pointers @ (columns[0] + rows[0]))
        return scores


@dataclass(frozen=True, eq=False)
class _Buffers:
    """Buffers that all tiles of queries share: allocating new ones would cost as much as the computation."""

    scores: Tensor
    columns: Tensor
    rows: Tensor

    @classmethod
    def allocate(cls, memory: GridMemory, queries: Tensor, projections: AxisKeyProjections) -> _Buffers:
        num_keys = len(memory.values)
        size = min(max(MAX_SCORES // num_keys // TILE_MULTIPLE, 1) * TILE_MULTIPLE, len(queries))
        lengths = (num_keys, projections.columns[..., 0].numel(), projections.rows[..., 0].numel())
        return cls(*(queries.new_empty(length, size) for length in lengths))


def _is_safe(sums: Tensor) -> bool:
    low, high = SAFE_SUM_RANGE
    return bool(((sums > low) & (sums < high)).all())
