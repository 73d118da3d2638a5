"""The published table, the report, its pictures, and the averages of seen and unseen objects."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from PIL import Image
from vos_support import make_sav_tree, write_mask

from i2v.results.overlay import PALETTE
from sav_dataset.utils.contact_sheet import GT_LABEL, PRED_LABEL, ObjectPictures, draw_object, worst_frames
from sav_dataset.utils.report import ReportContents, group_table, published_table, write_report
from sav_dataset.utils.sav_benchmark import evaluate
from sav_dataset.utils.scores import FrameScore, ObjectScore, Scores, overall


def frame(number: int, value: float) -> FrameScore:
    return FrameScore(f"{number:05d}.png", value, value, True, True)


def test_published_table():
    scores = Scores(
        (
            ObjectScore("vidA", "000", 100.0, 100.0, (frame(0, 1.0),)),
            ObjectScore("vidA", "1", 78.6, 45.4, (frame(0, 0.6),)),
        )
    )
    assert published_table(scores) == (
        "sequence    ,obj,  J&F,    J,    F\n"
        "Global score,   , 81.0, 89.3, 72.7\n"
        "vidA        ,000, 100.0, 100.0, 100.0\n"
        "vidA        ,001, 62.0, 78.6, 45.4\n"
    )


def test_seen_and_unseen_parts_weigh_the_same():
    values = {("a", "1"): (90, 80), ("a", "2"): (70, 60), ("b", "1"): (20, 10)}
    scores = Scores(tuple(ObjectScore(*key, *jf, (frame(0, 1.0),)) for key, jf in values.items()))
    parts = scores.split({("b", "1"), ("c", "9")})
    assert {name: (part.j, part.f) for name, part in parts.items()} == {"seen": (80, 70), "unseen": (20, 10)}
    assert overall(parts.values()) == 45
    assert group_table(parts).splitlines()[1:] == ["unseen  J: 20.0  F: 10.0  (1 objects)", "mean of these: 45.0"]
    assert list(scores.split(set())) == ["seen"]


def test_worst_frame_of_each_stretch():
    score = ObjectScore("v", "0", 0, 0, tuple(frame(i, value) for i, value in enumerate([9, 1, 5, 4, 7, 8])))
    assert [found.frame for found in worst_frames(score, 3)] == ["00001.png", "00003.png", "00004.png"]
    short = ObjectScore("v", "0", 0, 0, (frame(0, 1.0), frame(1, 0.0)))
    assert len(worst_frames(short)) == 2


@pytest.fixture
def trees(tmp_path):
    """Twelve videos, predictions ever farther off, and one object that is right."""
    root = make_sav_tree(tmp_path / "data", {f"v{i:02d}": (13, [0]) for i in range(12)})
    gt = root / "Annotations_6fps"
    for path in gt.rglob("*.png"):
        shift = int(path.parents[1].name[1:])
        mask = np.roll(np.asarray(Image.open(path)) > 0, shift, axis=1)
        write_mask(tmp_path / "pred" / path.relative_to(gt), mask)
    return gt, tmp_path / "pred", root / "JPEGImages_24fps"


def test_report_is_worst_first(trees, tmp_path):
    gt, pred, images = trees
    scores = evaluate(gt, pred)
    contents = ReportContents(scores, {}, {"seconds": 1.5})
    write_report(tmp_path / "report", contents, ObjectPictures(gt, pred, images))
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    assert [entry["video"] for entry in report["objects"]] == [f"v{i:02d}" for i in reversed(range(12))]
    assert report["videos"][0]["video"] == "v11"
    assert (report["J&F"], report["num_objects"], report["seconds"]) == (scores.jf, 12, 1.5)
    assert report["objects"][-1]["J"] == 100
    assert [f["frame"] for f in report["objects"][0]["frames"]] == ["00004.png", "00008.png"]

    with (tmp_path / "report" / "objects.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert float(rows[0]["J"]) == scores.worst_first()[0].j
    assert rows[0]["worst frame"] in ("00004.png", "00008.png")
    pictures = sorted(path.name for path in (tmp_path / "report" / "worst").iterdir())
    assert pictures == [f"{place:02d}_v{12 - place:02d}_000.png" for place in range(1, 11)]

    write_report(tmp_path / "report", contents, ObjectPictures(gt, pred, images), num_worst=2)
    assert len(list((tmp_path / "report" / "worst").iterdir())) == 2


def colours(picture: np.ndarray) -> set[tuple[int, ...]]:
    return {tuple(colour) for colour in picture.reshape(-1, 3).tolist()}


def test_picture_shows_image_truth_and_prediction(trees):
    gt, pred, images = trees
    score = evaluate(gt, pred).worst_first()[0]
    page = np.asarray(draw_object(score, ObjectPictures(gt, pred, images)))
    third = (len(page) - 40) // 3
    rows = [colours(page[40 + i * third : 40 + (i + 1) * third]) for i in range(3)]
    truth, prediction = (tuple(PALETTE[label].tolist()) for label in (GT_LABEL, PRED_LABEL))
    assert [truth in row for row in rows] == [False, True, False]
    assert [prediction in row for row in rows] == [False, False, True]
    grey = np.asarray(draw_object(score, ObjectPictures(gt, pred, None)))
    assert grey.shape == page.shape and not np.array_equal(grey, page)
