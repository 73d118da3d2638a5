"""Which memories a frame attends to: the rules of ``SimilaritySelector``, with its random draws, for a forward pass."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from i2v.export.description import SelectionRules
from i2v.onnx_runtime.mask_arrays import Bools, Floats
from i2v.onnx_runtime.network import Readout

CONDITIONING_SLOT = 0  # tracked frames have slots 1, 2, ...


@dataclass(frozen=True, eq=False)
class Memory:
    """The memory of one object on one frame.

    Attributes:
        frame: Index of the frame.
        features: ``(M, h, w)``.
        foreground: ``(h, w)``, true where the mask is.
        pointer: Object pointer ``(C,)``.
        embedding: Embedding of the frame, a unit vector.
    """

    frame: int
    features: Floats
    foreground: Bools
    pointer: Floats
    embedding: Floats


@dataclass(frozen=True)
class Selection:
    """Selected memories, the first of which may stand for several.

    Attributes:
        memories: Pairs of a memory and its temporal slot.
        pointers: Pairs of an object pointer and its normalized temporal distance.
        repeats: Further copies that the first memory stands for.
        pointer_repeats: Further copies that the first pointer stands for.
    """

    memories: tuple[tuple[Memory, int], ...]
    pointers: tuple[tuple[Floats, float], ...]
    repeats: int
    pointer_repeats: int


class MemoryDraws:
    """Draws without replacement, the same as those of ``torch.multinomial`` with a generator of the same seed.

    PyTorch draws exponentials, each from 53 bits of a Mersenne Twister. On a CPU of Intel it draws them by a method of
    Intel's library MKL instead, and its draws differ from those of all other machines.
    """

    def __init__(self, seed: int) -> None:
        self._bits = np.random.MT19937()
        self._bits._legacy_seeding(seed)

    def draw(self, scores: Floats, count: int) -> list[int]:
        """Draw ``count`` different indices, in order, with the probabilities of the softmax of ``scores``."""
        weights = np.exp(scores - scores.max())
        weights /= weights.sum()
        exponentials = np.array([-math.log1p(-self._uniform()) for _ in scores], np.float32)
        return sorted(np.argsort(-(weights / exponentials), kind="stable")[:count].tolist())

    def _uniform(self) -> float:
        high, low = int(self._bits.random_raw()), int(self._bits.random_raw())
        return float((high << 32 | low) & ((1 << 53) - 1)) * 2.0**-53


def select_memories(
    rules: SelectionRules,
    frame: int,
    conditioning: Sequence[Memory],
    tracked: Sequence[Memory],
    embedding: Floats,
    draws: MemoryDraws,
) -> Selection:
    """Select the memories of one object for a frame.

    Args:
        rules: The rules.
        frame: Index of the frame.
        conditioning: Memories of conditioning frames in the order they were added; at least one.
        tracked: Memories of tracked frames, oldest first.
        embedding: Embedding of the frame.
        draws: Where the object's draws come from.
    """
    horizon = rules.local_window + rules.global_window
    far = [m for m in tracked if rules.local_window < frame - m.frame <= horizon]
    near = [m for m in tracked if 0 < frame - m.frame <= rules.local_window]
    # Global before local: the order of the draws is part of the published behaviour.
    selected = [
        *enumerate(_most_similar(rules, far, rules.num_global, embedding, draws), start=1),
        *enumerate(_most_similar(rules, near, rules.num_local, embedding, draws), start=1 + rules.num_global),
    ]
    nearest = _nearest_conditioning(frame, conditioning, rules.max_conditioning)
    num_slots = rules.num_global + rules.num_local
    num_tracked = max(min(frame - 1, num_slots), 0)
    repeats = max(num_tracked - len(selected), 0)
    with_pointer = [m for m in nearest if not rules.only_past_pointers or m.frame <= frame]
    if not with_pointer and not selected:
        # Tracking towards the first prompt: pointers from the future are better than none.
        with_pointer = list(nearest)
    # Distances are ranks by slot; conditioning frames are the farthest.
    farthest = num_tracked + 1
    pointers = [
        *((m.pointer, 1.0) for m in with_pointer),
        *((m.pointer, (farthest - slot) / farthest) for slot, m in selected),
    ]
    memories = [*((m, CONDITIONING_SLOT) for m in nearest), *((m, slot) for slot, m in selected)]
    return Selection(tuple(memories), tuple(pointers), repeats, repeats + len(memories) - len(pointers))


def lay_out(selections: Sequence[Selection], memory_length: int) -> Readout:
    """Lay out the selections of ``B`` objects as arrays of one length.

    Args:
        selections: One for each object.
        memory_length: Memories and pointers of each. The number is doubled until all selections fit.

    Returns:
        The arrays. What is left over is zero and counts zero times.
    """
    most = max(max(len(s.memories), len(s.pointers)) for s in selections)
    length = memory_length
    while length < most:
        length *= 2
    first, _ = selections[0].memories[0]
    batch = (len(selections), length)
    readout = Readout(
        memories=np.zeros((*batch, *first.features.shape), np.float32),
        foreground=np.zeros((*batch, *first.foreground.shape), np.bool_),
        slots=np.zeros(batch, np.int64),
        memory_counts=np.zeros(batch, np.float32),
        pointers=np.zeros((*batch, *first.pointer.shape), np.float32),
        distances=np.zeros(batch, np.float32),
        pointer_counts=np.zeros(batch, np.float32),
    )
    for row, selection in enumerate(selections):
        for place, (memory, slot) in enumerate(selection.memories):
            readout.memories[row, place], readout.foreground[row, place] = memory.features, memory.foreground
            readout.slots[row, place], readout.memory_counts[row, place] = slot, 1
        for place, (pointer, distance) in enumerate(selection.pointers):
            readout.pointers[row, place], readout.distances[row, place] = pointer, distance
            readout.pointer_counts[row, place] = 1
        readout.memory_counts[row, 0] += selection.repeats
        readout.pointer_counts[row, 0] += selection.pointer_repeats
    return readout


def _most_similar(
    rules: SelectionRules, candidates: Sequence[Memory], count: int, embedding: Floats, draws: MemoryDraws
) -> list[Memory]:
    """At most ``count`` candidates by similarity, in their given order."""
    if not candidates:
        return []
    scores = np.array([m.embedding @ embedding for m in candidates], np.float32)
    count = min(count, len(candidates))
    if rules.mode == "topk":
        return [candidates[i] for i in sorted(np.argsort(-scores, kind="stable")[:count].tolist())]
    # Draw even if all candidates will be selected: the published model advances its generator here, too.
    return [candidates[i] for i in draws.draw(scores, count)]


def _nearest_conditioning(frame: int, conditioning: Sequence[Memory], limit: int) -> list[Memory]:
    """At most ``limit`` memories: the nearest before the frame, the nearest from it on, then the others."""
    if limit == -1 or len(conditioning) <= limit:
        return list(conditioning)

    def distance(memory: Memory) -> int:
        return abs(memory.frame - frame)

    sides = ([m for m in conditioning if m.frame < frame], [m for m in conditioning if m.frame >= frame])
    nearest = [min(side, key=distance) for side in sides if side]
    others = sorted((m for m in conditioning if all(m is not n for n in nearest)), key=distance)
    return [*nearest, *others][:limit]
