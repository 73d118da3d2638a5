"""Typed values that pass between modules.

All of them are frozen: a change makes a new value. Those that hold tensors compare by identity, because ``==`` of
tensors is itself a tensor.

Shape letters used throughout the library:

- ``B`` objects in a batch, ``T`` frames, ``S`` side of the model image in pixels
- ``h``, ``w`` height and width of the feature map, ``S / 16`` each
- ``C`` feature channels, ``M`` memory channels
- ``N`` tokens, ``P`` points, ``K`` mask candidates
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from i2v.modeling.constants import BACKGROUND as BACKGROUND
from i2v.modeling.constants import BOX_BOTTOM_RIGHT, BOX_TOP_LEFT
from i2v.modeling.constants import IMAGE_MEAN as IMAGE_MEAN
from i2v.modeling.constants import IMAGE_STD as IMAGE_STD
from i2v.modeling.constants import NO_OBJECT_LOGIT as NO_OBJECT_LOGIT
from i2v.modeling.constants import OBJECT as OBJECT
from i2v.modeling.constants import PADDING as PADDING

if TYPE_CHECKING:
    from i2v.modeling.memory.readout import MemoryReadout


@dataclass(frozen=True)
class MaskSettings:
    """How masks are chosen and encoded as memory. Names are the published ones, defaults those of inference.

    Attributes:
        multimask_output_in_sam: Whether ambiguous prompts use multimask output at all.
        multimask_min_pt_num: Fewest points for which multimask output is used.
        multimask_max_pt_num: Most points for which multimask output is used. A box counts as two points.
        dynamic_multimask_via_stability: Whether an unstable single mask is replaced by the best multimask output.
        dynamic_multimask_stability_delta: Logit offset of the stability score.
        dynamic_multimask_stability_thresh: Stability score, 0 to 1, below which a single mask is unstable.
        sigmoid_scale_for_mem_enc: Scale of mask probabilities before the memory encoder.
        sigmoid_bias_for_mem_enc: Bias added after scaling.
        binarize_mask_from_pts_for_mem_enc: Whether masks of prompted frames are thresholded before the memory encoder.
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
        """Whether a prompt with ``num_points`` points is ambiguous, so that multimask output is used."""
        in_range = self.multimask_min_pt_num <= num_points <= self.multimask_max_pt_num
        return self.multimask_output_in_sam and in_range


@dataclass(frozen=True, eq=False)
class Prompt:
    """A prompt for ``B`` objects on one frame: points or a mask, never both.

    Attributes:
        points: ``(B, P, 2)`` float32, x first, in pixels of the model image (0 to ``S``).
        labels: ``(B, P)`` int32: 1 object, 0 background, 2 and 3 box corners, -1 padding.
        mask: ``(B, 1, S, S)`` of zeros and ones.
        prior: ``(B, 1, 4h, 4w)`` low-res logits of an earlier prediction that the points correct.

    Raises:
        ValueError: If points come without labels, or if there are both points and a mask, or neither.
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
        """Make a prompt of points ``(B, P, 2)`` and their labels ``(B, P)``."""
        return cls(points=points, labels=labels)

    @classmethod
    def box(cls, corners: Tensor) -> Prompt:
        """Make a prompt of one box per object, ``(B, 4)`` as x0, y0, x1, y1 in pixels of the model image."""
        labels = torch.tensor([BOX_TOP_LEFT, BOX_BOTTOM_RIGHT], dtype=torch.int32, device=corners.device)
        # SAM has no box tokens: a box is two points with labels of their own.
        return cls(points=corners.reshape(-1, 2, 2), labels=labels.expand(corners.shape[0], 2))

    @classmethod
    def from_mask(cls, mask: Tensor) -> Prompt:
        """Make a prompt of masks ``(B, 1, S, S)`` of zeros and ones."""
        return cls(mask=mask)

    def add(self, points: Tensor, labels: Tensor) -> Prompt:
        """Append points ``(B, P, 2)`` with labels ``(B, P)``.

        Raises:
            ValueError: If this is a mask prompt.
        """
        if self.points is None or self.labels is None:
            raise ValueError("points cannot be added to a mask prompt")
        return replace(
            self, points=torch.cat((self.points, points), dim=1), labels=torch.cat((self.labels, labels), dim=1)
        )

    def with_prior(self, logits: Tensor | None) -> Prompt:
        """Return the same points as a correction of low-res ``logits`` ``(B, 1, 4h, 4w)``."""
        return replace(self, prior=logits)

    @staticmethod
    def batch(prompts: Sequence[Prompt]) -> Prompt:
        """Concatenate prompts of points along the object axis. All must have as many points, and a prior or none."""
        points, labels, priors = zip(*((p.points, p.labels, p.prior) for p in prompts), strict=True)
        return Prompt(torch.cat(points), torch.cat(labels), prior=None if priors[0] is None else torch.cat(priors))

    def split(self) -> list[Prompt]:
        """Split a prompt of points into one for each object."""
        assert self.points is not None and self.labels is not None
        priors = [None] * len(self.points) if self.prior is None else self.prior.split(1)
        return [
            Prompt(points, labels, prior=prior)
            for points, labels, prior in zip(self.points.split(1), self.labels.split(1), priors, strict=True)
        ]

    def to(self, device: torch.device) -> Prompt:
        """Return the prompt with all tensors on a device."""
        parts = (self.points, self.labels, self.mask, self.prior)
        return Prompt(*(None if part is None else part.to(device) for part in parts))

    @property
    def num_points(self) -> int:
        """Points per object; 0 for a mask prompt."""
        return 0 if self.points is None else self.points.shape[1]


@dataclass(frozen=True, eq=False)
class FrameFeatures:
    """Image features of a frame, before any memory.

    Attributes:
        vision: ``(B, C, h, w)`` features. ``B`` is 1 where all objects share them.
        position: ``(1, C, h, w)`` positional encoding of the grid.
        high_res: Image trunk maps ``(B, C_0, 4h, 4w)`` and ``(B, C_1, 2h, 2w)`` for mask decoders that use them, else
            empty.
    """

    vision: Tensor
    position: Tensor
    high_res: tuple[Tensor, ...] = ()

    @cached_property
    def frame_embedding(self) -> Tensor:
        """The first frame's features as one unit vector ``(C*h*w,)`` in float32.

        The dot product of two frame embeddings is the cosine similarity of the frames.
        """
        # Float32 even if features are bfloat16: the norm sums about a million squares.
        return F.normalize(self.vision[0].float().flatten(), dim=0, eps=1e-12)

    def split(self) -> list[FrameFeatures]:
        """Return one ``FrameFeatures`` per frame of a batch."""
        return [self.rows(slice(i, i + 1)) for i in range(self.vision.shape[0])]

    def rows(self, index: slice | Tensor) -> FrameFeatures:
        """Return the features of some frames of a batch, selected as by indexing its first axis."""
        return FrameFeatures(self.vision[index], self.position, tuple(x[index] for x in self.high_res))


@dataclass(frozen=True)
class TrackingStep:
    """One step of a propagation.

    Attributes:
        frame: Index of the frame.
        reverse: Whether the propagation goes towards lower indices.
        num_frames: Length of the clip, if known.
    """

    frame: int
    reverse: bool = False
    num_frames: int | None = None

    def age(self, frame: int) -> int:
        """Steps since ``frame`` in the direction of the propagation; negative if it is still to come."""
        return frame - self.frame if self.reverse else self.frame - frame


@dataclass(frozen=True, eq=False)
class FrameContext:
    """A frame ready for prompts.

    Attributes:
        features: Image features of the frame.
        conditioned: ``(B, C, h, w)`` features conditioned on memory, or marked as without memory.
        readout: The memories that the features were conditioned on, if any.
    """

    features: FrameFeatures
    conditioned: Tensor
    readout: MemoryReadout | None

    def split(self) -> list[FrameContext]:
        """Return one context per object. A context without memory is shared by all objects and stays whole."""
        if self.readout is None:
            return [self]
        parts = zip(self.conditioned.split(1), self.readout.split(), strict=True)
        return [FrameContext(self.features, conditioned, part) for conditioned, part in parts]


@dataclass(frozen=True, eq=False)
class FramePrediction:
    """The model's output for ``B`` objects on a frame.

    Attributes:
        candidates: ``(B, K, 4h, 4w)`` low-res logits of all mask candidates.
        ious: ``(B, K)`` predicted IoU of each candidate.
        low_res: ``(B, 1, 4h, 4w)`` logits of the chosen mask.
        high_res: ``(B, 1, S, S)`` logits of the chosen mask.
        pointer: ``(B, C)`` object pointer.
        object_score: ``(B, 1)`` logit, positive where the object is in view.
    """

    candidates: Tensor
    ious: Tensor
    low_res: Tensor
    high_res: Tensor
    pointer: Tensor
    object_score: Tensor

    @property
    def best_iou(self) -> Tensor:
        """Highest predicted IoU ``(B,)`` of the candidates, which is that of the chosen mask."""
        return self.ious.amax(dim=1)

    @staticmethod
    def batch(predictions: Sequence[FramePrediction]) -> FramePrediction:
        """Concatenate predictions along the object axis. All must have the same number of candidates."""
        if len(predictions) == 1:
            return predictions[0]
        columns = zip(*(p._tensors() for p in predictions), strict=True)
        return FramePrediction(*(torch.cat(column) for column in columns))

    def split(self) -> list[FramePrediction]:
        """Return one prediction per object."""
        return [FramePrediction(*row) for row in zip(*(t.split(1) for t in self._tensors()), strict=True)]

    def _tensors(self) -> tuple[Tensor, ...]:
        return (self.candidates, self.ious, self.low_res, self.high_res, self.pointer, self.object_score)
