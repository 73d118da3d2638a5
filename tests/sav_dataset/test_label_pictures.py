"""What pictures mean as labels of custom data: soft edges are refused, what is transparent is background."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter
from train_support import write_held_out

from i2v.errors import InvalidFileError
from sav_dataset.utils.label_pictures import read_binary, read_labels
from sav_dataset.utils.sav_benchmark import EvaluationSettings, evaluate
from train.dataset.survey import survey
from train.dataset.vos_raw_dataset import PNGRawDataset
from train.dataset.vos_segment_loader import MultiplePNGSegmentLoader
from train.validation import find_videos

SQUARE = np.zeros((60, 80), np.uint8)
SQUARE[20:40, 30:60] = 255


def test_soft_edges_are_no_labels(tmp_path: Path) -> None:
    path = tmp_path / "00000.png"
    Image.fromarray(SQUARE).filter(ImageFilter.GaussianBlur(1.5)).save(path)
    with pytest.raises(InvalidFileError, match=r"00000\.png: grey levels .*expected labels, or black and white"):
        read_labels(path)


def test_label_pictures_of_many_labels_stay(tmp_path: Path) -> None:
    labels = np.kron(np.random.default_rng(0).integers(0, 256, (15, 20)), np.ones((4, 4), int)).astype(np.uint8)
    for name, values in (("many.png", labels), ("few.png", SQUARE // 255 * 3), ("white.png", SQUARE)):
        Image.fromarray(values).save(tmp_path / name)
        np.testing.assert_array_equal(read_labels(tmp_path / name), values)


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_what_is_transparent_is_background(tmp_path: Path, mode: str) -> None:
    image = Image.new(mode[:-1], (80, 60), "white")
    image.putalpha(Image.fromarray(SQUARE))
    image.save(tmp_path / "cut_out.png")
    labels = read_labels(tmp_path / "cut_out.png")
    np.testing.assert_array_equal(labels > 0, SQUARE > 0)
    assert len(np.unique(labels)) == 2


# What else holds labels is read alike by training, validation, testing and scoring: see also test_video_job.py.


def as_colours(labels: np.ndarray) -> Image.Image:
    """Labels 1 and 2 as red and as a dark blue."""
    return Image.fromarray(np.array([[0, 0, 0], [200, 0, 0], [0, 0, 255]], np.uint8)[labels])


def as_16_bits(labels: np.ndarray) -> Image.Image:
    """Labels 1 and 2 as 255 and 30000."""
    return Image.fromarray(np.array([0, 255, 30000], np.uint16)[labels])


@pytest.mark.parametrize(
    ("convert", "names"), [(as_colours, [200 << 16, 255]), (as_16_bits, [255, 30000])], ids=["RGB", "16 bits"]
)
def test_pictures_of_more_than_8_bits(
    tmp_path: Path, convert: Callable[[np.ndarray], Image.Image], names: list[int]
) -> None:
    images, annotations = write_held_out(tmp_path)
    for path in sorted((annotations / "discs").iterdir()):
        convert(np.asarray(Image.open(path))).save(path)
    trained = survey(PNGRawDataset(images, annotations), 3)
    assert [(video.problem, video.objects, video.void) for video in trained.videos] == [
        (None, tuple(sorted(names)), ())
    ]
    (held_out,) = find_videos(images, annotations)
    assert [obj for obj, *_ in held_out.masks.first_masks()] == sorted(map(str, names), key=int)
    scores = evaluate(annotations, annotations, EvaluationSettings(num_processes=1))
    assert [(score.obj, score.jf) for score in scores.objects] == [(str(name), 100) for name in sorted(names)]
    assert scores.warnings == ()
    merged = evaluate(annotations, annotations, EvaluationSettings(num_processes=1, single_object=True))
    assert [(score.obj, score.jf) for score in merged.objects] == [("255", 100)]


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
def test_masks_in_folders_of_objects(tmp_path: Path, mode: str) -> None:
    mask = Image.fromarray(SQUARE).convert(mode)
    mask.save(tmp_path / "mask.png")
    np.testing.assert_array_equal(read_binary(tmp_path / "mask.png"), SQUARE > 0)


def test_several_labels_in_a_folder_of_an_object_are_an_error_in_training_too(tmp_path: Path) -> None:
    (tmp_path / "v" / "1").mkdir(parents=True)
    path = tmp_path / "v" / "1" / "00000.png"
    labels = SQUARE // 255
    labels[:5, :5] = 2
    Image.fromarray(labels).save(path)
    with pytest.raises(InvalidFileError, match=r"00000\.png: expected a binary mask, got the values \[0, 1, 2\]"):
        MultiplePNGSegmentLoader({1: {0: path}}).visible(0)


def test_only_pngs_are_annotations(tmp_path: Path) -> None:
    Image.fromarray(SQUARE).save(tmp_path / "a.png", "JPEG")
    for read in (read_labels, read_binary):
        with pytest.raises(InvalidFileError, match=r"a\.png: .*it is none of PNG"):
            read(tmp_path / "a.png")
