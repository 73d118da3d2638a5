"""The typed values that pass between modules. All are frozen: a changed one is a new one.

Letters of the shapes: B objects in a batch, T frames, S side of the model image, h = w = S/16, C feature channels,
M memory channels, N tokens, P points, K mask candidates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

if TYPE_CHECKING:
    from i2v.modeling.memory.memory_bank import FrameMemory

BACKGROUND, OBJECT, BOX_TOP_LEFT, BOX_BOTTOM_RIGHT, PADDING = 0, 1, 2, 3, -1
NO_OBJECT_LOGIT = -1024.0  # mask logits of an absent object


@dataclass(frozen=True)
class MaskSettings:
    """How masks are chosen and memorized; the names are the published ones."""

    multimask_output_in_sam: bool = True
    multimask_min_pt_num: int = 0
    multimask_max_pt_num: int = 1
    dynamic_multimask_via_stability: bool = False
    dynamic_multimask_stability_delta: float = 0.05
    dynamic_multimask_stability_thresh: float = 0.98
    sigmoid_scale_for_mem_enc: float = 20.0
    sigmoid_bias_for_mem_enc: float = -10.0
    binarize_mask_from_pts_for_mem_enc: bool = False

    def wants_alternatives(self, num_points: int) -> bool:
        """Whether a prompt of so many points is ambiguous, so that the best of several masks is taken."""
        in_range = self.multimask_min_pt_num <= num_points <= self.multimask_max_pt_num
        return self.multimask_output_in_sam and in_range


@dataclass(frozen=True)
class Prompt:
    """What a user says of B objects on one frame: points or a mask, never both.

    ``points`` (B,P,2) in model pixels, x first; ``labels`` (B,P): 1 object, 0 background, 2 and 3 box corners, -1
    padding; ``mask`` (B,1,S,S) of zeros and ones; ``prior`` (B,1,4h,4w) logits of an earlier prediction, with points.
    """

    points: Tensor | None = None
    labels: Tensor | None = None
    mask: Tensor | None = None
    prior: Tensor | None = None

    def __post_init__(self) -> None:
        if (self.points is None) != (self.labels is None):
            raise ValueError("a prompt needs points and labels together")
        if (self.points is None) == (self.mask is None):
            raise ValueError("a prompt has either points or a mask")

    @classmethod
    def click(cls, points: Tensor, labels: Tensor) -> Prompt:
        """Points (B,P,2) with their labels (B,P)."""
        return cls(points=points, labels=labels)

    @classmethod
    def box(cls, corners: Tensor) -> Prompt:
        """Boxes (B,4) as x0, y0, x1, y1."""
        labels = torch.tensor([BOX_TOP_LEFT, BOX_BOTTOM_RIGHT], dtype=torch.int32, device=corners.device)
        return cls(points=corners.reshape(-1, 2, 2), labels=labels.expand(corners.shape[0], 2))

    @classmethod
    def from_mask(cls, mask: Tensor) -> Prompt:
        """Masks (B,1,S,S)."""
        return cls(mask=mask)

    def add(self, points: Tensor, labels: Tensor) -> Prompt:
        """The same prompt with more points behind."""
        if self.points is None or self.labels is None:
            raise ValueError("points cannot be added to a mask prompt")
        return replace(
            self, points=torch.cat((self.points, points), dim=1), labels=torch.cat((self.labels, labels), dim=1)
        )

    def with_prior(self, logits: Tensor | None) -> Prompt:
        """The same points, to be read as a correction of ``logits`` (B,1,4h,4w)."""
        return replace(self, prior=logits)

    @property
    def num_points(self) -> int:
        return 0 if self.points is None else self.points.shape[1]


@dataclass(frozen=True)
class FrameFeatures:
    """``vision`` (B,C,h,w) and the code of its ``position`` (1,C,h,w). B is 1 where all objects share them."""

    vision: Tensor
    position: Tensor

    @cached_property
    def appearance(self) -> Tensor:
        """All features of the (first) frame as one unit vector (C*h*w,), float32: cosines tell how alike frames are."""
        return F.normalize(self.vision[0].float().flatten(), dim=0, eps=1e-12)

    def split(self) -> list[FrameFeatures]:
        """One for every frame of a batch."""
        return [FrameFeatures(vision, self.position) for vision in self.vision.split(1)]


@dataclass(frozen=True)
class Moment:
    """Where a video is being read: the frame, the direction of travel, the clip's length where it is known."""

    frame: int
    reverse: bool = False
    num_frames: int | None = None

    def age(self, frame: int) -> int:
        """Frames since ``frame`` in the direction of travel; negative for one that lies ahead."""
        return frame - self.frame if self.reverse else self.frame - frame


@dataclass(frozen=True)
class Selection:
    """Memories to be read with their temporal slots, and pointers (B,C) with their signed normalized distances.

    The first memory counts for ``repeats`` more of its kind, the first pointer for ``pointer_repeats``.
    """

    memories: tuple[tuple[FrameMemory, int], ...]
    pointers: tuple[tuple[Tensor, float], ...]
    repeats: int = 0
    pointer_repeats: int = 0


@dataclass(frozen=True)
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

    def log_counts(self, foreground_only: bool) -> Tensor | None:
        """What to add to scores (B,N) so that tokens count as often as they should; ``None``: nothing."""
        if foreground_only:
            return self.foreground_counts().log()
        return None if self.counts is None else self.counts.log().expand(len(self.tokens), -1)


@dataclass(frozen=True)
class FrameContext:
    """A frame ready for prompts: ``conditioned`` (B,C,h,w), and the readout it was conditioned on, if any."""

    features: FrameFeatures
    conditioned: Tensor
    readout: MemoryReadout | None

    def split(self) -> list[FrameContext]:
        """One context for each of the B objects."""
        if self.readout is None:
            return [self]
        parts = zip(self.conditioned.split(1), self.readout.split(), strict=True)
        return [FrameContext(self.features, conditioned, part) for conditioned, part in parts]


@dataclass(frozen=True)
class FramePrediction:
    """What the model says of B objects on a frame.

    ``candidates`` (B,K,4h,4w) logits with predicted ``ious`` (B,K); the chosen ``low_res`` (B,1,4h,4w) and ``high_res``
    (B,1,S,S) logits; object ``pointer`` (B,C); ``presence`` (B,1) logit, positive where the object is in view.
    """

    candidates: Tensor
    ious: Tensor
    low_res: Tensor
    high_res: Tensor
    pointer: Tensor
    presence: Tensor

    @property
    def best_iou(self) -> Tensor:
        """Predicted IoU (B,) of the chosen mask."""
        return self.ious.amax(dim=1)

    @staticmethod
    def batch(predictions: Sequence[FramePrediction]) -> FramePrediction:
        """Predictions of several groups of objects as one batch; candidates must be equally many."""
        if len(predictions) == 1:
            return predictions[0]
        columns = zip(*(p._tensors() for p in predictions), strict=True)
        return FramePrediction(*(torch.cat(column) for column in columns))

    def split(self) -> list[FramePrediction]:
        """One prediction for each of the B objects."""
        return [FramePrediction(*row) for row in zip(*(t.split(1) for t in self._tensors()), strict=True)]

    def _tensors(self) -> tuple[Tensor, ...]:
        return (self.candidates, self.ious, self.low_res, self.high_res, self.pointer, self.presence)


def _zeros(like: Tensor, length: int, axis: int) -> Tensor:
    """Zeros of a tensor's kind, shaped like it but for the length of one axis."""
    shape = list(like.shape)
    shape[axis] = length
    return like.new_zeros(shape)
