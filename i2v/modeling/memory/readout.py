"""Selected memories as the tokens that attention reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from i2v.modeling.memory.grid_attention import GridMemory
from i2v.modeling.memory.memory_bank import FrameMemory
from i2v.modeling.position_encoding import sine_encoding_1d

CONDITIONING_SLOT = 0  # temporal slot of conditioning frames; tracked ones take 1, 2, ...


@dataclass(frozen=True, eq=False)
class Selection:
    """Memories to be read with their temporal slots, and pointers (B,C) with their signed normalized distances.

    The first memory counts for ``repeats`` more of its kind, the first pointer for ``pointer_repeats``.
    """

    memories: tuple[tuple[FrameMemory, int], ...]
    pointers: tuple[tuple[Tensor, float], ...]
    repeats: int = 0
    pointer_repeats: int = 0


@dataclass(frozen=True, eq=False)
class MemoryReadout:
    """Memories as tokens: ``tokens`` and ``position`` (B,N,M), ``foreground`` (B,N) bool; pointer tokens come last.

    ``counts`` (N,): as how many equal tokens each one counts, which is how padding is kept short. ``None``: all as one.
    """

    tokens: Tensor
    position: Tensor
    foreground: Tensor
    num_pointer_tokens: int
    counts: Tensor | None = None
    layout: tuple[int, ...] = ()  # what readouts of one batch have in common; see `batch`
    _on_grids: dict[tuple[tuple[int, int], bool], tuple[GridMemory, ...]] = field(
        default_factory=dict, init=False, repr=False
    )

    @staticmethod
    def batch(readouts: Sequence[MemoryReadout]) -> MemoryReadout:
        """Readouts of equal layout as one batch."""
        if len(readouts) == 1:
            return readouts[0]
        return replace(
            readouts[0],
            tokens=torch.cat([r.tokens for r in readouts]),
            position=torch.cat([r.position for r in readouts]),
            foreground=torch.cat([r.foreground for r in readouts]),
        )

    def split(self) -> list[MemoryReadout]:
        """One readout for each of the B objects."""
        rows = zip(self.tokens.split(1), self.position.split(1), self.foreground.split(1), strict=True)
        return [replace(self, tokens=t, position=p, foreground=f) for t, p, f in rows]

    def padded(self, num_placed: int, num_pointer_tokens: int) -> MemoryReadout:
        """The same with so many tokens of memories and of pointers, of which those that are new count zero times."""
        old = (self.tokens.shape[1] - self.num_pointer_tokens, self.num_pointer_tokens)
        more = (num_placed - old[0], num_pointer_tokens - old[1])

        def pad(x: Tensor, axis: int = 1) -> Tensor:
            parts = [p for part, n in zip(x.split(old, axis), more, strict=True) for p in (part, _zeros(part, n, axis))]
            return torch.cat(parts, axis)

        counts = self.tokens.new_ones(self.tokens.shape[1]) if self.counts is None else self.counts
        return replace(
            self,
            tokens=pad(self.tokens),
            position=pad(self.position),
            foreground=pad(self.foreground),
            num_pointer_tokens=num_pointer_tokens,
            counts=pad(counts, axis=0),
        )

    def foreground_counts(self) -> Tensor:
        """Counts (B,N) of which only those of foreground tokens are not 0."""
        foreground = self.foreground.to(self.tokens.dtype)
        return foreground if self.counts is None else foreground * self.counts

    @torch.compiler.disable
    def on_grid(self, grid: tuple[int, int], foreground_only: bool) -> tuple[GridMemory, ...]:
        """The memories of each of the B objects on a grid of (columns, rows), laid out once for all layers."""
        found = self._on_grids.get((grid, foreground_only))
        if found is None:
            num_placed = self.tokens.shape[1] - self.num_pointer_tokens
            counts: Sequence[Tensor | None]
            counts = self.foreground_counts().unbind() if foreground_only else [self.counts] * len(self.tokens)
            rows = zip(self.tokens, self.position, counts, strict=True)
            found = tuple(GridMemory.lay_out(t, p, num_placed, grid, count) for t, p, count in rows)
            self._on_grids[grid, foreground_only] = found
        return found

    def log_counts(self, foreground_only: bool) -> Tensor | None:
        """What to add to scores (B,N) so that tokens count as often as they should; ``None``: nothing."""
        if foreground_only:
            return self.foreground_counts().log()
        return None if self.counts is None else self.counts.log().expand(len(self.tokens), -1)


def read_memories(selection: Selection, slot_code: Tensor, grid_code: Tensor, project: nn.Module) -> MemoryReadout:
    """Lay the selected memories out as tokens (B,N,M), spatial ones first, pointers last.

    ``slot_code`` (slots,1,1,M) learned code of temporal slots, last row for slot 0; ``grid_code`` (1,M,h,w);
    ``project`` maps the sine code of a pointer's distance (C) to M.
    """
    num_slots, _, _, width = slot_code.shape
    grid = grid_code.flatten(2).transpose(1, 2)
    pointers = torch.stack([pointer for pointer, _ in selection.pointers], dim=1)
    batch, num_pointers, channels = pointers.shape
    tokens_per_pointer = channels // width

    distances = torch.tensor([distance for _, distance in selection.pointers], device=pointers.device)
    pointer_code = project(sine_encoding_1d(distances, channels).to(slot_code.dtype)).repeat_interleave(
        tokens_per_pointer, dim=0
    )
    spatial = torch.cat([_tokens(m.features, like=slot_code) for m, _ in selection.memories], dim=1)
    spatial_code = torch.cat([grid + slot_code[num_slots - 1 - slot, 0] for _, slot in selection.memories], dim=1)
    foreground = torch.cat([m.foreground.flatten(1).to(grid.device) for m, _ in selection.memories], dim=1)
    num_pointer_tokens = num_pointers * tokens_per_pointer
    return MemoryReadout(
        tokens=torch.cat((spatial, pointers.reshape(batch, -1, width).to(spatial.dtype)), dim=1),
        position=torch.cat((spatial_code, pointer_code[None].to(spatial_code.dtype)), dim=1).expand(batch, -1, -1),
        foreground=torch.cat((foreground, foreground.new_ones(batch, num_pointer_tokens)), dim=1),
        num_pointer_tokens=num_pointer_tokens,
        counts=_counts(selection, spatial[0, :, 0], tokens_per_pointer, num_pointer_tokens),
        layout=(spatial.shape[1], num_pointer_tokens, selection.repeats, selection.pointer_repeats),
    )


def pad_readout(readout: MemoryReadout, selection: Selection, num_slots: int) -> MemoryReadout:
    """A readout with room for so many memories and pointers or, where there are more, for twice, four times as many."""
    num_memories, num_pointers = len(selection.memories), len(selection.pointers)
    per_memory = (readout.tokens.shape[1] - readout.num_pointer_tokens) // num_memories
    per_pointer = readout.num_pointer_tokens // num_pointers
    return readout.padded(per_memory * _room(num_memories, num_slots), per_pointer * _room(num_pointers, num_slots))


def _room(count: int, num_slots: int) -> int:
    while num_slots < count:
        num_slots *= 2
    return num_slots


def _counts(selection: Selection, like: Tensor, tokens_per_pointer: int, num_pointer_tokens: int) -> Tensor | None:
    """As how many each token (N,) counts, spatial ones of number and type as in ``like``; ``None``: all as one."""
    if not selection.repeats and not selection.pointer_repeats:
        return None
    counts = like.new_ones(len(like) + num_pointer_tokens)
    counts[: len(like) // len(selection.memories)] += selection.repeats
    counts[len(like) : len(like) + tokens_per_pointer] += selection.pointer_repeats
    return counts


def _tokens(features: Tensor, like: Tensor) -> Tensor:
    """Memory features (B,M,h,w), kept in bfloat16 and perhaps on the host -> tokens (B,h*w,M) like the weights."""
    return features.to(like.device).to(like.dtype).flatten(2).transpose(1, 2)


def _zeros(like: Tensor, length: int, axis: int) -> Tensor:
    """Zeros of a tensor's kind, shaped like it but for the length of one axis."""
    shape = list(like.shape)
    shape[axis] = length
    return like.new_zeros(shape)
