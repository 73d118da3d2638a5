"""Scores of trees: what counts, what is averaged, and what is an error."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from vos_support import disc_mask, make_label_tree, make_sav_tree, write_labels, write_mask

from sav_dataset.utils.sav_benchmark import EvaluationError, EvaluationSettings, benchmark, evaluate

ALL_FRAMES = EvaluationSettings(skip="none")
SHAPE = disc_mask(0, 0)
EMPTY = np.zeros_like(SHAPE)


def write_sequence(root: Path, kind: str, masks: list[np.ndarray], video: str = "v", obj: str = "000") -> None:
    for t, mask in enumerate(masks):
        write_mask(root / kind / video / obj / f"{t:05d}.png", mask)


def test_frames_count_from_the_first_pixel_on(tmp_path):
    write_sequence(tmp_path, "gt", [EMPTY, EMPTY, EMPTY, EMPTY, SHAPE, SHAPE])
    write_sequence(tmp_path, "pred", [EMPTY, EMPTY, SHAPE, EMPTY, SHAPE, EMPTY])
    scores = evaluate(tmp_path / "gt", tmp_path / "pred", ALL_FRAMES)
    (score,) = scores.objects
    assert [frame.frame for frame in score.frames] == [f"{t:05d}.png" for t in (2, 3, 4, 5)]
    assert [frame.j for frame in score.frames] == [frame.f for frame in score.frames] == [0, 1, 1, 0]
    assert (scores.j, scores.f, scores.jf) == (50, 50, 50)


def test_first_and_last_annotation_are_skipped_for_each_object(tmp_path):
    for t in range(4):
        write_mask(tmp_path / "gt" / "v" / "000" / f"{t:05d}.png", SHAPE)
        write_mask(tmp_path / "pred" / "v" / "000" / f"{t:05d}.png", SHAPE if t in (1, 2) else EMPTY)
    assert evaluate(tmp_path / "gt", tmp_path / "pred").jf == 100
    assert evaluate(tmp_path / "gt", tmp_path / "pred", ALL_FRAMES).jf == 50


def test_prompt_rule_skips_up_to_the_first_appearance(tmp_path):
    write_sequence(tmp_path, "gt", [EMPTY, SHAPE, SHAPE, SHAPE])
    write_sequence(tmp_path, "pred", [SHAPE, EMPTY, SHAPE, EMPTY])
    scores = evaluate(tmp_path / "gt", tmp_path / "pred", EvaluationSettings(skip="prompt"))
    assert [frame.frame for frame in scores.objects[0].frames] == ["00002.png", "00003.png"]
    assert scores.j == 50


def test_averages_are_over_objects_whatever_their_video(tmp_path):
    for video, obj, is_right in (("a", "000", True), ("a", "001", True), ("b", "000", False)):
        for t in range(3):
            write_mask(tmp_path / "gt" / video / obj / f"{t:05d}.png", SHAPE)
            write_mask(tmp_path / "pred" / video / obj / f"{t:05d}.png", SHAPE if is_right else EMPTY)
    jf, j, f, per_object = benchmark([tmp_path / "gt"], [tmp_path / "pred"], verbose=False)
    assert jf == j == f == [pytest.approx(200 / 3)]
    assert per_object == [{"a": ({"000": 100, "001": 100}, {"000": 100, "001": 100}), "b": ({"000": 0}, {"000": 0})}]


def test_label_images(tmp_path):
    gt = np.zeros((48, 64), np.uint8)
    gt[:10], gt[20:30] = 1, 2
    pred = np.where(gt == 2, 0, gt).astype(np.uint8)
    pred[40:] = 7
    for t in range(3):
        write_labels(tmp_path / "gt" / "v" / f"{t}.png", gt if t else np.where(gt == 2, 0, gt).astype(np.uint8))
        write_labels(tmp_path / "pred" / "v" / f"{t}.png", pred)
    scores = evaluate(tmp_path / "gt", tmp_path / "pred", ALL_FRAMES)
    assert [(s.obj, s.j, len(s.frames)) for s in scores.objects] == [("1", 100, 3), ("2", 0, 2)]
    assert scores.warnings == (
        "video v, object 7: predicted, but not annotated on the frames that count, so not scored",
    )

    merged = evaluate(tmp_path / "gt", tmp_path / "pred", EvaluationSettings(skip="none", single_object=True))
    assert [s.obj for s in merged.objects] == ["255"]
    assert merged.j == pytest.approx(100 * np.mean([10 / 18, 10 / 28, 10 / 28]))


@pytest.mark.parametrize(("true", "found"), [(1, 255), (255, 1), (1, 2)])
def test_trees_without_a_common_label_are_told(tmp_path: Path, true: int, found: int) -> None:
    for root, label in (("gt", true), ("pred", found)):
        for video in ("a", "b"):
            for t in range(3):
                write_labels(tmp_path / root / video / f"{t}.png", SHAPE * np.uint8(label if video == "a" else 1))
    scores = evaluate(tmp_path / "gt", tmp_path / "pred", ALL_FRAMES)
    assert {(score.video, score.j) for score in scores.objects} == {("a", 0), ("b", 100)}
    (told,) = (line for line in scores.warnings if "in common" in line)
    assert f"scores are 0, in a: in the first, annotations have label {true}, predictions {found}" in told
    assert "--single_object takes any label for the object" in told
    merged = evaluate(tmp_path / "gt", tmp_path / "pred", EvaluationSettings(skip="none", single_object=True))
    assert (merged.jf, merged.warnings) == (100, ())


def test_labels_of_several_objects_without_a_common_one_are_told(tmp_path: Path) -> None:
    other = disc_mask(1, 0)
    for root, first in (("gt", 1), ("pred", 38)):
        for t in range(3):
            write_labels(tmp_path / root / "v" / f"{t}.png", np.where(other, first + 1, SHAPE * first).astype(np.uint8))
    told = evaluate(tmp_path / "gt", tmp_path / "pred", ALL_FRAMES).warnings[0]
    assert "annotations have label 1, 2, predictions 38, 39; expected the same labels in both" in told


def test_processes_change_nothing(tmp_path):
    videos = {f"v{i}": (120, [0, 0]) for i in range(2)}
    root = make_sav_tree(tmp_path, videos)
    gt = root / "Annotations_6fps"
    for path in gt.rglob("*.png"):
        shifted = np.roll(np.asarray(Image.open(path)) > 0, 1 + int(path.stem) % 3, axis=1)
        write_mask(root / "pred" / path.relative_to(gt), shifted)
    alone = evaluate(gt, root / "pred", EvaluationSettings(num_processes=1))
    assert evaluate(gt, root / "pred", EvaluationSettings(num_processes=2)) == alone
    assert 20 < alone.jf < 90


@pytest.fixture
def trees(tmp_path: Path) -> tuple[Path, Path]:
    """Two equal trees, two videos with two objects."""
    for kind in ("gt", "pred"):
        for video in ("a", "b"):
            for obj in ("000", "001"):
                write_sequence(tmp_path, kind, [SHAPE] * 4, video, obj)
    return tmp_path / "gt", tmp_path / "pred"


def problems(trees: tuple[Path, Path], **settings) -> tuple[str, ...]:
    with pytest.raises(EvaluationError) as caught:
        evaluate(*trees, EvaluationSettings(**settings))
    return caught.value.problems


def test_missing_and_surplus_predictions_are_named(trees):
    _, pred = trees
    (pred / "a" / "000" / "00001.png").unlink()
    (pred / "b" / "001").rename(pred / "b" / "002")
    assert problems(trees) == (
        "video a, object 000: 1 of 2 predictions missing: 00001.png",
        "video b, object 001: 2 of 2 predictions missing: 00001.png, 00002.png",
        "video b, object 002: predicted, but not annotated",
    )


def test_missing_and_surplus_videos_are_named(trees):
    gt, pred = trees
    (pred / "a").rename(pred / "c")
    assert problems(trees) == (f"video a: no predictions in {pred}", f"video c: predicted, but not in {gt}")
    scores = evaluate(gt, pred, EvaluationSettings(strict=False))
    assert {score.video for score in scores.objects} == {"b"}
    assert scores.warnings == (f"video a: no predictions in {pred}", f"video c: predicted, but not in {gt}")
    assert evaluate(gt, pred, EvaluationSettings(strict=False), videos=["b"]).jf == 100


def test_wrong_files_are_named_all_at_once(trees):
    _, pred = trees
    write_mask(pred / "a" / "000" / "00001.png", SHAPE[:, :-1])
    (pred / "a" / "001" / "00002.png").write_bytes(b"no image")
    Image.fromarray(np.arange(48 * 64, dtype=np.uint8).reshape(48, 64)).save(pred / "b" / "000" / "00001.png")
    found = problems(trees)
    assert found[0] == (
        "video a, object 000, frame 00001.png: the prediction has 63x48 pixels, the annotation 64x48 pixels"
    )
    assert found[1].startswith("video a, object 001, frame 00002.png: ") and "cannot be read" in found[1]
    assert "expected a binary mask, got the values [0, 1, 2, 3, 4, 5, 6, 7]" in found[2]
    assert len(found) == 3


def test_one_bit_and_palette_predictions_are_the_same(trees):
    gt, pred = trees
    for path in (pred / "a").rglob("*.png"):
        Image.fromarray(SHAPE).save(path)
    for path in (pred / "b").rglob("*.png"):
        write_labels(path, SHAPE.astype(np.uint8))
    assert evaluate(gt, pred).jf == 100


def test_objects_never_seen_need_no_prediction(trees):
    gt, pred = trees
    write_sequence(gt.parent, "gt", [EMPTY] * 4, "a", "002")
    scores = evaluate(gt, pred)
    assert ("a", "002") not in {score.key for score in scores.objects}
    assert scores.warnings == ("video a, object 002: never seen on the frames that count, so not scored",)
    write_sequence(gt.parent, "pred", [SHAPE] * 4, "a", "002")
    assert evaluate(gt, pred).warnings == (
        "video a, object 002: predicted, but not annotated on the frames that count, so not scored",
    )


def test_objects_with_too_few_annotations_are_told(trees):
    gt, pred = trees
    write_sequence(gt.parent, "gt", [SHAPE] * 2, "a", "002")
    assert evaluate(gt, pred).warnings == ("video a, object 002: no annotated frame counts, so not scored",)


def test_frames_without_annotation_are_ignored(tmp_path):
    gt = make_label_tree(tmp_path / "gt", {"v": (9, [0])}, every=4) / "Annotations"
    pred = make_label_tree(tmp_path / "pred", {"v": (9, [0])}) / "Annotations"
    scores = evaluate(gt, pred, ALL_FRAMES)
    assert [frame.frame for frame in scores.objects[0].frames] == ["00000.png", "00004.png", "00008.png"]


def test_a_root_with_a_folder_of_annotations(tmp_path):
    root = make_label_tree(tmp_path, {"v": (5, [0])})
    assert evaluate(root, root / "Annotations").jf == 100


def test_bad_settings():
    with pytest.raises(ValueError, match="skip: expected one of first-last, prompt, none, got 'last'"):
        EvaluationSettings(skip="last")
    with pytest.raises(ValueError, match="num_processes: expected at least 1, got 0"):
        EvaluationSettings(num_processes=0)
    with pytest.raises(ValueError, match="mask_roots: expected 2"):
        benchmark(["a", "b"], ["c"])


def test_problems_of_all_kinds_are_named_in_one_round(trees):
    gt, pred = trees
    write_sequence(gt.parent, "gt", [SHAPE] * 4, "c")  # a video without predictions
    (pred / "a" / "000" / "00001.png").unlink()  # a frame without one
    write_mask(pred / "a" / "000" / "00002.png", SHAPE[:, :-1])  # the same object, elsewhere
    (pred / "b" / "001" / "00002.png").write_bytes(b"no image")  # another video
    found = problems(trees)
    assert found[:2] == (
        f"video c: no predictions in {pred}",
        "video a, object 000: 1 of 2 predictions missing: 00001.png",
    )
    assert found[2].startswith("video a, object 000, frame 00002.png: the prediction has 63x48 pixels")
    assert found[3].startswith("video b, object 001, frame 00002.png: ") and len(found) == 4


def test_videos_of_a_list_that_there_are_not_are_an_error_with_the_rest(trees):
    gt, pred = trees
    (pred / "b").rename(pred / "c")
    with pytest.raises(EvaluationError) as caught:
        evaluate(gt, pred, EvaluationSettings(strict=False), videos=["a", "b", "x"])
    assert caught.value.problems == (f"video x: not in {gt}",)


@pytest.mark.parametrize(("missing", "what"), [("gt", "annotations"), ("pred", "predictions")])
def test_a_tree_that_is_not_there_is_named(trees, missing, what):
    roots = {"gt": trees[0], "pred": trees[1], missing: trees[0].parent / "nowhere"}
    with pytest.raises(FileNotFoundError, match=f"nowhere: no folder of {what}"):
        evaluate(roots["gt"], roots["pred"])
