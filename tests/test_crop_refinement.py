"""Prompts that are answered again, mirrored and on a crop."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from support import make_predictor, render_video

from i2v.build_i2v import build_i2v_video_predictor
from i2v.i2v_image_predictor import I2VImagePredictor
from i2v.i2v_video_predictor import I2VVideoPredictor
from i2v.inference.crop_box import OUTSIDE_LOGIT
from i2v.inference.crop_refinement import Crop, CropRefiner, _mirror_image
from i2v.modeling.structures import Prompt
from i2v.utils.masks import resize_logits
from i2v.video.frame_source import LiveFrames

GRID, SIDE = 16, 64  # low-res cells and pixels of the tiny model
CLICK = {"points": [[16.0, 19.0]], "labels": [1]}
BOX = {"box": [9.0, 12.0, 24.0, 27.0]}


@pytest.fixture(scope="module")
def plain() -> I2VVideoPredictor:
    return make_predictor("predictor.fill_hole_area=0")


@pytest.fixture(scope="module")
def refined() -> I2VVideoPredictor:
    return make_predictor("predictor.fill_hole_area=0", "predictor.refine_prompts=true")


def low_res(predictor: I2VVideoPredictor, picture: np.ndarray, **prompt: object) -> torch.Tensor:
    """Low-res logits (1,1,16,16) for a prompt on a picture, which is a video of one frame."""
    with predictor.init_state(picture[None]) as state:
        predictor.add_new_points_or_box(state, 0, 1, **prompt)
        return state.tracks[1].pending[0].prediction.low_res


def test_a_crop_holds_its_content_with_a_margin_and_stays_in_the_frame() -> None:
    corners = torch.tensor([[6.0, 8.0], [10.0, 10.0]])
    assert Crop.around(*corners, GRID) == Crop(left=5, top=6, side=6, grid=GRID)
    assert Crop.around(*(corners - corners[0]), GRID) == Crop(0, 0, 6, GRID)
    assert Crop.around(*(corners + 6), GRID) == Crop(10, 10, 6, GRID)
    point = torch.tensor([8.0, 8.0])
    assert Crop.around(point, point, GRID) == Crop(6, 6, 3, GRID)  # not below 0.15 of the frame
    assert Crop.around(torch.zeros(2), torch.tensor([9.0, 2.0]), GRID) is None
    assert Crop(5, 6, 6, GRID).pixels(160, 80) == (50.0, 30.0, 110.0, 60.0)


def test_prompts_and_logits_move_between_frame_and_crop() -> None:
    crop = Crop(left=4, top=8, side=4, grid=GRID)
    logits = torch.arange(GRID * GRID, dtype=torch.float32).view(1, 1, GRID, GRID)
    prompt = Prompt(torch.tensor([[[16.0, 32.0], [24.0, 48.0]]]), torch.tensor([[1, 0]]), prior=logits)
    moved = crop.prompt(prompt, SIDE)
    assert moved.points.tolist() == [[[0.0, 0.0], [32.0, 64.0]]] and moved.labels is prompt.labels
    torch.testing.assert_close(
        moved.prior, torch.nn.functional.interpolate(logits[..., 8:12, 4:8], scale_factor=4, mode="bilinear")
    )
    pasted = crop.paste(torch.full((1, 1, GRID, GRID), 3.0))
    expected = torch.full((1, 1, GRID, GRID), OUTSIDE_LOGIT)
    expected[..., 8:12, 4:8] = 3.0
    torch.testing.assert_close(pasted, expected)


def test_the_mirror_image_of_a_box_is_a_box() -> None:
    prompt = Prompt(torch.tensor([[[10.0, 5.0], [30.0, 6.0], [40.0, 7.0]]]), torch.tensor([[1, 2, 3]]))
    mirrored = _mirror_image(prompt, SIDE)
    assert mirrored.points.tolist() == [[[54.0, 5.0], [24.0, 6.0], [34.0, 7.0]]]
    assert _mirror_image(mirrored, SIDE).points.tolist() == prompt.points.tolist()


@pytest.mark.parametrize("prompt", [CLICK, BOX], ids=["click", "box"])
def test_the_refined_mask_is_the_mean_of_four_answers(
    plain: I2VVideoPredictor, refined: I2VVideoPredictor, prompt: dict[str, list], monkeypatch: pytest.MonkeyPatch
) -> None:
    picture = render_video(1)[0]
    crop = Crop(left=2, top=3, side=8, grid=GRID)
    monkeypatch.setattr(CropRefiner, "_crop", lambda self, prompt, mask: crop)

    # The crop at the model's size, so that nothing is resized again.
    left, top, right, bottom = crop.pixels(64, 48)
    closer = np.asarray(Image.fromarray(picture).resize((SIDE, SIDE), box=(left, top, right, bottom)))

    def place(x: float, y: float, on_crop: bool, mirror: bool) -> list[float]:
        if on_crop:
            x, y = (x - left) * SIDE / (right - left), (y - top) * SIDE / (bottom - top)
        return [SIDE - x if mirror else x, y]  # the frame is as wide as the model image

    def moved(on_crop: bool, mirror: bool) -> dict[str, list]:
        if "points" in prompt:
            return {"points": [place(*prompt["points"][0], on_crop, mirror)], "labels": [1]}
        corners = np.array([place(*prompt["box"][i : i + 2], on_crop, mirror) for i in (0, 2)])
        return {"box": [*corners.min(axis=0), *corners.max(axis=0)]}

    mirrored, closer_mirrored = (np.ascontiguousarray(image[:, ::-1]) for image in (picture, closer))
    answers = [
        low_res(plain, picture, **prompt),
        low_res(plain, mirrored, **moved(False, True)).flip(-1),
        crop.paste(low_res(plain, closer, **moved(True, False))),
        crop.paste(low_res(plain, closer_mirrored, **moved(True, True)).flip(-1)),
    ]
    found = low_res(refined, picture, **prompt)
    assert all(float((found - answer).abs().max()) > 0.01 for answer in answers)
    torch.testing.assert_close(found, torch.stack(answers).mean(dim=0), atol=2e-4, rtol=1e-4)


def test_a_refined_prediction_agrees_with_itself(refined: I2VVideoPredictor) -> None:
    with refined.init_state(render_video(1)) as state:
        _, _, masks = refined.add_new_points_or_box(state, 0, 1, **CLICK)
        prediction = state.tracks[1].pending[0].prediction
    chosen = prediction.candidates[0, int(prediction.ious.argmax())]
    assert torch.equal(chosen, prediction.low_res[0, 0])
    assert torch.equal(prediction.high_res, resize_logits(prediction.low_res, (SIDE, SIDE)))
    assert torch.equal(masks, resize_logits(prediction.low_res, (48, 64)))


def test_masks_corrections_and_absent_objects_are_answered_once(
    plain: I2VVideoPredictor, refined: I2VVideoPredictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    video = render_video(4)
    mask = np.zeros(video.shape[1:3], bool)
    mask[12:27, 9:24] = True
    refinements: list[int] = []
    original = CropRefiner.refine
    monkeypatch.setattr(CropRefiner, "refine", lambda self, *args: (refinements.append(1), original(self, *args))[1])
    results = []
    for predictor in (plain, refined):
        with predictor.init_state(video) as state:
            predictor.add_new_mask(state, 0, 1, mask)
            masks = [masks.clone() for _, _, masks in predictor.propagate_in_video(state)]
            masks.append(predictor.add_new_points_or_box(state, 2, 1, **CLICK)[2])
        results.append(torch.cat(masks))
    assert torch.equal(*results) and not refinements
    with torch.no_grad():
        bias = list(refined.model.sam_mask_decoder.pred_obj_score_head.parameters())[-1]
        before = bias.clone()
        bias.fill_(-1000.0)
        try:
            absent = low_res(refined, video[0], **CLICK)
        finally:
            bias.copy_(before)
    assert refinements and (absent == absent.min()).all() and float(absent.max()) < -1000


def test_frames_that_a_live_video_dropped_are_answered_once(
    plain: I2VVideoPredictor, refined: I2VVideoPredictor
) -> None:
    video = render_video(6)
    results = []
    for predictor in (plain, refined):
        live = LiveFrames(keep=3)
        live.append(video[0])
        with predictor.init_state(live) as state:
            predictor.prefetch_frame(state, 0)
            for frame in video[1:]:
                live.append(frame)
            results.append(predictor.add_new_points_or_box(state, 0, 1, **CLICK)[2])
    assert torch.equal(*results)


def test_the_small_model_refines_and_the_published_one_does_not() -> None:
    from i2v.config import load_config
    from i2v.inference.policy import PredictorSettings

    assert build_i2v_video_predictor(device="cpu").settings.refine_prompts
    assert not PredictorSettings().refine_prompts
    assert not load_config("i2v-infer").predictor.get("refine_prompts", False)


def test_an_error_of_the_refinement_itself_is_not_hidden(
    refined: I2VVideoPredictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise IndexError("a fault of the refinement")

    monkeypatch.setattr(CropRefiner, "refine", fail)
    with refined.init_state(render_video(1)) as state, pytest.raises(IndexError, match="a fault of the refinement"):
        refined.add_new_points_or_box(state, 0, 1, **CLICK)


def test_the_mirrored_frame_is_encoded_once_for_all_clicks_on_it(
    refined: I2VVideoPredictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    video = render_video(2)
    crop = Crop(left=2, top=3, side=8, grid=GRID)
    monkeypatch.setattr(CropRefiner, "_crop", lambda self, prompt, mask: crop)
    encoded: list[int] = []
    original = type(refined.model).encode_frames
    monkeypatch.setattr(
        type(refined.model),
        "encode_frames",
        lambda self, frames, stems: (encoded.append(len(frames)), original(self, frames, stems))[1],
    )
    with refined.init_state(video) as state:
        first = refined.add_new_points_or_box(state, 0, 1, **CLICK)[2]
        assert encoded == [1, 1, 2], "the frame, its mirror image, the crop and its mirror image"
        assert torch.equal(refined.add_new_points_or_box(state, 0, 2, **CLICK)[2][:1], first)
        assert encoded[3:] == [2]
        other = refined.add_new_points_or_box(state, 1, 3, **CLICK)[2]
        assert encoded[4:] == [1, 1, 2], "another frame has another mirror image"
        refined.prefetch_frame(state, 0)
        assert encoded[7:] == [1]
        refined.add_new_points_or_box(state, 0, 4, **CLICK)
        assert encoded[8:] == [2]
    with refined.init_state(video) as state:
        assert torch.equal(refined.add_new_points_or_box(state, 1, 3, **CLICK)[2], other[-1:])


def test_the_image_predictor_keeps_the_mirrored_image_until_the_next_image(monkeypatch: pytest.MonkeyPatch) -> None:
    predictor = I2VImagePredictor.from_pretrained("i2v-nano", device="cpu")
    encoded: list[int] = []
    original = CropRefiner.mirrored_features
    monkeypatch.setattr(
        CropRefiner, "mirrored_features", lambda self, picture: (encoded.append(1), original(self, picture))[1]
    )
    click = {"point_coords": [[16, 19]], "point_labels": [1]}
    first, second = render_video(2)
    predictor.set_image(first)
    answers = [predictor.predict(**click)[2] for _ in range(2)]
    assert len(encoded) == 1 and np.array_equal(*answers)
    predictor.set_image(second)
    predictor.predict(**click)
    assert len(encoded) == 2
    predictor.reset_predictor()
    predictor.set_image(first)
    assert np.array_equal(predictor.predict(**click)[2], answers[0]) and len(encoded) == 3


@pytest.mark.parametrize("prompt", [CLICK, BOX], ids=["click", "box"])
def test_the_first_answer_is_told_before_it_is_refined(
    plain: I2VVideoPredictor, refined: I2VVideoPredictor, prompt: dict[str, list]
) -> None:
    video = render_video(3)
    told: list[torch.Tensor] = []
    with plain.init_state(video) as state:
        expected = plain.add_new_points_or_box(state, 0, 1, **prompt, on_first_answer=told.append)[2]
        assert not told, "what is not refined is told once"
    with refined.init_state(video) as state:
        final = refined.add_new_points_or_box(state, 0, 1, **prompt, on_first_answer=told.append)[2]
        assert len(told) == 1 and torch.equal(told[0], expected) and not torch.equal(told[0], final)
        assert torch.equal(refined.masks_on_frame(state, 0)[2], final)
        list(refined.propagate_in_video(state))
        refined.add_new_points_or_box(state, 2, 1, **CLICK, on_first_answer=told.append)
        assert len(told) == 1, "a correction with memory is not refined"
