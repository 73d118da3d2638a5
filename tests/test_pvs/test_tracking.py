"""Objects followed together and apart: the same masks, and no frame encoded twice."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from vos_support import disc_mask, write_frames

from i2v.i2v_video_predictor import I2VVideoPredictor
from i2v.video.sources import ImageFolder
from test_pvs.prompts import Target, protocol
from test_pvs.tracking import FrameMasks, track_apart, track_together

STARTS = [0, 3, 3, 7, 9]


def targets_at(starts: list[int]) -> list[Target]:
    return [Target(str(obj), start, disc_mask(obj, start)) for obj, start in enumerate(starts)]


@pytest.fixture
def video(tmp_path) -> str:
    write_frames(tmp_path / "video", 10, STARTS)
    return str(tmp_path / "video")


@pytest.fixture
def count_encoded(predictor) -> Callable[[], int]:
    calls = []
    predictor.model.image_encoder.register_forward_pre_hook(lambda *_: calls.append(1))
    return lambda: len(calls)


def collect(steps: Iterator[FrameMasks]) -> dict[tuple[int, object], torch.Tensor]:
    return {(frame, obj): logits[i].clone() for frame, objects, logits in steps for i, obj in enumerate(objects)}


@pytest.mark.parametrize("name", ["gm", "bb", "3c"])
def test_objects_do_not_change_each_other(predictor: I2VVideoPredictor, video, name):
    targets = targets_at(STARTS)
    together = collect(track_together(predictor, video, targets, protocol(name)))
    alone = {}
    for target in targets:
        alone |= collect(track_together(predictor, video, [target], protocol(name)))
    assert together.keys() == alone.keys() == {(f, t.obj) for t in targets for f in range(t.frame, 10)}
    assert all(torch.equal(together[key], alone[key]) for key in alone)
    assert any(mask.gt(0).any() for mask in alone.values())


def test_side_by_side_is_the_same_in_the_same_order(predictor, video):
    targets = targets_at(STARTS)[::-1]
    together = list(track_together(predictor, video, targets, protocol("gm")))
    apart = list(track_apart(predictor, video, targets, protocol("gm")))
    assert [(frame, objects) for frame, objects, _ in together] == [(frame, objects) for frame, objects, _ in apart]
    assert together[3][1] == ["0", "2", "1"]
    assert all(torch.equal(a[2], b[2]) for a, b in zip(together, apart, strict=True))


def test_what_objects_share_is_done_once(predictor, video, count_encoded, monkeypatch):
    decoded, compared = [], []
    read, select = ImageFolder.read, predictor.policy.selector.select
    monkeypatch.setattr(ImageFolder, "read", lambda self, index: decoded.append(index) or read(self, index))
    monkeypatch.setattr(
        predictor.policy.selector, "select", lambda step, *rest: compared.append(step.frame) or select(step, *rest)
    )
    collect(track_together(predictor, video, targets_at(STARTS), protocol("3c")))
    assert sorted(decoded) == list(range(10))
    assert count_encoded() == 10
    assert compared == list(range(1, 10))  # for all objects together, on every frame that is tracked


def test_the_pass_begins_where_the_first_object_appears(predictor, video, count_encoded):
    steps = list(track_together(predictor, video, targets_at([7, 8]), protocol("gm")))
    assert [(frame, objects) for frame, objects, _ in steps] == [(7, ["0"]), (8, ["0", "1"]), (9, ["0", "1"])]
    assert count_encoded() == 3


def test_targets_that_do_not_fit_the_video(predictor, video):
    wrong = Target("0", 0, disc_mask(0, 0, 40, 60))
    with pytest.raises(ValueError, match="object 0: the annotation has 60x40 pixels, the frames 64x48"):
        next(track_together(predictor, video, [wrong], protocol("gm")))
    late = Target("0", 10, disc_mask(0, 0))
    with pytest.raises(IndexError, match="object 0: annotated on frame 10, but there are 10 frames"):
        next(track_together(predictor, video, [late], protocol("gm")))
