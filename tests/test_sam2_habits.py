"""What scripts written for SAM 2 do with a predictor and its sessions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support import TINY, make_predictor, randomize, render_video

import i2v.build_i2v
from i2v.build_i2v import build_i2v_image_predictor, build_i2v_video_predictor
from i2v.checkpoint import read_checkpoint, save_checkpoint
from i2v.i2v_image_predictor import I2VImagePredictor
from i2v.i2v_video_predictor import I2VVideoPredictor
from i2v.pretrained import nano_checkpoint

META = torch.device("meta")


@pytest.fixture(params=["video", "image"])
def either(request: pytest.FixtureRequest) -> Any:
    predictor = make_predictor()
    return predictor if request.param == "video" else I2VImagePredictor(predictor.model)


def test_a_predictor_is_moved_and_evaluated_as_a_module(either: Any) -> None:
    assert either.to("cpu").eval() is either and either.to(device=torch.device("cpu")).cpu() is either
    assert not either.training and either.image_size == 64 and either.device == torch.device("cpu")
    assert sum(p.numel() for p in either.parameters()) == sum(p.numel() for p in either.model.parameters())
    assert dict(either.named_parameters()).keys() <= either.state_dict().keys()
    either.model.train()
    assert either.training and not either.eval().training


def test_a_move_changes_the_precision_and_nothing_of_the_weights(either: Any) -> None:
    assert either.to(torch.bfloat16).dtype == torch.bfloat16
    assert {p.dtype for p in either.parameters()} == {torch.float32}
    assert either.to("cpu").dtype == torch.bfloat16, "it was asked for"
    assert either.to("cpu", torch.float32).dtype == torch.float32
    with pytest.raises(ValueError, match="cuda:99"):
        either.cuda(99)
    with pytest.raises(ValueError, match="dtype: expected float32"):
        either.to(torch.int8)


def test_a_video_predictor_computes_in_the_precision_it_was_moved_to() -> None:
    predictor = make_predictor()
    expected = I2VVideoPredictor(predictor.model, predictor.policy, torch.bfloat16)
    answers = []
    for each in (predictor.to(torch.bfloat16), expected):
        with each.init_state(render_video(1)) as state:
            answers.append(each.add_new_points_or_box(state, 0, 1, [[20, 19]], [1])[2])
    torch.testing.assert_close(*answers, rtol=0, atol=0)


def test_sessions_of_the_device_before_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(i2v.build_i2v, "resolve_device", torch.device)
    predictor = make_predictor()
    with predictor.init_state(render_video(1)) as state:
        predictor.to(META)
        with pytest.raises(ValueError, match="array was opened on cpu, and the model is on meta by now"):
            predictor.add_new_points_or_box(state, 0, 1, [[20, 19]], [1])


def test_images_of_the_device_before_have_to_be_set_again() -> None:
    predictor = I2VImagePredictor(make_predictor().model)
    predictor.set_image(render_video(1)[0])
    predictor.to("cpu").predict([[20, 19]], [1])
    with pytest.raises(RuntimeError, match="no image is set"):
        predictor.to(torch.bfloat16).predict([[20, 19]], [1])


def test_a_session_is_read_as_a_dictionary() -> None:
    predictor = make_predictor()
    state = predictor.init_state(video_path=render_video(3), offload_state_to_cpu=True, async_loading_frames=False)
    for obj_id in (7, "cat"):
        predictor.add_new_points_or_box(
            inference_state=state, frame_idx=0, obj_id=obj_id, points=[[20, 19]], labels=[1]
        )
    assert (state["num_frames"], state["video_height"], state["video_width"]) == (3, 48, 64)
    assert state["obj_ids"] == [7, "cat"]
    assert state["obj_id_to_idx"] == {7: 0, "cat": 1} and state["obj_idx_to_id"] == {0: 7, 1: "cat"}
    assert state["device"] == state["storage_device"] == torch.device("cpu") and state["offload_state_to_cpu"]
    assert "num_frames" in state and "images" not in state and set(state) == set(state.keys())
    with pytest.raises(KeyError, match=r"expected one of num_frames, .* got 'images'; frames are state\.source\.read"):
        state["images"]
    state.close()


def test_vos_optimized_compiles(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = []
    monkeypatch.setattr(i2v.build_i2v, "compile_model", compiled.append)
    predictor = build_i2v_video_predictor(TINY, device="cpu", random_weights=True, vos_optimized=True)
    assert compiled == [predictor.model] and predictor.policy.static_shapes
    build_i2v_video_predictor(TINY, device="cpu", random_weights=True, vos_optimized=False)
    assert len(compiled) == 1


def test_the_loop_of_sam_2s_readme(tmp_path: Path) -> None:
    weights = make_predictor()
    save_checkpoint(weights.model, tmp_path / "w.pt")
    predictor = build_i2v_video_predictor(str(TINY), str(tmp_path / "w.pt"), device=torch.device("cpu")).eval()
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        state = predictor.init_state(render_video(4))
        frame_idx, object_ids, masks = predictor.add_new_points_or_box(
            inference_state=state,
            frame_idx=0,
            obj_id=1,
            points=np.array([[20, 19]], dtype=np.float32),
            labels=np.array([1], np.int32),
        )
        video_segments = {}
        for out_frame_idx, out_obj_ids, out_mask_logits in predictor.propagate_in_video(state):
            video_segments[out_frame_idx] = {
                out_obj_id: (out_mask_logits[i] > 0.0).cpu().numpy() for i, out_obj_id in enumerate(out_obj_ids)
            }
        predictor.reset_state(state)
    assert (frame_idx, object_ids, tuple(masks.shape)) == (0, [1], (1, 1, 48, 64))
    assert list(video_segments) == [0, 1, 2, 3] and video_segments[3][1].shape == (1, 48, 64)


def test_a_predictor_for_images_is_built_as_one_for_videos(tmp_path: Path) -> None:
    weights = make_predictor()
    save_checkpoint(weights.model, tmp_path / "w.pt")
    predictor = build_i2v_image_predictor(TINY, tmp_path / "w.pt", "cpu", max_sprinkle_area=3)
    torch.testing.assert_close(predictor.state_dict(), weights.state_dict())
    filling = {"hydra_overrides_extra": ["predictor.fill_hole_area=5"]}
    assert (predictor.max_hole_area, predictor.max_sprinkle_area) == (0, 3)
    assert build_i2v_image_predictor(TINY, tmp_path / "w.pt", "cpu", **filling).max_hole_area == 5
    assert build_i2v_image_predictor(TINY, tmp_path / "w.pt", "cpu", max_hole_area=7, **filling).max_hole_area == 7
    nano = build_i2v_image_predictor(device="cpu")
    name = next(iter(nano.state_dict()))
    assert nano.max_hole_area == 8
    shipped = read_checkpoint(nano_checkpoint())[name]
    torch.testing.assert_close(nano.state_dict()[name], shipped.float(), rtol=0, atol=0)
    with pytest.raises(ValueError, match=r"tiny\.yaml has no weights of its own"):
        build_i2v_image_predictor(TINY, device="cpu")
    with pytest.raises(TypeError, match="max_sprinkle_area, got max_holes"):
        build_i2v_image_predictor(TINY, device="cpu", random_weights=True, max_holes=3)
    randomize(build_i2v_image_predictor(TINY, device="cpu", random_weights=True).model)
    with pytest.raises(TypeError, match="expected an I2VModel, as build_i2v returns it, got a I2VVideoPredictor"):
        I2VImagePredictor(weights)  # type: ignore[arg-type]
