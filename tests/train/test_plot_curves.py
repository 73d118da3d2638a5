"""Curves of several runs become one picture."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from train.scripts import plot_curves


def write_log(run: Path, *steps: int) -> None:
    (run / "logs").mkdir(parents=True)
    lines = [{"step": s, "loss_mask": 9 / s, "loss_iou": 0.1, "loss_class": 1.0, "lr": 1e-3} for s in steps]
    (run / "logs" / "train_stats.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_stages_make_one_picture(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    write_log(tmp_path / "1", 10, 20)
    write_log(tmp_path / "2", 5, 10, 15)
    output = tmp_path / "curves.png"
    assert plot_curves.main([str(tmp_path / "1"), str(tmp_path / "2"), "--output", str(output)]) == 0
    with Image.open(output) as image:
        assert image.width == 1320 and len(image.convert("RGB").getcolors(1 << 20) or []) > 10


def test_a_stage_that_goes_on_from_another_run_leaves_no_gap() -> None:
    logs = [[{"step": step} for step in steps] for steps in ((10, 20), (5, 10, 15), (40, 50), (7,))]
    assert plot_curves.count_on(logs) == [[10, 20], [25, 30, 35], [45, 55], [62]]


def test_a_run_without_a_log_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert plot_curves.main([str(tmp_path / "none"), "--output", str(tmp_path / "a.png")]) == 1
    assert "none/logs/train_stats.jsonl" in capsys.readouterr().err
    assert not (tmp_path / "a.png").exists()
