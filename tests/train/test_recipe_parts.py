"""Parts of a recipe that any training can use: averaged weights, warm-up, a limit of time, prompts for many objects."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn
from train_support import make_clip, tiny_run

from i2v.checkpoint import CheckpointError, read_checkpoint, save_checkpoint
from train.build import build_trainer
from train.distributed import joined
from train.launch import StopRequest
from train.model.prompt_simulator import BatchedUsers, PerObjectUsers, middle_points
from train.optimizer import Rule
from train.weight_average import WeightAverage


def test_the_average_forgets_the_first_weights() -> None:
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    average = WeightAverage(model, decay=0.998)
    for _ in range(100):
        nn.init.ones_(model.weight)
        average.update(model)

    # A plain average of decay 0.998 would still hold 82 % of a start at 0.
    assert average.model.weight.item() > 0.99
    with pytest.raises(ValueError, match="decay"):
        WeightAverage(model, decay=1.0)


def test_the_average_goes_on_from_its_file(tmp_path: Path) -> None:
    model = nn.Linear(1, 1, bias=False)
    whole, first = WeightAverage(model, 0.9), WeightAverage(model, 0.9)
    values = [float(v) for v in range(20)]
    for value in values[:10]:
        nn.init.constant_(model.weight, value)
        whole.update(model)
        first.update(model)
    first.save(tmp_path / "ema.pt")
    second = WeightAverage(nn.Linear(1, 1, bias=False), 0.9)
    second.resume(tmp_path / "ema.pt")
    for value in values[10:]:
        nn.init.constant_(model.weight, value)
        whole.update(model)
        second.update(model)

    torch.testing.assert_close(second.model.weight, whole.model.weight)
    assert second.state()["steps"] == 20
    with pytest.raises(CheckpointError, match="averaged weights do not fit"):
        second.load_state({"model": {}, "steps": 1})


def test_a_run_killed_between_its_files_goes_on_with_the_average_of_its_state(tmp_path: Path) -> None:
    config = tiny_run(tmp_path, "trainer.ema_decay=0.9", "trainer.stop_after=2")
    with joined(torch.device("cpu")) as world:
        first = build_trainer(config, world, StopRequest())
        first.fit()
        assert first.average is not None
        # What an earlier save left: the state has been replaced, the file beside it not yet.
        save_checkpoint(first.model, tmp_path / "checkpoints" / "ema.pt", averaged_steps=1)
        second = build_trainer(config, world, StopRequest())
        assert second.average is not None
    assert second.average.state()["steps"] == 2
    for name, value in first.average.state()["model"].items():
        assert torch.equal(second.average.state()["model"][name], value)


def test_a_rate_warms_up_to_its_course() -> None:
    rule, plain = Rule(2.0, 0.1, warm_up=0.2), Rule(2.0, 0.1)

    assert rule.at(0.0) == 0.0
    assert rule.at(0.1) == pytest.approx(plain.at(0.1) / 2)
    assert rule.at(0.2) == pytest.approx(plain.at(0.2)) and rule.at(1.0) == pytest.approx(0.2)


def test_middle_points_are_on_the_object_and_inside() -> None:
    masks = torch.zeros(2, 1, 64, 64, dtype=torch.bool)
    masks[0, 0, 10:31, 20:51] = True
    masks[1, 0, 5:60, 5:15] = masks[1, 0, 50:60, 5:60] = True

    points = middle_points(masks)

    for mask, (x, y) in zip(masks[:, 0], points[:, 0].int().tolist(), strict=True):
        assert mask[y, x]
    assert (points[0, 0] - torch.tensor([35.0, 20.0])).abs().max() <= 4


def test_a_batched_user_prompts_all_objects() -> None:
    masks = torch.zeros(3, 1, 32, 32, dtype=torch.bool)
    masks[0, 0, 4:20, 4:20] = masks[1, 0, 20:30, 2:30] = True  # the third is not in view
    user = BatchedUsers(center_click_prob=1.0)(torch.device("cpu"), (1, 2), range(3))

    click, box, mask = (user.prompt(kind, masks) for kind in ("click", "box", "mask"))  # type: ignore[arg-type]
    again = BatchedUsers(center_click_prob=1.0)(torch.device("cpu"), (1, 2), range(3)).prompt("click", masks)
    corrected = user.correct(click, masks, torch.full((3, 1, 32, 32), -5.0), from_object=False)

    assert click.points is not None and box.points is not None and corrected.points is not None
    assert torch.equal(click.points, again.points)
    x, y = click.points[0, 0].int().tolist()
    assert masks[0, 0, y, x] and click.labels is not None and click.labels[:, 0].tolist() == [1, 1, 0]
    assert box.points.shape == (3, 2, 2) and mask.mask is not None and mask.mask.shape == (3, 1, 32, 32)
    assert corrected.points.shape == (3, 2, 2)
    assert len(PerObjectUsers()(torch.device("cpu"), (1, 2), range(3)).generators) == 3


def test_a_limit_of_time_ends_a_run_as_complete(tmp_path: Path) -> None:
    config = tiny_run(tmp_path, "scratch.num_epochs=50", "trainer.max_minutes=0.0001", "trainer.ema_decay=0.9")
    with joined(torch.device("cpu")) as world:
        trainer = build_trainer(config, world, StopRequest())

        assert trainer.fit() is True
        assert trainer.progress.step == 1  # any step takes longer than the six milliseconds that there are
        assert trainer.average is not None
        # Of a single step the average is that step's weights, and they are in the file.
        saved = read_checkpoint(tmp_path / "checkpoints" / "ema.pt")
        for name, value in trainer.model.state_dict().items():
            torch.testing.assert_close(saved[name], value)


def test_schedules_follow_the_clock_where_it_is_ahead_of_the_steps(tmp_path: Path) -> None:
    config = tiny_run(tmp_path, "scratch.num_epochs=50", "trainer.max_minutes=60")
    with joined(torch.device("cpu")) as world:
        trainer = build_trainer(config, world, StopRequest())
        trainer.progress = replace(trainer.progress, time_elapsed=1800.0)

        trainer._step([make_clip(3)])

        assert max(trainer.optimizer.values().values()) == pytest.approx(3.0e-4 * (1 + 0.01) / 2, rel=1e-3)
