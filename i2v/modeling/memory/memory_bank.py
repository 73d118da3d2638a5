"""MemoryBank: the memories of an object's conditioning frames and tracked frames."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class MemoryFeatures:
    """Output of the memory encoder for ``B`` objects on a frame.

    Attributes:
        features: ``(B, M, h, w)`` bfloat16.
        foreground: ``(B, 1, h, w)`` bool, true where the mask is.
    """

    features: Tensor
    foreground: Tensor


@dataclass(frozen=True, eq=False)
class FrameMemory:
    """The memory of ``B`` objects on one frame.

    Attributes:
        frame: Index of the frame.
        features: ``(B, M, h, w)`` bfloat16.
        foreground: ``(B, 1, h, w)`` bool, true where the mask is.
        pointer: Object pointers ``(B, C)``.
        frame_embedding: ``(C*h*w,)`` unit vector of the frame's features, shared by all objects on the frame. ``None``
            if the selector does not compare frames.
        near_distractor: ``(B,)`` bool, whether a distractor, an object like this one, was kept apart from it on the
            frame. ``None`` if the selector does not ask.
    """

    frame: int
    features: Tensor
    foreground: Tensor
    pointer: Tensor
    frame_embedding: Tensor | None = None
    near_distractor: Tensor | None = None

    def to(self, device: torch.device) -> FrameMemory:
        """Move the memory features to a device. Pointer and embedding stay, because every selection needs them."""
        return replace(self, features=self.features.to(device), foreground=self.foreground.to(device))

    def split(self) -> list[FrameMemory]:
        """Return one memory per object."""
        parts = zip(self.features.split(1), self.foreground.split(1), self.pointer.split(1), strict=True)
        memories = [FrameMemory(self.frame, *part, frame_embedding=self.frame_embedding) for part in parts]
        if self.near_distractor is None:
            return memories
        return [
            replace(m, near_distractor=near) for m, near in zip(memories, self.near_distractor.split(1), strict=True)
        ]

    @property
    def resolves_distractor(self) -> bool:
        """Whether it shows one of its objects kept apart from a distractor."""
        return self.near_distractor is not None and bool(self.near_distractor.any())


@dataclass(frozen=True, eq=False)
class MemoryBank:
    """Memories of conditioning frames, all of which are kept, and of the latest tracked frames.

    Attributes:
        conditioning: Memories of conditioning frames in the order they were added.
        tracked: Memories of tracked frames in the order they were added.
        span: How many tracked memories to keep; ``None`` keeps all.
        num_resolving: How many older ones to keep that resolve distractors.
    """

    conditioning: tuple[FrameMemory, ...] = ()
    tracked: tuple[FrameMemory, ...] = ()
    span: int | None = None
    num_resolving: int = 0

    def add_tracked(self, memory: FrameMemory) -> MemoryBank:
        """Add the memory of a tracked frame. It replaces an older one of the same frame and may push out the oldest."""
        tracked = (*_without_frame(self.tracked, memory.frame), memory)
        if self.span is None:
            return replace(self, tracked=tracked)
        start = max(len(tracked) - self.span, 0)
        resolving = [m for m in tracked[:start] if m.resolves_distractor] if self.num_resolving else []
        return replace(self, tracked=(*resolving[-self.num_resolving :], *tracked[start:]))

    def add_conditioning(self, memory: FrameMemory) -> MemoryBank:
        """Add the memory of a conditioning frame, or replace it in place. A tracked memory of the frame is removed."""
        # In place, because a selection depends on the order: empty slots repeat the first conditioning memory.
        if any(m.frame == memory.frame for m in self.conditioning):
            conditioning = tuple(memory if m.frame == memory.frame else m for m in self.conditioning)
        else:
            conditioning = (*self.conditioning, memory)
        return replace(self, conditioning=conditioning, tracked=_without_frame(self.tracked, memory.frame))

    def keep_tracked(self, frames: Collection[int]) -> MemoryBank:
        """Keep only the tracked memories of ``frames``."""
        return replace(self, tracked=tuple(m for m in self.tracked if m.frame in frames))

    def remove(self, frame: int) -> MemoryBank:
        """Remove all memories of a frame."""
        conditioning, tracked = _without_frame(self.conditioning, frame), _without_frame(self.tracked, frame)
        return replace(self, conditioning=conditioning, tracked=tracked)


def _without_frame(memories: tuple[FrameMemory, ...], frame: int) -> tuple[FrameMemory, ...]:
    return tuple(m for m in memories if m.frame != frame)
