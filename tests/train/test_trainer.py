"""A run goes as its config says, stops and resumes exactly, and survives what is not finite."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig
from support import make_predictor, render_video
from train_support import lines_of, losses_of, make_clip, tiny_run, write_held_out

from i2v.build_i2v import build_i2v_video_predictor
from i2v.checkpoint import CheckpointError, save_checkpoint
from i2v.config import ConfigError
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
    steps = 12 // accumulate
    assert [line["step"] for line in lines_of(whole)] == sorted({1, *range(log_freq, steps + 1, log_freq)})
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


def test_a_run_that_is_done_does_nothing_more_and_says_so(tmp_path: Path) -> None:
    run(tiny_run(tmp_path))
    before = losses_of(tmp_path)
    run(tiny_run(tmp_path))
    assert losses_of(tmp_path) == before
    text = (tmp_path / "logs" / "log.txt").read_text()
    assert "done: 4 steps, 1 epochs" in text and "nothing to do: 4 steps, 1 epochs" in text


@pytest.mark.parametrize(
    ("videos", "accumulate", "steps"),
    [(3, 4, [1, 2, 3, 4, 5]), (5, 4, [1, 2, 3, 4, 5, 7]), (1, 7, [1])],
)
def test_few_videos_train_and_tell(tmp_path: Path, videos: int, accumulate: int, steps: list[int]) -> None:
    """Epochs of fewer batches than a step takes, or that no step ends with: nothing is left over, all is logged."""
    epochs = {3: 6, 5: 5, 1: 2}[videos]
    settings = (
        f"dataset.num_videos={videos}",
        f"trainer.accumulate_steps={accumulate}",
        f"scratch.num_epochs={epochs}",
    )
    run(tiny_run(tmp_path, *settings, "trainer.logging.log_freq=50"))
    lines = lines_of(tmp_path)
    assert [line["step"] for line in lines] == steps
    assert lines[-1]["epoch"] == epochs and all(line["steps"] == steps[-1] for line in lines)
    assert lines[0]["epoch"] == pytest.approx(min(accumulate / videos, epochs))
    weights = tmp_path / "checkpoints" / f"checkpoint_{epochs}.pt"
    assert torch.load(weights, weights_only=True)["epoch"] == epochs


def test_a_step_over_the_end_of_an_epoch_goes_on_exactly(tmp_path: Path) -> None:
    settings = ("dataset.num_videos=3", "trainer.accumulate_steps=2", "scratch.num_epochs=3")
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    run(tiny_run(whole, *settings))
    for steps in (2, 1, 100):  # stopped in the middle of epochs 2 and 3
        build_trainer(tiny_run(parts, *settings), CPU, StopAfter(steps)).fit()
    assert losses_of(parts) == losses_of(whole) and len(losses_of(whole)) == 5


def test_lines_tell_how_far_and_how_fast(tmp_path: Path) -> None:
    run(tiny_run(tmp_path, "scratch.num_epochs=2", "trainer.prompts.prob_to_use_pt_input_for_train=0.5"))
    lines = lines_of(tmp_path)
    assert all(line["steps"] == 8 for line in lines)
    assert lines[-1]["seconds_left"] == 0 < lines[0]["seconds_left"]
    for line in lines:
        assert line["clips_per_second"] == pytest.approx(1 / line["seconds"])
        assert line["data_share"] == pytest.approx(line["data_seconds"] / line["seconds"])
        # Of a step with one clip, each of the splits has all of the loss, or nothing.
        assert line["loss"] == line["loss_clips"] and "loss_images" not in line
        assert line["loss"] in (line.get("loss_from_masks"), line.get("loss_from_clicks"))
    assert {name for line in lines for name in line} >= {"loss_from_masks", "loss_from_clicks"}
    text = (tmp_path / "logs" / "log.txt").read_text()
    assert re.search(r"step 1 of 8 \(epoch 0\.25 of 2\), \d+:\d\d:\d\d left: loss .* clips/s, .* for data", text)


def test_losses_are_means_over_the_decoded_frames(tmp_path: Path) -> None:
    trainer = trainer_of(tiny_run(tmp_path, *PLAIN, "scratch.base_lr=0", "scratch.vision_lr=0"), make_clip(3))
    clip = make_clip(3)
    losses, _, plan = trainer._forward(clip, 0)
    assert not plan.corrections
    trainer.fit()
    (line,) = lines_of(tmp_path)
    assert line["loss_mask"] == pytest.approx(losses.mask.item() / 3, rel=1e-3)


def held_out_settings(folder: Path) -> tuple[str, ...]:
    images, labels = write_held_out(folder)
    return (
        "trainer.mode=train",
        f"validation.img_folder={images}",
        f"validation.gt_folder={labels}",
        "validation.prompts=[gm,1c]",
    )


def test_the_best_weights_are_never_worse_than_the_start(tmp_path: Path) -> None:
    start = make_predictor().model
    save_checkpoint(start, tmp_path / "start.pt")
    settings = (*held_out_settings(tmp_path / "held_out"), f"trainer.checkpoint.initial={tmp_path / 'start.pt'}")
    ruin = ("scratch.base_lr=10", "scratch.vision_lr=10", "trainer.optim.gradient_clip.max_norm=null")
    run(tiny_run(tmp_path / "run", *settings, *ruin, "trainer.val_steps=2", "trainer.max_skipped=100"))
    scores = lines_of(tmp_path / "run", "val")
    assert [line["step"] for line in scores] == [0, 2, 4]
    assert scores[0]["J&F"] > max(line["J&F"] for line in scores[1:])
    best = torch.load(tmp_path / "run" / "checkpoints" / "best.pt", weights_only=True)
    assert best["jf"] == scores[0]["J&F"]
    assert all(torch.equal(tensor, best["model"][name]) for name, tensor in start.state_dict().items())
    assert "best J&F" in (text := (tmp_path / "run" / "logs" / "log.txt").read_text())
    assert "before the first step" in text and "best.pt" in text.splitlines()[-1]


def test_validation_tells_of_every_prompt_video_and_object(tmp_path: Path) -> None:
    run(tiny_run(tmp_path / "run", *held_out_settings(tmp_path / "held_out"), "trainer.stop_after=0"))
    (line,) = lines_of(tmp_path / "run", "val")
    assert set(line["prompts"]) == {"gm", "1c"}
    assert line["J&F"] == pytest.approx(sum(scores["J&F"] for scores in line["prompts"].values()) / 2)
    objects = [(entry["prompt"], entry["video"], entry["object"]) for entry in line["objects"]]
    assert objects == [(prompt, "discs", obj) for prompt in ("gm", "1c") for obj in ("1", "2")]
    text = (tmp_path / "run" / "logs" / "log.txt").read_text()
    assert "from a mask" in text and "from a click" in text and "discs, object 2: mask" in text


def test_a_validation_that_was_killed_is_done_again_and_no_other(tmp_path: Path) -> None:
    settings = (*held_out_settings(tmp_path / "held_out"), "scratch.num_epochs=2")
    trainer = build_trainer(tiny_run(tmp_path / "run", *settings), CPU, StopRequest())
    validate, calls = trainer.validate, []

    def die_at_step_4() -> float:
        calls.append(trainer.progress.step)
        if trainer.progress.step == 4:
            raise KeyboardInterrupt
        return validate()

    trainer.validate = die_at_step_4  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        trainer.fit()
    assert calls == [0, 4]
    run(tiny_run(tmp_path / "run", *settings))
    assert [line["step"] for line in lines_of(tmp_path / "run", "val")] == [0, 4, 8]
    assert [line["step"] for line in lines_of(tmp_path / "run")] == list(range(1, 9))


def test_changed_settings_are_told_and_refused_where_they_change_the_run(tmp_path: Path) -> None:
    run(tiny_run(tmp_path, "trainer.stop_after=2"))
    before = losses_of(tmp_path)
    config = (tmp_path / "config.yaml").read_text()
    for override, told in (
        ("scratch.num_epochs=3", "scratch.num_epochs: 1 before, 3 now"),
        ("scratch.base_lr=1e-5", "scratch.base_lr: 0.0003 before, 1e-05 now"),
        ("scratch.resolution=32", "scratch.resolution: 64 before, 32 now"),
        ("trainer.prompts.num_correction_pt_per_frame=3", "num_correction_pt_per_frame: 1 before, 3 now"),
        ("~trainer.optim.lr.rest.end_fraction", "end_fraction: 0.01 before, None now"),
    ):
        with pytest.raises(ConfigError, match=f"{re.escape(told)}.*trainer.resume_changed=true"):
            run(tiny_run(tmp_path, override))
    assert losses_of(tmp_path) == before and (tmp_path / "config.yaml").read_text() == config
    assert not list(tmp_path.glob("config_*.yaml"))


def test_settings_that_change_nothing_may_change(tmp_path: Path) -> None:
    run(tiny_run(tmp_path, "trainer.stop_after=2"))
    config = (tmp_path / "config.yaml").read_text()
    run(tiny_run(tmp_path, "trainer.logging.log_freq=2", "trainer.stop_after=3"))
    assert (tmp_path / "config_1.yaml").read_text() == config
    assert (
        "changed since the run began: trainer.logging.log_freq: 1 before, 2 now"
        in (tmp_path / "logs" / "log.txt").read_text()
    )
    run(tiny_run(tmp_path, "scratch.num_epochs=2", "trainer.resume_changed=true"))
    assert sorted(path.name for path in tmp_path.glob("*.yaml")) == [
        "config.yaml",
        "config_1.yaml",
        "config_2.yaml",
        "inference.yaml",
    ]
    assert lines_of(tmp_path)[-1]["step"] == 8
    # The same command does not ask again.
    run(tiny_run(tmp_path, "scratch.num_epochs=2"))


def test_a_run_that_cannot_go_on_keeps_its_settings(tmp_path: Path) -> None:
    run(tiny_run(tmp_path, "trainer.stop_after=1"))
    config = (tmp_path / "config.yaml").read_text()
    with pytest.raises(CheckpointError, match="the parameter groups differ"):
        run(tiny_run(tmp_path, "trainer.freeze=['image_encoder.*']", "trainer.resume_changed=true"))
    assert (tmp_path / "config.yaml").read_text() == config and not list(tmp_path.glob("config_*.yaml"))


def test_settings_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    run(tiny_run(tmp_path, "trainer.stop_after=1"))
    (tmp_path / "config.yaml").write_text("a: [")
    with pytest.raises(ConfigError, match=r"config\.yaml"):
        run(tiny_run(tmp_path))


def test_validation_within_the_run_keeps_the_best(tmp_path: Path) -> None:
    images, labels = write_held_out(tmp_path / "held_out")
    held_out = (f"validation.img_folder={images}", f"validation.gt_folder={labels}", "validation.prompts=[gm]")
    run(tiny_run(tmp_path / "run", "trainer.mode=train", "scratch.num_epochs=2", *held_out))
    scores = lines_of(tmp_path / "run", "val")
    assert [(line["step"], line["epoch"]) for line in scores] == [(0, 0), (4, 1), (8, 2)]
    assert all(line["J&F"] == pytest.approx((line["J"] + line["F"]) / 2) for line in scores)
    best = torch.load(tmp_path / "run" / "checkpoints" / "best.pt", weights_only=True)
    assert best["jf"] == max(line["J&F"] for line in scores) and set(best) == {"model", "epoch", "step", "jf"}
    # Scoring in between changes nothing of what is learned.
    run(tiny_run(tmp_path / "blind", "scratch.num_epochs=2"))
    assert losses_of(tmp_path / "blind") == losses_of(tmp_path / "run")

    best_file = tmp_path / "run" / "checkpoints" / "best.pt"
    # Without any training data, which it does not need.
    only = ("trainer.mode=val", f"trainer.checkpoint.initial={best_file}", "data=null", *held_out)
    run(tiny_run(tmp_path / "val", *only))
    (score,) = lines_of(tmp_path / "val", "val")
    assert score["J&F"] == best["jf"]
    text = (tmp_path / "val" / "logs" / "log.txt").read_text()
    assert "discs, object 1: mask" in text and "discs, object 2: mask" in text
    assert not (tmp_path / "val" / "config.yaml").exists()
    # Of a run, it is the state that counts, and the run's settings stay as they were.
    settings = (tmp_path / "run" / "config.yaml").read_text()
    run(tiny_run(tmp_path / "run", "trainer.mode=val", "scratch.num_epochs=7", *held_out))
    assert lines_of(tmp_path / "run", "val")[-1]["J&F"] == scores[-1]["J&F"]
    assert (tmp_path / "run" / "config.yaml").read_text() == settings


def test_a_loss_that_is_not_finite_leaves_a_step_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    good, bad = make_clip(2), make_clip(2, seed=1)
    bad.frames[0, 0, 0, 0, 0] = float("nan")
    settings = ("scratch.vision_lr=0", "scratch.base_lr=0", "trainer.freeze_batch_norm=true")
    trainer = trainer_of(tiny_run(tmp_path, *settings), good, bad, good)
    with caplog.at_level(logging.WARNING):
        assert trainer.fit()
    (message,) = [record.getMessage() for record in caplog.records if "skipped" in record.getMessage()]
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
        (
            "trainer.accumulate_steps=0",
            ValueError,
            "trainer.accumulate_steps: expected a whole number of at least 1, got 0",
        ),
        ("trainer.mode=test", ValueError, "expected one of train_only, train, val, got 'test'"),
        ("trainer.mode=train", ValueError, "set validation.img_folder"),
        ("trainer.optim.amp.amp_dtype=float16", ValueError, "expected one of bfloat16, float32, got 'float16'"),
        ("scratch.num_epochs=abc", ValueError, "scratch.num_epochs: expected a whole number of at least 1, got 'abc'"),
        ("scratch.base_lr=fast", ValueError, "scratch.base_lr: expected a number of at least 0, got 'fast'"),
        ("trainer.logging.log_freq=1.5", ValueError, "log_freq: expected a whole number of at least 0, got 1.5"),
        (
            "trainer.accumulate_steps=null",
            ValueError,
            "accumulate_steps: expected a whole number of at least 1, got None",
        ),
        ("validation.prompts=[gm,7c]", ValueError, "validation.prompts: expected some of gm, bb, 1c, 3c, 5c"),
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
    other = ("trainer.seed_value=1", "scratch.num_epochs=2")
    with pytest.raises(CheckpointError, match="seed_value: 2024 before, 1 now"):
        build_trainer(tiny_run(tmp_path, *other), CPU, StopRequest())
    with caplog.at_level(logging.WARNING):
        build_trainer(tiny_run(tmp_path, *other, "trainer.resume_changed=true"), CPU, StopRequest())
    assert "not be exact: seed_value: 2024 before, 1 now" in caplog.text
