"""Builds the trainer from a composed config and runs it: everything one process of a run does."""

from __future__ import annotations

import contextlib
import copy
import functools
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException
from torch import nn

from i2v.build_i2v import build_network, build_policy, resolve_device, resolve_dtype
from i2v.config import ConfigError, load_config
from i2v.config import instantiate as build
from i2v.inference.frame_segmenter import FrameSegmenter
from i2v.modeling.fast_path import set_backend
from i2v.modeling.i2v_model import I2VModel
from i2v.pretrained import RUN_CONFIG_NAME
from i2v.utils.files import DiskFullError
from i2v.utils.output_folder import own_folder
from train.checkpoint_folder import CheckpointFolder, one_run_in
from train.checkpointing import RunProgress, attend_by_similarity, initialize, load_progress
from train.curve_loggers import open_loggers
from train.distributed import World, joined
from train.launch import StopRequest
from train.lora import add_adapters
from train.metrics import MetricLog
from train.mixing import expand_mix
from train.model.clip_rollout import ClipRollout
from train.optimizer import OptimSettings, ScheduledOptimizer, freeze
from train.resumed_settings import CONFIG_NAME, changes_since_start, check_unchanged, write_keeping_old
from train.run_log import full_disks_told_once, logging_to
from train.run_report import report_validation
from train.settings import check_settings
from train.trainer import ClipObjective, Trainer, TrainerSettings
from train.validation import HeldOutVideo, ValidationResult, Validator, find_videos
from train.weight_average import WeightAverage

log = logging.getLogger(__name__)


def run(config: DictConfig) -> None:
    """Train or validate in this process.

    Args:
        config: The composed config; ``trainer.mode`` decides what is done.

    Raises:
        ConfigError: If the config is invalid, naming the key.
    """
    config = load_config(config)  # registers the resolvers of its interpolations, which a new process lacks
    check(config)
    expand_mix(config)
    stop = StopRequest()
    distributed = config.trainer.distributed
    device = resolve_device(config.trainer.accelerator)
    folder = Path(config.launcher.experiment_log_dir)
    with contextlib.ExitStack() as stack:
        stack.enter_context(stop.listening())
        world = stack.enter_context(joined(device, distributed.backend, distributed.timeout_mins))
        checkpoints = open_checkpoints(config)
        stack.enter_context(checkpoints.telling_what_is_kept())
        stack.enter_context(full_disks_told_once())
        stack.enter_context(logging_to(folder, world))
        if config.trainer.mode == "val":
            validate(config, world, checkpoints)
            return
        _raise_alike(lambda: stack.enter_context(one_run_in(folder)), world)
        check_resumed(config, checkpoints, world)
        trainer = build_trainer(config, world, stop, checkpoints)
        stack.push(functools.partial(_close, trainer.metrics))
        if world.is_main:
            write_configs(config, folder)  # not before it is known that the run can go on with them
        trainer.fit()


def validate(config: DictConfig, world: World, checkpoints: CheckpointFolder) -> ValidationResult:
    """Score the held-out videos with the weights of the run in the folder or, without one, those that it starts from.

    Needs no training data and changes nothing of the run but for a line in its files. The scores are logged, too.
    """
    node = config.trainer
    torch.manual_seed(node.seed_value)
    model = build_network(config)
    set_backend(model, "fast")
    last = _state_to_resume(config, checkpoints)
    progress = RunProgress()
    if last is None:
        initialize(model, node.checkpoint.initial)
    else:
        progress = load_progress(last, model)
    validator = build_validator(config, model.to(world.device), compute_dtype(config, world))
    found = validator.by_prompt(world)
    metrics = _metric_log(config, world)  # not begun, which would drop what a run under way has not saved yet
    report_validation(metrics, progress, found, limit=None)
    metrics.close()
    return found


def compute_dtype(config: DictConfig, world: World) -> torch.dtype:
    """What a run computes in on a device."""
    amp = config.trainer.optim.amp
    return resolve_dtype(amp.amp_dtype if amp.enabled else "float32", world.device)


def check(config: DictConfig) -> None:
    """Validate a config before anything is started.

    Raises:
        ConfigError: If a value is missing or invalid, naming the key.
    """
    check_settings(config)
    try:
        if config.trainer.mode != "val":  # which needs no training data
            OmegaConf.to_container(config.data, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        missing = ", ".join(_missing_keys(OmegaConf.to_container(config)))
        raise ConfigError(f"missing settings: {missing or error}") from error
    mode = config.trainer.mode
    folders = [key for key in ("img_folder", "gt_folder") if config.validation[key] is None]
    if mode != "train_only" and folders:
        raise ConfigError(f"trainer.mode={mode} needs held-out videos: set validation.{folders[0]}")


def open_checkpoints(config: DictConfig) -> CheckpointFolder:
    """Create or open the checkpoint folder of a run."""
    node = config.trainer.checkpoint
    return CheckpointFolder(Path(node.save_dir), node.save_freq, node.keep_last)


def build_trainer(
    config: DictConfig, world: World, stop: StopRequest, checkpoints: CheckpointFolder | None = None
) -> Trainer:
    """Build all parts of a run and restore its last checkpoint, if there is one.

    Args:
        config: The composed config.
        world: The processes of the run.
        stop: Asked after every step whether to stop.
        checkpoints: Where checkpoints are written; ``None`` opens the folder that the config names.

    Raises:
        RuntimeError: If the processes would resume from different steps.
    """
    checkpoints = checkpoints or open_checkpoints(config)
    node = config.trainer
    torch.backends.cudnn.benchmark = node.cuda.cudnn_benchmark
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = node.cuda.allow_tf32
    torch.manual_seed(node.seed_value)
    model = build_network(config)
    set_backend(model, "fast")
    last = _state_to_resume(config, checkpoints)
    if last is None:
        initialize(model, node.checkpoint.initial)
        if node.checkpoint.similarity is not None:
            attend_by_similarity(model, node.checkpoint.similarity)
    choose_trained(model, config)
    policy = build_policy(config)
    segmenter = FrameSegmenter(model.to(world.device), policy.selector, policy.masks)
    rollout = ClipRollout(segmenter, **node.rollout)
    dtype = compute_dtype(config, world)
    objective = ClipObjective(rollout, build(config, "trainer.loss.all"), dtype)
    loader = build(config, "data.train", seed=node.seed_value, rank=world.rank, world_size=world.size)
    average = None if node.ema_decay is None else WeightAverage(model, node.ema_decay)
    trainer = Trainer(
        objective=world.wrap(objective, node.distributed.find_unused_parameters),
        rollout=rollout,
        loader=loader,
        optimizer=build_optimizer(model, config),
        prompts=build(config, "trainer.prompts"),
        settings=_trainer_settings(config),
        checkpoints=checkpoints,
        metrics=_metric_log(config, world),
        world=world,
        validator=None if node.mode == "train_only" else build_validator(config, model, dtype),
        users=build(config, "trainer.users"),
        average=average,
        stop_asked=stop,
    )
    if last is not None:
        trainer.resume(last, node.resume_changed or last != checkpoints.last)
    places = world.gather(trainer.progress)
    if any(place != trainer.progress for place in places):
        steps = [place.step for place in places]
        raise RuntimeError(
            f"the processes would resume from different steps, {steps}: {checkpoints.folder} has to be the same folder "
            "on all machines"
        )
    trainer.metrics.begin(trainer.progress.step)
    return trainer


def choose_trained(model: nn.Module, config: DictConfig) -> None:
    """Freeze what a config does not train, and add adapters where it trains these instead."""
    node = config.trainer
    if node.lora is not None:
        if node.ema_decay is not None:
            raise ConfigError("trainer.ema_decay: expected null with train=lora, whose adapters are not averaged")
        add_adapters(model, build(config, "trainer.lora"))
    freeze(model, node.freeze, node.only)


def build_optimizer(model: nn.Module, config: DictConfig) -> ScheduledOptimizer:
    """Build the optimizer of what a config trains; raises as :class:`ScheduledOptimizer` does."""
    node = build(config, "trainer.optim")
    settings = OptimSettings(
        node["optimizer"], node["lr"], node["weight_decay"], node["layer_decay"], **node["gradient_clip"]
    )
    return ScheduledOptimizer(model, settings)


def build_validator(config: DictConfig, model: I2VModel, dtype: torch.dtype) -> Validator:
    """Build the validator, which tracks with the memory selector and the post-processing used at inference."""
    node = config.validation
    return Validator(
        model,
        policy=build_policy(_for_inference(config)),
        videos=find_held_out(config),
        dtype=dtype,
        prompts=node.prompts,
    )


def find_held_out(config: DictConfig) -> list[HeldOutVideo]:
    """The held-out videos that a config names; raises as :func:`find_videos` does."""
    node = config.validation
    return find_videos(node.img_folder, node.gt_folder, node.max_videos, node.ignored_labels)


def _close(metrics: MetricLog, kind: type[BaseException] | None, *_: object) -> None:
    # The error that ended the run matters more than a failure to flush the logs after it.
    with contextlib.nullcontext() if kind is None else contextlib.suppress(DiskFullError):
        metrics.close()


def write_configs(config: DictConfig, folder: Path) -> None:
    """Write ``config.yaml``, the composed config, and ``inference.yaml``, which the checkpoints are used with.

    Existing files with other contents are kept with a number.
    """
    resolved = OmegaConf.to_container(_for_inference(config), resolve=True)
    assert isinstance(resolved, dict)
    inference = OmegaConf.create({key: resolved[key] for key in ("model", "predictor")})
    for name, content in ((CONFIG_NAME, config), (RUN_CONFIG_NAME, inference)):
        kept = write_keeping_old(folder / name, OmegaConf.to_yaml(content))
        if kept is not None:
            log.info("the earlier %s is kept as %s", name, kept)


def check_resumed(config: DictConfig, checkpoints: CheckpointFolder, world: World) -> None:
    """Say which settings differ from those with which the run in the folder began.

    ConfigError, on all processes, if they change its course, unless ``trainer.resume_changed`` says that this is meant,
    and if a new run would replace what an earlier one has left.
    """

    def compare() -> None:
        other = config.trainer.checkpoint.resume_from
        checkpoints.check_start(None if other is None else Path(other))
        if checkpoints.last.exists():
            _compare_settings(config)

    _raise_alike(compare, world)


def _raise_alike(what: Callable[[], object], world: World) -> None:
    """Do something in the main process; what is wrong there is a ConfigError in all of them."""
    problem = None
    if world.is_main:
        try:
            what()
        except (OSError, ValueError, RuntimeError) as error:
            problem = str(error)
    for told in world.gather(problem):
        if told is not None:
            raise ConfigError(told)


def _compare_settings(config: DictConfig) -> None:
    folder = Path(config.launcher.experiment_log_dir)
    found = changes_since_start(folder, config)
    if found is None:
        log.warning("%s is gone: whether settings have changed since the run began is not known", folder / CONFIG_NAME)
        return
    for difference in found:
        log.info("changed since the run began: %s", difference)
    if not config.trainer.resume_changed:
        check_unchanged(found, folder)


def _for_inference(config: DictConfig) -> DictConfig:
    """Replace the selector and the mask settings of training by those of inference."""
    changed = copy.deepcopy(config)
    with open_dict(changed.model):
        changed.model.selector = changed.validation.selector
        for name in ("dynamic_multimask_via_stability", "binarize_mask_from_pts_for_mem_enc"):
            changed.model.masks.pop(name, None)  # the defaults are those of inference
    return changed


def _missing_keys(node: Any, prefix: str = "") -> Iterator[str]:
    """Yield keys without a value. OmegaConf's own search stops at the first interpolation of one."""
    if node == "???":
        yield prefix.removesuffix(".")
    elif isinstance(node, dict):
        for key, value in node.items():
            yield from _missing_keys(value, f"{prefix}{key}.")


def _state_to_resume(config: DictConfig, checkpoints: CheckpointFolder) -> Path | None:
    if checkpoints.last.exists():
        return checkpoints.last
    other = config.trainer.checkpoint.resume_from
    return None if other is None else Path(other)


def _trainer_settings(config: DictConfig) -> TrainerSettings:
    node, scratch = config.trainer, config.scratch
    return TrainerSettings(
        num_epochs=scratch.num_epochs * scratch.phases_per_epoch,
        seed_value=node.seed_value,
        accumulate_steps=node.accumulate_steps,
        freeze_batch_norm=node.freeze_batch_norm,
        log_freq=node.logging.log_freq,
        image_freq=node.logging.image_freq,
        save_steps=node.checkpoint.save_steps,
        val_epoch_freq=node.val_epoch_freq,
        val_steps=node.val_steps,
        val_at_start=node.val_at_start,
        keep_steps=node.checkpoint.keep_steps,
        max_skipped=node.max_skipped,
        stop_after=node.stop_after,
        max_minutes=node.max_minutes,
    )


def _metric_log(config: DictConfig, world: World) -> MetricLog:
    if not world.is_main:
        return MetricLog(None)
    logging_node = config.trainer.logging
    folder = Path(config.launcher.experiment_log_dir) / "logs"
    run_folder = own_folder(Path(config.launcher.experiment_log_dir))
    settings = OmegaConf.to_container(config)
    assert isinstance(settings, dict)
    plain = {str(key): value for key, value in settings.items()}
    loggers = open_loggers(logging_node.loggers, run_folder, run_folder.name, plain)
    return MetricLog(folder, logging_node.tensorboard, logging_node.flush_secs, loggers)
