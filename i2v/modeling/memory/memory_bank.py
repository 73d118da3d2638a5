"""MemoryBank: the memories of an object's conditioning frames and tracked frames."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class MemoryFeatures:
    """What the memory encoder makes of B objects on a frame.

    ``features`` (B,M,h,w) bfloat16; ``foreground`` (B,1,h,w) bool: where the mask was.
    """

    features: Tensor
    foreground: Tensor


@dataclass(frozen=True, eq=False)
class FrameMemory:
    """What is remembered of B objects on one frame.

    ``features`` (B,M,h,w); ``foreground`` (B,1,h,w) bool: where the mask was; ``pointer`` (B,C); ``frame_embedding``
    (C*h*w,): the frame's features as one unit vector, shared by every object on it, ``None`` where no selector compares
    frames.
    """

    frame: int
    features: Tensor
    foreground: Tensor
    pointer: Tensor
    frame_embedding: Tensor | None = None

    def to(self, device: torch.device) -> FrameMemory:
        """The same with its bulk on another device; pointer and embedding stay, as every selection needs them."""
        return replace(self, features=self.features.to(device), foreground=self.foreground.to(device))

    def split(self) -> list[FrameMemory]:
        """One memory for each of the B objects."""
        parts = zip(self.features.split(1), self.foreground.split(1), self.pointer.split(1), strict=True)
        return [FrameMemory(self.frame, *part, frame_embedding=self.frame_embedding) for part in parts]


@dataclass(frozen=True, eq=False)
class MemoryBank:
    """Memories of conditioning frames, kept for good, and of tracked ones, of which the latest ``span`` are kept.

    Both are ordered by when they came in, oldest first. ``span`` ``None`` keeps all.
    """

    conditioning: tuple[FrameMemory, ...] = ()
    tracked: tuple[FrameMemory, ...] = ()
    span: int | None = None

    def add_tracked(self, memory: FrameMemory) -> MemoryBank:
        """Add a tracked frame; an older memory of the same frame goes."""
        tracked = (*without(self.tracked, memory.frame), memory)
        return replace(self, tracked=tracked if self.span is None else tracked[max(len(tracked) - self.span, 0) :])

    def add_conditioning(self, memory: FrameMemory) -> MemoryBank:
        """Add a conditioning frame, or replace it in its place; a tracked memory of the same frame goes."""
        if any(m.frame == memory.frame for m in self.conditioning):
            conditioning = tuple(memory if m.frame == memory.frame else m for m in self.conditioning)
        else:
            conditioning = (*self.conditioning, memory)
        return replace(self, conditioning=conditioning, tracked=without(self.tracked, memory.frame))

    def keep_tracked(self, frames: Collection[int]) -> MemoryBank:
        """Keep the tracked memories of these frames only."""
        return replace(self, tracked=tuple(m for m in self.tracked if m.frame in frames))

    def remove(self, frame: int) -> MemoryBank:
        """Drop all memories of a frame."""
        return replace(self, conditioning=without(self.conditioning, frame), tracked=without(self.tracked, frame))


def without(memories: tuple[FrameMemory, ...], frame: int) -> tuple[FrameMemory, ...]:
    """The memories of all frames but one."""
    return tuple(m for m in memories if m.frame != frame)
