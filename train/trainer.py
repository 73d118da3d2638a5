"""The training loop."""

from __future__ import annotations

import itertools
import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from train.checkpointing import CheckpointFolder, RunFacts, RunProgress, resume, training_state
from train.dataset.structures import BatchedClip
from train.distributed import World, accumulating
from train.loss_fns import ClipLoss, ClipLosses
from train.metrics import MetricLog, RunningMeans, draw_clip, peak_memory
from train.model.clip_rollout import ClipRollout, last_masks
from train.model.prompt_simulator import PerObjectUsers, PromptPlan, PromptSettings, SimulatedUser, draw_plan
from train.optimizer import ScheduledOptimizer, set_training
from train.seeding import derive_seed
from train.validation import Validator
from train.weight_average import WeightAverage

log = logging.getLogger(__name__)


class Loader(Protocol):
    """Source of batches, such as :class:`train.dataset.mixed_loader.MixedLoader`."""

    def epoch(self, epoch: int, start: int = 0) -> Iterator[BatchedClip]:
        """Iterate over the batches of an epoch from number ``start`` on; every call yields the same ones."""
        ...

    def __len__(self) -> int: ...


class UserFactory(Protocol):
    """Creates the simulated user of a step, such as :class:`train.model.prompt_simulator.PerObjectUsers`."""

    def __call__(self, device: torch.device, key: Sequence[int], rows: Sequence[int]) -> SimulatedUser: ...


@dataclass(frozen=True)
class TrainerSettings:
    """Settings of the training loop. A frequency of 0 means never.

    Attributes:
        num_epochs: Epochs of the run.
        seed_value: Seed of everything random but the prompt plan.
        accumulate_steps: Batches per optimizer step.
        dtype: Compute dtype, bfloat16 or float32.
        freeze_batch_norm: Whether batch norms keep their statistics.
        log_freq: Steps between log entries.
        image_freq: Steps between pictures in TensorBoard.
        save_steps: Steps between checkpoints, besides the one after every epoch.
        val_epoch_freq: Epochs between validations, besides the one after the last.
        max_skipped: Consecutive steps with non-finite values that are tolerated; one more ends the run.
        stop_after: Step after which the run stops, to be resumed later; ``None`` for never.
        max_minutes: Minutes of training after which the run is complete; schedules then follow the clock. ``None`` for
            no limit.
    """

    num_epochs: int
    seed_value: int = 2024
    accumulate_steps: int = 1
    dtype: torch.dtype = torch.bfloat16
    freeze_batch_norm: bool = False
    log_freq: int = 200
    image_freq: int = 1000
    save_steps: int = 500
    val_epoch_freq: int = 1
    max_skipped: int = 10
    stop_after: int | None = None
    max_minutes: float | None = None


class _Stream(IntEnum):
    """What random numbers are used for; the streams of one seed are independent."""

    LAYERS = 0
    CLICKS = 1


class ClipObjective(nn.Module):
    """Rollout and loss in one module: DistributedDataParallel expects every output with gradients in the loss."""

    def __init__(self, rollout: ClipRollout, loss: ClipLoss, dtype: torch.dtype) -> None:
        """Combine rollout and loss.

        Args:
            rollout: Runs the model over a clip.
            loss: Compares its predictions with the ground truth, always in float32.
            dtype: Autocast dtype of the model; float32 disables autocast.
        """
        super().__init__()
        self.rollout = rollout
        self.loss = loss
        self.dtype = dtype

    def forward(
        self, clip: BatchedClip, plan: PromptPlan, user: SimulatedUser, num_objects: float
    ) -> tuple[ClipLosses, Tensor]:
        """Compute the losses of a batch.

        Args:
            clip: The batch, with N objects on T frames.
            plan: Which frames are prompted and corrected.
            user: Draws the prompts and corrections.
            num_objects: Divisor of the losses: N averaged over all processes.

        Returns:
            The losses, and the final masks ``(T, N, S, S)`` bool.
        """
        mixed = self.dtype != torch.float32
        with torch.autocast(clip.frames.device.type, dtype=self.dtype if mixed else None, enabled=mixed):
            steps = self.rollout(clip, plan, user)
        return self.loss(steps, clip.masks, num_objects), last_masks(steps)


class Trainer:
    """Trains a model until the run is complete or asked to stop."""

    def __init__(
        self,
        objective: nn.Module,
        rollout: ClipRollout,
        loader: Loader,
        optimizer: ScheduledOptimizer,
        prompts: PromptSettings,
        settings: TrainerSettings,
        checkpoints: CheckpointFolder,
        metrics: MetricLog,
        world: World,
        validator: Validator | None = None,
        users: UserFactory | None = None,
        average: WeightAverage | None = None,
        stop_asked: Callable[[], bool] = lambda: False,
    ) -> None:
        """Set up a run at its start; :meth:`resume` continues a saved one.

        Args:
            objective: A :class:`ClipObjective` around ``rollout``, wrapped for the processes of ``world``.
            rollout: Holds the model.
            loader: Source of batches.
            optimizer: Optimizer over the parameters of the model.
            prompts: How prompts are sampled.
            settings: Settings of the loop.
            checkpoints: Where checkpoints are written.
            metrics: Where metrics are written.
            world: The processes of the run.
            validator: Scores held-out videos; ``None`` skips validation.
            users: Creates simulated users; ``None`` for :class:`PerObjectUsers`.
            average: Moving average of the weights, saved with them; ``None`` keeps none.
            stop_asked: Called after every step; true stops the run.
        """
        self.objective = objective
        self.model = rollout.model
        self.loader = loader
        self.optimizer = optimizer
        self.prompts = prompts
        self.settings = settings
        self.checkpoints = checkpoints
        self.metrics = metrics
        self.world = world
        self.validator = validator
        self.users = users or PerObjectUsers()
        self.average = average
        self.stop_asked = stop_asked
        self.progress = RunProgress()
        self.facts = RunFacts(world.size, settings.seed_value, len(loader), settings.accumulate_steps)
        self.means = RunningMeans()

    def resume(self, path: Path) -> None:
        """Resume from a checkpoint.

        Raises:
            CheckpointError: As :func:`train.checkpointing.resume`.
        """
        self.progress, means = resume(path, self.model, self.optimizer.optimizer, self.facts, self.average)
        if len(means) == self.world.size:
            self.means = RunningMeans(means[self.world.rank])

    def fit(self) -> bool:
        """Train until the run is complete or asked to stop; a checkpoint is saved either way.

        Returns:
            Whether the run is complete.

        Raises:
            RuntimeError: If too many steps in a row had non-finite values.
        """
        set_training(self.model, self.settings.freeze_batch_norm)
        while not self._is_complete():
            if self._is_far_enough or not self._train_epoch():
                self._save()
                break
            self._finish_epoch()
        if not self._is_complete():
            log.info("stopped after step %d; the same command resumes from there", self.progress.step)
        return self._is_complete()

    def validate(self) -> float:
        """Score the held-out videos and log the result.

        Returns:
            J&F in percent.

        Raises:
            ValueError: If there are no held-out videos.
        """
        if self.validator is None:
            raise ValueError("there are no held-out videos: set validation.img_folder and validation.gt_folder")
        scores, epoch = self.validator(self.world), self.progress.epoch
        values = {"epoch": epoch, "J&F": scores.jf, "J": scores.j, "F": scores.f}
        self.metrics.write("val", self.progress.step, values)
        log.info("after %d epochs: J&F %.1f, J %.1f, F %.1f", epoch, scores.jf, scores.j, scores.f)
        return scores.jf

    @property
    def _is_far_enough(self) -> bool:
        last = self.settings.stop_after
        return last is not None and self.progress.step >= last

    def _is_complete(self) -> bool:
        """Whether the run has reached its number of epochs or its time limit."""
        timed = self.settings.max_minutes is not None
        return self.progress.epoch >= self.settings.num_epochs or (timed and self._part_done >= 1)

    @property
    def _part_done(self) -> float:
        """Fraction of the run (0..1) that is done: by steps or, with a time limit, by whichever is further."""
        by_steps = self.facts.part_done(self.progress) / self.settings.num_epochs
        minutes = self.settings.max_minutes
        return by_steps if minutes is None else min(max(by_steps, self.progress.time_elapsed / 60 / minutes), 1.0)

    def _train_epoch(self) -> bool:
        """Train the remaining steps of an epoch. Returns whether to continue: false if asked to stop."""
        size, epoch = self.facts.accumulate_steps, self.progress.epoch
        total, done = self.facts.steps_per_epoch, self.progress.batch // size
        batches = self.loader.epoch(epoch, self.progress.batch)
        groups = (list(itertools.islice(batches, size)) for _ in range(total - done))
        started = time.perf_counter()
        for clips in self.metrics.bar(groups, total, done, f"epoch {epoch + 1}/{self.settings.num_epochs}"):
            waited = time.perf_counter() - started
            self._step(clips)
            seconds = time.perf_counter() - started
            started += seconds
            self.means.add({"seconds": seconds, "data_seconds": waited})
            self._count(seconds)
            # If any process is asked to stop, all stop.
            if not self.world.all(not (self.stop_asked() or self._is_far_enough or self._is_complete())):
                return False
        return True

    def _step(self, clips: Sequence[BatchedClip]) -> None:
        """Take one optimizer step, or skip it on all ranks if a loss or the gradient norm is not finite."""
        self.optimizer.zero_grad()
        for number, clip in enumerate(clips):
            clip = clip.to(self.model.device, non_blocking=True)
            with accumulating(self.objective, last=number == len(clips) - 1):
                losses, masks = self._forward(clip, number)
                values = _values(losses)
                if not self._is_finite(values, clip):
                    return
                (losses.core / len(clips)).backward()
            self.means.add(values)
        self.optimizer.set_progress(self._part_done)
        norm = self.optimizer.clip().item()
        if not math.isfinite(norm):
            self._skip(f"the norm of the gradient is {norm}")
            return
        self.optimizer.step()
        if self.average is not None:
            self.average.update(self.model)
        self.means.add({"grad_norm": norm})
        self.progress = replace(self.progress, skipped=0, loss=values["loss"])
        if self.metrics.takes_pictures and _is_due(self.progress.step + 1, self.settings.image_freq):
            self.metrics.picture("train/masks", self.progress.step + 1, draw_clip(clip, masks))

    def _forward(self, clip: BatchedClip, number: int) -> tuple[ClipLosses, Tensor]:
        """Compute losses and masks of a clip. All randomness is seeded by the step and the clip's number in it."""
        device, rank, count = self.model.device, self.world.rank, clip.masks.shape[1]
        key = (self.settings.seed_value, self.progress.step, number)
        torch.manual_seed(derive_seed(*key, _Stream.LAYERS, rank))
        # All ranks draw the same plan, so that they have the same amount of work.
        rng = np.random.default_rng((self.prompts.seed, self.progress.step, number))
        plan = draw_plan(self.prompts, clip.num_frames, rng)
        rows = range(rank * count, (rank + 1) * count)
        user = self.users(device, (*key, _Stream.CLICKS), rows)
        num_objects = max(self.world.mean([count])[0], 1.0)
        return self.objective(clip, plan, user, num_objects)

    def _is_finite(self, values: dict[str, float], clip: BatchedClip) -> bool:
        """Whether the losses of a batch are finite on all ranks; if not, skip the step and log the ranks concerned."""
        finite = all(map(math.isfinite, values.values()))
        if self.world.all(finite):
            return True
        report = None if finite else f"rank {self.world.rank}: {_format(values)} for {', '.join(clip.names)}"
        reports = [line for line in self.world.gather(report) if line is not None]
        self._skip(f"the loss is not finite on {'; '.join(reports)}")
        return False

    def _skip(self, reason: str) -> None:
        self.progress = replace(self.progress, skipped=self.progress.skipped + 1)
        in_a_row = self.progress.skipped
        if self.world.is_main:
            log.warning("step %d skipped on all ranks, %d in a row: %s", self.progress.step + 1, in_a_row, reason)
        if in_a_row > self.settings.max_skipped:
            raise RuntimeError(f"{in_a_row} steps in a row were skipped, the last because {reason}")

    def _count(self, seconds: float) -> None:
        """Count a finished step, then log and save if due."""
        before = self.progress
        step, batch = before.step + 1, before.batch + self.facts.accumulate_steps
        self.progress = replace(before, step=step, batch=batch, time_elapsed=before.time_elapsed + seconds)
        if _is_due(step, self.settings.log_freq):
            self._log()
        if _is_due(step, self.settings.save_steps):
            self._save()

    def _log(self) -> None:
        means = self.means.take()
        means = dict(zip(means, self.world.mean(list(means.values())), strict=True))
        step, rates = self.progress.step, self.optimizer.values()
        means |= {"epoch": self.facts.part_done(self.progress), "lr": max(rates.values())}
        means["memory_gib"] = peak_memory(self.model.device) / 2**30
        self.metrics.write("train", step, means)
        self.metrics.curves(step, rates)
        log.info("step %d: %s", step, _format(means))

    def _finish_epoch(self) -> None:
        epoch = self.progress.epoch + 1
        is_last = epoch == self.settings.num_epochs
        validates = self.validator is not None and (is_last or _is_due(epoch, self.settings.val_epoch_freq))
        if validates:
            self._save()  # if validation is interrupted, only it has to be repeated
        self.progress = replace(self.progress, epoch=epoch, batch=0)
        if validates:
            score = self.validate()
            if self.progress.best is None or score > self.progress.best:
                self.progress = replace(self.progress, best=score)
                if self.world.is_main:
                    self.checkpoints.save_best(self.model, epoch, score)
        self._save()
        if self.world.is_main:
            self.checkpoints.save_epoch(epoch)

    def _save(self) -> None:
        means = self.world.gather(self.means.state)
        if self.world.is_main:
            optimizer = self.optimizer.optimizer
            state = training_state(self.model, optimizer, self.progress, self.facts, means, self.average)
            self.checkpoints.save_last(state)
            if self.average is not None:
                self.average.save(self.checkpoints.average)


def _is_due(count: int, frequency: int) -> bool:
    return frequency > 0 and count % frequency == 0


def _values(losses: ClipLosses) -> dict[str, float]:
    """Losses as floats, copied from the device in one transfer."""
    names = ("loss", "loss_mask", "loss_iou", "loss_class")
    parts = torch.stack((losses.core.detach(), losses.mask, losses.iou, losses.object_score))
    return dict(zip(names, parts.tolist(), strict=True))


def _format(values: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in values.items())
