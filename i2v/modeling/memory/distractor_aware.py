"""Memory selection among look-alikes: frames on which the object was kept apart from a similar one stay in memory."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.nn import functional as F

from i2v.modeling.memory.memory_bank import FrameMemory, MemoryBank
from i2v.modeling.memory.selectors import SimilaritySelector
from i2v.modeling.structures import FramePrediction, TrackingStep


class DistractorAwareSelector(SimilaritySelector):
    """Selects by similarity, but gives slots of the global window to frames that resolved distractors.

    A distractor is an object like the tracked one. On a frame where one of the mask candidates reaches far beyond the
    chosen mask, the model has had to keep the two apart. Memories of such frames are kept as long as the object is
    tracked, whatever their age, as in DAM4SAM (Videnovic et al., CVPR 2025); no training is needed.
    """

    def __init__(
        self,
        num_resolving: int = 2,
        min_iou: float = 0.8,
        max_box_iou: float = 0.7,
        min_gap: int = 5,
        **windows: Any,
    ) -> None:
        """Configure the selector.

        Args:
            num_resolving: Most slots of the global window for frames that resolve distractors.
            min_iou: Predicted IoU that the chosen mask must have, 0 to 1.
            max_box_iou: IoU of the boxes around the chosen mask and around its union with a candidate, 0 to 1. Below it
                the candidate shows a distractor.
            min_gap: Fewest frames between two that are selected.
            windows: Arguments of ``SimilaritySelector``.

        Raises:
            ValueError: If an argument is out of range.
        """
        super().__init__(**windows)
        for name, value in (("min_iou", min_iou), ("max_box_iou", max_box_iou)):
            if not 0 <= value <= 1:
                raise ValueError(f"{name}: expected 0 to 1, got {value}")
        if not 1 <= num_resolving <= self.num_global:
            raise ValueError(
                f"num_resolving: expected 1 to {self.num_global} (num_maskmem_global), got {num_resolving}"
            )
        if min_gap < 1:
            raise ValueError(f"min_gap: expected at least 1, got {min_gap}")
        self.num_resolving = num_resolving
        self.min_iou, self.max_box_iou, self.min_gap = min_iou, max_box_iou, min_gap

    def near_distractor(self, prediction: FramePrediction) -> Tensor | None:
        """Whether a mask candidate of each object reaches far beyond its chosen mask; see ``Selector.near_distractor``.

        Parts of a candidate that are at most two low-res pixels wide do not count: seams around the mask, specks.
        """
        chosen = prediction.low_res > 0
        beyond = _eroded((prediction.candidates > 0) & ~chosen)
        apart = _box_areas(chosen) / _box_areas(chosen | beyond).clamp(min=1) < self.max_box_iou
        is_sure = (prediction.best_iou > self.min_iou) & (prediction.object_score[:, 0] > 0) & chosen.any((1, 2, 3))
        return apart.any(dim=1) & is_sure

    def _resolving(self, step: TrackingStep, bank: MemoryBank) -> list[FrameMemory]:
        selected: list[FrameMemory] = []
        for memory in sorted((m for m in bank.tracked if m.resolves_distractor), key=lambda m: step.age(m.frame)):
            latest = selected[-1].frame if selected else None
            is_apart = latest is None or abs(memory.frame - latest) >= self.min_gap
            if step.age(memory.frame) > self.local_window and is_apart and len(selected) < self.num_resolving:
                selected.append(memory)
        return selected[::-1]


def _eroded(region: Tensor) -> Tensor:
    """Region ``(B, K, H, W)`` without the pixels that have one outside of it around them."""
    return -F.max_pool2d(-region.float(), 3, stride=1, padding=1) > 0


def _box_areas(region: Tensor) -> Tensor:
    """Area ``(B, K)`` in pixels of the box around each region ``(B, K, H, W)``; 0 for an empty one."""
    sides = []
    for dim in (2, 3):
        line = region.any(dim=dim).float()
        # Up to the first pixel and, from the other end, up to the last one the running maximum is 0.
        before, after = line.cummax(-1).values, line.flip(-1).cummax(-1).values.flip(-1)
        sides.append((before * after).sum(-1))
    return sides[0] * sides[1]
