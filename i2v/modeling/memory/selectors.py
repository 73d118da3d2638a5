"""The memory associator (paper section 3.3): which memories matter on a frame, and how they are read as tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from i2v.modeling.memory.memory_bank import FrameMemory, MemoryBank
from i2v.modeling.position_encoding import sine_encoding_1d
from i2v.modeling.structures import MemoryReadout, Moment, Selection

PROMPTED_SLOT = 0  # temporal slot of prompted frames; tracked ones take 1, 2, ...


class Selector(Protocol):
    """Chooses memories for a frame. ``span``: how many tracked memories it can ever reach, ``None`` for all."""

    span: int | None
    compares_frames: bool
    num_slots: int

    def select(
        self,
        moment: Moment,
        banks: Sequence[MemoryBank],
        appearance: Tensor | None,
        generators: Sequence[torch.Generator | None],
    ) -> list[Selection]:
        """One selection for every bank, each with its own generator."""
        ...


class SimilaritySelector:
    """Takes prompted frames, and draws tracked ones from an older and a recent window by likeness to the frame.

    Windows are ages in the direction of travel: the local one 1 .. ``num_maskmem_local_all``, the global one the
    ``num_maskmem_global_all`` ages behind it. Slots left empty repeat the first prompted memory.
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
        """``mode``: draw by softmax over cosine similarity without replacement, or take the most alike frames."""
        check_mode(mode)
        _check_prompted_limit(max_cond_frames_in_attn)
        for name, drawn, window in (
            ("global", num_maskmem_global, num_maskmem_global_all),
            ("local", num_maskmem_local, num_maskmem_local_all),
        ):
            if window < 0 or (drawn < 1 and window > 0):
                hint = f"num_maskmem_{name}_all=0 disables the window"
                raise ValueError(f"num_maskmem_{name}: expected at least 1 ({hint}), got {drawn}")
        self.global_window, self.num_global = num_maskmem_global_all, num_maskmem_global
        self.local_window, self.num_local = num_maskmem_local_all, num_maskmem_local
        self.max_prompted = max_cond_frames_in_attn
        self.only_past_pointers = only_obj_ptrs_in_the_past_for_eval
        self.mode = mode
        self.span: int | None = self.global_window + self.local_window
        self.num_slots = 1 + self.num_global + self.num_local

    def select(
        self,
        moment: Moment,
        banks: Sequence[MemoryBank],
        appearance: Tensor | None,
        generators: Sequence[torch.Generator | None],
    ) -> list[Selection]:
        """One selection for every bank; frames are compared once, whatever the number of banks."""
        windows = [self._windows(moment, bank) for bank in banks]
        likeness = _likeness(appearance, [m for pair in windows for window in pair for m in window])
        selections = []
        for bank, (old, recent), generator in zip(banks, windows, generators, strict=True):
            drawn = [
                *enumerate(self._draw(old, self.num_global, likeness, generator), start=1),
                *enumerate(self._draw(recent, self.num_local, likeness, generator), start=1 + self.num_global),
            ]
            prompted = nearest_prompted(moment, bank.prompted, self.max_prompted)
            selections.append(self._arrange(moment, bank, prompted, [(memory, slot) for slot, memory in drawn]))
        return selections

    def _windows(self, moment: Moment, bank: MemoryBank) -> tuple[list[FrameMemory], list[FrameMemory]]:
        by_age = sorted(((moment.age(m.frame), m) for m in bank.tracked), key=lambda pair: -pair[0])
        horizon = self.local_window + self.global_window
        old = [m for age, m in by_age if self.local_window < age <= horizon]
        recent = [m for age, m in by_age if 0 < age <= self.local_window]
        return old, recent

    def _draw(
        self,
        candidates: Sequence[FrameMemory],
        count: int,
        likeness: Mapping[int, float],
        generator: torch.Generator | None,
    ) -> list[FrameMemory]:
        if not candidates:
            return []
        scores = torch.tensor([likeness[m.frame] for m in candidates], dtype=torch.float32)
        count = min(count, len(candidates))
        if self.mode == "topk":
            chosen = scores.topk(count).indices
        else:
            # Drawn even when all will be taken: the published model's generator moves on here, too.
            chosen = torch.multinomial(scores.softmax(dim=0), count, replacement=False, generator=generator)
        return [candidates[i] for i in sorted(chosen.tolist())]

    def _arrange(
        self,
        moment: Moment,
        bank: MemoryBank,
        prompted: Sequence[FrameMemory],
        drawn: Sequence[tuple[FrameMemory, int]],
    ) -> Selection:
        """Fill up with repeats of the first prompted memory, and give each pointer its place.

        The places of pointers are ranks, not distances: the prompted ones are the farthest away.
        """
        length = max(min(self._travelled(moment, bank) - 1, self.num_slots - 1), 0)
        repeats = max(length - len(drawn), 0)
        memories = [*((m, PROMPTED_SLOT) for m in prompted), *drawn]

        past = [m for m in prompted if not self.only_past_pointers or moment.age(m.frame) >= 0]
        if not past and not drawn:
            past = list(prompted)
        farthest = length + 1
        pointers = [(m.pointer, (farthest - slot) / farthest) for m, slot in (*((m, 0) for m in past), *drawn)]
        missing = repeats + len(memories) - len(pointers)
        return Selection(tuple(memories), tuple(pointers), repeats, pointer_repeats=missing)

    def _travelled(self, moment: Moment, bank: MemoryBank) -> int:
        """Frames since the journey began: the video's start, or the farthest prompt when travelling backward."""
        if not moment.reverse:
            return moment.frame
        return max(moment.age(m.frame) for m in bank.prompted)


class RecentSelector:
    """Takes prompted frames, the latest tracked ones, and the pointers of more of them (SAM 2's rule; for training)."""

    compares_frames = False
    span = None

    def __init__(
        self, num_maskmem: int = 7, max_obj_ptrs_in_encoder: int = 16, max_cond_frames_in_attn: int = -1
    ) -> None:
        _check_prompted_limit(max_cond_frames_in_attn)
        self.num_slots = num_maskmem
        self.max_pointers = max_obj_ptrs_in_encoder
        self.max_prompted = max_cond_frames_in_attn

    def select(
        self,
        moment: Moment,
        banks: Sequence[MemoryBank],
        appearance: Tensor | None = None,
        generators: Sequence[torch.Generator | None] = (),
    ) -> list[Selection]:
        """One selection for every bank; nothing is drawn."""
        return [self._select(moment, bank) for bank in banks]

    def _select(self, moment: Moment, bank: MemoryBank) -> Selection:
        prompted = nearest_prompted(moment, bank.prompted, self.max_prompted)
        taken = {m.frame for m in prompted}
        others = {moment.age(m.frame): m for m in (*bank.prompted, *bank.tracked) if m.frame not in taken}
        ages = range(self.num_slots - 1, 0, -1)
        recent = [(others[age], self.num_slots - age) for age in ages if age in others]

        horizon = min(moment.num_frames or self.max_pointers, self.max_pointers)
        tracked = {moment.age(m.frame): m for m in bank.tracked}
        divisor = max(horizon - 1, 1)
        pointers = [
            *((m.pointer, moment.age(m.frame) / divisor) for m in prompted),
            *((tracked[age].pointer, age / divisor) for age in range(1, horizon) if age in tracked),
        ]
        return Selection((*((m, PROMPTED_SLOT) for m in prompted), *recent), tuple(pointers))


def nearest_prompted(moment: Moment, prompted: Sequence[FrameMemory], limit: int) -> list[FrameMemory]:
    """At most ``limit`` prompted memories (-1: all): the nearest behind, the nearest ahead, then by distance."""
    if limit == -1 or len(prompted) <= limit:
        return list(prompted)

    def distance(memory: FrameMemory) -> int:
        return abs(memory.frame - moment.frame)

    before = [m for m in prompted if m.frame < moment.frame]
    after = [m for m in prompted if m.frame >= moment.frame]
    chosen = [min(side, key=distance) for side in (before, after) if side]
    rest = sorted((m for m in prompted if all(m is not c for c in chosen)), key=distance)
    return [*chosen, *rest][:limit]


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


def check_mode(mode: str) -> None:
    """Refuse a way of choosing that does not exist."""
    if mode not in ("sample", "topk"):
        raise ValueError(f'memory selection mode: expected "sample" or "topk", got {mode!r}')


def _check_prompted_limit(limit: int) -> None:
    if limit != -1 and limit < 2:
        raise ValueError(f"max_cond_frames_in_attn: expected -1 (no limit) or at least 2, got {limit}")


def _likeness(appearance: Tensor | None, memories: Sequence[FrameMemory]) -> dict[int, float]:
    """Cosine similarity of the frame to every remembered one, by frame; read from the device in one piece."""
    units = {m.frame: m.appearance for m in memories}
    if not units:
        return {}
    if appearance is None or any(unit is None for unit in units.values()):
        raise ValueError("selection by similarity needs the appearance of every frame")
    cosines = torch.stack([torch.dot(unit, appearance) for unit in units.values() if unit is not None])
    return dict(zip(units, cosines.float().tolist(), strict=True))
