"""Arguments in every form that callers have them: taken where the meaning is clear, else told in a sentence."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support import TINY, make_predictor, render_video
from test_video_file import Clip

from i2v.build_i2v import build_i2v_video_predictor
from i2v.checkpoint import save_checkpoint
from i2v.i2v_image_predictor import I2VImagePredictor
from i2v.i2v_video_predictor import I2VVideoPredictor
from i2v.inference.policy import PredictorSettings

VIDEO = render_video(4)
POINT, LABEL, BOX = [[16, 19]], [1], [8, 10, 24, 28]


@pytest.fixture(scope="module")
def predictor() -> I2VVideoPredictor:
    return make_predictor()


def answer(predictor: I2VVideoPredictor, **prompt: Any) -> torch.Tensor:
    with predictor.init_state(VIDEO) as state:
        return predictor.add_new_points_or_box(state, 0, 1, **prompt)[2]


@pytest.mark.parametrize(
    ("points", "labels"),
    [
        (torch.tensor(POINT).bfloat16(), torch.tensor(LABEL)),
        (torch.tensor(POINT).to_sparse(), torch.tensor(LABEL).to_sparse()),
        (torch._neg_view(-torch.tensor(POINT).float()), LABEL),
        (torch.tensor(POINT).half(), torch.tensor([True])),
        (torch.tensor(POINT, dtype=torch.float64, requires_grad=True), LABEL),
        ([[torch.tensor(16), torch.tensor(19.0)]], [torch.tensor(1)]),
        ([torch.tensor([16, 19])], np.int64([1])),
        (np.array(POINT, ">f8"), np.array(LABEL, ">i2")),
        (np.array(POINT, object), np.array(LABEL, object)),
        (np.array([POINT], np.float16), np.array([LABEL])),
        (((16, 19),), (True,)),
    ],
)
def test_points_of_any_numbers_mean_the_same(predictor: I2VVideoPredictor, points: Any, labels: Any) -> None:
    assert torch.equal(answer(predictor, points=points, labels=labels), answer(predictor, points=POINT, labels=LABEL))


@pytest.mark.parametrize(
    "box",
    [torch.tensor(BOX).bfloat16(), torch.tensor(BOX).to_sparse(), np.array(BOX, ">i4"), np.array([BOX], object)],
)
def test_boxes_of_any_numbers_mean_the_same(predictor: I2VVideoPredictor, box: Any) -> None:
    assert torch.equal(answer(predictor, box=box), answer(predictor, box=BOX))
    assert torch.equal(answer(predictor, box=box, points=[], labels=[]), answer(predictor, box=BOX))


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ({"points": [], "labels": []}, "expected a box or at least one point"),
        ({"points": np.zeros((0, 2)), "labels": np.zeros(0)}, "expected a box or at least one point"),
        ({"points": [[5, 5], [6, 6]], "labels": [-1, -1]}, "expected a box or at least one point"),
        ({"points": POINT, "labels": None}, "points and labels must be given together"),
        ({"points": [None], "labels": LABEL}, "expected points to be numbers"),
        ({"points": [[16, None]], "labels": LABEL}, "expected points to be numbers"),
        ({"points": [["16", "19"]], "labels": LABEL}, "expected points to be numbers"),
        ({"points": np.array([["16", 19]], object), "labels": LABEL}, "expected points to be numbers"),
        ({"points": [[1, 2], [3]], "labels": LABEL}, "expected points to be numbers"),
        ({"points": {"x": 1}, "labels": LABEL}, "expected points to be numbers"),
        ({"points": [[1 + 2j, 3]], "labels": LABEL}, "expected points to be numbers"),
        ({"points": POINT, "labels": ["1"]}, "expected labels to be numbers"),
        ({"points": POINT, "labels": [None]}, "expected labels to be numbers"),
        ({"box": ["8", "10", "24", "28"]}, "expected box to be numbers"),
        ({"box": [None] * 4}, "expected box to be numbers"),
        ({"box": [8, 10, float("nan"), 28]}, "expected a box with x0 < x1"),
    ],
)
def test_prompts_that_are_none_are_told(predictor: I2VVideoPredictor, prompt: dict[str, Any], message: str) -> None:
    with predictor.init_state(VIDEO) as state:
        with pytest.raises(ValueError, match=f"^frame 0, object 1: {message}") as caught:
            predictor.add_new_points_or_box(state, 0, 1, **prompt)
        assert "\n" not in str(caught.value) and len(str(caught.value)) < 200
        assert state.obj_ids == []


def test_videos_in_open_files_are_read(tmp_path: Path, predictor: I2VVideoPredictor) -> None:
    data = Clip(count=5).encoded()
    (tmp_path / "12:30.mp4").write_bytes(data)
    with open(tmp_path / "12:30.mp4", "rb") as file:
        for given in (io.BytesIO(data), io.BufferedReader(io.BytesIO(data)), bytearray(data), memoryview(data), file):  # type: ignore[arg-type]
            with predictor.init_state(given) as state:
                assert state.num_frames == 5
                assert predictor.add_new_points_or_box(state, 4, 1, points=POINT, labels=LABEL)[0] == 4


@pytest.mark.parametrize("seed", [3, 3.0, np.int64(3), np.float32(3), torch.tensor(3)])
def test_seeds_are_whole_numbers(predictor: I2VVideoPredictor, seed: Any) -> None:
    assert PredictorSettings(seed=seed).seed == 3
    predictor.memory_selection_seed = seed
    assert type(predictor.memory_selection_seed) is int


@pytest.mark.parametrize("seed", [1.5, "3", None, float("nan"), 2**64, [3]])
def test_what_is_no_seed_is_told(predictor: I2VVideoPredictor, seed: Any) -> None:
    before = predictor.memory_selection_seed
    with pytest.raises(ValueError, match=r"^seed: expected a whole number of at most 64 bits, got "):
        predictor.memory_selection_seed = seed
    assert predictor.memory_selection_seed == before


@contextmanager
def default_device(name: str) -> Iterator[None]:
    torch.set_default_device(name)
    try:
        yield
    finally:
        torch.set_default_device(None)


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize(
    "changed",
    [
        lambda: default_device("meta"),
        lambda: torch.device("meta"),
        lambda: default_dtype(torch.float64),
        lambda: default_dtype(torch.bfloat16),
    ],
)
def test_defaults_of_the_program_change_no_mask(tmp_path: Path, changed: Callable[[], Any]) -> None:
    save_checkpoint(make_predictor().model, tmp_path / "w.pt")

    def masks() -> list[torch.Tensor]:
        predictor = build_i2v_video_predictor(TINY, tmp_path / "w.pt", device="cpu")
        with predictor.init_state(VIDEO) as state:
            predictor.add_new_points_or_box(state, 0, 1, points=POINT, labels=LABEL)
            predictor.add_new_mask(state, 0, 2, VIDEO[0, ..., 2] > 200)
            return [logits for _, _, logits in predictor.propagate_in_video(state)]

    wanted = masks()
    with changed():
        found = masks()
    for own, other in zip(wanted, found, strict=True):
        torch.testing.assert_close(other, own, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("frame", [1.0, "1", None, np.array([1, 2])])
def test_what_is_no_frame_is_told(predictor: I2VVideoPredictor, frame: Any) -> None:
    with (
        predictor.init_state(VIDEO) as state,
        pytest.raises(TypeError, match="frame_idx: expected a whole number, got"),
    ):
        predictor.add_new_points_or_box(state, frame, 1, points=POINT, labels=LABEL)
    with predictor.init_state(VIDEO) as state:
        assert predictor.add_new_points_or_box(state, np.int64(1), 1, points=POINT, labels=LABEL)[0] == 1


META = torch.device("meta")


def test_tensors_without_values_are_told_in_a_sentence(predictor: I2VVideoPredictor) -> None:
    images = I2VImagePredictor(predictor.model)
    images.set_image(VIDEO[0])
    clip, mask = torch.from_numpy(VIDEO), torch.zeros(48, 64)
    with predictor.init_state(VIDEO) as state:
        for call in (
            lambda: answer(predictor, points=torch.tensor(POINT, device=META), labels=LABEL),
            lambda: answer(predictor, points=POINT, labels=torch.tensor(LABEL, device=META)),
            lambda: answer(predictor, points=[torch.tensor(POINT[0], device=META)], labels=LABEL),
            lambda: answer(predictor, box=torch.tensor(BOX, device=META)),
            lambda: predictor.add_new_mask(state, 0, 1, mask.to(META)),
            lambda: predictor.add_new_mask(state, 0, 1, list(mask.to(META))),
            lambda: predictor.init_state(clip.to(META)),
            lambda: images.set_image(clip[0].to(META)),
            lambda: images.predict(torch.tensor(POINT, device=META), LABEL),
        ):
            with pytest.raises(ValueError, match=r"expected a tensor with values that can be read, got .*'meta'"):
                call()
        for wrong in (torch.tensor(0, device=META), torch.tensor(0).to(torch.complex64)):
            with pytest.raises(TypeError, match="frame_idx: expected a whole number"):
                predictor.add_new_points_or_box(state, wrong, 1, points=POINT, labels=LABEL)
            with pytest.raises(TypeError, match="object id: expected one integer"):
                predictor.add_new_points_or_box(state, 0, wrong, points=POINT, labels=LABEL)
    with pytest.raises(ValueError, match="expected point_coords to be numbers"):
        images.predict(torch.tensor(POINT).to(torch.complex64), LABEL)


def test_sparse_and_quantized_masks_and_frames_mean_the_same(predictor: I2VVideoPredictor) -> None:
    mask = torch.zeros(48, 64)
    mask[10:30, 8:24] = 1
    clip = torch.from_numpy(VIDEO).float() / 255
    quantized = torch.quantize_per_tensor(mask, 0.5, 0, torch.quint8)
    with predictor.init_state(clip) as state, predictor.init_state(clip.to_sparse()) as sparse:
        expected = predictor.add_new_mask(state, 0, 1, mask)[2]
        for own, given in ((state, mask.to_sparse()), (state, quantized), (sparse, mask)):
            assert torch.equal(predictor.add_new_mask(own, 0, 1, given)[2], expected)
