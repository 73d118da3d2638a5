"""The typed values that pass between modules. All are frozen: a changed one is a new one. Those with tensors compare by
identity, as ``==`` of tensors is a tensor.

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
    from i2v.modeling.memory.readout import MemoryReadout

BACKGROUND, OBJECT, BOX_TOP_LEFT, BOX_BOTTOM_RIGHT, PADDING = 0, 1, 2, 3, -1
NO_OBJECT_LOGIT = -1024.0  # mask logits of an absent object


@dataclass(frozen=True)
class MaskSettings:
    """How masks are chosen and memorized; the names are the published ones, the defaults those of inference.

    ``multimask_*``: for which numbers of points the best of several masks is taken, and not the single one.
    ``dynamic_multimask_*``: the best of several replaces a single mask whose stability score is below the threshold.
    ``sigmoid_*_for_mem_enc``: scale and bias of mask probabilities for the memory encoder.
    ``binarize_mask_from_pts_for_mem_enc``: masks of prompted frames are thresholded for it.
    """

    multimask_output_in_sam: bool = True
    multimask_min_pt_num: int = 0
    multimask_max_pt_num: int = 1
    dynamic_multimask_via_stability: bool = True
    dynamic_multimask_stability_delta: float = 0.05
    dynamic_multimask_stability_thresh: float = 0.98
    sigmoid_scale_for_mem_enc: float = 20.0
    sigmoid_bias_for_mem_enc: float = -10.0
    binarize_mask_from_pts_for_mem_enc: bool = True

    def outputs_multimask(self, num_points: int) -> bool:
        """Whether a prompt of so many points is ambiguous, so that the best of several masks is taken."""
        in_range = self.multimask_min_pt_num <= num_points <= self.multimask_max_pt_num
        return self.multimask_output_in_sam and in_range


@dataclass(frozen=True, eq=False)
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


@dataclass(frozen=True, eq=False)
class FrameFeatures:
    """``vision`` (B,C,h,w) and the code of its ``position`` (1,C,h,w). B is 1 where all objects share them."""

    vision: Tensor
    position: Tensor

    @cached_property
    def frame_embedding(self) -> Tensor:
        """All features of the (first) frame as one unit vector (C*h*w,), float32: cosines tell how alike frames are."""
        return F.normalize(self.vision[0].float().flatten(), dim=0, eps=1e-12)

    def split(self) -> list[FrameFeatures]:
        """One for every frame of a batch."""
        return [FrameFeatures(vision, self.position) for vision in self.vision.split(1)]


@dataclass(frozen=True)
class TrackingStep:
    """One step of a propagation: the frame, its direction, and the number of frames of the clip where it is known."""

    frame: int
    reverse: bool = False
    num_frames: int | None = None

    def age(self, frame: int) -> int:
        """Frames since ``frame`` in the direction of the propagation; negative for one that is still to come."""
        return frame - self.frame if self.reverse else self.frame - frame


@dataclass(frozen=True, eq=False)
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


@dataclass(frozen=True, eq=False)
class FramePrediction:
    """What the model says of B objects on a frame.

    ``candidates`` (B,K,4h,4w) logits with predicted ``ious`` (B,K); the chosen ``low_res`` (B,1,4h,4w) and ``high_res``
    (B,1,S,S) logits; object ``pointer`` (B,C); ``object_score`` (B,1) logit, positive where the object is in view.
    """

    candidates: Tensor
    ious: Tensor
    low_res: Tensor
    high_res: Tensor
    pointer: Tensor
    object_score: Tensor

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
        return (self.candidates, self.ious, self.low_res, self.high_res, self.pointer, self.object_score)
