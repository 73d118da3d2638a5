"""A run goes as its config says, stops and resumes exactly, and survives what is not finite."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig
from support import render_video
from train_support import lines_of, losses_of, make_clip, tiny_run, write_held_out

from i2v.build_i2v import build_i2v_video_predictor
from i2v.checkpoint import CheckpointError
from train.build import build_trainer, run
from train.dataset.structures import BatchedClip
from train.distributed import World
from train.launch import StopRequest
from train.trainer import Trainer

CPU = World(torch.device("cpu"))

# One prompt of one kind, and nothing random in the layers: what is left depends on the clips alone.
PLAIN = (
    "trainer.freeze_batch_norm=true",
    "trainer.prompts.prob_to_use_pt_input_for_train=0",
    "trainer.prompts.num_init_cond_frames_for_train=1",
    *(f"model.memory_attention.layer{part}.dropout=0" for part in ("", ".self_attention", ".cross_attention")),
    *(f"model.memory_prompt_generator{part}.dropout=0" for part in ("", ".self_attention", ".cross_attention")),
)


class Clips:
    """A loader of given clips."""

    def __init__(self, *clips: BatchedClip) -> None:
        self.clips = clips

    def epoch(self, epoch: int, start: int = 0) -> Iterator[BatchedClip]:
        return iter(self.clips[start:])

    def __len__(self) -> int:
        return len(self.clips)


class StopAfter(StopRequest):
    """Asks to stop after some steps."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.left = steps

    def __call__(self) -> bool:
        self.left -= 1
        return self.left <= 0


def trainer_of(config: DictConfig, *clips: BatchedClip, **changes: Any) -> Trainer:
    """A trainer on given clips."""
    trainer = build_trainer(config, CPU, StopRequest())
    arguments = {
        name: getattr(trainer, name)
        for name in ("objective", "optimizer", "prompts", "settings", "checkpoints", "metrics", "world")
    }
    rollout = trainer.objective.rollout
    return Trainer(**{**arguments, "rollout": rollout, "loader": Clips(*clips), **changes})  # type: ignore[arg-type]


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "checkpoints" / "checkpoint.pt", weights_only=True)["model"]


def test_a_run_from_start_to_a_checkpoint_that_segments(tmp_path: Path) -> None:
    run(tiny_run(tmp_path, "scratch.num_epochs=2"))
    lines = lines_of(tmp_path)
    assert [line["step"] for line in lines] == list(range(1, 9))
    assert [line["epoch"] for line in lines] == pytest.approx([k / 4 for k in range(1, 9)])
    assert lines[0]["lr"] == pytest.approx(3e-4) and lines[-1]["lr"] < 2e-5
    names = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert names == ["checkpoint.pt", "checkpoint_1.pt", "checkpoint_2.pt"]

    weights = tmp_path / "checkpoints" / "checkpoint.pt"
    predictor = build_i2v_video_predictor(tmp_path / "inference.yaml", weights, device="cpu")
    assert predictor.memory_selection == "sample"
    with predictor.init_state(render_video(4)) as state:
        predictor.add_new_points_or_box(state, 0, 1, points=[[16, 19]], labels=[1])
        masks = [logits for _, _, logits in predictor.propagate_in_video(state)]
    assert [tuple(mask.shape) for mask in masks] == [(1, 1, 48, 64)] * 4
    assert all(mask.isfinite().all() for mask in masks)


@pytest.mark.parametrize(("accumulate", "log_freq"), [(1, 2), (2, 1)])
def test_a_stopped_run_goes_on_exactly(tmp_path: Path, accumulate: int, log_freq: int) -> None:
    settings = (
        "scratch.num_epochs=2",
        "dataset.num_videos=6",
        f"trainer.accumulate_steps={accumulate}",
        f"trainer.logging.log_freq={log_freq}",
    )
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    run(tiny_run(whole, *settings))
    for steps in (1, 3, 100):
        trainer = build_trainer(tiny_run(parts, *settings), CPU, StopAfter(steps))
        assert trainer.fit() == (steps == 100)  # stopped after steps 1 and 4, between two lines of the log
    assert losses_of(parts) == losses_of(whole)
    assert len(losses_of(whole)) == 6
    expected = weights_of(whole)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in weights_of(parts).items())


def test_a_run_can_be_told_where_to_stop(tmp_path: Path) -> None:
    for _ in range(2):
        run(tiny_run(tmp_path, "trainer.stop_after=3"))
    assert [line["step"] for line in lines_of(tmp_path)] == [1, 2, 3]
    run(tiny_run(tmp_path))
    assert [line["step"] for line in lines_of(tmp_path)] == [1, 2, 3, 4]


def test_steps_that_were_not_saved_are_taken_again(tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    run(tiny_run(whole))

    def die(*_: object) -> bool:
        raise KeyboardInterrupt

    first = build_trainer(tiny_run(killed, "trainer.checkpoint.save_steps=2"), CPU, StopRequest())
    step = first._step
    first._step = lambda clips: die() if first.progress.step == 3 else step(clips)  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        first.fit()
    assert [line["step"] for line in lines_of(killed)] == [1, 2, 3]
    again = build_trainer(tiny_run(killed, "trainer.checkpoint.save_steps=2"), CPU, StopRequest())
    assert again.progress.step == 2
    assert again.fit()
    assert losses_of(killed) == losses_of(whole)


def test_a_run_that_is_done_does_nothing_more(tmp_path: Path) -> None:
    run(tiny_run(tmp_path))
    before = losses_of(tmp_path)
    run(tiny_run(tmp_path))
    assert losses_of(tmp_path) == before


def test_validation_within_the_run_keeps_the_best(tmp_path: Path) -> None:
    images, labels = write_held_out(tmp_path / "held_out")
    held_out = (f"validation.img_folder={images}", f"validation.gt_folder={labels}")
    run(tiny_run(tmp_path / "run", "trainer.mode=train", "scratch.num_epochs=2", *held_out))
    scores = lines_of(tmp_path / "run", "val")
    assert [(line["step"], line["epoch"]) for line in scores] == [(4, 1), (8, 2)]
    assert all(line["J&F"] == pytest.approx((line["J"] + line["F"]) / 2) for line in scores)
    best = torch.load(tmp_path / "run" / "checkpoints" / "best.pt", weights_only=True)
    assert best["jf"] == max(line["J&F"] for line in scores) and set(best) == {"model", "epoch", "jf"}
    # Scoring in between changes nothing of what is learned.
    run(tiny_run(tmp_path / "blind", "scratch.num_epochs=2"))
    assert losses_of(tmp_path / "blind") == losses_of(tmp_path / "run")

    best_file = tmp_path / "run" / "checkpoints" / "best.pt"
    run(tiny_run(tmp_path / "val", "trainer.mode=val", f"trainer.checkpoint.initial={best_file}", *held_out))
    (score,) = lines_of(tmp_path / "val", "val")
    assert score["J&F"] == best["jf"]


def test_a_loss_that_is_not_finite_leaves_a_step_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    good, bad = make_clip(2), make_clip(2, seed=1)
    bad.frames[0, 0, 0, 0, 0] = float("nan")
    settings = ("scratch.vision_lr=0", "scratch.base_lr=0", "trainer.freeze_batch_norm=true")
    trainer = trainer_of(tiny_run(tmp_path, *settings), good, bad, good)
    with caplog.at_level(logging.WARNING):
        assert trainer.fit()
    (message,) = [record.getMessage() for record in caplog.records if "left out" in record.getMessage()]
    assert "step 2" in message and "rank 0" in message and "loss nan" in message and "clip0" in message
    assert [line["step"] for line in lines_of(tmp_path) if "loss" in line] == [1, 3]
    assert trainer.progress.step == 3 and trainer.progress.skipped == 0
    assert all(p.isfinite().all() for p in trainer.model.parameters())


def test_too_many_such_steps_in_a_row_end_the_run(tmp_path: Path) -> None:
    bad = make_clip(2)
    bad.frames.fill_(float("nan"))
    trainer = trainer_of(tiny_run(tmp_path, "trainer.max_skipped=2", "trainer.freeze_batch_norm=true"), *[bad] * 5)
    with pytest.raises(RuntimeError, match="3 steps in a row were skipped"):
        trainer.fit()
    assert trainer.progress.step == 2


def test_accumulated_batches_are_as_good_as_a_large_one(tmp_path: Path) -> None:
    first, second = make_clip(3), make_clip(3, seed=1)
    both = BatchedClip(
        torch.cat((first.frames, second.frames), dim=1),
        torch.cat((first.masks, second.masks), dim=1),
        torch.tensor([0, 1]),
        ("a", "b"),
    )
    large = trainer_of(tiny_run(tmp_path / "large", *PLAIN), both)
    config = tiny_run(tmp_path / "small", *PLAIN)
    small = trainer_of(config, first, second, settings=replace(large.settings, accumulate_steps=2))
    assert small.fit() and large.fit()
    assert small.progress.step == large.progress.step == 1
    (a,), (b,) = losses_of(tmp_path / "small"), losses_of(tmp_path / "large")
    assert a == pytest.approx(b, rel=1e-4)


def test_freezing_is_respected(tmp_path: Path) -> None:
    config = tiny_run(tmp_path, "trainer.freeze=['image_encoder.*']")
    trainer = build_trainer(config, CPU, StopRequest())
    before = {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}
    trainer.fit()
    changed = {name for name, tensor in trainer.model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed and not any(name.startswith("image_encoder.") for name in changed)


def test_starting_points(tmp_path: Path) -> None:
    run(tiny_run(tmp_path / "first"))
    weights = tmp_path / "first" / "checkpoints" / "checkpoint_1.pt"
    tuned = build_trainer(tiny_run(tmp_path / "second", f"trainer.checkpoint.initial={weights}"), CPU, StopRequest())
    assert tuned.progress.step == 0
    expected = weights_of(tmp_path / "first")
    assert all(torch.equal(tensor, expected[name]) for name, tensor in tuned.model.state_dict().items())
    config = tiny_run(tmp_path / "third", f"trainer.checkpoint.resume_from={weights}", "scratch.num_epochs=2")
    assert build_trainer(config, CPU, StopRequest()).progress.epoch == 1


def test_bfloat16_and_activation_checkpointing_run(tmp_path: Path) -> None:
    settings = (
        "trainer.optim.amp.enabled=true",
        "trainer.rollout.use_act_ckpt_iterative_pt_sampling=true",
        "model.image_encoder.trunk_image.use_checkpoint=true",
        "model.memory_attention.use_checkpoint=true",
    )
    run(tiny_run(tmp_path, *settings))
    assert all(torch.isfinite(torch.tensor(line)).all() for line in losses_of(tmp_path))


@pytest.mark.parametrize(
    ("override", "error", "message"),
    [
        ("trainer.checkpoint.initial=missing.pt", FileNotFoundError, "missing.pt does not exist"),
        ("trainer.checkpoint.initial=tinysam:missing.pth", FileNotFoundError, "huggingface.co/xinghaochen/tinysam"),
        ("trainer.accumulate_steps=5", ValueError, "expected 1 to 4, the batches of an epoch, got 5"),
        ("trainer.mode=test", ValueError, "expected one of train_only, train, val, got 'test'"),
        ("trainer.mode=train", ValueError, "set validation.img_folder"),
        ("trainer.optim.amp.amp_dtype=float16", ValueError, "expected bfloat16 or float32"),
        ("trainer.prompts.prob_to_use_pt_input_for_train=2", ValueError, "between 0 and 1"),
    ],
)
def test_settings_that_cannot_be_are_refused(
    tmp_path: Path, override: str, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        run(tiny_run(tmp_path, override))


def test_a_state_of_another_run_is_refused(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run(tiny_run(tmp_path))
    with pytest.raises(CheckpointError, match="the parameter groups differ"):
        build_trainer(tiny_run(tmp_path, "trainer.freeze=['image_encoder.*']"), CPU, StopRequest())
    with pytest.raises(CheckpointError, match="does not fit"):
        build_trainer(tiny_run(tmp_path, "model.memory_attention.num_layers=1"), CPU, StopRequest())
    with caplog.at_level(logging.WARNING):
        build_trainer(tiny_run(tmp_path, "trainer.seed_value=1", "scratch.num_epochs=2"), CPU, StopRequest())
    assert "not be exact: seed_value: 2024 before, 1 now" in caplog.text
