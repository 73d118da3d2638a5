"""Memory selection: which memories a frame attends to (the memory associator, paper section 3.3)."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Literal, Protocol

import torch
from torch import Tensor

from i2v.modeling.memory.memory_bank import FrameMemory, MemoryBank
from i2v.modeling.memory.readout import CONDITIONING_SLOT, Selection
from i2v.modeling.structures import FramePrediction, TrackingStep


class Selector(Protocol):
    """Chooses memories for a frame.

    Attributes:
        span: How many tracked frames back it can select; ``None`` for no limit.
        compares_frames: Whether it needs frame embeddings.
        num_slots: Temporal slots it fills, the conditioning slot included.
        num_resolving: How many older tracked frames it can select because they resolve distractors.
    """

    span: int | None
    compares_frames: bool
    num_slots: int
    num_resolving: int

    def near_distractor(self, prediction: FramePrediction) -> Tensor | None:
        """Whether each of ``B`` objects is kept apart from a distractor: ``(B,)`` bool, or ``None`` if not asked."""
        ...

    def select(
        self,
        step: TrackingStep,
        banks: Sequence[MemoryBank],
        frame_embedding: Tensor | None,
        generators: Sequence[torch.Generator | None],
    ) -> list[Selection]:
        """Select memories from each bank.

        Args:
            step: The frame to segment.
            banks: One memory bank per object, each with at least one conditioning frame.
            frame_embedding: ``(C*h*w,)`` unit vector of the frame's features, if the selector compares frames.
            generators: One random generator per bank; ``None`` uses PyTorch's default one.

        Returns:
            One selection per bank.
        """
        ...


class SimilaritySelector:
    """Selects conditioning frames, and tracked frames by similarity from a global (long) and a local (short) window.

    The windows are ranges of age in the direction of the propagation: ages 1 to ``num_maskmem_local_all`` are local,
    the ``num_maskmem_global_all`` ages beyond are global. Empty slots repeat the first conditioning memory.
    """

    compares_frames = True
    num_resolving = 0

    def __init__(
        self,
        num_maskmem_global_all: int = 16,
        num_maskmem_global: int = 4,
        num_maskmem_local_all: int = 4,
        num_maskmem_local: int = 2,
        max_cond_frames_in_attn: int = -1,
        only_obj_ptrs_in_the_past_for_eval: bool = True,
        mode: Literal["sample", "topk"] = "sample",
    ) -> None:
        """Configure the windows.

        Args:
            num_maskmem_global_all: Length of the global window in frames; 0 disables it.
            num_maskmem_global: Memories selected from it.
            num_maskmem_local_all: Length of the local window in frames; 0 disables it.
            num_maskmem_local: Memories selected from it.
            max_cond_frames_in_attn: Most conditioning frames to attend to, at least 2; -1 for all.
            only_obj_ptrs_in_the_past_for_eval: Whether object pointers of conditioning frames still to come are left
                out.
            mode: ``"sample"`` draws without replacement from a softmax over cosine similarities, ``"topk"`` takes the
                most similar frames.

        Raises:
            ValueError: If an argument is out of range.
        """
        check_mode(mode)
        _check_conditioning_limit(max_cond_frames_in_attn)
        for name, count, window in (
            ("global", num_maskmem_global, num_maskmem_global_all),
            ("local", num_maskmem_local, num_maskmem_local_all),
        ):
            if window < 0 or (count < 1 and window > 0):
                hint = f"num_maskmem_{name}_all=0 disables the window"
                raise ValueError(f"num_maskmem_{name}: expected at least 1 ({hint}), got {count}")
        self.global_window, self.num_global = num_maskmem_global_all, num_maskmem_global
        self.local_window, self.num_local = num_maskmem_local_all, num_maskmem_local
        self.max_conditioning = max_cond_frames_in_attn
        self.only_past_pointers = only_obj_ptrs_in_the_past_for_eval
        self.mode: str = mode
        self.span: int | None = self.global_window + self.local_window
        self.num_slots = 1 + self.num_global + self.num_local

    def with_mode(self, mode: str) -> SimilaritySelector:
        """Return the same selector with another ``mode``.

        Raises:
            ValueError: If ``mode`` is neither ``"sample"`` nor ``"topk"``.
        """
        check_mode(mode)
        other = copy.copy(self)
        other.mode = mode
        return other

    def near_distractor(self, prediction: FramePrediction) -> Tensor | None:
        """Distractors are not looked for; see ``Selector.near_distractor``."""
        return None

    def select(
        self,
        step: TrackingStep,
        banks: Sequence[MemoryBank],
        frame_embedding: Tensor | None,
        generators: Sequence[torch.Generator | None],
    ) -> list[Selection]:
        """Select memories from each bank; see ``Selector.select``. Frames are compared once for all banks.

        Raises:
            ValueError: If a frame embedding is missing.
        """
        windows = [self._candidates(step, bank) for bank in banks]
        similarities = _similarities(frame_embedding, [m for pair in windows for window in pair for m in window])
        selections = []
        # Global before local, object by object: the order of the random draws is part of the published behaviour.
        for bank, (global_candidates, local_candidates), generator in zip(banks, windows, generators, strict=True):
            resolving = self._resolving(step, bank)
            others = [m for m in global_candidates if all(m is not r for r in resolving)]
            from_global = self._draw(others, self.num_global - len(resolving), similarities, generator)
            from_local = self._draw(local_candidates, self.num_local, similarities, generator)
            selected = [
                *enumerate([*resolving, *from_global], start=1),
                *enumerate(from_local, start=1 + self.num_global),
            ]
            conditioning = nearest_conditioning(step, bank.conditioning, self.max_conditioning)
            tracked = [(memory, slot) for slot, memory in selected]
            selections.append(self._make_selection(step, bank, conditioning, tracked))
        return selections

    def _resolving(self, step: TrackingStep, bank: MemoryBank) -> list[FrameMemory]:
        """Memories that take slots of the global window in any case, oldest first."""
        return []

    def _candidates(self, step: TrackingStep, bank: MemoryBank) -> tuple[list[FrameMemory], list[FrameMemory]]:
        """Tracked memories in the global and in the local window, oldest first."""
        by_age = sorted(((step.age(m.frame), m) for m in bank.tracked), key=lambda pair: -pair[0])
        horizon = self.local_window + self.global_window
        global_candidates = [m for age, m in by_age if self.local_window < age <= horizon]
        local_candidates = [m for age, m in by_age if 0 < age <= self.local_window]
        return global_candidates, local_candidates

    def _draw(
        self,
        candidates: Sequence[FrameMemory],
        count: int,
        similarities: Mapping[int, float],
        generator: torch.Generator | None,
    ) -> list[FrameMemory]:
        """Select at most ``count`` candidates by similarity, and return them in their given order."""
        if not candidates or count == 0:
            return []
        scores = torch.tensor([similarities[m.frame] for m in candidates], dtype=torch.float32)
        count = min(count, len(candidates))
        if self.mode == "topk":
            indices = scores.topk(count).indices
        else:
            # Draw even if all candidates will be selected: the published model advances its generator here, too.
            indices = torch.multinomial(scores.softmax(dim=0), count, replacement=False, generator=generator)
        return [candidates[i] for i in sorted(indices.tolist())]

    def _make_selection(
        self,
        step: TrackingStep,
        bank: MemoryBank,
        conditioning: Sequence[FrameMemory],
        tracked: Sequence[tuple[FrameMemory, int]],
    ) -> Selection:
        """Fill empty slots with repeats of the first conditioning memory, and give each pointer its distance.

        The distances of pointers are ranks by slot, not frame distances; conditioning frames are the farthest.
        """
        num_tracked = max(min(self._num_steps(step, bank) - 1, self.num_slots - 1), 0)
        repeats = max(num_tracked - len(tracked), 0)
        memories = [*((m, CONDITIONING_SLOT) for m in conditioning), *tracked]

        with_pointer = [m for m in conditioning if not self.only_past_pointers or step.age(m.frame) >= 0]
        if not with_pointer and not tracked:
            # Tracking towards the first prompt: pointers from the future are better than none.
            with_pointer = list(conditioning)
        # Slot 0 (conditioning) has distance 1 and higher slots less. In early frames slots can exceed the number of
        # frames tracked so far; their distances are then zero or negative, as in the published model.
        farthest = num_tracked + 1
        pointers = [
            (m.pointer, (farthest - slot) / farthest) for m, slot in (*((m, 0) for m in with_pointer), *tracked)
        ]
        # The published model pads pointers to the number of memories.
        pointer_repeats = repeats + len(memories) - len(pointers)
        return Selection(tuple(memories), tuple(pointers), repeats, pointer_repeats=pointer_repeats)

    def _num_steps(self, step: TrackingStep, bank: MemoryBank) -> int:
        """Steps since the start of the video or, in reverse, since the farthest conditioning frame."""
        if not step.reverse:
            return step.frame
        return max(step.age(m.frame) for m in bank.conditioning)


class RecentSelector:
    """Selects conditioning frames, the latest tracked frames, and object pointers of more of them (SAM 2's rule)."""

    compares_frames = False
    span = None
    num_resolving = 0

    def __init__(
        self, num_maskmem: int = 7, max_obj_ptrs_in_encoder: int = 16, max_cond_frames_in_attn: int = -1
    ) -> None:
        """Configure the selector.

        Args:
            num_maskmem: Temporal slots, the conditioning slot included.
            max_obj_ptrs_in_encoder: How many frames back object pointers are selected, this frame included.
            max_cond_frames_in_attn: Most conditioning frames to attend to, at least 2; -1 for all.

        Raises:
            ValueError: If ``max_cond_frames_in_attn`` is out of range.
        """
        _check_conditioning_limit(max_cond_frames_in_attn)
        self.num_slots = num_maskmem
        self.max_pointers = max_obj_ptrs_in_encoder
        self.max_conditioning = max_cond_frames_in_attn

    def near_distractor(self, prediction: FramePrediction) -> Tensor | None:
        """Distractors are not looked for; see ``Selector.near_distractor``."""
        return None

    def select(
        self,
        step: TrackingStep,
        banks: Sequence[MemoryBank],
        frame_embedding: Tensor | None = None,
        generators: Sequence[torch.Generator | None] = (),
    ) -> list[Selection]:
        """Select memories from each bank; see ``Selector.select``. Nothing is random and no frames are compared."""
        return [self._select(step, bank) for bank in banks]

    def _select(self, step: TrackingStep, bank: MemoryBank) -> Selection:
        conditioning = nearest_conditioning(step, bank.conditioning, self.max_conditioning)
        conditioning_frames = {m.frame for m in conditioning}
        # Conditioning frames over the limit may still serve as recent frames.
        others = {
            step.age(m.frame): m for m in (*bank.conditioning, *bank.tracked) if m.frame not in conditioning_frames
        }
        # Oldest first. The latest frame gets the last slot, so a slot always means the same age.
        ages = range(self.num_slots - 1, 0, -1)
        recent = [(others[age], self.num_slots - age) for age in ages if age in others]

        horizon = min(step.num_frames or self.max_pointers, self.max_pointers)
        tracked = {step.age(m.frame): m for m in bank.tracked}
        divisor = max(horizon - 1, 1)
        pointers = [
            *((m.pointer, step.age(m.frame) / divisor) for m in conditioning),
            *((tracked[age].pointer, age / divisor) for age in range(1, horizon) if age in tracked),
        ]
        return Selection((*((m, CONDITIONING_SLOT) for m in conditioning), *recent), tuple(pointers))


def nearest_conditioning(step: TrackingStep, conditioning: Sequence[FrameMemory], limit: int) -> list[FrameMemory]:
    """Select at most ``limit`` conditioning memories, or all if it is -1.

    The nearest one at a lower index comes first, then the nearest one at the same or a higher index, then the others by
    distance.
    """
    if limit == -1 or len(conditioning) <= limit:
        return list(conditioning)

    def distance(memory: FrameMemory) -> int:
        return abs(memory.frame - step.frame)

    before = [m for m in conditioning if m.frame < step.frame]
    after = [m for m in conditioning if m.frame >= step.frame]
    nearest = [min(side, key=distance) for side in (before, after) if side]
    others = sorted((m for m in conditioning if all(m is not n for n in nearest)), key=distance)
    return [*nearest, *others][:limit]


def check_mode(mode: str) -> None:
    """Check a mode of memory selection.

    Raises:
        ValueError: If ``mode`` is neither ``"sample"`` nor ``"topk"``.
    """
    if mode not in ("sample", "topk"):
        raise ValueError(f'memory selection mode: expected "sample" or "topk", got {mode!r}')


def _check_conditioning_limit(limit: int) -> None:
    if limit != -1 and limit < 2:
        raise ValueError(f"max_cond_frames_in_attn: expected -1 (no limit) or at least 2, got {limit}")


def _similarities(frame_embedding: Tensor | None, memories: Sequence[FrameMemory]) -> dict[int, float]:
    """Cosine similarity of the current frame to each remembered frame, by frame index."""
    embeddings = {m.frame: m.frame_embedding for m in memories}
    if not embeddings:
        return {}
    if frame_embedding is None or any(embedding is None for embedding in embeddings.values()):
        without = [frame for frame, embedding in embeddings.items() if embedding is None]
        raise ValueError(
            f"selection by similarity needs the embedding of every frame, and memories of frames {without[:4]} have "
            "none, as the selector of that time did not compare frames: call reset_state and give the prompts again"
        )
    cosines = torch.stack([torch.dot(e, frame_embedding) for e in embeddings.values() if e is not None])
    # One transfer for all frames: every read from a GPU waits for it to finish.
    return dict(zip(embeddings, cosines.float().tolist(), strict=True))
