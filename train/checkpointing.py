"""The state of a run in files: written as a whole or not at all, and enough to go on exactly.

A file holds the weights under "model", where every loader of this project finds them, and the rest beside them. No
random state is saved: seeds follow from the number of the step.
"""

from __future__ import annotations

import contextlib
import logging
import math
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from i2v.checkpoint import (
    CheckpointError,
    check_fit,
    load_checkpoint,
    load_tinysam,
    read_content,
    save_atomically,
    save_checkpoint,
    state_dict_of,
)
from i2v.errors import brief
from i2v.modeling.i2v_model import I2VModel
from i2v.pretrained import nano_checkpoint
from i2v.utils.files import DiskFullError, replacing
from i2v.utils.output_folder import own_folder
from i2v.utils.temporary import remove_leftovers
from train.lora import has_adapters, merged_state, save_adapters
from train.trunk_weights import start_from_trunk
from train.weight_average import WeightAverage

log = logging.getLogger(__name__)

REPOSITORY = Path(__file__).parents[1]
TINYSAM = REPOSITORY / "checkpoints" / "tinysam.pth"
_LOCAL_PAIRS, _LOCAL_BIAS = 6, 3.0  # half the weight is lost at a distance of about one cell
_PINV_TOLERANCE = 0.05  # singular values below this share of the largest are noise
_FIRST_SLOW_PAIR = 12  # from here on rotary pairs of a small model turn so slowly that places hardly matter
_TINYSAM_PREFIX = "tinysam:"
_LITE_PREFIX = "efficientnet_lite:"
_AVERAGE = "ema.pt"
_NANO = "i2v-nano"
_TRAINED = "trained"

# Sums and counts by name, as of train.metrics.RunningMeans.
Means = Mapping[str, tuple[float, int]]


@dataclass(frozen=True)
class RunProgress:
    """How far a run has come.

    ``epoch``: epochs finished; ``batch``: batches used since; ``step``: steps taken in all; ``skipped``: those of them
    that were left out in a row until now, for numbers that were not finite; ``best``: the highest J&F of a validation,
    and ``best_step`` the step after which it was reached. ``closed``: epochs after whose end all has been done that is
    due then; ``validated``: the step after which the last validation was, -1 before the first.
    """

    epoch: int = 0
    batch: int = 0
    step: int = 0
    skipped: int = 0
    loss: float = 0.0
    time_elapsed: float = 0.0
    best: float | None = None
    best_step: int | None = None
    closed: int = 0
    validated: int = -1


@dataclass(frozen=True)
class RunFacts:
    """What has to be the same for a resumed run to go on exactly."""

    world_size: int
    seed_value: int
    batches_per_epoch: int
    accumulate_steps: int

    def __post_init__(self) -> None:
        for name in ("batches_per_epoch", "accumulate_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected at least 1, got {getattr(self, name)}")

    def steps_left(self, progress: RunProgress, num_epochs: int) -> int:
        """Steps from a place in a run to its end. They take batches over the ends of epochs; the last may have few."""
        batches = (num_epochs - progress.epoch) * self.batches_per_epoch - progress.batch
        return max(math.ceil(batches / self.accumulate_steps), 0)

    def after(self, progress: RunProgress, num_batches: int, seconds: float) -> RunProgress:
        """The place after one more step, of so many batches."""
        epochs, batch = divmod(progress.batch + num_batches, self.batches_per_epoch)
        return replace(
            progress,
            epoch=progress.epoch + epochs,
            batch=batch,
            step=progress.step + 1,
            time_elapsed=progress.time_elapsed + seconds,
        )

    def part_done(self, progress: RunProgress) -> float:
        """Epochs done, with a fraction for the one under way."""
        return progress.epoch + progress.batch / self.batches_per_epoch


class CheckpointFolder:
    """The checkpoints of a run: ``checkpoint.pt`` (the last), ``checkpoint_N.pt`` (after N epochs), ``best.pt``."""

    def __init__(self, folder: Path, save_freq: int = 1, keep_last: int | None = None) -> None:
        """``save_freq``: epochs from one numbered file to the next, 0 for none; ``keep_last``: so many are kept."""
        self.folder = folder
        self._last_step: int | None = None
        self.save_freq = save_freq
        self.keep_last = keep_last
        if keep_last is not None and keep_last < 1:
            raise ValueError(f"keep_last: expected at least 1, or null to keep all, got {keep_last}")
        own_folder(folder)
        remove_leftovers(folder)

    @property
    def last(self) -> Path:
        """The state to go on from."""
        return self.folder / "checkpoint.pt"

    @property
    def best(self) -> Path:
        """The weights of the best validation."""
        return self.folder / "best.pt"

    @property
    def average(self) -> Path:
        """The averaged weights for inference, where a run keeps them."""
        return self.folder / _AVERAGE

    def save_last(self, state: Mapping[str, Any]) -> None:
        """Replace the last state. Raises DiskFullError; then the one before is still there."""
        save_atomically(dict(state), self.last)
        self._last_step = state["steps"]["train"]

    @contextlib.contextmanager
    def telling_what_is_kept(self) -> Iterator[None]:
        """Let a DiskFullError of the block say which state of the run is safe."""
        try:
            yield
        except DiskFullError as error:
            step = "" if self._last_step is None else f", of step {self._last_step},"
            intact = f"{self.last}{step} is intact: make room, and the same command goes on from there"
            error.kept = intact if self.last.exists() else "no checkpoint had been written yet"
            raise

    def save_epoch(self, epoch: int) -> None:
        """Keep the last state as that after an epoch, if it is due, and drop the oldest of its kind."""
        if self.save_freq <= 0 or epoch % self.save_freq:
            return
        self._keep(self.folder / f"checkpoint_{epoch}.pt", self._numbered(r"checkpoint_(\d+)\.pt"))

    def _keep(self, path: Path, before: list[Path]) -> None:
        with replacing(path) as temporary:
            shutil.copyfile(self.last, temporary)
        if self.keep_last is not None:
            others = [other for other in before if other != path]
            for other in others[: len(others) + 1 - self.keep_last]:
                other.unlink(missing_ok=True)

    def save_best(self, model: nn.Module, epoch: int, score: float) -> None:
        """Keep the weights alone, as a file for inference; adapters are merged, and kept apart as well."""
        save_checkpoint(merged_state(model), self.best, epoch=epoch, jf=score)
        if has_adapters(model):
            save_adapters(model, self.folder / "best_adapters.pt")

    def save_step(self, step: int) -> None:
        """Keep the last state as that after a step, and drop the oldest of its kind."""
        self._keep(self.folder / f"checkpoint_step_{step}.pt", self._numbered(r"checkpoint_step_(\d+)\.pt"))

    def _numbered(self, pattern: str) -> list[Path]:
        found = [(re.fullmatch(pattern, path.name), path) for path in self.folder.iterdir()]
        return [path for _, path in sorted((int(match[1]), path) for match, path in found if match)]


def training_state(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    progress: RunProgress,
    facts: RunFacts,
    means: Sequence[Means] = (),
    average: WeightAverage | None = None,
) -> dict[str, Any]:
    """All that a checkpoint of a run holds; keys that the published trainer has, too, have its names.

    ``means``: of each process, what it has measured but not written down yet.
    """
    return {
        "model": merged_state(model),
        # With adapters, what is trained beside what is used.
        **({_TRAINED: model.state_dict()} if has_adapters(model) else {}),
        "optimizer": optimizer.state_dict(),
        "epoch": progress.epoch,
        "loss": progress.loss,
        "steps": {"train": progress.step},
        "time_elapsed": progress.time_elapsed,
        "best_meter_values": {} if progress.best is None else {"J&F": progress.best},
        "progress": asdict(progress),
        "run": asdict(facts),
        "means": list(means),
        # Here too, as a run may be killed between two files.
        **({} if average is None else {"average": average.state()}),
    }


def resume(
    path: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    facts: RunFacts,
    average: WeightAverage | None = None,
    allow_changed: bool = False,
) -> tuple[RunProgress, list[Means]]:
    """Put model, optimizer and average into the state of a file; returns where the run goes on from, and its means.

    Raises CheckpointError for a file without a run's state, or of a run with another model, other groups of parameters
    or, unless these are allowed, other facts that change its course; these are logged.
    """
    try:
        content = read_content(path, mapped=False)
        place = _resume(path, content, model, optimizer, facts, allow_changed)
        if average is not None and "average" in content:
            average.load_state(content["average"])
        elif average is not None:
            average.resume(path.with_name(_AVERAGE))  # a state of before averages stood in it
        return place
    except (AttributeError, LookupError, TypeError) as error:
        raise CheckpointError(f"{path}: its state of a run is damaged: {error}") from error


def load_progress(path: Path, model: nn.Module) -> RunProgress:
    """Give a model the weights of a run's state; returns how far the run had come. CheckpointError for another file."""
    content = read_content(path, mapped=False)
    weights = state_dict_of(content, path)  # with adapters those that are merged
    check_fit(model, weights, path)
    model.load_state_dict(weights)
    try:
        return RunProgress(**_numbers(content["progress"]))
    except (LookupError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path}: its state of a run is damaged: {error}") from error


def _resume(
    path: Path,
    content: dict[str, Any],
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    facts: RunFacts,
    allow_changed: bool,
) -> tuple[RunProgress, list[Means]]:
    if not {"optimizer", "progress", "run", "means"} <= content.keys():
        raise CheckpointError(
            f"{path} holds no state of a run of this trainer; to start from its weights, use an empty folder and "
            f"trainer.checkpoint.initial={path}"
        )
    weights = content[_TRAINED] if _TRAINED in content else state_dict_of(content, path)
    check_fit(model, weights, path)
    saved, own = _group_names(content["optimizer"]), _group_names(optimizer.state_dict())
    if saved != own:
        raise CheckpointError(
            f"{path}: the parameters of this run are grouped otherwise: {len(saved)} groups were saved, {len(own)} are "
            f"expected, and they differ in {sorted(set(saved) ^ set(own))[:4]}; to start from its weights, use an "
            f"empty folder and trainer.checkpoint.initial={path}"
        )
    before, progress = RunFacts(**_numbers(content["run"])), _progress(_numbers(content["progress"]), facts)
    changed = [f"{k}: {v} before, {asdict(facts)[k]} now" for k, v in asdict(before).items() if v != asdict(facts)[k]]
    if changed and not allow_changed:
        raise CheckpointError(
            f"{path}: the run cannot go on exactly ({'; '.join(changed)}): go on all the same with "
            "trainer.resume_changed=true"
        )
    # Nothing of the run is changed before all that can be wrong with the file has been looked at.
    model.load_state_dict(weights)
    optimizer.load_state_dict(content["optimizer"])
    if changed:
        log.warning("the run goes on from %s, but not exactly: %s", path, "; ".join(changed))
    if before.batches_per_epoch != facts.batches_per_epoch:
        # A place in an epoch means nothing in one of another length.
        progress = replace(progress, batch=0)
    log.info("resumed from %s: %d epochs and %d steps are done", path, progress.epoch, progress.step)
    return progress, content["means"]


def _progress(values: Mapping[str, Any], facts: RunFacts) -> RunProgress:
    progress = RunProgress(**values)
    if "closed" not in values:  # a state of before; what was due after its last epoch had been done
        progress = replace(progress, closed=progress.epoch, validated=progress.step)
        if progress.batch >= facts.batches_per_epoch:  # but for one that was saved before its epoch was validated
            progress = replace(progress, epoch=progress.epoch + 1, batch=0, validated=-1)
    return progress


def _numbers(values: Mapping[str, Any]) -> Mapping[str, Any]:
    for name, value in values.items():
        if not (value is None or isinstance(value, int | float)):
            raise TypeError(f"{name}: expected a number, got {brief(value)}")
    return values


def initialize(model: I2VModel, initial: str | Path) -> None:
    """Give a model its first weights: ``none`` leaves them random, ``tinysam`` starts from TinySAM's, ``i2v-nano`` from
    those of the small model that comes with i2v.

    ``local`` leaves them random, but lets memory attention begin by looking where it is, see :func:`look_nearby`.
    ``efficientnet_lite`` starts an EfficientNet-Lite trunk from the ImageNet weights of its package, or of a file with
    ``efficientnet_lite:PATH``, and memory attention local. ``tinysam:PATH`` takes TinySAM's weights from another place
    than ``checkpoints/tinysam.pth``; anything else is the path of an i2v checkpoint. Raises FileNotFoundError or
    CheckpointError.
    """
    name = str(initial)
    if name == _NANO:
        load_checkpoint(model, nano_checkpoint())
        log.info("the weights are those of i2v-nano")
    elif name == "none":
        log.info("the weights start random")
    elif name == "local":
        look_nearby(model)
        log.info("the weights start random, but for memory attention, which starts local")
    elif name == "efficientnet_lite" or name.startswith(_LITE_PREFIX):
        path = Path(name.removeprefix(_LITE_PREFIX)) if name != "efficientnet_lite" else None
        log.info("ImageNet weights of the trunk: %s", start_from_trunk(model, path).describe())
        look_nearby(model)
    elif name == "tinysam" or name.startswith(_TINYSAM_PREFIX):
        path = Path(name.removeprefix(_TINYSAM_PREFIX)) if name != "tinysam" else TINYSAM
        if not path.exists():
            raise FileNotFoundError(
                f"{path} does not exist: training starts from TinySAM's weights; get tinysam.pth from "
                "https://huggingface.co/xinghaochen/tinysam (see checkpoints/README.md), or start from another "
                "checkpoint (trainer.checkpoint.initial=PATH) or from nothing (trainer.checkpoint.initial=none)"
            )
        load_tinysam(model, path)
    else:
        load_checkpoint(model, name)


def look_nearby(model: nn.Module) -> None:
    """Let memory attention find, of every memory, the place where it is itself, before it has learned anything.

    With equal biases q = k = b, rotary scores are a sum of |b_j|^2 cos(f_j distance) over the channel pairs j, of
    frequencies f_j: highest at the same place. Only the highest frequencies tell neighbours apart. From random
    weights attention is uniform instead, and says nothing of places: see checkpoints/i2v-nano.md for what that costs.
    """
    for layer in model.get_submodule("memory_attention.layers").children():
        attention = layer.get_submodule("cross_attn_image")
        for name in ("q_proj", "k_proj"):
            bias = attention.get_parameter(f"{name}.bias")
            with torch.no_grad():
                # Columns are the first half of the channels, rows the second; pairs are neighbours.
                for half in bias.chunk(2):
                    half.zero_()
                    half[: 2 * _LOCAL_PAIRS : 2] = _LOCAL_BIAS


def attend_by_similarity(model: I2VModel, strength: float) -> None:
    """Let memory attention find what looks alike, before it has learned to: for runs that start from nothing.

    Where no mask was, the memory encoder makes m = P f of frame features f. With queries ``strength`` A x and keys
    ``strength`` A P+ m, where A has orthonormal rows and P+ is the pseudo-inverse, the score of a token x and a memory
    m is ``strength``^2 times the product of projections of x and f. Only channels that rotary encoding turns slowly
    take part, so what :func:`look_nearby` set in the others stays.
    """
    to_memory, to_pixels = (model.get_parameter(f"memory_encoder.{n}.weight") for n in ("out_proj", "pix_feat_proj"))
    reduce = (to_memory.flatten(1) @ to_pixels.flatten(1)).detach()
    undo = torch.linalg.pinv(reduce, rtol=_PINV_TOLERANCE)
    dim = reduce.shape[1]
    channels = torch.arange(dim)
    slow = channels[(channels % (dim // 2)) >= 2 * _FIRST_SLOW_PAIR]
    directions = torch.linalg.qr(torch.randn(dim, dim, generator=torch.Generator().manual_seed(0)))[0][: len(slow)]
    for layer in model.get_submodule("memory_attention.layers").children():
        attention = layer.get_submodule("cross_attn_image")
        for name, weight in (("q_proj", directions), ("k_proj", directions @ undo)):
            with torch.no_grad():
                attention.get_parameter(f"{name}.weight")[slow] = strength * weight
                attention.get_parameter(f"{name}.bias")[slow] = 0


def _group_names(state: Mapping[str, Any]) -> list[str]:
    groups: list[Mapping[str, Tensor | str]] = state["param_groups"]
    return [f"{group.get('name')} ({len(group['params'])} tensors)" for group in groups]
