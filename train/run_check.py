"""What a run would do, without doing it: its data, steps, parameters and memory, and a sheet of its clips."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from PIL import Image, ImageDraw
from torch import Tensor, nn

from i2v.build_i2v import build_network, build_policy, resolve_device
from i2v.config import instantiate as build
from i2v.config import load_config
from i2v.errors import USER_ERRORS, describe_error
from i2v.inference.frame_segmenter import FrameSegmenter
from i2v.modeling.i2v_model import I2VModel
from i2v.modeling.structures import Prompt
from i2v.utils.files import replacing
from i2v.utils.output_folder import own_folder
from train.build import build_optimizer, choose_trained, compute_dtype, find_held_out, open_checkpoints
from train.checkpointing import RunFacts, initialize, steps_done
from train.dataset.mixed_loader import MixedLoader
from train.dataset.structures import BatchedClip
from train.dataset.survey import Surveyed, survey
from train.dataset.vos_dataset import VOSDataset
from train.distributed import World
from train.metrics import TRUE_COLOUR, denormalize, tint
from train.mixing import expand_mix
from train.model.clip_rollout import ClipRollout
from train.model.prompt_simulator import PromptPlan, SimulatedUser
from train.resumed_settings import changes_since_start
from train.run_report import ParameterCounts, describe_length
from train.trainer import ClipObjective, Loader, draw_plan_and_user

SHEET = "check.png"
_NUM_BATCHES = 4  # on the sheet
_MAX_ROWS = 12  # objects on it
_SIDE = 160  # pixels of a frame on it
_MOST_PIXELS = 320  # side up to which a CPU measures memory at the size of the run
_SMALL = 256  # side at which it measures else
_GIB = 2**30


def check_run(config: DictConfig, world_size: int) -> Iterator[str]:
    """Lines about a run of so many processes; no step is taken. The sheet goes into the folder of the run.

    Raises what building the parts of the run raises: that is what a run would fail with.
    """
    config = load_config(config)
    expand_mix(config)
    node = config.trainer
    loader = build(config, "data.train", seed=node.seed_value, rank=0, world_size=world_size)
    yield from _about_data(loader, config)
    yield from _about_validation(config)
    epochs = config.scratch.num_epochs * config.scratch.phases_per_epoch
    facts = RunFacts(world_size, node.seed_value, len(loader), node.accumulate_steps)
    yield describe_length(facts, epochs, node.max_minutes)
    device = resolve_device(node.accelerator)
    dtype = compute_dtype(config, World(device))
    yield f"device: {device.type}, {world_size} processes, computing in {str(dtype).removeprefix('torch.')}"
    model = build_network(config)
    weights = _about_weights(model, node.checkpoint.initial)
    choose_trained(model, config)
    build_optimizer(model, config)  # which groups the parameters
    counts = ParameterCounts.of(model)
    yield counts.describe()
    yield weights
    yield from about_earlier_run(config)
    batches = [batch for batch, _ in zip(loader.epoch(0), range(_NUM_BATCHES), strict=False)]
    yield estimate_memory(config, batches[0], counts, device, dtype)
    folder = own_folder(Path(config.launcher.experiment_log_dir))
    with replacing(folder / SHEET) as temporary:
        draw_sheet(config, batches).save(temporary, "PNG")
    yield f"clips as the model gets them, with masks and prompts: {folder / SHEET}"


def _about_data(loader: Loader, config: DictConfig) -> Iterator[str]:
    if not isinstance(loader, MixedLoader):
        yield f"data: {len(loader)} batches an epoch, made by {type(loader).__name__}"
        return
    for number, spec in enumerate(loader.specs, start=1):
        dataset: Any = getattr(spec.dataset, "dataset", spec.dataset)  # of a mix, what stands behind its weight
        kind = type(dataset.videos).__name__ if isinstance(dataset, VOSDataset) else type(dataset).__name__
        yield f"data set {number} ({kind}): {len(spec.dataset)} samples an epoch, {spec.batch_size} in a batch"
        if isinstance(dataset, VOSDataset) and isinstance(dataset.videos, Surveyed):
            facts = survey(dataset.videos, dataset.frames_of_a_clip, dataset.resolution)
            yield from facts.describe()


def _about_validation(config: DictConfig) -> Iterator[str]:
    node = config.validation
    unused = " (not used: trainer.mode=train_only)" if config.trainer.mode == "train_only" else ""
    if unused and (node.img_folder is None or node.gt_folder is None):
        yield f"held-out videos: none{unused}"
        return
    try:
        videos = find_held_out(config)
    except USER_ERRORS as error:
        if not unused:
            raise
        yield f"held-out videos{unused}: {describe_error(error)}"
        return
    frames = sum(len(video.numbers) for video in videos)
    yield f"held-out videos{unused}: {len(videos)}, {frames} annotated frames, prompted with {', '.join(node.prompts)}"


def _about_weights(model: I2VModel, initial: str) -> str:
    """A line about the weights to start from, and why a run could not load them, which another machine may well do."""
    try:
        initialize(model, initial)
    except USER_ERRORS as error:
        return f"weights to start from: {initial}, but here they cannot be loaded: {describe_error(error)}"
    return f"weights to start from: {initial}"


def about_earlier_run(config: DictConfig) -> Iterator[str]:
    """What the run would go on from; raises CheckpointError and ConfigError as the run would."""
    node, folder = config.trainer.checkpoint, Path(config.launcher.experiment_log_dir)
    if not Path(node.save_dir).is_dir():
        return
    checkpoints = open_checkpoints(config)
    checkpoints.check_start(None if node.resume_from is None else Path(node.resume_from))
    if not checkpoints.last.exists():
        return
    yield f"{folder} has a run, which would go on: {steps_done(checkpoints.last)} steps are done"
    for difference in changes_since_start(folder, config) or ():
        needs = " (needs trainer.resume_changed=true)" if difference.changes_the_run else ""
        yield f"changed since the run began: {difference}{needs}"


def estimate_memory(
    config: DictConfig, batch: BatchedClip, counts: ParameterCounts, device: torch.device, dtype: torch.dtype
) -> str:
    """A line about the memory of a process: parameters and optimizer counted, activations of one forward pass measured.

    On a CPU a large model is measured at a small size, and the activations are scaled by the number of pixels.
    """
    side = int(config.scratch.resolution)
    scale = 1.0
    if device.type == "cpu" and side > _MOST_PIXELS:
        config = load_config(config, [f"scratch.resolution={_SMALL}"])
        batch, scale = _resized(batch, _SMALL), (side / _SMALL) ** 2
    activations = scale * _kept_for_backward(config, batch.to(device), device, dtype)
    how = f" (scaled from {_SMALL} pixels)" if scale != 1 else ""
    total = counts.num_bytes + activations
    return (
        f"memory of a process, estimated: {total / _GIB:.1f} GiB, of which {activations / _GIB:.1f} GiB are kept for "
        f"the backward pass{how}; the framework and what a layer needs for a moment come on top"
    )


def _kept_for_backward(config: DictConfig, batch: BatchedClip, device: torch.device, dtype: torch.dtype) -> int:
    """Bytes of the tensors that a forward pass keeps, each storage once, without the parameters."""
    model = build_network(config)
    choose_trained(model, config)
    model.to(device).train()
    policy = build_policy(config)
    rollout = ClipRollout(FrameSegmenter(model, policy.selector, policy.masks), **config.trainer.rollout)
    objective = ClipObjective(rollout, build(config, "trainer.loss.all"), dtype)
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    # Only as long as all results are held are the addresses different ones.
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        plan, user = _plan_and_user(config, batch, 0)
        result = objective(batch, plan, user, max(float(batch.masks.shape[1]), 1.0))
    total = sum(kept.values())
    del result
    return total


def draw_sheet(config: DictConfig, batches: list[BatchedClip]) -> Image.Image:
    """A row for each object of a few batches: its frames with its mask, and the first prompt of each prompted frame.

    Clicks on the object are green dots, boxes yellow; a frame whose prompt is the mask itself has a blue border.
    """
    rows: list[list[Image.Image]] = []
    for number, batch in enumerate(batches):
        batch = batch.to("cpu")
        plan, user = _plan_and_user(config, batch, number)
        prompts = {frame: user.prompt(kind, batch.masks[frame][:, None]) for frame, kind in plan.initial.items()}
        for obj, clip in enumerate(batch.video_of.tolist()[: _MAX_ROWS - len(rows)]):
            frames = tint(denormalize(batch.frames[:, clip]).clamp(0, 1), batch.masks[:, obj], TRUE_COLOUR)
            rows.append([_draw_frame(frame, obj, prompts.get(t)) for t, frame in enumerate(frames)])
    sheet = Image.new("RGB", (_SIDE * max(map(len, rows)), _SIDE * len(rows)))
    for y, row in enumerate(rows):
        for x, picture in enumerate(row):
            sheet.paste(picture, (x * _SIDE, y * _SIDE))
    return sheet


def _draw_frame(frame: Tensor, obj: int, prompt: Prompt | None) -> Image.Image:
    picture = Image.fromarray((frame * 255).round().byte().movedim(0, -1).numpy()).resize((_SIDE, _SIDE))
    if prompt is None:
        return picture
    draw = ImageDraw.Draw(picture)
    if prompt.points is None or prompt.labels is None:
        draw.rectangle((0, 0, _SIDE - 1, _SIDE - 1), outline=(60, 120, 255), width=3)
        return picture
    points = (prompt.points[obj] * (_SIDE / frame.shape[-1])).tolist()
    if prompt.labels[obj, 0] >= 2:  # the corners of a box
        (x0, y0), (x1, y1) = points[:2]
        draw.rectangle((min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)), outline=(255, 220, 0), width=2)
    else:
        for x, y in points:
            draw.ellipse((x - 4, y - 4, x + 4, y + 4), fill=(0, 200, 0), outline=(255, 255, 255))
    return picture


def _plan_and_user(config: DictConfig, batch: BatchedClip, step: int) -> tuple[PromptPlan, SimulatedUser]:
    """What a simulated user would do at a step."""
    prompts, users = build(config, "trainer.prompts"), build(config, "trainer.users")
    return draw_plan_and_user(prompts, users, batch, config.trainer.seed_value, (step, 0))


def _resized(batch: BatchedClip, side: int) -> BatchedClip:
    frames = nn.functional.interpolate(batch.frames.flatten(0, 1), (side, side)).unflatten(0, batch.frames.shape[:2])
    masks = nn.functional.interpolate(batch.masks.float(), (side, side)) > 0
    return BatchedClip(frames, masks, batch.video_of, batch.names)
