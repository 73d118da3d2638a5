"""Coming frames encoded as one batch: the same features, for just the frames that need them."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from PIL import Image
from support import make_predictor
from torch import Tensor

from i2v.i2v_video_predictor import I2VVideoPredictor
from i2v.inference.live_session import LiveSession
from i2v.inference.policy import PredictorSettings

CLICK = {"points": [[16, 19]], "labels": [1]}


@pytest.fixture
def predictor() -> I2VVideoPredictor:
    return make_predictor("++predictor.frames_at_once=4", "++predictor.fill_hole_area=0")


@pytest.fixture
def batches(predictor, monkeypatch) -> list[int]:
    """Sizes of the batches that the model encodes."""
    sizes: list[int] = []
    encode = predictor.model.encode_frames

    def counting(frames: Tensor, stem_features: list[Tensor]):
        assert all(len(features) == len(frames) for features in stem_features)
        sizes.append(len(frames))
        return encode(frames, stem_features)

    monkeypatch.setattr(predictor.model, "encode_frames", counting)
    return sizes


def features_of(predictor: I2VVideoPredictor, video, **kwargs) -> dict[int, Tensor]:
    """The features that a propagation from a click on frame 5 used, by frame."""
    with predictor.init_state(video) as state, torch.inference_mode():
        predictor.add_new_points_or_box(state, 5, 1, **CLICK)
        used = {}
        for frame, _, _ in predictor.propagate_in_video(state, **kwargs):
            used[frame] = predictor.tracker.features(state, frame).vision
        return used


@pytest.mark.parametrize(
    ("kwargs", "sizes"),
    [
        ({}, [1, 4, 2]),  # frame 5 for the click, 6 to 9, 10 and 11
        ({"start_frame_idx": 0}, [1, 4, 3, 1, 4]),  # 0 to 3, 4 with 6 and 7, 5 as it is asked for below, 8 to 11
        ({"reverse": True}, [1, 4, 1]),
        ({"max_frame_num_to_track": 2}, [1, 2]),
        ({"start_frame_idx": 0, "max_frame_num_to_track": 1}, [1, 2]),
    ],
)
def test_batches_hold_what_is_still_to_come(predictor, video, batches, kwargs, sizes):
    found = features_of(predictor, video, **kwargs)
    assert batches == sizes
    one_by_one = features_of(make_predictor(), video, **kwargs)
    assert found.keys() == one_by_one.keys()
    for frame, vision in found.items():
        assert torch.allclose(vision, one_by_one[frame], atol=1e-4), f"frame {frame}"
    frames = sorted(found)
    assert all(not torch.allclose(found[a], found[b], atol=1e-2) for a, b in pairwise(frames))


def test_masks_are_those_found_one_by_one(predictor, video):
    masks = []
    for way in (predictor, make_predictor("++predictor.fill_hole_area=0")):
        way.memory_selection = "topk"  # nothing is drawn, so rounding cannot turn the dice
        with way.init_state(video) as state:
            way.add_new_points_or_box(state, 0, 1, **CLICK)
            masks.append(torch.cat([m for _, _, m in way.propagate_in_video(state)]))
    assert masks[0].std() > 0.1 and torch.allclose(*masks, atol=1e-2)


def test_frames_where_every_object_is_prompted_are_left_out(predictor, video, batches):
    with predictor.init_state(video) as state:
        for frame in (0, 1, 3):
            predictor.add_new_points_or_box(state, frame, 1, **CLICK)
        predictor.propagate_in_video_preflight(state)
        batches.clear()
        found = [frame for frame, _, _ in predictor.propagate_in_video(state, max_frame_num_to_track=6)]
    assert found == list(range(7))
    assert batches == [3, 1], "frames 2, 4 and 5; then 6"


def test_live_frames_and_compiled_models_are_encoded_one_by_one(predictor, video, batches):
    with LiveSession(predictor) as session:
        for frame, picture in enumerate(video[:6]):
            session.step(picture)
            if frame == 0:
                session.add_new_points_or_box(1, **CLICK)
    assert batches == [1] * 6
    batches.clear()
    predictor.policy = replace(predictor.policy, static_shapes=True)
    features_of(predictor, video)
    assert batches == [1] * 7


def test_a_broken_frame_is_told_when_its_turn_comes(predictor, video, tmp_path):
    for i, picture in enumerate(video):
        Image.fromarray(picture).save(tmp_path / f"{i:05d}.png")
    (tmp_path / "00006.png").write_bytes(b"no picture")
    with predictor.init_state(tmp_path) as state:
        predictor.add_new_points_or_box(state, 0, 1, **CLICK)
        found = []
        with pytest.raises(ValueError, match=r"00006\.png"):
            found.extend(frame for frame, _, _ in predictor.propagate_in_video(state))
    assert found == list(range(6)), "0 for the click, 1 to 4, 5 with 6, which cannot be read"


def test_a_number_below_one_is_refused():
    with pytest.raises(ValueError, match="frames_at_once: expected at least 1, got 0"):
        PredictorSettings(frames_at_once=0)
