"""`--check` tells what a run would do, and takes no step; the commands of a checkout are those of `i2v`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from data_support import HEIGHT, WIDTH, Numbered, write_davis
from PIL import Image
from support import make_predictor
from train_support import FACTS, make_clip, tiny_run, trained, write_held_out

from i2v.checkpoint import CheckpointError
from i2v.cli import checkout
from i2v.config import load_config
from train import train as command
from train.build import open_checkpoints, write_configs
from train.checkpointing import RunFacts, RunProgress, training_state
from train.dataset.mixed_loader import LoaderSpec, MixedLoader
from train.run_check import SHEET, _about_weights, about_earlier_run, check_run, draw_sheet, estimate_memory
from train.run_report import ParameterCounts, describe_length

CPU = torch.device("cpu")


def overfit(root: Path, run: Path, *more: str) -> list[str]:
    """The arguments of a small run on a data set in DAVIS's layout."""
    small = ("scratch.resolution=64", "scratch.num_train_workers=0", "scratch.num_frames=3", "dataset.multiplier=5")
    where = (f"dataset.root={root}", f"launcher.experiment_log_dir={run}", "trainer.mode=train_only")
    return ["i2v-overfit", *where, *small, "trainer.accelerator=cpu", "launcher.gpus_per_node=1", *more]


def test_check_tells_of_everything_and_takes_no_step(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_davis(tmp_path / "data", ["a", "b", "empty"])
    for path in (tmp_path / "data" / "Annotations" / "empty").iterdir():
        Image.fromarray(np.zeros((HEIGHT, WIDTH), np.uint8)).save(path)
    arguments = overfit(tmp_path / "data", tmp_path / "run", "scratch.num_epochs=4", "trainer.accumulate_steps=2")
    assert command.main([*arguments, "trainer.freeze=['image_encoder.*']", "--check"]) == 0
    printed = capsys.readouterr().out
    for text in (
        "data set 1 (PNGRawDataset): 10 samples an epoch, 2 in a batch",
        "2 of 3 videos are used, 12 frames with masks",
        f"frame sizes: {WIDTH}x{HEIGHT}: 2",
        "objects where they are first seen: 4",
        "labels: 1: 2, 2: 2",
        "empty: no object on any of the 6 masks",
        "held-out videos: none",
        "steps: 2.5 an epoch, 10 in 4 epochs, of 2 batches each",
        "device: cpu, 1 processes, computing in float32",
        "weights to start from: none",
        "memory of a process, estimated: ",
        f"{tmp_path / 'run' / SHEET}",
    ):
        assert text in printed
    trained, frozen = (int(word.replace(",", "")) for word in printed.split("parameters: ")[1].split()[:3:2])
    assert trained > 0 and frozen > 0
    with Image.open(tmp_path / "run" / SHEET) as sheet:
        assert sheet.width == 3 * 160 and sheet.height >= 4 * 160
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [SHEET]


def failing_check(arguments: list[str], caplog: pytest.LogCaptureFixture) -> str:
    """What `--check` says before it fails."""
    caplog.clear()
    assert command.main([*arguments, "--check"]) == 1
    return caplog.text


def test_check_tells_what_would_be_gone_on_with(tmp_path: Path) -> None:
    config = tiny_run(tmp_path, "scratch.num_epochs=3")
    assert list(about_earlier_run(config)) == [] and not (tmp_path / "checkpoints").exists()
    folder = open_checkpoints(config)
    folder.save_last(training_state(*trained(), RunProgress(step=7), FACTS))
    folder.save_epoch(1)
    write_configs(tiny_run(tmp_path, "trainer.logging.log_freq=9"), tmp_path)
    assert list(about_earlier_run(config)) == [
        f"{tmp_path} has a run, which would go on: 7 steps are done",
        "changed since the run began: scratch.num_epochs: 1 before, 3 now (needs trainer.resume_changed=true)",
        "changed since the run began: trainer.logging.log_freq: 9 before, 1 now",
    ]
    folder.last.write_bytes(b"cut")
    with pytest.raises(CheckpointError, match=r"remove checkpoint\.pt and give .*checkpoint_1\.pt"):
        list(about_earlier_run(config))
    folder.last.unlink()
    with pytest.raises(CheckpointError, match="a new run would replace them"):
        list(about_earlier_run(config))


def test_check_tells_of_weights_that_are_not_there(tmp_path: Path) -> None:
    told = _about_weights(make_predictor().model, str(tmp_path / "nowhere.pt"))
    assert "but here they cannot be loaded: " in told and "nowhere.pt does not exist" in told


def test_check_finds_what_a_run_would_fail_with(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_davis(tmp_path / "data", ["a"])
    small = overfit(tmp_path / "data", tmp_path / "run")
    told = failing_check([*small, "scratch.resolution=65"], caplog)
    assert "scratch.resolution: expected a whole number of at least 16, a multiple of 16, got 65" in told
    told = failing_check([*small, "trainer.optim.lr.trunk.param_names=['nothing.*']"], caplog)
    assert "lr: no parameter matches 'nothing.*'" in told
    told = failing_check(overfit(tmp_path / "gone", tmp_path / "run"), caplog)
    assert f"{tmp_path / 'gone' / 'Annotations'}: there is no such folder" in told


@pytest.mark.parametrize(
    ("folder", "told"), [("JPEGImages", "1, 6 annotated frames"), ("gone", "gone is not a folder")]
)
def test_check_looks_at_held_out_videos_that_are_not_used(tmp_path: Path, folder: str, told: str) -> None:
    write_davis(tmp_path / "data", ["a"])
    write_held_out(tmp_path)
    held_out = (f"validation.img_folder={tmp_path / folder}", f"validation.gt_folder={tmp_path / 'Annotations'}")
    config = command.compose(command.parse(overfit(tmp_path / "data", tmp_path / "run", *held_out)))
    line = next(line for line in check_run(config, 1) if line.startswith("held-out videos"))
    assert line.startswith("held-out videos (not used: trainer.mode=train_only): ") and told in line


def test_the_published_run_has_6479_steps_an_epoch() -> None:
    config = load_config("i2v-train", ["dataset.root=/data", "dataset.sa1b_file_list_txt=list.txt"])
    sizes = (config.scratch.train_batch_size_sa1b, config.scratch.train_batch_size_sav)
    counts = (10_000, 50_583)  # of the published lists
    specs = [LoaderSpec(Numbered(count), size) for count, size in zip(counts, sizes, strict=True)]
    loader = MixedLoader(specs, seed=0, world_size=8)
    facts = RunFacts(8, 0, len(loader), config.trainer.accumulate_steps)
    assert describe_length(facts, 10, None) == "steps: 6,479 an epoch, 64,790 in 10 epochs"
    assert describe_length(facts, 10, 90).endswith(", but no more than 90 minutes")


def test_memory_counts_what_is_trained_and_what_is_kept(tmp_path: Path) -> None:
    assert ParameterCounts(10, 3).num_bytes == 172
    config, counts = tiny_run(tmp_path), ParameterCounts(2**30, 0)
    lines = [estimate_memory(config, make_clip(frames), counts, CPU, torch.float32) for frames in (2, 6)]
    totals = [float(line.split("estimated: ")[1].split()[0]) for line in lines]
    assert totals[0] >= 16.0 and totals[1] >= totals[0]


def test_the_sheet_shows_masks_and_prompts(tmp_path: Path) -> None:
    def colours(*overrides: str) -> set[tuple[int, ...]]:
        config = tiny_run(tmp_path, "trainer.prompts.num_init_cond_frames_for_train=1", *overrides)
        sheet = draw_sheet(config, [make_clip(2, num_clips=2)])
        assert sheet.size == (2 * 160, 2 * 160)
        return {colour for _, colour in sheet.getcolors(1 << 20) or []}

    no_points = "trainer.prompts.prob_to_use_pt_input_for_train=0"
    points = "trainer.prompts.prob_to_use_pt_input_for_train=1"
    assert (60, 120, 255) in colours(no_points)
    assert (255, 220, 0) in colours(points, "trainer.prompts.prob_to_use_box_input_for_train=1")
    assert (0, 200, 0) in colours(points, "trainer.prompts.prob_to_use_box_input_for_train=0")


def test_help_names_configs_and_common_settings(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        command.main(["--help"])
    printed = capsys.readouterr().out
    assert stop.value.code == 0
    assert all(name in printed for name in ("i2v-finetune", "i2v-overfit", "scratch.base_lr", "scratch.num_epochs"))
    assert "i2v-infer" not in printed
    with pytest.raises(SystemExit) as stop:
        command.main(["scratch.num_epochs=3"])
    assert stop.value.code == 2 and "expected a CONFIG first" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--check", "--print-config"])
def test_a_config_of_inference_is_no_config_of_training(option: str, caplog: pytest.LogCaptureFixture) -> None:
    assert command.main(["i2v-infer", option]) == 1
    assert "i2v-infer is no config of training: it has no 'trainer'; expected one like i2v-finetune" in caplog.text


def test_the_whole_config_can_be_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["i2v-finetune", "scratch.num_epochs=3", "--print-config"]) == 0
    printed = capsys.readouterr().out
    path = tmp_path / "printed.yaml"
    path.write_text(printed)
    config = load_config(str(path))
    assert config.scratch.num_epochs == 3 and config.launcher.experiment_log_dir == "logs/i2v-finetune"


@pytest.mark.parametrize("name", sorted(checkout.MODULES))
def test_commands_of_a_checkout_are_found(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = Path(__file__).parents[2]
    assert checkout.find_checkout(checkout.MODULES[name]) == root
    monkeypatch.setattr(checkout.i2v, "__file__", str(tmp_path / "site-packages" / "i2v" / "__init__.py"))
    monkeypatch.chdir(root)
    assert checkout.find_checkout(checkout.MODULES[name]) == root
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match="run from a checkout"):
        checkout.find_checkout(checkout.MODULES[name])


@pytest.mark.slow
def test_i2v_train_is_the_same_command(tmp_path: Path) -> None:
    finished = subprocess.run(
        [sys.executable, "-m", "i2v", "train", "i2v-train", "scratch.num_epochs=none"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 1
    assert "scratch.num_epochs: expected a whole number of at least 1, got 'none'" in finished.stderr
