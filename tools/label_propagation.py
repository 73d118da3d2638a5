"""Label propagation on the features of an image trunk, without any training: the baseline that a tracker has to beat.

Each place of a frame takes the labels of the most alike places of the first frame and of the latest ones (as in Jabri
et al., NeurIPS 2020, with features of an ImageNet classifier).
"""

from __future__ import annotations

from collections import deque

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from i2v.modeling.backbones.efficientnet_lite import EfficientNetLite
from i2v.video.sources import normalize
from train.trunk_weights import load_efficientnet_lite, package_file

HEIGHT, WIDTH = 256, 448  # of the frames that the trunk sees
STAGES = (2, 4)  # at strides 8 and 16
NUM_RECENT, NUM_MATCHES, TEMPERATURE = 5, 8, 0.05


class LabelPropagation:
    """Carries the masks of one video: it remembers the first frame and the latest ones."""

    def __init__(self, trunk: EfficientNetLite | None = None) -> None:
        """``trunk``: by default EfficientNet-Lite0 with the ImageNet weights of its package (extra train).

        Raises CheckpointError where those are missing.
        """
        if trunk is None:
            trunk = EfficientNetLite(num_stages=5, out_dim=16)
            load_efficientnet_lite(trunk, package_file("lite0"))
        self._trunk = trunk.eval()
        self._first: tuple[Tensor, Tensor] | None = None
        self._recent: deque[tuple[Tensor, Tensor]] = deque(maxlen=NUM_RECENT)
        self._features: Tensor | None = None  # of the latest frame

    @torch.no_grad()
    def __call__(
        self, masks: NDArray[np.float32], previous: NDArray[np.uint8], frame: NDArray[np.uint8]
    ) -> NDArray[np.float32]:
        """Soft masks (N,H,W) of the previous frame (H,W,3) -> those of the frame after it."""
        known = self._encode(previous) if self._features is None else self._features
        labels = self._to_grid(torch.from_numpy(masks), known)
        if self._first is None:
            self._first = (known, labels)
        self._recent.append((known, labels))
        self._features = self._encode(frame)
        memory = [self._first, *self._recent]
        found = propagate(self._features, torch.cat([f for f, _ in memory], 1), torch.cat([m for _, m in memory], 1))
        grid = (HEIGHT // 8, WIDTH // 8)
        soft = F.interpolate(found.unflatten(1, grid)[None], masks.shape[-2:], mode="bilinear", align_corners=False)
        return soft[0].numpy()

    def _encode(self, frame: NDArray[np.uint8]) -> Tensor:
        """Unit features (C,h*w) of a frame; each stage counts the same."""
        pixels = torch.tensor(frame).permute(2, 0, 1)[None].float()
        pixels = F.interpolate(pixels, (HEIGHT, WIDTH), mode="bilinear", align_corners=False, antialias=True)
        maps = self._trunk.stages(normalize(pixels.round().clamp(0, 255).byte()))
        fine = [F.interpolate(maps[stage], (HEIGHT // 8, WIDTH // 8), mode="bilinear") for stage in STAGES]
        return torch.cat([F.normalize(m, dim=1) for m in fine], dim=1)[0].flatten(1) / len(STAGES) ** 0.5

    @staticmethod
    def _to_grid(masks: Tensor, features: Tensor) -> Tensor:
        small = F.interpolate(masks[:, None], (HEIGHT // 8, WIDTH // 8), mode="area")
        return small.flatten(1).to(features.dtype)


def propagate(queries: Tensor, keys: Tensor, labels: Tensor) -> Tensor:
    """Labels (N,K) of places with unit features ``keys`` (C,K) -> those of places with ``queries`` (C,Q): (N,Q)."""
    scores, places = (queries.t() @ keys).topk(min(NUM_MATCHES, keys.shape[1]), dim=1)
    weights = (scores / TEMPERATURE).softmax(dim=1)
    return (labels[:, places] * weights).sum(dim=-1)
