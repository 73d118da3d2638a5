"""Samplers draw clips as published, datasets make them square, and collation keeps objects with their clips."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from data_support import moving, picture, resting, write_davis

from i2v.video.frame_loader import normalize
from train.dataset.structures import BatchedClip, FrameObjects, VideoClip, collate
from train.dataset.vos_dataset import VOSDataset
from train.dataset.vos_raw_dataset import PNGRawDataset
from train.dataset.vos_sampler import EvalSampler, RandomUniformSampler


class Listed:
    """A video that is but a list: which objects show on which frame."""

    name = source = "listed"

    def __init__(self, shown: dict[int, list[int]]) -> None:
        self.frames = sorted(shown)
        self._shown = shown

    def visible(self, frame: int) -> Sequence[int]:
        return self._shown[frame]

    def load(self, frame: int, objects: Sequence[int], size: int) -> FrameObjects:
        raise AssertionError("a sampler needs no pictures")

    def close(self) -> None:
        return


def clip(name: str, num_frames: int, num_objects: int, value: float, size: int = 4) -> VideoClip:
    masks = torch.zeros(num_frames, num_objects, size, size, dtype=torch.bool)
    for i in range(num_objects):
        masks[:, i, 0, i] = True
    return VideoClip(torch.full((num_frames, 3, size, size), value), masks, name, tuple(range(num_frames)))


def test_clips_are_consecutive_from_any_start_and_half_of_them_reversed() -> None:
    video = Listed({frame: [1] for frame in range(0, 20, 4)})
    sampler = RandomUniformSampler(3, 1, reverse_time_prob=0.5)
    generator = np.random.default_rng(0)
    counts = Counter(sampler.sample(video, generator).frames for _ in range(600))
    forward = [(0, 4, 8), (4, 8, 12), (8, 12, 16)]
    assert set(counts) == {*forward, *(frames[::-1] for frames in forward)}
    assert min(counts.values()) > 70  # of 100 expected
    assert sum(counts[frames] for frames in forward) == pytest.approx(300, abs=50)


def test_objects_are_those_in_view_on_the_first_frame_of_the_clip_without_repetition() -> None:
    video = Listed({0: [3, 5, 9], 1: [], 2: [7]})
    generator = np.random.default_rng(0)
    counts = Counter()
    for _ in range(200):
        sample = RandomUniformSampler(3, 2, reverse_time_prob=0.5).sample(video, generator)
        assert len(set(sample.objects)) == len(sample.objects)
        assert set(sample.objects) <= set(video.visible(sample.frames[0]))
        counts.update(sample.objects)
    assert set(counts) == {3, 5, 7, 9}
    # With frame 1 first there is nothing to see, so that start is drawn again.
    assert {RandomUniformSampler(2, 1).sample(video, generator).frames for _ in range(50)} == {(0, 1)}


def test_samplers_say_which_video_has_nothing_to_offer() -> None:
    generator = np.random.default_rng(0)
    with pytest.raises(ValueError, match="listed: expected 3 frames with masks, got 2"):
        RandomUniformSampler(3, 1).sample(Listed({0: [1], 1: [1]}), generator)
    with pytest.raises(ValueError, match="listed: no object visible on the first frame of a clip, in 100 draws"):
        RandomUniformSampler(1, 1).sample(Listed({0: [], 1: []}), generator)
    with pytest.raises(ValueError, match="listed: no object visible on the first annotated frame"):
        EvalSampler().sample(Listed({0: [], 1: [1]}), generator)
    with pytest.raises(ValueError, match="expected at least 1, got 0 and 1"):
        RandomUniformSampler(0, 1)


def test_evaluation_takes_all_frames_and_the_objects_of_the_first() -> None:
    sample = EvalSampler().sample(Listed({4: [2, 3], 0: [1, 2]}), np.random.default_rng(0))
    assert (sample.frames, sample.objects) == ((0, 4), (1, 2))


def test_a_clip_shows_the_frames_and_masks_of_its_video_in_order(tmp_path: Path) -> None:
    write_davis(tmp_path, ["a"])
    videos = PNGRawDataset(tmp_path / "JPEGImages", tmp_path / "Annotations")
    dataset = VOSDataset(videos, RandomUniformSampler(6, 2, reverse_time_prob=1.0), resolution=64)
    found = dataset.clip(0, np.random.default_rng(0))
    assert (found.name, found.frame_indices) == ("a", (5, 4, 3, 2, 1, 0))
    assert (found.frames.shape, found.masks.shape) == ((6, 3, 64, 64), (6, 2, 64, 64))
    assert (found.frames.dtype, found.masks.dtype) == (torch.float32, torch.bool)
    areas = {int(area) for area in found.masks[0].sum((1, 2))}
    stretch = 64 / 36
    expected = {int((moving(5) & ~resting()).sum() * stretch), int(resting().sum() * stretch)}
    assert all(min(abs(area - other) for other in expected) < 12 for area in areas) and len(areas) == 2
    # A corner holds nothing but the colour that tells the frame.
    corner = torch.from_numpy(picture(5)[:1, :1].copy()).permute(2, 0, 1)
    assert torch.allclose(found.frames[0, :, -1, 0], normalize(corner)[:, 0, 0], atol=0.08)


def test_a_multiplier_repeats_the_videos_with_other_clips(tmp_path: Path) -> None:
    write_davis(tmp_path, ["a", "b"])
    videos = PNGRawDataset(tmp_path / "JPEGImages", tmp_path / "Annotations")
    dataset = VOSDataset(videos, RandomUniformSampler(2, 1), resolution=16, multiplier=3)
    assert len(dataset) == 6
    assert [dataset.clip(i, np.random.default_rng(i)).name for i in range(6)] == ["a", "b"] * 3
    with pytest.raises(ValueError, match="multiplier: expected at least 1, got 16 and 0"):
        VOSDataset(videos, RandomUniformSampler(2, 1), resolution=16, multiplier=0)


def test_batches_put_the_objects_of_all_clips_in_a_row() -> None:
    batch = collate([clip("a", 2, 1, 0.5), clip("b", 2, 3, -1.0)])
    assert (batch.frames.shape, batch.masks.shape) == ((2, 2, 3, 4, 4), (2, 4, 4, 4))
    assert (batch.num_frames, batch.names, batch.video_of.tolist()) == (2, ("a", "b"), [0, 1, 1, 1])
    assert batch.frames[:, 0].unique().item() == 0.5 and batch.frames[:, 1].unique().item() == -1.0
    assert [int(mask.nonzero()[0, 1]) for mask in batch.masks[1]] == [0, 0, 1, 2]


def test_batches_move_as_a_whole() -> None:
    batch = collate([clip("a", 1, 1, 0.0)])
    moved = batch.to("meta", non_blocking=True)
    assert isinstance(moved, BatchedClip)
    assert {t.device.type for t in (moved.frames, moved.masks, moved.video_of)} == {"meta"}
    assert moved.names == ("a",)


def test_clips_that_do_not_fit_together() -> None:
    with pytest.raises(ValueError, match=r"b has frames \(3, 3, 4, 4\), a has \(2, 3, 4, 4\)"):
        collate([clip("a", 2, 1, 0.0), clip("b", 3, 1, 0.0)])
    with pytest.raises(ValueError, match="got none"):
        collate([])
