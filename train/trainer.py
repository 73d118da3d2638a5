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

from train.checkpoint_folder import CheckpointFolder
from train.checkpointing import RunFacts, RunProgress, resume, training_state
from train.dataset.structures import BatchedClip
from train.distributed import World, accumulating
from train.loss_fns import ClipLoss, ClipLosses
from train.metrics import MetricLog, RunningMeans, draw_clip
from train.model.clip_rollout import ClipRollout, last_masks
from train.model.prompt_simulator import PerObjectUsers, PromptPlan, PromptSettings, SimulatedUser, draw_plan
from train.optimizer import ScheduledOptimizer, set_training
from train.run_report import RunReport, format_values
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
        accumulate_steps: Batches per optimizer step, across the ends of epochs.
        dtype: Compute dtype, bfloat16 or float32.
        freeze_batch_norm: Whether batch norms keep their statistics.
        log_freq: Steps between log entries.
        image_freq: Steps between pictures in TensorBoard.
        save_steps: Steps between checkpoints, besides the one after every epoch.
        val_epoch_freq: Epochs between validations, besides the one after the last.
        val_steps: Steps between validations; 0 for none by steps.
        val_at_start: Whether to validate before the first step, so that the best weights are never worse than the
            start.
        keep_steps: Steps between checkpoints that are kept by number; 0 for none.
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
    val_steps: int = 0
    val_at_start: bool = True
    keep_steps: int = 0
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
        self.report = RunReport(metrics, self.facts, settings.num_epochs, settings.max_minutes, checkpoints, world)

    def resume(self, path: Path, allow_changed: bool = False) -> None:
        """Resume from a checkpoint.

        Args:
            path: The checkpoint.
            allow_changed: Whether facts may differ that change the course of the run.

        Raises:
            CheckpointError: As :func:`train.checkpointing.resume`.
        """
        optimizer = self.optimizer.optimizer
        self.progress, means = resume(path, self.model, optimizer, self.facts, self.average, allow_changed)
        if path.resolve().parent != self.checkpoints.folder.resolve():
            self.progress = replace(self.progress, validated=-1)  # its best weights are not among the files of this run
        # What is the best is said by the file itself, which may be of a later step than the state, or gone.
        best = self.checkpoints.read_best()
        known = (None, None) if best is None else (best.score, best.step)
        self.progress = replace(self.progress, best=known[0], best_step=known[1])
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
        complete = self._is_complete
        if complete and self._is_settled:
            log.info("nothing to do: %s", self.report.end(self.progress))
            return True
        self.report.begin(self.progress, self.model, self.dtype)
        self._settle(complete)
        if not complete and not self._is_far_enough:
            complete = self._take_steps()
        if not complete:
            self._save()
            log.info("stopped after step %d; the same command resumes from there", self.progress.step)
        else:
            log.info("done: %s", self.report.end(self.progress))
        return complete

    @property
    def dtype(self) -> torch.dtype:
        """What the objective computes in."""
        objective = self.objective.module if hasattr(self.objective, "module") else self.objective
        assert isinstance(objective, ClipObjective)
        return objective.dtype

    def validate(self) -> float:
        """Score the held-out videos and log the result.

        Returns:
            J&F in percent, the mean over the prompts.

        Raises:
            ValueError: If there are no held-out videos.
        """
        if self.validator is None:
            raise ValueError("there are no held-out videos: set validation.img_folder and validation.gt_folder")
        found = self.validator.by_prompt(self.world)
        self.report.validation(self.progress, found)
        return found.jf

    @property
    def _is_far_enough(self) -> bool:
        last = self.settings.stop_after
        return last is not None and self.progress.step >= last

    @property
    def _is_complete(self) -> bool:
        """Whether the run has reached its number of epochs or its time limit."""
        timed = self.settings.max_minutes is not None
        return self.progress.epoch >= self.settings.num_epochs or (timed and self._part_done >= 1)

    @property
    def _is_settled(self) -> bool:
        """Whether all has been done that is due after the last step."""
        return self.progress.closed == self.progress.epoch and not self._validation_is_due(self._is_complete)

    @property
    def _part_done(self) -> float:
        """Fraction of the run (0..1) that is done: by steps or, with a time limit, by whichever is further."""
        by_steps = self.facts.part_done(self.progress) / self.settings.num_epochs
        minutes = self.settings.max_minutes
        return by_steps if minutes is None else min(max(by_steps, self.progress.time_elapsed / 60 / minutes), 1.0)

    def _take_steps(self) -> bool:
        """Take the remaining steps, until asked to stop. Returns whether the run is complete, the same on all ranks."""
        step = self.progress.step
        total = step + self.facts.steps_left(self.progress, self.settings.num_epochs)
        started = time.perf_counter()
        for clips in self.metrics.bar(self._batches_of_steps(), total, step, "training"):
            waited = time.perf_counter() - started
            self._step(clips)
            seconds = time.perf_counter() - started
            started += seconds
            num_clips = sum(len(clip.names) for clip in clips)
            self.means.add({"seconds": seconds, "data_seconds": waited, "clips": num_clips})
            self.progress = self.facts.after(self.progress, len(clips), seconds)
            # If any process is asked to stop, or its time is over, all stop.
            asked = self.stop_asked() or self._is_far_enough
            stops, ends = (part > 0 for part in self.world.mean([float(asked), float(self._is_complete)]))
            self._record(ends)
            if stops and not ends:
                return False
            before = time.perf_counter()
            self._settle(ends)
            started += time.perf_counter() - before
            if ends:
                return True
        return False

    def _batches_of_steps(self) -> Iterator[list[BatchedClip]]:
        """Batches of the remaining steps. A step that an epoch leaves incomplete continues with the next one."""
        first, place = self.progress.epoch, self.progress.batch
        epochs = (
            self.loader.epoch(epoch, place if epoch == first else 0) for epoch in range(first, self.settings.num_epochs)
        )
        batches = itertools.chain.from_iterable(epochs)
        while clips := list(itertools.islice(batches, self.facts.accumulate_steps)):
            yield clips

    def _step(self, clips: Sequence[BatchedClip]) -> None:
        """Take one optimizer step, or skip it on all ranks if a loss or the gradient norm is not finite."""
        self.optimizer.zero_grad()
        for number, clip in enumerate(clips):
            clip = clip.to(self.model.device, non_blocking=True)
            with accumulating(self.objective, last=number == len(clips) - 1):
                losses, masks, plan = self._forward(clip, number)
                values = _values(losses, plan, clip.num_frames)
                if not self._is_finite(values, clip):
                    return
                (losses.core / len(clips)).backward()
            self.means.add(values | _split(values["loss"], plan, clip.num_frames))
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

    def _forward(self, clip: BatchedClip, number: int) -> tuple[ClipLosses, Tensor, PromptPlan]:
        """Losses and masks of a clip, and what its user does.

        All that is random follows from the step and the clip's number in it.
        """
        seed, rank, step = self.settings.seed_value, self.world.rank, self.progress.step
        torch.manual_seed(derive_seed(seed, step, number, _Stream.LAYERS, rank))
        plan, user = draw_plan_and_user(self.prompts, self.users, clip, seed, (step, number), rank)
        num_objects = max(self.world.mean([clip.masks.shape[1]])[0], 1.0)
        return (*self.objective(clip, plan, user, num_objects), plan)

    def _is_finite(self, values: dict[str, float], clip: BatchedClip) -> bool:
        """Whether the losses of a batch are finite on all ranks; if not, skip the step and log the ranks concerned."""
        finite = all(map(math.isfinite, values.values()))
        if self.world.all(finite):
            return True
        report = None if finite else f"rank {self.world.rank}: {format_values(values)} for {', '.join(clip.names)}"
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

    def _record(self, ends: bool) -> None:
        """Log and save what is due after a step. The first, the last, and those that end an epoch are always logged."""
        step, settings = self.progress.step, self.settings
        marks = step == 1 or ends or self.progress.epoch > self.progress.closed
        if _is_due(step, settings.log_freq) or (marks and settings.log_freq > 0):
            self.report.step(self.progress, self.means, self.optimizer.rates())
        keeps = _is_due(step, settings.keep_steps)
        if keeps or _is_due(step, settings.save_steps):
            self._save()
        if keeps and self.world.is_main:
            self.checkpoints.save_step(step)

    def _validation_is_due(self, ends: bool) -> bool:
        progress, settings = self.progress, self.settings
        if self.validator is None or progress.validated == progress.step:
            return False
        if progress.best is None and settings.val_at_start:
            return True  # of what the run starts from, or goes on from, so that the best is never worse
        if progress.step == 0:
            return False
        ended = range(progress.closed + 1, progress.epoch + 1)
        at_epoch = any(_is_due(epoch, settings.val_epoch_freq) for epoch in ended)
        return ends or at_epoch or _is_due(progress.step, settings.val_steps)

    def _settle(self, ends: bool) -> None:
        """Validate, and keep numbered files, where that is due after the last step and has not been done."""
        epoch = self.progress.epoch
        ended = range(self.progress.closed + 1, epoch + 1)
        validates = self._validation_is_due(ends)
        if validates:
            if self.progress.step:
                self._save()  # if validation is interrupted, only it has to be repeated
            self._keep_if_best(self.validate())
        if not (validates or ended or ends):
            return
        self.progress = replace(self.progress, closed=epoch)
        self._save()
        if self.world.is_main:
            for due in [number for number in ended if _is_due(number, self.checkpoints.save_freq)][-1:]:
                self.checkpoints.save_epoch(due)

    def _keep_if_best(self, score: float) -> None:
        step, epoch = self.progress.step, self.progress.epoch
        self.progress = replace(self.progress, validated=step)
        if self.progress.best is None or score > self.progress.best:
            self.progress = replace(self.progress, best=score, best_step=step)
            if self.world.is_main:
                self.checkpoints.save_best(self.model, epoch, step, score)

    def _save(self) -> None:
        means = self.world.gather(self.means.state)
        if self.world.is_main:
            optimizer = self.optimizer.optimizer
            state = training_state(self.model, optimizer, self.progress, self.facts, means, self.average)
            self.checkpoints.save_last(state)
            if self.average is not None:
                self.average.save(self.checkpoints.average)


def draw_plan_and_user(
    prompts: PromptSettings, users: UserFactory, clip: BatchedClip, seed: int, place: tuple[int, int], rank: int = 0
) -> tuple[PromptPlan, SimulatedUser]:
    """Draw what is prompted and corrected on a batch, and who does it.

    Args:
        prompts: How prompts are sampled.
        users: Creates the simulated user, on the clip's device.
        clip: The batch.
        seed: Seed of the run.
        place: The step, and the number of the batch in it.
        rank: The process. All draw the same plan, so that they have the same amount of work.
    """
    plan = draw_plan(prompts, clip.num_frames, np.random.default_rng((prompts.seed, *place)))
    count = clip.masks.shape[1]
    rows = range(rank * count, (rank + 1) * count)
    return plan, users(clip.frames.device, (seed, *place, _Stream.CLICKS), rows)


def _is_due(count: int, frequency: int) -> bool:
    return frequency > 0 and count % frequency == 0


def _values(losses: ClipLosses, plan: PromptPlan, num_frames: int) -> dict[str, float]:
    """Losses as floats, copied from the device in one transfer: means over the decoded frames and corrections."""
    names = ("loss", "loss_mask", "loss_iou", "loss_class")
    parts = torch.stack((losses.core.detach(), losses.mask, losses.iou, losses.object_score))
    decoded = num_frames + sum(map(len, plan.corrections.values()))
    return dict(zip(names, (parts / decoded).tolist(), strict=True))


def _split(loss: float, plan: PromptPlan, num_frames: int) -> dict[str, float]:
    """A batch's loss by what it is of, an image or a clip, and by the kind of its prompts."""
    of = "images" if num_frames == 1 else "clips"
    prompts = "masks" if set(plan.initial.values()) == {"mask"} else "clicks"
    return {f"loss_{of}": loss, f"loss_from_{prompts}": loss}
