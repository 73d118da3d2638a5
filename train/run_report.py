"""What a run tells while it goes: where it is, how long it will take, how good it is; in log, JSON lines and curves."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from torch import nn

from sav_dataset.utils.report import averages
from train.checkpoint_folder import CheckpointFolder
from train.checkpointing import RunFacts, RunProgress
from train.distributed import World
from train.metrics import MetricLog, RunningMeans, peak_memory
from train.validation import PROMPT_NAMES, ValidationResult

log = logging.getLogger(__name__)

# Curves for TensorBoard, grouped by what stands before the stroke, from the names in the JSON lines.
_CURVES = {
    "loss/all": "loss",
    "loss/images": "loss_images",
    "loss/clips": "loss_clips",
    "loss/from_masks": "loss_from_masks",
    "loss/from_clicks": "loss_from_clicks",
    "loss_parts/mask": "loss_mask",
    "loss_parts/iou": "loss_iou",
    "loss_parts/object_score": "loss_class",
    "optimizer/grad_norm": "grad_norm",
    "speed/clips_per_second": "clips_per_second",
    "speed/data_share": "data_share",
    "speed/memory_gib": "memory_gib",
}
_MAX_OBJECT_LINES = 20  # of a validation, in the log; the JSON line has all


@dataclass(frozen=True)
class ParameterCounts:
    """Numbers of values that are trained and that are frozen."""

    trained: int
    frozen: int

    @classmethod
    def of(cls, model: nn.Module) -> ParameterCounts:
        """Those of a model."""
        trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
        return cls(trained, sum(p.numel() for p in model.parameters()) - trained)

    def describe(self) -> str:
        """In a line."""
        return f"parameters: {self.trained:,} trained, {self.frozen:,} frozen"

    @property
    def num_bytes(self) -> int:
        """Weights in float32, and of what is trained the gradient and the two averages of AdamW."""
        return 16 * self.trained + 4 * self.frozen


def describe_length(facts: RunFacts, num_epochs: int, max_minutes: float | None) -> str:
    """A line about the steps of an epoch and of the whole run."""
    per_epoch = facts.batches_per_epoch / facts.accumulate_steps
    text = f"steps: {per_epoch:,.10g} an epoch, {facts.steps_left(RunProgress(), num_epochs):,} in {num_epochs} epochs"
    if facts.accumulate_steps > 1:
        text += f", of {facts.accumulate_steps} batches each"
    return text if max_minutes is None else f"{text}, but no more than {max_minutes:g} minutes"


class RunReport:
    """Writes what is measured, on the main process; the others take part in making the means."""

    def __init__(
        self,
        metrics: MetricLog,
        facts: RunFacts,
        num_epochs: int,
        max_minutes: float | None,
        checkpoints: CheckpointFolder,
        world: World,
    ) -> None:
        """``max_minutes``: a limit of time that the run has, ``None`` for none."""
        self._metrics, self._facts = metrics, facts
        self._num_epochs, self._max_minutes = num_epochs, max_minutes
        self._checkpoints, self._world = checkpoints, world

    def begin(self, progress: RunProgress, model: nn.Module, dtype: torch.dtype) -> None:
        """What the run is: where it goes on, how long it is, what it trains, on what, and where its files are."""
        world = self._world
        log.info("%s; %d are done", describe_length(self._facts, self._num_epochs, self._max_minutes), progress.step)
        log.info("%s", ParameterCounts.of(model).describe())
        precision = str(dtype).removeprefix("torch.")
        log.info("device: %s, processes: %d, computing in %s", world.device.type, world.size, precision)
        log.info("checkpoints go to %s", self._checkpoints.folder)

    def step(self, progress: RunProgress, means: RunningMeans, rates: Mapping[str, float]) -> None:
        """A line about the steps since the last one, whose means are taken; all processes have to call it alike.

        ``rates``: learning rates by the names of their rules.
        """
        taken = means.take()
        values = dict(zip(taken, self._world.mean(list(taken.values())), strict=True))
        seconds = max(values["seconds"], 1e-9)
        left = self._facts.steps_left(progress, self._num_epochs)
        values |= {
            "clips_per_second": values.pop("clips") * self._world.size / seconds,
            "data_share": values["data_seconds"] / seconds,
            "epoch": self._facts.part_done(progress),
            "steps": progress.step + left,
            "seconds_left": self._seconds_left(progress, left, seconds),
            "lr": max(rates.values()),
            "memory_gib": peak_memory(self._world.device) / 2**30,
        }
        curves = {name: values[key] for name, key in _CURVES.items() if key in values}
        curves |= {f"lr/{name}": rate for name, rate in rates.items()}
        self._metrics.write("train", progress.step, values, curves)
        log.info("%s", self._line(progress, values))

    def validation(self, progress: RunProgress, found: ValidationResult) -> None:
        """The scores of a validation."""
        report_validation(self._metrics, progress, found, _MAX_OBJECT_LINES)

    def end(self, progress: RunProgress) -> str:
        """What the run came to: steps, time, the best score and its file."""
        took = timedelta(seconds=round(progress.time_elapsed))
        text = f"{progress.step} steps, {progress.epoch} epochs, {took} of training"
        if progress.best is not None:
            where = f"after step {progress.best_step}" if progress.best_step else "before the first step"
            text += f"; best J&F {progress.best:.1f} {where}: {self._checkpoints.best}"
        return f"{text}; last state: {self._checkpoints.last}"

    def _seconds_left(self, progress: RunProgress, steps: int, seconds: float) -> float:
        by_steps = steps * seconds
        if self._max_minutes is None:
            return by_steps
        return min(by_steps, max(60 * self._max_minutes - progress.time_elapsed, 0.0))

    def _line(self, progress: RunProgress, values: Mapping[str, float]) -> str:
        epoch = f"epoch {values['epoch']:.2f} of {self._num_epochs}"
        left = timedelta(seconds=round(values["seconds_left"]))
        # Without a loss there is a line where all steps since the last one were left out.
        shown = {name: values[name] for name in ("loss", "loss_mask", "loss_iou", "loss_class") if name in values}
        shown |= {name: values[name] for name in ("grad_norm", "lr") if name in values}
        speed = f"{values['clips_per_second']:.3g} clips/s, {100 * values['data_share']:.0f} % waiting for data"
        return (
            f"step {progress.step} of {values['steps']:.0f} ({epoch}), {left} left: {format_values(shown)}, {speed}, "
            f"{values['memory_gib']:.1f} GiB"
        )


def report_validation(metrics: MetricLog, progress: RunProgress, found: ValidationResult, limit: int | None) -> None:
    """The scores of a validation: their means by prompt, and every object's; in the log those of a limit of objects."""
    means = averages_of(found)
    values: dict[str, Any] = {"epoch": progress.epoch, **means}
    prompts = {prompt: averages(scores) for prompt, scores in found.by_prompt.items()}
    objects = [
        {"prompt": prompt, "video": score.video, "object": score.obj, **averages(score)}
        for prompt, scores in found.by_prompt.items()
        for score in scores.objects
    ]
    curves = {f"val/{name}": value for name, value in means.items()}
    curves |= {f"val_by_prompt/{PROMPT_NAMES[name]}": scores["J&F"] for name, scores in prompts.items()}
    metrics.write("val", progress.step, values | {"prompts": prompts, "objects": objects}, curves)
    if found.picture is not None:
        metrics.picture("val/masks", progress.step, found.picture)
    log.info("validation after step %d, epoch %d: %s", progress.step, progress.epoch, found.describe())
    for line in found.object_lines(limit):
        log.info("  %s", line)


def averages_of(found: ValidationResult) -> dict[str, float]:
    """Means of J&F, J and F over the prompts, in percent."""
    every = [averages(scores) for scores in found.by_prompt.values()]
    return {name: sum(one[name] for one in every) / len(every) for name in ("J&F", "J", "F")}


def format_values(values: Mapping[str, float]) -> str:
    """Values with their names, in a line."""
    return ", ".join(f"{name} {value:.4g}" for name, value in values.items())
