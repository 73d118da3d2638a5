"""The baselines do what their names say, and the evaluator takes what they write."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from vos_support import make_label_tree, make_sav_tree

from i2v.results.export import read_label_png
from i2v.video.frame_source import FrameArray
from sav_dataset.utils.sav_benchmark import EvaluationSettings, evaluate
from test_pvs.prompts import Target
from tools.baselines import BASELINES, FlowWarp, follow, keep, main

ROOT = Path(__file__).parents[2]
HEIGHT, WIDTH, STEP = 96, 128, 3


def textured(shift: int) -> NDArray[np.uint8]:
    """A picture (H,W,3) of blurred noise that has moved to the right."""
    noise = np.random.default_rng(0).random((HEIGHT // 4, WIDTH // 2)).astype(np.float32)
    wide = np.asarray(Image.fromarray(noise).resize((2 * WIDTH, HEIGHT), Image.Resampling.BICUBIC))
    grey = (255 * wide[:, WIDTH // 2 - shift : 3 * WIDTH // 2 - shift]).clip(0, 255).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2)


def box(left: int, width: int = 30) -> NDArray[np.bool_]:
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[30:70, left : left + width] = True
    return mask


def test_copies_stay_and_flow_moves_with_the_picture() -> None:
    video = FrameArray(np.stack([textured(STEP * t) for t in range(6)]))
    targets = [Target("7", 0, box(40))]
    copied = list(follow(video, targets, keep))
    assert all((labels == 7 * box(40)).all() for labels in copied)
    pytest.importorskip("cv2")
    for name in ("flow", "flow-fine"):
        carried = list(follow(video, targets, BASELINES[name]()))
        for t, labels in enumerate(carried):
            assert set(np.unique(labels)) == {0, 7}
            # Within a pixel along the edges of the box; copying would be off by 3 a frame.
            assert np.count_nonzero((labels == 7) != box(40 + STEP * t)) <= 90


def test_objects_begin_where_they_are_first_seen_and_cover_others() -> None:
    video = FrameArray(np.stack([textured(0)] * 4))
    early, late = box(20), box(40)
    first, second, third, fourth = follow(video, [Target("1", 1, early), Target("2", 2, late)], keep)
    assert not first.any()
    np.testing.assert_array_equal(second, early * 1)
    np.testing.assert_array_equal(third, np.where(late, 2, early * 1))
    np.testing.assert_array_equal(fourth, third)


def test_a_mask_that_leaves_the_picture_does_not_come_back() -> None:
    pytest.importorskip("cv2")
    video = FrameArray(np.stack([textured(4 * t) for t in range(16)]))
    labels = list(follow(video, [Target("1", 0, box(84))], FlowWarp("medium", finest_scale=0, refine=False)))
    areas = [int((label > 0).sum()) for label in labels]
    assert areas[0] == 40 * 30
    assert areas[-1] < 0.1 * areas[0]


def test_masks_of_another_size_are_an_error() -> None:
    video = FrameArray(np.stack([textured(0)] * 2))
    with pytest.raises(ValueError, match=r"array, object 1: the annotation has 128x95 pixels, the frames 128x96"):
        next(follow(video, [Target("1", 0, box(10)[:-1])], keep))


def test_the_command_writes_trees_that_the_evaluator_scores(tmp_path: Path) -> None:
    root = make_label_tree(tmp_path / "data", {"a": (8, [0, 3]), "b": (5, [0])})
    out = tmp_path / "copy"
    command = [sys.executable, "tools/baselines.py", "copy", "--data_root", str(root), "--output", str(out)]
    finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (finished.returncode, finished.stdout) == (0, f"2 videos in {out}\n"), finished.stderr
    assert sorted(path.name for path in (out / "a").iterdir()) == [f"{t:05d}.png" for t in range(8)]
    scores = evaluate(root / "Annotations", out, EvaluationSettings(num_processes=1))
    by_object = {(score.video, score.obj): score.j for score in scores.objects}
    # The discs drift by half a pixel a frame: what begins later is behind by less.
    assert 60 < by_object["a", "1"] < by_object["a", "2"] < 100
    first, last = (read_label_png(out / "a" / name) for name in ("00000.png", "00007.png"))
    assert set(np.unique(first)) == {0, 1} and set(np.unique(last)) == {0, 1, 2}
    np.testing.assert_array_equal(first == 1, last == 1)


def test_what_is_there_stays_unless_told_otherwise(tmp_path: Path) -> None:
    root = make_label_tree(tmp_path / "data", {"a": (3, [0])})
    command = ["copy", "--data_root", str(root), "--output", str(tmp_path / "out")]
    assert main(command) == 0
    file = tmp_path / "out" / "a" / "00001.png"
    made = file.read_bytes()
    file.write_bytes(b"changed")
    assert main(command) == 0
    assert file.read_bytes() == b"changed"
    assert main([*command, "--overwrite"]) == 0
    assert file.read_bytes() == made


def test_mistakes_are_told_in_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make_label_tree(tmp_path / "data", {"a": (3, [9])})
    command = ["copy", "--data_root", str(root), "--output", str(tmp_path / "out")]
    assert main(command) == 1
    assert capsys.readouterr().err.endswith("Annotations/a: no object is annotated\n")
    assert not (tmp_path / "out" / "a").exists()
    sav = make_sav_tree(tmp_path / "sav", {"v": (4, [0])})
    with pytest.raises(SystemExit):
        main(["copy", "--dataset", "sav", "--data_root", str(sav), "--output", str(tmp_path / "out")])
    monkeypatch.setitem(sys.modules, "cv2", None)
    assert main(["flow", *command[1:]]) == 1
    assert "optical flow needs OpenCV: pip install opencv-python-headless" in capsys.readouterr().err
