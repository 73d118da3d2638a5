"""Checkpoints of a run: written atomically, and complete enough to resume exactly.

The weights are stored under "model", where every loader of this project finds them; the training state is stored beside
them. No RNG state is saved: seeds are derived from the step number.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
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
    state_dict_of,
)
from i2v.errors import brief
from i2v.modeling.i2v_model import I2VModel
from i2v.pretrained import nano_checkpoint
from train.checkpoint_folder import AVERAGE, earlier_state
from train.lora import has_adapters, merged_state
from train.trunk_weights import start_from_trunk
from train.weight_average import WeightAverage

log = logging.getLogger(__name__)

REPOSITORY = Path(__file__).parents[1]
TINYSAM = REPOSITORY / "checkpoints" / "tinysam.pth"
_LOCAL_PAIRS, _LOCAL_BIAS = 6, 3.0  # the attention weight halves at a distance of about one cell
_PINV_TOLERANCE = 0.05  # singular values below this share of the largest are noise
_FIRST_SLOW_PAIR = 12  # from here on the rotary frequencies of a small model are so low that position hardly matters
_TINYSAM_PREFIX = "tinysam:"
_LITE_PREFIX = "efficientnet_lite:"
_NANO = "i2v-nano"
_TRAINED = "trained"

# Sum and count by name, the state of train.metrics.RunningMeans.
Means = Mapping[str, tuple[float, int]]


@dataclass(frozen=True)
class RunProgress:
    """Progress of a run.

    Attributes:
        epoch: Finished epochs.
        batch: Batches used of the current epoch.
        step: Steps taken in total.
        skipped: Steps skipped in a row until now because of non-finite values.
        loss: Loss of the last step.
        time_elapsed: Training time in seconds.
        best: Highest J&F of a validation in percent, or ``None`` before the first.
        best_step: Step of that validation.
        closed: Epochs after whose end everything that was due has been done.
        validated: Step of the last validation; -1 before the first.
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
    """What must be unchanged for a run to resume exactly.

    Attributes:
        world_size: Number of processes.
        seed_value: Seed of the run.
        batches_per_epoch: Batches per epoch and process.
        accumulate_steps: Batches per optimizer step, 1 to ``batches_per_epoch``.
    """

    world_size: int
    seed_value: int
    batches_per_epoch: int
    accumulate_steps: int

    def __post_init__(self) -> None:
        for name in ("batches_per_epoch", "accumulate_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected at least 1, got {getattr(self, name)}")

    def steps_left(self, progress: RunProgress, num_epochs: int) -> int:
        """Steps from a place in a run to its end, across the ends of epochs; the last may have fewer batches."""
        batches = (num_epochs - progress.epoch) * self.batches_per_epoch - progress.batch
        return max(math.ceil(batches / self.accumulate_steps), 0)

    def after(self, progress: RunProgress, num_batches: int, seconds: float) -> RunProgress:
        """The progress after one more step of ``num_batches`` batches."""
        epochs, batch = divmod(progress.batch + num_batches, self.batches_per_epoch)
        return replace(
            progress,
            epoch=progress.epoch + epochs,
            batch=batch,
            step=progress.step + 1,
            time_elapsed=progress.time_elapsed + seconds,
        )

    def part_done(self, progress: RunProgress) -> float:
        """Epochs done, including the fraction of the current one."""
        return progress.epoch + progress.batch / self.batches_per_epoch


def training_state(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    progress: RunProgress,
    facts: RunFacts,
    means: Sequence[Means] = (),
    average: WeightAverage | None = None,
) -> dict[str, Any]:
    """Collect what a checkpoint holds, under the key names of the published trainer where it has them.

    Args:
        model: The trained model.
        optimizer: Its optimizer.
        progress: Progress of the run.
        facts: What must be unchanged to resume exactly.
        means: Per process, the running means that have not been logged yet.
        average: The weight average, if the run keeps one.

    Returns:
        The content of the checkpoint.
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
        # Also in this file, because a run may be killed between writing the two.
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
    """Load model, optimizer and weight average from a checkpoint.

    Args:
        path: The checkpoint.
        model: Model to load into.
        optimizer: Optimizer to load into.
        facts: The facts of the present run.
        average: Weight average to load into, if the run keeps one.
        allow_changed: Whether the facts may differ; the differences are then logged.

    Returns:
        The progress of the run, and the running means of each process.

    Raises:
        CheckpointError: If the file holds no training state, or that of another model or of other parameter groups.
    """
    try:
        content = _read_state(path)
        return _resume(path, content, model, optimizer, facts, average, allow_changed)
    except (AttributeError, LookupError, TypeError) as error:
        raise CheckpointError(f"{path}: the training state is damaged: {error}") from error


def steps_done(path: Path) -> int:
    """How many steps the state of a run has taken. CheckpointError for another file."""
    try:
        return int(_read_state(path, mapped=True)["progress"]["step"])
    except (LookupError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: its state of a run is damaged: {error}") from error


def load_progress(path: Path, model: nn.Module) -> RunProgress:
    """Give a model the weights of a run's state; returns how far the run had come. CheckpointError for another file."""
    content = _read_state(path)
    weights = state_dict_of(content, path)  # with adapters those that are merged
    check_fit(model, weights, path)
    model.load_state_dict(weights)
    try:
        return RunProgress(**_numbers(content["progress"]))
    except (LookupError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path}: its state of a run is damaged: {error}") from error


def _read_state(path: Path, mapped: bool = False) -> dict[str, Any]:
    try:
        return read_content(path, mapped=mapped)
    except CheckpointError as error:
        raise CheckpointError(f"{error}{earlier_state(path)}") from error


def _resume(
    path: Path,
    content: dict[str, Any],
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    facts: RunFacts,
    average: WeightAverage | None,
    allow_changed: bool,
) -> tuple[RunProgress, list[Means]]:
    if not {"optimizer", "progress", "run", "means"} <= content.keys():
        raise CheckpointError(
            f"{path} holds no training state of this trainer; to start from its weights, use an empty folder and "
            f"trainer.checkpoint.initial={path}"
        )
    instead = f"to start from its weights, use an empty folder and trainer.checkpoint.initial={path}"
    if (_TRAINED in content) != has_adapters(model):
        was, now = ("with", "without") if _TRAINED in content else ("without", "with")
        raise CheckpointError(f"{path}: trained {was} adapters (train=lora), and this run trains {now} them; {instead}")
    weights = content[_TRAINED] if _TRAINED in content else state_dict_of(content, path)
    check_fit(model, weights, path)
    saved, own = _group_names(content["optimizer"]), _group_names(optimizer.state_dict())
    if saved != own:
        raise CheckpointError(
            f"{path}: the parameter groups differ from those of this run: {len(saved)} groups were saved, {len(own)} "
            f"are expected, and they differ in {sorted(set(saved) ^ set(own))[:4]}; {instead}"
        )
    others = _other_members(content["optimizer"], optimizer.state_dict())
    if others:
        raise CheckpointError(
            f"{path}: other parameters were trained than this run trains, they differ in {others[:4]}; {instead}"
        )
    before, progress = RunFacts(**_numbers(content["run"])), _progress(_numbers(content["progress"]), facts)
    changed = [f"{k}: {v} before, {asdict(facts)[k]} now" for k, v in asdict(before).items() if v != asdict(facts)[k]]
    if changed and not allow_changed:
        raise CheckpointError(
            f"{path}: the run cannot go on exactly ({'; '.join(changed)}): go on all the same with "
            "trainer.resume_changed=true"
        )
    # Load only after everything in the file has been checked, so that a failure leaves the run unchanged.
    # The average comes first, as it checks itself before it loads.
    if average is not None and "average" in content:
        average.load_state(content["average"])
    elif average is not None:
        average.resume(path.with_name(AVERAGE))  # older checkpoints keep the average in its own file only
    model.load_state_dict(weights)
    optimizer.load_state_dict(content["optimizer"])
    if changed:
        log.warning("resuming from %s will not be exact: %s", path, "; ".join(changed))
    if before.batches_per_epoch != facts.batches_per_epoch:
        # The position within an epoch is meaningless if the epoch has another length.
        progress = replace(progress, batch=0)
    log.info("resumed from %s after %d epochs and %d steps", path, progress.epoch, progress.step)
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
    """Initialize the weights of a model.

    Args:
        model: The model, freshly built.
        initial: One of

            - ``none``: random weights;
            - ``local``: random weights, with memory attention initialized to be local, see :func:`look_nearby`;
            - ``efficientnet_lite``: ImageNet weights for an EfficientNet-Lite trunk, from its package or, with
              ``efficientnet_lite:PATH``, from a file; memory attention starts local;
            - ``tinysam``: TinySAM's weights from ``checkpoints/tinysam.pth`` or, with ``tinysam:PATH``, from a file;
            - the path of an i2v checkpoint.

    Raises:
        FileNotFoundError: If there is no such file.
        CheckpointError: If the file does not fit the model, or the package with the weights is not installed.
    """
    name = str(initial)
    if name == _NANO:
        load_checkpoint(model, nano_checkpoint())
        log.info("initial weights: i2v-nano")
    elif name == "none":
        log.info("initial weights: random")
    elif name == "local":
        look_nearby(model)
        log.info("initial weights: random, with local memory attention")
    elif name == "efficientnet_lite" or name.startswith(_LITE_PREFIX):
        path = Path(name.removeprefix(_LITE_PREFIX)) if name != "efficientnet_lite" else None
        log.info("initial weights: ImageNet for the trunk: %s", start_from_trunk(model, path).describe())
        look_nearby(model)
    elif name == "tinysam" or name.startswith(_TINYSAM_PREFIX):
        path = Path(name.removeprefix(_TINYSAM_PREFIX)) if name != "tinysam" else TINYSAM
        if not path.exists():
            raise FileNotFoundError(
                f"{path} does not exist: training starts from TinySAM's weights; get tinysam.pth from "
                "https://huggingface.co/xinghaochen/tinysam (see checkpoints/README.md), or start from another "
                "checkpoint (trainer.checkpoint.initial=PATH) or from scratch (trainer.checkpoint.initial=none)"
            )
        load_tinysam(model, path)
    else:
        load_checkpoint(model, name)


def look_nearby(model: nn.Module) -> None:
    """Initialize memory attention so that every token attends to its own position in each memory.

    With equal biases q = k = b, the rotary score is a sum of |b_j|^2 cos(f_j distance) over the channel pairs j with
    frequencies f_j, which is highest at distance 0. Only the highest frequencies tell neighbouring cells apart. With
    random weights attention is uniform and ignores position: see checkpoints/i2v-nano.md for what that costs.

    Args:
        model: The model; the biases of its memory cross-attention are set in place.
    """
    for layer in model.get_submodule("memory_attention.layers").children():
        attention = layer.get_submodule("cross_attn_image")
        for name in ("q_proj", "k_proj"):
            bias = attention.get_parameter(f"{name}.bias")
            with torch.no_grad():
                # Axial RoPE: the first half of the channels encodes x, the second y; adjacent channels form a pair.
                for half in bias.chunk(2):
                    half.zero_()
                    half[: 2 * _LOCAL_PAIRS : 2] = _LOCAL_BIAS


def attend_by_similarity(model: I2VModel, strength: float) -> None:
    """Initialize memory attention to attend by feature similarity, for training from scratch.

    Outside the mask, the memory encoder maps frame features f to m = P f. With queries ``strength`` A x and keys
    ``strength`` A P+ m, where A has orthonormal rows and P+ is the pseudo-inverse, the score of a token x and a memory
    m is ``strength``^2 times the dot product of the projections of x and f. Only channels with low rotary frequencies
    are used, so what :func:`look_nearby` set in the others is kept.

    Args:
        model: The model; the query and key projections of its memory cross-attention are set in place.
        strength: Scale of queries and keys.
    """
    to_memory, to_pixels = (model.get_parameter(f"memory_encoder.{n}.weight") for n in ("out_proj", "pix_feat_proj"))
    reduce = (to_memory.flatten(1) @ to_pixels.flatten(1)).detach()
    undo = torch.linalg.pinv(reduce, rtol=_PINV_TOLERANCE)
    dim = reduce.shape[1]
    channels = torch.arange(dim)
    # Both halves of the channels, x and y, start with their highest frequency.
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


def _other_members(saved: Mapping[str, Any], own: Mapping[str, Any]) -> list[str]:
    """Names of parameters that are in one of two states of an optimizer, and not in the same group of the other.

    States of earlier versions name no parameters, and nothing is compared.
    """
    pairs = zip(saved["param_groups"], own["param_groups"], strict=True)
    return sorted(n for old, new in pairs if "names" in old for n in {*old["names"]} ^ {*new["names"]})
