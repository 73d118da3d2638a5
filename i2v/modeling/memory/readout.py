"""Memory readout: selected memories laid out as the tokens that attention reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from i2v.modeling.memory.grid_attention import GridMemory
from i2v.modeling.memory.memory_bank import FrameMemory
from i2v.modeling.position_encoding import sine_encoding_1d

CONDITIONING_SLOT = 0  # temporal slot of conditioning frames; tracked frames have slots 1, 2, ...


@dataclass(frozen=True, eq=False)
class Selection:
    """The memories and object pointers that a frame attends to.

    The published model pads short selections with copies of the first entry. Here copies are counted, not stored.

    Attributes:
        memories: Pairs of a memory and its temporal slot.
        pointers: Pairs of object pointers ``(B, C)`` and their signed, normalized temporal distance.
        repeats: Further copies that the first memory stands for.
        pointer_repeats: Further copies that the first pointer stands for.
    """

    memories: tuple[tuple[FrameMemory, int], ...]
    pointers: tuple[tuple[Tensor, float], ...]
    repeats: int = 0
    pointer_repeats: int = 0


@dataclass(frozen=True, eq=False)
class MemoryReadout:
    """Memories of ``B`` objects as tokens: spatial tokens of all memories first, then object pointer tokens.

    Attributes:
        tokens: ``(B, N, M)``.
        position: Positional encodings ``(B, N, M)``, added to keys but not to values.
        foreground: ``(B, N)`` bool: tokens on the object. Pointer tokens always count as foreground.
        num_pointer_tokens: Tokens at the end that belong to object pointers.
        counts: ``(N,)`` how many equal tokens each token stands for, 0 for padding. ``None``: one each.
        layout: What readouts must have in common to be batched; see ``batch``.
    """

    tokens: Tensor
    position: Tensor
    foreground: Tensor
    num_pointer_tokens: int
    counts: Tensor | None = None
    layout: tuple[int, ...] = ()
    # Cache of `on_grid`, by its arguments. Filled by the first layer, read by the others.
    _grid_memories: dict[tuple[tuple[int, int], bool], tuple[GridMemory, ...]] = field(
        default_factory=dict, init=False, repr=False
    )

    @staticmethod
    def batch(readouts: Sequence[MemoryReadout]) -> MemoryReadout:
        """Concatenate readouts of equal ``layout`` along the object axis."""
        if len(readouts) == 1:
            return readouts[0]
        return replace(
            readouts[0],
            tokens=torch.cat([r.tokens for r in readouts]),
            position=torch.cat([r.position for r in readouts]),
            foreground=torch.cat([r.foreground for r in readouts]),
        )

    def split(self) -> list[MemoryReadout]:
        """Return one readout per object."""
        rows = zip(self.tokens.split(1), self.position.split(1), self.foreground.split(1), strict=True)
        return [replace(self, tokens=t, position=p, foreground=f) for t, p, f in rows]

    def padded(self, num_spatial: int, num_pointer_tokens: int) -> MemoryReadout:
        """Pad to ``num_spatial`` spatial tokens and ``num_pointer_tokens`` pointer tokens. Padding has count 0."""
        lengths = (self.tokens.shape[1] - self.num_pointer_tokens, self.num_pointer_tokens)
        padding = (num_spatial - lengths[0], num_pointer_tokens - lengths[1])

        def pad(x: Tensor, axis: int = 1) -> Tensor:
            # Zeros go behind each of the two parts, so that pointer tokens stay last.
            parts = zip(x.split(lengths, axis), padding, strict=True)
            return torch.cat([p for part, n in parts for p in (part, _zeros_like(part, n, axis))], axis)

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
        """Counts ``(B, N)`` of foreground tokens, 0 for all others."""
        foreground = self.foreground.to(self.tokens.dtype)
        return foreground if self.counts is None else foreground * self.counts

    @torch.compiler.disable
    def on_grid(self, grid: tuple[int, int], foreground_only: bool) -> tuple[GridMemory, ...]:
        """Lay out each object's memories for fast attention. The result is cached, as all layers use the same.

        Args:
            grid: (columns, rows) of a memory.
            foreground_only: Whether attention reads foreground tokens only.
        """
        memories = self._grid_memories.get((grid, foreground_only))
        if memories is None:
            num_spatial = self.tokens.shape[1] - self.num_pointer_tokens
            counts: Sequence[Tensor | None]
            counts = self.foreground_counts().unbind() if foreground_only else [self.counts] * len(self.tokens)
            rows = zip(self.tokens, self.position, counts, strict=True)
            memories = tuple(GridMemory.from_tokens(t, p, num_spatial, grid, count) for t, p, count in rows)
            self._grid_memories[grid, foreground_only] = memories
        return memories

    def log_counts(self, foreground_only: bool) -> Tensor | None:
        """Bias ``(B, N)`` for attention scores under which tokens count as often as they should; ``None`` for none.

        Adding ``log(n)`` to a score multiplies its softmax weight by ``n``; a count of 0 becomes ``-inf``.
        """
        if foreground_only:
            return self.foreground_counts().log()
        return None if self.counts is None else self.counts.log().expand(self.tokens.shape[0], -1)


def read_memories(
    selection: Selection, slot_encoding: Tensor, grid_encoding: Tensor, project_distance: nn.Module
) -> MemoryReadout:
    """Lay out selected memories as tokens.

    Args:
        selection: Memories and pointers of ``B`` objects.
        slot_encoding: Learned temporal encoding ``(slots, 1, 1, M)``, slot 0 in the last row.
        grid_encoding: Positional encoding of the grid ``(1, M, h, w)``.
        project_distance: Maps the sine encoding ``(n, C)`` of the pointers' distances to ``(n, M)``.

    Returns:
        ``h*w`` tokens per memory, then ``C/M`` tokens per pointer.
    """
    num_slots, _, _, width = slot_encoding.shape
    grid = grid_encoding.flatten(2).transpose(1, 2)
    pointers = torch.stack([pointer for pointer, _ in selection.pointers], dim=1)
    batch, num_pointers, channels = pointers.shape
    # A pointer is as wide as the features, a memory token is narrower: split it into consecutive tokens of width M,
    # which share one positional encoding.
    tokens_per_pointer = channels // width

    # Pointers are placed in time only, by a projected sine encoding of their distance; spatial tokens by grid and slot.
    distances = torch.tensor([distance for _, distance in selection.pointers], device=pointers.device)
    pointer_position = project_distance(sine_encoding_1d(distances, channels).to(slot_encoding.dtype))
    pointer_position = pointer_position.repeat_interleave(tokens_per_pointer, dim=0)
    spatial = torch.cat([_to_tokens(m.features, like=slot_encoding) for m, _ in selection.memories], dim=1)
    spatial_position = torch.cat(
        [grid + slot_encoding[num_slots - 1 - slot, 0] for _, slot in selection.memories], dim=1
    )
    foreground = torch.cat([m.foreground.flatten(1).to(grid.device) for m, _ in selection.memories], dim=1)
    num_pointer_tokens = num_pointers * tokens_per_pointer
    position = torch.cat((spatial_position, pointer_position[None].to(spatial_position.dtype)), dim=1)
    return MemoryReadout(
        tokens=torch.cat((spatial, pointers.reshape(batch, -1, width).to(spatial.dtype)), dim=1),
        position=position.expand(batch, -1, -1),
        foreground=torch.cat((foreground, foreground.new_ones(batch, num_pointer_tokens)), dim=1),
        num_pointer_tokens=num_pointer_tokens,
        counts=_token_counts(selection, spatial[0, :, 0], tokens_per_pointer, num_pointer_tokens),
        layout=(spatial.shape[1], num_pointer_tokens, selection.repeats, selection.pointer_repeats),
    )


def pad_readout(readout: MemoryReadout, selection: Selection, num_slots: int) -> MemoryReadout:
    """Pad a readout to ``num_slots`` memories and as many pointers, or to 2, 4, 8, ... times as many if it has more.

    Doubling keeps the number of different shapes small for compiled models.
    """
    num_memories, num_pointers = len(selection.memories), len(selection.pointers)
    per_memory = (readout.tokens.shape[1] - readout.num_pointer_tokens) // num_memories
    per_pointer = readout.num_pointer_tokens // num_pointers
    return readout.padded(
        per_memory * _padded_length(num_memories, num_slots), per_pointer * _padded_length(num_pointers, num_slots)
    )


def _padded_length(count: int, num_slots: int) -> int:
    while num_slots < count:
        num_slots *= 2
    return num_slots


def _token_counts(
    selection: Selection, spatial: Tensor, tokens_per_pointer: int, num_pointer_tokens: int
) -> Tensor | None:
    """How many equal tokens each token ``(N,)`` stands for, or ``None`` for one each.

    ``spatial`` only gives the number of spatial tokens, dtype and device.
    """
    if not selection.repeats and not selection.pointer_repeats:
        return None
    # Only the first memory and the first pointer can be repeated; each owns a run of tokens at the start of its part.
    counts = spatial.new_ones(len(spatial) + num_pointer_tokens)
    counts[: len(spatial) // len(selection.memories)] += selection.repeats
    counts[len(spatial) : len(spatial) + tokens_per_pointer] += selection.pointer_repeats
    return counts


def _to_tokens(features: Tensor, like: Tensor) -> Tensor:
    """Memory features ``(B, M, h, w)`` to tokens ``(B, h*w, M)``, with the dtype and device of ``like``.

    The memory bank may keep features on the host, and keeps them in bfloat16.
    """
    return features.to(like.device).to(like.dtype).flatten(2).transpose(1, 2)


def _zeros_like(x: Tensor, length: int, axis: int) -> Tensor:
    """Zeros like ``x``, with ``length`` entries along ``axis``."""
    shape = list(x.shape)
    shape[axis] = length
    return x.new_zeros(shape)
