"""Attention to memories at their own width: no key or value of a memory is ever projected or rotated."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

MAX_SCORES = 1 << 22  # in a tile of queries: more would leave the caches
TILE_STEP = 32  # tiles of a multiple of so many queries fill vector registers
SAFE_SUMS = (1e-30, 1e30)  # sums of exp(score) between these cannot have lost anything that counts


@dataclass(frozen=True, eq=False)
class AxisMaps:
    """A key projection in every column and every row: ``columns`` (X,M+1,C/2), ``rows`` (Y,M+1,C/2).

    A key is a projected token whose channels are turned, the first half by its column x, the second by its row y. So
    its score with a query q is ``token @ columns[x] @ q[:C/2] + token @ rows[y] @ q[C/2:]``, where a token is its M
    channels and a 1, which stands for the projection's bias.
    """

    columns: Tensor
    rows: Tensor


@dataclass(frozen=True, eq=False)
class GridMemory:
    """One object's readout, laid out for :meth:`average`: T grids of Y rows and X columns, and n loose tokens.

    ``by_row`` (Y,T*X,M+1), ``by_column`` (X,Y*T,M+1) and ``loose`` (n,M+1) are tokens with their positions, to be found
    by. ``values`` (Y*T*X+n,M+1) are tokens to be read, by row, times their counts. A 1 follows the channels of each.
    A count is 0 for what must not be read, 2 for a token that stands for two.
    """

    by_row: Tensor
    by_column: Tensor
    loose: Tensor
    values: Tensor

    @classmethod
    def lay_out(
        cls, tokens: Tensor, position: Tensor, num_placed: int, grid: tuple[int, int], counts: Tensor | None
    ) -> GridMemory:
        """Tokens (N,M) and their positions, of which the first ``num_placed`` lie on grids of (columns, rows).

        ``counts`` (N,); ``None``: each token counts once.
        """
        columns, rows = grid
        tokens = F.pad(tokens, (0, 1), value=1.0)
        keys = tokens.clone()
        keys[:, :-1] += position
        values = tokens if counts is None else tokens * counts[:, None]
        placed_keys, placed_values = (x[:num_placed].view(-1, rows, columns, x.shape[1]) for x in (keys, values))
        return cls(
            by_row=placed_keys.transpose(0, 1).flatten(1, 2),
            by_column=placed_keys.permute(2, 1, 0, 3).flatten(1, 2),
            loose=keys[num_placed:],
            values=torch.cat((placed_values.transpose(0, 1).flatten(0, 2), values[num_placed:])),
        )

    def to(self, dtype: torch.dtype) -> GridMemory:
        """The same in another precision."""
        tensors = (self.by_row, self.by_column, self.loose, self.values)
        return GridMemory(*(t.to(dtype) for t in tensors))

    @torch.compiler.disable
    def average(self, queries: Tensor, maps: AxisMaps) -> Tensor:
        """Tokens averaged by the softmax of their scores with queries (N,C), rotated and scaled -> (N,M) float32.

        Queries are the last axis of all that follows, so that scores by column can be added to those by row where they
        are. Needs no gradient.
        """
        scratch = _Scratch.of(self, queries, maps)
        averages, shifted = [], False
        for tile in queries.split(scratch.scores.shape[1]):
            sums = self._sums(tile, maps, scratch, shifted)
            if not shifted and not _safe(sums[-1]):
                # Scores are too far from 0 for exp to take them as they are; those that follow will hardly be milder.
                shifted = True
                sums = self._sums(tile, maps, scratch, shifted)
            averages.append((sums[:-1] / sums[-1]).t())
        return torch.cat(averages)

    def _sums(self, queries: Tensor, maps: AxisMaps, scratch: _Scratch, shifted: bool) -> Tensor:
        """Sums of exp(score) times a token (M,n), and of exp(score) alone in the last row; (M+1,n) float32.

        ``shifted``: of every query, exp is taken of scores less their maximum.
        """
        scores = self._score(queries, maps, scratch)
        if shifted:
            unread = (self.values[:, -1] == 0)[:, None]
            scores.sub_(scores.masked_fill(unread, -torch.inf).amax(dim=0)).clamp_(max=0)
        return self._read(scores.exp_()).float()

    def _read(self, weights: Tensor) -> Tensor:
        """Tokens times weights (keys,n), summed -> (M+1,n), a share of the keys for each thread.

        The result is narrow and the sum long: left to itself, a matrix product has little to hand out to threads.
        """
        num_keys = len(self.values)
        shares = max(n for n in range(1, torch.get_num_threads() + 1) if num_keys % n == 0)
        if shares == 1:
            return self.values.t() @ weights
        tokens, weights = (x.unflatten(0, (shares, -1)) for x in (self.values, weights))
        return torch.bmm(tokens.transpose(1, 2), weights).sum(dim=0)

    def _score(self, queries: Tensor, maps: AxisMaps, scratch: _Scratch) -> Tensor:
        """Scores (keys,n) of all keys with a tile of queries (n,C), in the order of ``values``."""
        by_column, by_row = queries.t().chunk(2)
        num_queries = len(queries)
        scores = scratch.scores[:, :num_queries]
        columns = torch.mm(maps.columns.flatten(0, 1), by_column, out=scratch.columns[:, :num_queries])
        rows = torch.mm(maps.rows.flatten(0, 1), by_row, out=scratch.rows[:, :num_queries])
        columns, rows = (x.unflatten(0, (-1, self.values.shape[1])) for x in (columns, rows))
        placed, loose = scores.split((len(scores) - len(self.loose), len(self.loose)))
        torch.bmm(self.by_row, rows, out=placed.unflatten(0, (len(rows), -1)))
        placed.unflatten(0, (-1, len(columns))).transpose(0, 1).baddbmm_(self.by_column, columns)
        # A token without a place is not turned, which is what column 0 and row 0 do.
        loose.copy_(self.loose @ (columns[0] + rows[0]))
        return scores


@dataclass(frozen=True, eq=False)
class _Scratch:
    """Room that one tile of queries after the other computes in: new room would cost as much as computing."""

    scores: Tensor
    columns: Tensor
    rows: Tensor

    @classmethod
    def of(cls, memory: GridMemory, queries: Tensor, maps: AxisMaps) -> _Scratch:
        num_keys = len(memory.values)
        size = min(max(MAX_SCORES // num_keys // TILE_STEP, 1) * TILE_STEP, len(queries))
        lengths = (num_keys, maps.columns[..., 0].numel(), maps.rows[..., 0].numel())
        return cls(*(queries.new_empty(length, size) for length in lengths))


def _safe(sums: Tensor) -> bool:
    low, high = SAFE_SUMS
    return bool(((sums > low) & (sums < high)).all())
