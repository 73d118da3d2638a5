"""The memory associator (paper section 3.3): which memories a frame attends to."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Literal, Protocol

import torch
from torch import Tensor

from i2v.modeling.memory.memory_bank import FrameMemory, MemoryBank
from i2v.modeling.memory.readout import CONDITIONING_SLOT, Selection
from i2v.modeling.structures import TrackingStep


class Selector(Protocol):
    """Chooses memories for a frame. ``span``: how many tracked memories it can ever reach, ``None`` for all."""

    span: int | None
    compares_frames: bool
    num_slots: int

    def select(
        self,
        step: TrackingStep,
        banks: Sequence[MemoryBank],
        frame_embedding: Tensor | None,
        generators: Sequence[torch.Generator | None],
    ) -> list[Selection]:
        """One selection for every bank, each with its own generator."""
        ...


class SimilaritySelector:
    """Takes conditioning frames, and draws tracked ones from an older and a recent window by similarity to the frame.

    Windows are ages in the direction of the propagation: the local one 1 .. ``num_maskmem_local_all``, the global one
    the ``num_maskmem_global_all`` ages behind it. Slots left empty repeat the first conditioning memory.
    """

    compares_frames = True

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
        """``mode``: draw by softmax over cosine similarity without replacement, or take the most similar frames."""
        check_mode(mode)
        _check_conditioning_limit(max_cond_frames_in_attn)
        for name, drawn, window in (
            ("global", num_maskmem_global, num_maskmem_global_all),
            ("local", num_maskmem_local, num_maskmem_local_all),
        ):
            if window < 0 or (drawn < 1 and window > 0):
                hint = f"num_maskmem_{name}_all=0 disables the window"
                raise ValueError(f"num_maskmem_{name}: expected at least 1 ({hint}), got {drawn}")
        self.global_window, self.num_global = num_maskmem_global_all, num_maskmem_global
        self.local_window, self.num_local = num_maskmem_local_all, num_maskmem_local
        self.max_conditioning = max_cond_frames_in_attn
        self.only_past_pointers = only_obj_ptrs_in_the_past_for_eval
        self.mode: str = mode
        self.span: int | None = self.global_window + self.local_window
        self.num_slots = 1 + self.num_global + self.num_local

    def with_mode(self, mode: str) -> SimilaritySelector:
        """The same selector with another ``mode``; ValueError if there is no such mode."""
        check_mode(mode)
        other = copy.copy(self)
        other.mode = mode
        return other

    def select(
        self,
        step: TrackingStep,
        banks: Sequence[MemoryBank],
        frame_embedding: Tensor | None,
        generators: Sequence[torch.Generator | None],
    ) -> list[Selection]:
        """One selection for every bank; frames are compared once, whatever the number of banks."""
        windows = [self._windows(step, bank) for bank in banks]
        similarities = _similarities(frame_embedding, [m for pair in windows for window in pair for m in window])
        selections = []
        for bank, (old, recent), generator in zip(banks, windows, generators, strict=True):
            drawn = [
                *enumerate(self._draw(old, self.num_global, similarities, generator), start=1),
                *enumerate(self._draw(recent, self.num_local, similarities, generator), start=1 + self.num_global),
            ]
            conditioning = nearest_conditioning(step, bank.conditioning, self.max_conditioning)
            selections.append(self._arrange(step, bank, conditioning, [(memory, slot) for slot, memory in drawn]))
        return selections

    def _windows(self, step: TrackingStep, bank: MemoryBank) -> tuple[list[FrameMemory], list[FrameMemory]]:
        by_age = sorted(((step.age(m.frame), m) for m in bank.tracked), key=lambda pair: -pair[0])
        horizon = self.local_window + self.global_window
        old = [m for age, m in by_age if self.local_window < age <= horizon]
        recent = [m for age, m in by_age if 0 < age <= self.local_window]
        return old, recent

    def _draw(
        self,
        candidates: Sequence[FrameMemory],
        count: int,
        similarities: Mapping[int, float],
        generator: torch.Generator | None,
    ) -> list[FrameMemory]:
        if not candidates:
            return []
        scores = torch.tensor([similarities[m.frame] for m in candidates], dtype=torch.float32)
        count = min(count, len(candidates))
        if self.mode == "topk":
            chosen = scores.topk(count).indices
        else:
            # Drawn even when all will be taken: the published model's generator moves on here, too.
            chosen = torch.multinomial(scores.softmax(dim=0), count, replacement=False, generator=generator)
        return [candidates[i] for i in sorted(chosen.tolist())]

    def _arrange(
        self,
        step: TrackingStep,
        bank: MemoryBank,
        conditioning: Sequence[FrameMemory],
        drawn: Sequence[tuple[FrameMemory, int]],
    ) -> Selection:
        """Fill up with repeats of the first conditioning memory, and give each pointer its place.

        The places of pointers are ranks, not distances: the conditioning ones are the farthest away.
        """
        length = max(min(self._num_passed(step, bank) - 1, self.num_slots - 1), 0)
        repeats = max(length - len(drawn), 0)
        memories = [*((m, CONDITIONING_SLOT) for m in conditioning), *drawn]

        past = [m for m in conditioning if not self.only_past_pointers or step.age(m.frame) >= 0]
        if not past and not drawn:
            past = list(conditioning)
        farthest = length + 1
        pointers = [(m.pointer, (farthest - slot) / farthest) for m, slot in (*((m, 0) for m in past), *drawn)]
        missing = repeats + len(memories) - len(pointers)
        return Selection(tuple(memories), tuple(pointers), repeats, pointer_repeats=missing)

    def _num_passed(self, step: TrackingStep, bank: MemoryBank) -> int:
        """Frames since the propagation began: the video's start or, in reverse, the farthest conditioning frame."""
        if not step.reverse:
            return step.frame
        return max(step.age(m.frame) for m in bank.conditioning)


class RecentSelector:
    """Takes conditioning frames, the latest tracked ones, and the pointers of more of them (SAM 2's rule)."""

    compares_frames = False
    span = None

    def __init__(
        self, num_maskmem: int = 7, max_obj_ptrs_in_encoder: int = 16, max_cond_frames_in_attn: int = -1
    ) -> None:
        _check_conditioning_limit(max_cond_frames_in_attn)
        self.num_slots = num_maskmem
        self.max_pointers = max_obj_ptrs_in_encoder
        self.max_conditioning = max_cond_frames_in_attn

    def select(
        self,
        step: TrackingStep,
        banks: Sequence[MemoryBank],
        frame_embedding: Tensor | None = None,
        generators: Sequence[torch.Generator | None] = (),
    ) -> list[Selection]:
        """One selection for every bank; nothing is drawn."""
        return [self._select(step, bank) for bank in banks]

    def _select(self, step: TrackingStep, bank: MemoryBank) -> Selection:
        conditioning = nearest_conditioning(step, bank.conditioning, self.max_conditioning)
        taken = {m.frame for m in conditioning}
        others = {step.age(m.frame): m for m in (*bank.conditioning, *bank.tracked) if m.frame not in taken}
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
    """At most ``limit`` conditioning memories (-1: all): the nearest behind, the nearest ahead, then by distance."""
    if limit == -1 or len(conditioning) <= limit:
        return list(conditioning)

    def distance(memory: FrameMemory) -> int:
        return abs(memory.frame - step.frame)

    before = [m for m in conditioning if m.frame < step.frame]
    after = [m for m in conditioning if m.frame >= step.frame]
    chosen = [min(side, key=distance) for side in (before, after) if side]
    rest = sorted((m for m in conditioning if all(m is not c for c in chosen)), key=distance)
    return [*chosen, *rest][:limit]


def check_mode(mode: str) -> None:
    """Raise ValueError for a mode that does not exist."""
    if mode not in ("sample", "topk"):
        raise ValueError(f'memory selection mode: expected "sample" or "topk", got {mode!r}')


def _check_conditioning_limit(limit: int) -> None:
    if limit != -1 and limit < 2:
        raise ValueError(f"max_cond_frames_in_attn: expected -1 (no limit) or at least 2, got {limit}")


def _similarities(frame_embedding: Tensor | None, memories: Sequence[FrameMemory]) -> dict[int, float]:
    """Cosine similarity of the frame to every remembered one, by frame; read from the device in one piece."""
    units = {m.frame: m.frame_embedding for m in memories}
    if not units:
        return {}
    if frame_embedding is None or any(unit is None for unit in units.values()):
        raise ValueError("selection by similarity needs the embedding of every frame")
    cosines = torch.stack([torch.dot(unit, frame_embedding) for unit in units.values() if unit is not None])
    return dict(zip(units, cosines.float().tolist(), strict=True))
