"""Attention to memories at their own width: no key or value of a memory is ever projected or rotated."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from i2v.modeling.structures import MemoryReadout

MAX_SCORES = 1 << 22  # in a tile of queries: more would leave the caches
TILE_STEP = 32  # tiles of a multiple of so many queries fill vector registers
SAFE_SUMS = (1e-30, 1e30)  # sums of exp(score) between these cannot have lost anything that counts


@dataclass(frozen=True)
class AxisMaps:
    """A key projection in every column and every row: ``columns`` (X,M+1,C/2), ``rows`` (Y,M+1,C/2).

    A key is a projected token whose channels are turned, the first half by its column x, the second by its row y. So
    its score with a query q is ``token @ columns[x] @ q[:C/2] + token @ rows[y] @ q[C/2:]``, where a token is its M
    channels and a 1, which stands for the projection's bias.
    """

    columns: Tensor
    rows: Tensor


@dataclass(frozen=True)
class GridMemory:
    """One object's readout, laid out for :meth:`average`: T grids of Y rows and X columns, and n loose tokens.

    ``by_row`` (Y,T*X,M+1), ``by_column`` (X,Y*T,M+1) and ``loose`` (n,M+1) are tokens with their positions, to be found
    by; ``values`` (Y,T*X,M+1) and ``loose_values`` (n,M+1) are tokens to be read, times their counts (Y,T*X) and (n,).
    A 1 follows the channels of each. A count is 0 for what must not be read, 2 for a token that stands for two.
    """

    by_row: Tensor
    by_column: Tensor
    loose: Tensor
    values: Tensor
    loose_values: Tensor

    @classmethod
    def lay_out(cls, readout: MemoryReadout, grid: tuple[int, int], counts: Tensor | None) -> GridMemory:
        """A readout of one object on a grid of (columns, rows). ``counts`` (N,); ``None``: each token counts once."""
        columns, rows = grid
        num_placed = readout.tokens.shape[1] - readout.num_pointer_tokens
        tokens = torch.nn.functional.pad(readout.tokens[0], (0, 1), value=1.0)
        keys = tokens.clone()
        keys[:, :-1] += readout.position[0]
        values = tokens if counts is None else tokens * counts[:, None]
        placed = keys[:num_placed].view(-1, rows, columns, keys.shape[1])
        return cls(
            by_row=placed.transpose(0, 1).flatten(1, 2),
            by_column=placed.permute(2, 1, 0, 3).flatten(1, 2),
            loose=keys[num_placed:],
            values=values[:num_placed].view(placed.shape).transpose(0, 1).flatten(1, 2),
            loose_values=values[num_placed:],
        )

    def to(self, dtype: torch.dtype) -> GridMemory:
        """The same in another precision."""
        return GridMemory(*(t.to(dtype) for t in self._tensors()))

    def average(self, queries: Tensor, maps: AxisMaps) -> Tensor:
        """Tokens averaged by the softmax of their scores with queries (N,C), rotated and scaled -> (N,M) float32.

        Queries are the last axis of all that follows, so that scores by column can be added to those by row where they
        are. Needs no gradient.
        """
        num_keys = self.by_row.shape[0] * self.by_row.shape[1] + len(self.loose)
        tile_size = min(max(MAX_SCORES // num_keys // TILE_STEP, 1) * TILE_STEP, len(queries))
        scratch = queries.new_empty(num_keys * tile_size)
        averages, shifted = [], False
        for tile in queries.split(tile_size):
            scores = scratch[: num_keys * len(tile)].view(num_keys, len(tile))
            sums = self._sums(tile, maps, scores, shifted)
            if not shifted and not _safe(sums[-1]):
                # Scores are too far from 0 for exp to take them as they are; those that follow will hardly be milder.
                shifted = True
                sums = self._sums(tile, maps, scores, shifted)
            averages.append((sums[:-1] / sums[-1]).t())
        return torch.cat(averages)

    def _sums(self, queries: Tensor, maps: AxisMaps, scores: Tensor, shifted: bool) -> Tensor:
        """Sums of exp(score) times a token (M,n), and of exp(score) alone in the last row; (M+1,n) float32.

        ``scores`` (keys,n) is overwritten. ``shifted``: of every query, exp is taken of scores less their maximum.
        """
        placed, loose = scores.split((len(scores) - len(self.loose), len(self.loose)))
        placed = placed.view(len(self.by_row), -1, len(queries))
        self._score(queries, maps, placed, loose)
        if shifted:
            self._shift(scores)
        scores.exp_()
        sums = torch.bmm(self.values.transpose(1, 2), placed).sum(dim=0, dtype=torch.float32)
        return sums + (self.loose_values.t() @ loose).float()

    def _score(self, queries: Tensor, maps: AxisMaps, placed: Tensor, loose: Tensor) -> None:
        """Fill in the scores of queries (n,C) with placed keys (Y,T*X,n) and with loose ones (keys,n)."""
        by_column, by_row = queries.t().chunk(2)
        columns = (maps.columns.flatten(0, 1) @ by_column).unflatten(0, maps.columns.shape[:2])
        rows = (maps.rows.flatten(0, 1) @ by_row).unflatten(0, maps.rows.shape[:2])
        torch.bmm(self.by_row, rows, out=placed)
        placed.view(-1, len(columns), len(queries)).transpose(0, 1).baddbmm_(self.by_column, columns)
        # A token without a place is not turned, which is what column 0 and row 0 do.
        loose.copy_(self.loose @ (columns[0] + rows[0]))

    def _shift(self, scores: Tensor) -> None:
        """Make the highest score of every query 0, which changes no average."""
        counts = torch.cat((self.values[..., -1].flatten(), self.loose_values[:, -1]))
        unread = (counts == 0)[:, None]
        highest = scores.masked_fill(unread, -torch.inf).amax(dim=0)
        scores.sub_(highest).clamp_(max=0)

    def _tensors(self) -> tuple[Tensor, ...]:
        return (self.by_row, self.by_column, self.loose, self.values, self.loose_values)


def _safe(sums: Tensor) -> bool:
    low, high = SAFE_SUMS
    return bool(((sums > low) & (sums < high)).all())
