"""The table of fine-tuning runs reads what runs write."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tools import finetuning_table


def write_run(folder: Path, scores: list[float], seconds: list[float]) -> None:
    (folder / "logs").mkdir(parents=True)
    lines = [json.dumps({"step": i, "J&F": score}) for i, score in enumerate(scores)]
    (folder / "logs" / "val_stats.jsonl").write_text("\n".join(lines) + "\n")
    lines = [json.dumps({"step": i, "seconds": s, "memory_gib": 1.0 + i}) for i, s in enumerate(seconds)]
    (folder / "logs" / "train_stats.jsonl").write_text("\n".join(lines) + "\n")


def test_a_row_for_each_kind_that_was_trained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(tmp_path / "lora", [60.0, 72.25, 71.0], [3.0, 1.0, 2.0])
    write_run(tmp_path / "all", [60.0, 50.0], [4.0])
    assert finetuning_table.main([str(tmp_path)]) == 0
    assert capsys.readouterr().out.splitlines()[2:] == [
        "| all | 60.0 | 60.0 | 1.0 GiB | 4.00 s |",
        "| lora | 60.0 | 72.2 | 3.0 GiB | 2.00 s |",
    ]


def test_a_damaged_log_is_named_and_no_folder_is_wrong_usage(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(tmp_path / "all", [60.0], [4.0])
    (tmp_path / "all" / "logs" / "val_stats.jsonl").write_text("{\n")
    assert finetuning_table.main([str(tmp_path)]) == 1
    assert "val_stats.jsonl" in capsys.readouterr().err
    assert finetuning_table.main([]) == 2
