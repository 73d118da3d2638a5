"""What a run writes down, and that a resumed one goes on in the same files."""

from __future__ import annotations

import builtins
import json
import logging
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from train_support import make_clip

from train.metrics import MetricLog, RunningMeans, draw_clip, peak_memory


def test_means_since_they_were_last_taken() -> None:
    means = RunningMeans()
    means.add({"a": 1.0, "b": 5.0})
    means.add({"a": 2.0})
    assert means.take() == {"a": 1.5, "b": 5.0}
    means.add({"a": 7.0})
    later = RunningMeans(means.state)
    later.add({"a": 8.0})
    assert later.take() == {"a": 7.5} and means.take() == {"a": 7.0}


def test_lines_of_lost_steps_are_dropped_on_resuming(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    log = MetricLog(tmp_path / "logs", tensorboard=False)
    log.begin()
    for step in (1, 2, 3):
        log.write("train", step, {"loss": step / 3})
    path = tmp_path / "logs" / "train_stats.jsonl"
    with path.open("a") as file:
        file.write('{"step": 4, "lo')
    log = MetricLog(tmp_path / "logs", tensorboard=False)
    log.begin(resumed_step=2)
    log.write("train", 3, {"loss": 9.0})
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert lines == [{"step": 1, "loss": 1 / 3}, {"step": 2, "loss": 2 / 3}, {"step": 3, "loss": 9.0}]
    assert "incomplete line" in caplog.text


def test_other_processes_write_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    log = MetricLog(None)
    log.begin()
    log.write("train", 1, {"loss": 1.0})
    assert not log.takes_pictures and list(log.bar([1, 2], 2, 0, "steps")) == [1, 2]
    log.close()
    assert list(tmp_path.iterdir()) == []


def test_without_tensorboard_there_is_a_hint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    original = builtins.__import__

    def refuse(name: str, *arguments: Any, **keywords: Any) -> Any:
        if name.startswith(("torch.utils.tensorboard", "tensorboard")):
            raise ImportError(name)
        return original(name, *arguments, **keywords)

    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard", raising=False)
    monkeypatch.setattr(builtins, "__import__", refuse)
    with caplog.at_level(logging.WARNING):
        log = MetricLog(tmp_path / "logs")
        log.begin()
    assert "pip install tensorboard" in caplog.text and not log.takes_pictures
    log.curves(1, {"lr": 1.0})


def test_tensorboard_gets_curves_and_pictures(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log = MetricLog(tmp_path / "logs")
    log.begin()
    log.write("train", 3, {"loss": 0.5})
    log.curves(3, {"lr/all": 1e-3})
    clip = make_clip(2)
    log.picture("train/masks", 3, draw_clip(clip, clip.masks))
    log.close()
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(e.step, e.value) for e in events.Scalars("train/loss")] == [(3, 0.5)]
    assert set(events.Tags()["scalars"]) == {"train/loss", "lr/all"}
    assert [e.step for e in events.Images("train/masks")] == [3]


def test_a_picture_shows_truth_above_and_what_was_found_below() -> None:
    clip = make_clip(3)
    picture = draw_clip(clip, torch.zeros_like(clip.masks))
    assert picture.shape == (3, 2 * 64, 3 * 64)
    assert picture.min() >= 0 and picture.max() <= 1
    upper, lower = picture[:, :64, :64], picture[:, 64:, :64]
    inside = clip.masks[0, 0]
    assert torch.equal(upper[:, ~inside], lower[:, ~inside])
    assert (upper[1, inside] > 0.5 * lower[1, inside]).all() and not torch.equal(upper, lower)


def test_peak_memory_is_that_of_this_process() -> None:
    assert 2**26 < peak_memory(torch.device("cpu")) < 2**36
