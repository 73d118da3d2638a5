"""Label propagation on the features of an image trunk: a baseline without training on videos.

Each location of a frame takes the labels of the most similar locations of the annotated frames and of the latest frames
(as in Jabri et al., NeurIPS 2020, with features of an ImageNet classifier).
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from i2v.modeling.backbones.efficientnet_lite import EfficientNetLite
from i2v.video.frame_loader import normalize
from train.trunk_weights import load_efficientnet_lite, package_file

HEIGHT, WIDTH = 256, 448  # of the frames that the trunk sees
STAGES = (2, 4)  # at strides 8 and 16
NUM_RECENT, NUM_MATCHES, TEMPERATURE = 5, 8, 0.05


@dataclass(frozen=True, eq=False)
class _LabelledFrame:
    """A frame in memory.

    Attributes:
        features: Unit features ``(C, h*w)``.
        labels: Soft masks ``(N, h*w)`` of the objects.
        is_known: ``(N, h*w)`` bool, whether the object was annotated by then; before, its location is unknown.
    """

    features: Tensor
    labels: Tensor
    is_known: Tensor


class LabelPropagation:
    """Propagates the masks of one video; keeps features and labels of annotated frames and of the latest ones."""

    def __init__(self, trunk: EfficientNetLite | None = None) -> None:
        """Start with an empty memory.

        Args:
            trunk: Extracts features; ``None`` for EfficientNet-Lite0 with the ImageNet weights of its package (extra
                train).

        Raises:
            CheckpointError: If those weights are missing.
        """
        if trunk is None:
            trunk = EfficientNetLite(num_stages=5, out_dim=16)
            load_efficientnet_lite(trunk, package_file("lite0"))
        self._trunk = trunk.eval()
        self._annotated: list[_LabelledFrame] = []
        self._recent: deque[_LabelledFrame] = deque(maxlen=NUM_RECENT)
        self._features: Tensor | None = None  # of the latest frame

    @torch.no_grad()
    def __call__(
        self, masks: NDArray[np.float32], previous: NDArray[np.uint8], frame: NDArray[np.uint8]
    ) -> NDArray[np.float32]:
        """Propagate masks to the next frame.

        Args:
            masks: Soft masks ``(N, H, W)`` of the previous frame in 0..1.
            previous: Previous frame ``(H, W, 3)``.
            frame: The next frame ``(H, W, 3)``.

        Returns:
            Soft masks ``(N, H, W)`` of the next frame.
        """
        features = self._encode(previous) if self._features is None else self._features
        self._remember(features, self._to_grid(torch.from_numpy(masks)))
        self._features = self._encode(frame)
        memory = [*self._annotated, *self._recent]
        found = propagate(
            self._features,
            torch.cat([known.features for known in memory], dim=1),
            torch.cat([known.labels for known in memory], dim=1),
            torch.cat([known.is_known for known in memory], dim=1),
        )
        grid = (HEIGHT // 8, WIDTH // 8)
        soft = F.interpolate(found.unflatten(1, grid)[None], masks.shape[-2:], mode="bilinear", align_corners=False)
        return soft[0].numpy()

    def _remember(self, features: Tensor, labels: Tensor) -> None:
        has_mask = labels.any(dim=1, keepdim=True).expand_as(labels)
        before = self._recent[-1].is_known if self._recent else torch.zeros_like(has_mask)
        frame = _LabelledFrame(features, labels, has_mask | before)
        if (has_mask & ~before).any():
            self._annotated.append(frame)
        self._recent.append(frame)

    def _encode(self, frame: NDArray[np.uint8]) -> Tensor:
        """Encode a frame as unit features ``(C, h*w)`` to which each stage contributes equally."""
        pixels = torch.tensor(frame).permute(2, 0, 1)[None].float()
        pixels = F.interpolate(pixels, (HEIGHT, WIDTH), mode="bilinear", align_corners=False, antialias=True)
        maps = self._trunk.stages(normalize(pixels.round().clamp(0, 255).byte()))
        fine = [F.interpolate(maps[stage], (HEIGHT // 8, WIDTH // 8), mode="bilinear") for stage in STAGES]
        return torch.cat([F.normalize(m, dim=1) for m in fine], dim=1)[0].flatten(1) / len(STAGES) ** 0.5

    @staticmethod
    def _to_grid(masks: Tensor) -> Tensor:
        return F.interpolate(masks[:, None], (HEIGHT // 8, WIDTH // 8), mode="area").flatten(1)


def propagate(queries: Tensor, keys: Tensor, labels: Tensor, is_known: Tensor) -> Tensor:
    """Label locations by the most similar locations of other frames, weighted by a softmax over similarities.

    Args:
        queries: Unit features ``(C, Q)`` of the locations to label.
        keys: Unit features ``(C, K)`` of labelled locations.
        labels: Their soft labels ``(N, K)`` in 0..1.
        is_known: ``(N, K)`` bool, which of these to use.

    Returns:
        Soft labels ``(N, Q)``; 0 where none of the most similar locations is known.
    """
    scores, places = (queries.t() @ keys).topk(min(NUM_MATCHES, keys.shape[1]), dim=1)
    weights = (scores / TEMPERATURE).softmax(dim=1) * is_known[:, places]  # (N, Q, matches)
    return (labels[:, places] * weights).sum(dim=-1) / weights.sum(dim=-1).clamp(min=1e-6)
