"""The evaluator's command line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from vos_support import make_label_tree, make_sav_tree

from sav_dataset import sav_evaluator
from sav_dataset.sav_evaluator import main

ROOT = Path(__file__).parents[2]


@pytest.fixture
def sav(tmp_path):
    return make_sav_tree(tmp_path / "sav", {"v": (13, [0, 0])})


def test_prints_and_saves(sav, tmp_path, capsys):
    gt, pred = sav / "Annotations_6fps", tmp_path / "pred"
    (sav / "Annotations_6fps").rename(pred)
    make_sav_tree(tmp_path / "again", {"v": (13, [0, 0])}).joinpath("Annotations_6fps").rename(gt)
    assert main(["--gt_root", str(gt), "--pred_root", str(pred), "-n", "1"]) == 0
    printed = capsys.readouterr().out
    assert "Summary:\nGlobal score: J&F: 100.0 J: 100.0 F: 100.0\n" in printed
    assert "v           ,001, 100.0, 100.0, 100.0" in printed
    assert (pred / "results.csv").read_text() in printed
    report = json.loads((tmp_path / "pred_report" / "report.json").read_text())
    assert (report["skip"], report["num_videos"]) == ("first-last", 1)
    assert len(list((tmp_path / "pred_report" / "worst").iterdir())) == 2
    # The report and the table do not disturb a second evaluation.
    assert main(["--gt_root", str(gt), "--pred_root", str(pred), "-q", "--do_not_skip_first_and_last_frame"]) == 0
    quiet = capsys.readouterr().out
    assert quiet.startswith("Summary:") and "v  " not in quiet
    assert json.loads((tmp_path / "pred_report" / "report.json").read_text())["skip"] == "none"


def test_problems_end_it_with_their_names(sav, tmp_path, capsys):
    (tmp_path / "pred").mkdir()
    gt = str(sav / "Annotations_6fps")
    assert main(["--gt_root", gt, "--pred_root", str(tmp_path / "pred")]) == 1
    assert "video v: no predictions in" in capsys.readouterr().err
    assert not list((tmp_path / "pred").iterdir())
    assert main(["--gt_root", gt, "--pred_root", str(tmp_path / "nowhere")]) == 1
    assert "nowhere" in capsys.readouterr().err
    assert main(["--pred_root", gt]) == 1
    assert "expected --gt_root, or --dataset and --data_root" in capsys.readouterr().err


def test_seen_and_unseen(tmp_path, capsys):
    root = make_label_tree(tmp_path, {"a": (6, [0, 2])}, folders="valid")
    objects = {"1": {"category": "dog"}, "2": {"category": "yak"}}
    (root / "valid" / "meta.json").write_text(json.dumps({"videos": {"a": {"objects": objects}}}))
    (root / "seen.txt").write_text("dog\n")
    arguments = ["--dataset", "ytvos", "--data_root", str(root), "--pred_root", str(root / "valid" / "Annotations")]
    assert main([*arguments, "--seen", str(root / "seen.txt")]) == 0
    printed = capsys.readouterr().out
    assert "seen    J: 100.0  F: 100.0  (1 objects)\nunseen  J: 100.0" in printed
    (root / "unseen.txt").write_text("a\n")
    assert main([*arguments, "--unseen_videos", str(root / "unseen.txt")]) == 0
    assert "unseen  J: 100.0  F: 100.0  (2 objects)" in capsys.readouterr().out


def test_runs_as_a_script_anywhere(sav, tmp_path):
    command = [sys.executable, str(ROOT / "sav_dataset" / "sav_evaluator.py"), "--gt_root", "Annotations_6fps"]
    command += ["--pred_root", "Annotations_6fps", "--output", str(tmp_path / "out.csv")]
    command += ["--report", str(tmp_path / "report")]
    finished = subprocess.run(command, cwd=sav, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    assert (tmp_path / "out.csv").read_text().startswith("sequence    ,obj,  J&F,    J,    F\nGlobal score,")


def test_outputs_are_checked_before_anything_is_scored(sav, tmp_path, capsys, monkeypatch):
    tree = str(sav / "Annotations_6fps")
    (tmp_path / "file").touch()
    monkeypatch.setattr(sav_evaluator, "evaluate", lambda *args: pytest.fail("scored"))
    for option in ("--output", "--report"):
        assert main(["--gt_root", tree, "--pred_root", tree, option, str(tmp_path / "file" / "x" / "y")]) == 1
        told = capsys.readouterr().err
        assert f"{tmp_path / 'file'} is a file" in told and told.count("\n") == 1
    monkeypatch.undo()
    table = tmp_path / "new" / "folder" / "table.csv"
    assert main(["--gt_root", tree, "--pred_root", tree, "--output", str(table), "-q", "-n", "1"]) == 0
    assert "100.0" in table.read_text()
