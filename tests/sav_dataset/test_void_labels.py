"""Void pixels: which labels they are, and that they count neither for nor against a prediction."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from vos_support import write_labels, write_mask

from sav_dataset.sav_evaluator import main
from sav_dataset.utils.mask_files import MaskVideo
from sav_dataset.utils.sav_benchmark import EvaluationSettings, evaluate
from sav_dataset.utils.void_labels import read_ignore_labels, void_labels
from tools.benchmarks.eval import plain_boundary, plain_region
from tools.save_gt_mask_multiprocess import collect_objects

ALL_FRAMES = EvaluationSettings(skip="none", num_processes=1)


def scene(shift: int = 0) -> NDArray[np.uint8]:
    """Two objects; a band of void around the first."""
    labels = np.zeros((48, 64), np.uint8)
    labels[6:30, 6 + shift : 34 + shift] = 255
    labels[10:26, 10 + shift : 30 + shift] = 1
    labels[34:44, 40:60] = 2
    return labels


def write(root: Path, frames: list[NDArray[np.uint8]], video: str = "v") -> Path:
    for t, labels in enumerate(frames):
        write_labels(root / video / f"{t:05d}.png", labels)
    return root


def scores_of(gt: Path, pred: Path, **settings: object) -> dict[str, tuple[float, float]]:
    found = evaluate(gt, pred, EvaluationSettings(skip="none", num_processes=1, **settings))  # type: ignore[arg-type]
    return {score.obj: (score.j, score.f) for score in found.objects}


@pytest.mark.parametrize(
    ("frames", "expected"),
    [
        ([[0, 255], [0, 1]], {255}),  # also where the label is on another frame
        ([[1, 2]], {255}),
        ([[0, 255], [255], [0]], set()),
        ([], set()),
    ],
)
def test_255_is_void_beside_other_labels_only(frames: list[list[int]], expected: set[int]) -> None:
    assert void_labels(frames) == expected


def test_no_more_frames_are_read_than_decide() -> None:
    frames = iter([[0, 255], [0, 3], [0, 4]])
    void_labels(frames)
    assert list(frames) == [[0, 4]]


@pytest.mark.parametrize("with_band", [True, False])
def test_a_perfect_prediction_scores_100(tmp_path: Path, with_band: bool) -> None:
    frames = [scene(t) for t in range(4)]
    gt = write(tmp_path / "gt", frames)
    pred = write(
        tmp_path / "pred", frames if with_band else [np.where(f == 255, 0, f).astype(np.uint8) for f in frames]
    )
    assert scores_of(gt, pred) == {"1": (100, 100), "2": (100, 100)}


def test_void_pixels_are_left_out_of_both_masks(tmp_path: Path) -> None:
    frames = [scene(t) for t in range(4)]
    found = []
    for labels in frames:
        prediction = np.zeros_like(labels)
        prediction[7:33, 7:33] = 1  # reaches into the band, and beyond it
        prediction[34:44, 44:60] = 2
        found.append(prediction)
    gt, pred = write(tmp_path / "gt", frames), write(tmp_path / "pred", found)
    # As DAVIS does: neither the prediction nor the object has the pixels of the band.
    pairs = [
        (labels == 1, (prediction == 1) & (labels != 255)) for labels, prediction in zip(frames, found, strict=True)
    ]
    j = 100 * np.mean([plain_region(true, seen) for true, seen in pairs])
    f = 100 * np.mean([plain_boundary(true, seen) for true, seen in pairs])
    assert scores_of(gt, pred)["1"] == pytest.approx((j, f))
    with_void = scores_of(gt, pred, ignore_labels=())
    assert with_void["1"][0] < j and "255" in with_void


def test_masks_of_0_and_255_score_as_before(tmp_path: Path) -> None:
    masks = [np.where(scene(t) == 1, 255, 0).astype(np.uint8) for t in range(4)]
    gt = write(tmp_path / "gt", masks)
    pred = write(tmp_path / "pred", [np.roll(mask, 3, axis=1) for mask in masks])
    ((obj, (j, _)),) = scores_of(gt, pred).items()
    assert (obj, j) == ("255", pytest.approx(100 * 17 / 23))
    assert scores_of(gt, pred, ignore_labels=()) == scores_of(gt, pred)


def test_a_single_object_is_made_of_all_labels_unless_some_are_ignored(tmp_path: Path) -> None:
    gt = write(tmp_path / "gt", [scene()])
    whole = write(tmp_path / "whole", [np.where(scene() > 0, 255, 0).astype(np.uint8)])
    without = write(tmp_path / "without", [np.where(scene() % 255 > 0, 1, 0).astype(np.uint8)])
    assert scores_of(gt, whole, single_object=True) == {"255": (100, 100)}
    assert scores_of(gt, without, single_object=True, ignore_labels=(255,)) == {"255": (100, 100)}


def test_masks_in_folders_of_objects_have_no_void(tmp_path: Path) -> None:
    mask = scene() == 1
    for root in ("gt", "pred"):
        for t in range(4):
            write_mask(tmp_path / root / "v" / "000" / f"{t:05d}.png", mask)
    found = evaluate(tmp_path / "gt", tmp_path / "pred", EvaluationSettings(skip="none", ignore_labels=(255,)))
    assert (found.jf, found.warnings) == (100, ())


def test_the_rule_is_said_where_it_applies(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gt = write(tmp_path / "gt", [scene(t) for t in range(4)])
    write(gt, [scene() % 255] * 4, "without")
    arguments = ["--gt_root", str(gt), "--pred_root", str(gt), "-n", "1", "--output", str(tmp_path / "out.csv")]
    arguments += ["--report", str(tmp_path / "report")]
    assert main(arguments) == 0
    printed = capsys.readouterr()
    assert "Global score: J&F: 100.0" in printed.out
    assert "left out of the scores of 1 of 2 videos (v)" in printed.err
    assert main([*arguments, "--ignore_labels", "none"]) == 0
    printed = capsys.readouterr()
    assert "void" not in printed.err and "v           ,255, 100.0" in printed.out
    assert main([*arguments, "--ignore_labels", "2,255"]) == 0
    assert "labels 2, 255 are void" in capsys.readouterr().err
    assert main([*arguments, "--ignore_labels", "256"]) == 1
    assert "ignore_labels: expected labels from 1 to 255" in capsys.readouterr().err


def test_prompts_and_mask_info_leave_void_out(tmp_path: Path) -> None:
    video = MaskVideo.open(write(tmp_path, [scene(t) for t in range(3)]) / "v")
    assert [obj for obj, _, _ in video.first_masks()] == ["1", "2"]
    assert video.has_void()
    assert [info.name for info in collect_objects(video)] == ["1", "2"]


def test_a_damaged_file_does_not_hide_what_is_wrong_elsewhere(tmp_path: Path) -> None:
    gt = write(tmp_path / "gt", [scene(t) for t in range(5)])
    pred = write(tmp_path / "pred", [scene(t) for t in range(5)])
    (gt / "v" / "00000.png").write_bytes(b"no picture")
    (pred / "v" / "00002.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"frame 00000.png(?s:.*)frame 00002.png"):
        evaluate(gt, pred, ALL_FRAMES)


@pytest.mark.parametrize("text", ["", "0", "256", "1,,2", "-1", "void", "²"])
def test_labels_that_there_are_not(text: str) -> None:
    with pytest.raises(ValueError, match="ignore_labels"):
        read_ignore_labels(text)


def test_labels_of_an_option() -> None:
    assert (read_ignore_labels("none"), read_ignore_labels("255, 7,255")) == ((), (7, 255))
