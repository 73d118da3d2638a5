"""What an earlier run has left is gone on with or kept, never replaced in silence."""

from __future__ import annotations

import logging
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn
from train_support import FACTS, tiny_run, trained, write_held_out

from i2v.checkpoint import CheckpointError
from i2v.config import ConfigError
from train.build import build_trainer, check_resumed, open_checkpoints
from train.checkpoint_folder import BestWeights, CheckpointFolder, one_run_in
from train.checkpointing import RunProgress, resume, training_state
from train.distributed import World
from train.launch import StopRequest
from train.lora import LoraSettings, add_adapters
from train.resumed_settings import Difference

CPU = World(torch.device("cpu"))


def save_state(folder: CheckpointFolder, progress: RunProgress, **kept: int) -> None:
    """A last state, and one that is kept by epoch or step."""
    model, optimizer = trained()
    folder.save_last(training_state(model, optimizer, progress, FACTS))
    for kind, number in kept.items():
        getattr(folder, f"save_{kind}")(number)


def test_a_new_run_does_not_replace_the_files_of_an_earlier_one(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path)
    folder.check_start(None)
    save_state(folder, RunProgress(step=7), epoch=1, step=7)
    folder.check_start(None)
    folder.last.unlink()
    with pytest.raises(CheckpointError, match=r"checkpoint_1\.pt, checkpoint_step_7\.pt .*resume_from=.*step_7\.pt"):
        folder.check_start(None)
    with pytest.raises(CheckpointError, match="of an earlier run"):
        folder.check_start(tmp_path / "other" / "checkpoint.pt")
    folder.check_start(tmp_path / "checkpoint_1.pt")


@pytest.mark.parametrize(("step", "is_kept"), [(0, False), (4, True)])
def test_best_weights_without_a_state_are_kept_unless_they_are_the_start(
    tmp_path: Path, step: int, is_kept: bool
) -> None:
    folder = CheckpointFolder(tmp_path)
    folder.save_best(trained()[0], epoch=0, step=step, score=50.0)
    if is_kept:
        with pytest.raises(CheckpointError, match=r"has best\.pt of an earlier run but no checkpoint\.pt"):
            folder.check_start(None)
    else:
        folder.check_start(None)


def test_a_run_in_a_used_folder_is_refused_before_it_starts(tmp_path: Path) -> None:
    config = tiny_run(tmp_path)
    checkpoints = open_checkpoints(config)
    save_state(checkpoints, RunProgress(), epoch=1)
    checkpoints.last.unlink()
    with pytest.raises(ConfigError, match="a new run would replace them"):
        check_resumed(config, checkpoints, CPU)


def test_the_best_file_says_how_good_it_is(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = CheckpointFolder(tmp_path)
    assert folder.read_best() is None
    folder.save_best(trained()[0], epoch=2, step=9, score=81.5)
    assert folder.read_best() == BestWeights(81.5, 9)
    folder.best.write_bytes(b"")
    assert folder.read_best() is None and "does not say how good it is" in caplog.text


def test_a_run_that_goes_on_takes_the_best_from_its_file(tmp_path: Path) -> None:
    images, labels = write_held_out(tmp_path / "held_out")
    held_out = ("trainer.mode=train", f"validation.img_folder={images}", f"validation.gt_folder={labels}")
    trainer = build_trainer(tiny_run(tmp_path / "run", *held_out), CPU, StopRequest())
    trainer.progress = RunProgress(epoch=1, step=4, closed=1, best=70.0, best_step=4, validated=4)
    trainer._save()
    folder = trainer.checkpoints
    folder.save_epoch(1)
    # The weights of a later step were better: going back to an earlier state does not lose them.
    folder.save_best(trainer.model, epoch=2, step=8, score=90.0)
    trainer.resume(folder.folder / "checkpoint_1.pt")
    assert (trainer.progress.best, trainer.progress.best_step) == (90.0, 8)
    assert not trainer._validation_is_due(ends=False)
    # In another folder they are unknown, and what the run goes on from is scored first.
    other = CheckpointFolder(tmp_path / "other")
    trainer.checkpoints = other
    trainer.resume(folder.last)
    assert trainer.progress.best is None and trainer._validation_is_due(ends=False)
    trainer.settings = replace(trainer.settings, val_at_start=False)
    assert not trainer._validation_is_due(ends=False)


def test_other_parameters_in_groups_of_the_same_size_are_refused(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    groups = [{"params": [model[0].weight], "name": "w", "names": ["0.weight"]}]
    saved = torch.optim.AdamW(groups)
    folder = CheckpointFolder(tmp_path)
    folder.save_last(training_state(model, saved, RunProgress(), FACTS))
    resume(folder.last, model, saved, FACTS)
    other = torch.optim.AdamW([{"params": [model[1].weight], "name": "w", "names": ["1.weight"]}])
    with pytest.raises(CheckpointError, match=r"differ in \['0\.weight', '1\.weight'\]; to start from its weights"):
        resume(folder.last, model, other, FACTS, allow_changed=True)


@pytest.mark.parametrize("with_adapters", [True, False])
def test_adapters_are_not_gone_on_with_without_them(tmp_path: Path, with_adapters: bool) -> None:
    plain, adapted = (nn.Sequential(nn.Linear(2, 2)) for _ in range(2))
    add_adapters(adapted, LoraSettings(["*"], rank=1))
    before, now = (adapted, plain) if with_adapters else (plain, adapted)
    folder = CheckpointFolder(tmp_path)
    folder.save_last(training_state(before, torch.optim.SGD(before.parameters()), RunProgress(), FACTS))
    expected = r"trained with adapters.*without" if with_adapters else r"trained without adapters.*with them"
    with pytest.raises(CheckpointError, match=expected + r".*trainer\.checkpoint\.initial="):
        resume(folder.last, now, torch.optim.SGD(now.parameters()), FACTS, allow_changed=True)


def test_a_damaged_state_names_an_earlier_one(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path)
    save_state(folder, RunProgress(), epoch=3)
    folder.last.write_bytes(folder.last.read_bytes()[:200])
    with pytest.raises(CheckpointError, match=r"cut short.*remove checkpoint\.pt and .*resume_from=.*checkpoint_3\.pt"):
        resume(folder.last, *trained(), FACTS)


def test_settings_that_are_gone_or_empty_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = tiny_run(tmp_path)
    checkpoints = open_checkpoints(config)
    save_state(checkpoints, RunProgress())
    with caplog.at_level(logging.WARNING):
        check_resumed(config, checkpoints, CPU)
    assert "config.yaml is gone" in caplog.text
    (tmp_path / "config.yaml").write_text("")
    with pytest.raises(ConfigError, match="expected the settings of a run"):
        check_resumed(config, checkpoints, CPU)


def test_a_folder_has_one_run_at_a_time(tmp_path: Path) -> None:
    def is_free_to_others() -> bool:
        child = os.fork()
        if child == 0:
            try:
                with one_run_in(tmp_path):
                    os._exit(0)
            except RuntimeError as error:
                os._exit(1 if "another run is under way in this folder" in str(error) else 2)
        return {0: True, 1: False}[os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])]

    with one_run_in(tmp_path):
        assert not is_free_to_others()
    assert is_free_to_others()


@pytest.mark.parametrize(("key", "changes"), [("dataset.mine_root", False), ("data.mix", True)])
def test_folders_may_move(key: str, changes: bool) -> None:
    assert Difference(key, "a", "b").changes_the_run is changes
