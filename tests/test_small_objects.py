"""Objects of a few pixels in a large video: they stay in view, and the caller is told what cannot be followed."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from support import make_predictor

from i2v.i2v_video_predictor import I2VVideoPredictor
from i2v.prompts.parsing import read_mask

FULL_HD = (1080, 1920)


@pytest.fixture(scope="module")
def predictor() -> I2VVideoPredictor:
    return make_predictor()


def small_mask(size: tuple[int, int], row: int, column: int, height: int, width: int) -> np.ndarray:
    mask = np.zeros(size, bool)
    mask[row : row + height, column : column + width] = True
    return mask


@pytest.mark.parametrize("size", [FULL_HD, (240, 320), (96, 64)])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (2, 2), (4, 4), (1, 40)])
@pytest.mark.parametrize("place", [(0.0, 0.0), (0.503, 0.371)])
def test_a_mask_of_a_few_pixels_is_in_view(
    predictor: I2VVideoPredictor, size: tuple[int, int], height: int, width: int, place: tuple[float, float]
) -> None:
    row, column = int(place[0] * (size[0] - height)), int(place[1] * (size[1] - width))
    mask = small_mask(size, row, column, height, width)
    with predictor.init_state(np.zeros((1, *size, 3), np.uint8)) as state:
        _, _, logits = predictor.add_new_mask(state, 0, 1, mask)
        shown = (logits[0, 0] > 0).numpy()
        assert predictor.frame_scores(state, 0)[1].object_score == pytest.approx(10)
    rows, columns = np.nonzero(shown)
    assert len(rows)
    # No further away than a few cells of 1/16 of the video: the tiny model has 16 x 16.
    assert abs(rows.mean() - (row + height / 2)) < 2 * size[0] / 16
    assert abs(columns.mean() - (column + width / 2)) < 2 * size[1] / 16


@pytest.mark.parametrize("image_size", [320, 1024])
@pytest.mark.parametrize("side", [2, 4, 8, 16])
def test_the_mask_for_the_model_has_a_cell_of_its_grid(image_size: int, side: int) -> None:
    binary = read_mask(small_mask(FULL_HD, 501, 703, side, side), FULL_HD, image_size, "mask")
    assert set(binary.unique().tolist()) == {0.0, 1.0}
    assert binary.sum() >= 16
    top, left = (int(axis.min()) for axis in np.nonzero(binary[0, 0].numpy()))
    assert abs(top - 501 * image_size / 1080) <= 8
    assert abs(left - 703 * image_size / 1920) <= 8


def test_masks_that_are_large_enough_stay_as_they_are() -> None:
    mask = small_mask((64, 64), 10, 20, 9, 7)
    np.testing.assert_array_equal(read_mask(mask, (64, 64), 64, "mask")[0, 0], mask)
    assert not read_mask(np.zeros((64, 64), bool), (64, 64), 64, "mask").any()


def test_the_caller_is_warned_of_objects_that_are_too_small(
    predictor: I2VVideoPredictor, caplog: pytest.LogCaptureFixture
) -> None:
    size = (128, 128)  # two pixels for each of the model's image, of which it follows 256
    with caplog.at_level(logging.WARNING), predictor.init_state(np.zeros((1, *size, 3), np.uint8)) as state:
        predictor.add_new_mask(state, 0, "large", small_mask(size, 10, 10, 40, 40))
        predictor.add_new_mask(state, 0, "gone", np.zeros(size, bool))
        predictor.add_new_points_or_box(state, 0, "large box", box=[10, 10, 60, 60])
        predictor.add_new_points_or_box(state, 0, "point", points=[[5, 5]], labels=[1])
        assert not caplog.records
        predictor.add_new_mask(state, 0, "small", small_mask(size, 10, 10, 20, 20))
        predictor.add_new_points_or_box(state, 0, "small box", box=[10, 10, 20, 26])
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 2
    assert messages[0].startswith("frame 0, object 'small': the object covers 1e+02 pixels of the model's image")
    assert messages[1].startswith("frame 0, object 'small box': the object covers 40 pixels")
