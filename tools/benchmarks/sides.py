"""Several ways of running a model, timed in alternation so that other load on the machine affects all of them alike."""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from i2v.build_i2v import build_i2v_video_predictor, resolve_dtype
from i2v.cli.arguments import add_trust_option
from i2v.host_memory import GLIBC_KEEPS, KEPT_MEMORY, keep_freed_memory
from i2v.i2v_video_predictor import I2VVideoPredictor
from i2v.inference.compiling import compile_model
from tools.benchmarks import machine
from tools.benchmarks.flops import FlopCounter
from tools.benchmarks.plain import plain_path

# Stages that are modules, by their names in the paper.
STAGES = {
    "image trunk": "image_encoder.trunk_image",
    "TFI": "image_encoder.trunk_video",
    "memory attention": "memory_attention",
    "prompt generator": "memory_prompt_generator",
    "mask decoder": "sam_mask_decoder",
    "memory encoder": "memory_encoder",
}


RUNS_OF_A_LAP = 2  # only the second one is timed
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


@dataclass(frozen=True)
class Side:
    """One way of running the model.

    Attributes:
        name: Name in tables and plots.
        predictor: The predictor.
        plain: Whether to run in the published order of operations, see ``plain_path``.
    """

    name: str
    predictor: I2VVideoPredictor
    plain: bool

    @contextmanager
    def path(self) -> Iterator[None]:
        """Run the model this way inside the block; on a CPU the plain way uses glibc's default memory settings."""
        if self.predictor.device.type == "cpu":
            keep_freed_memory(GLIBC_KEEPS if self.plain else KEPT_MEMORY)
        with plain_path(self.predictor.model) if self.plain else nullcontext():
            yield


@dataclass
class Laps:
    """Timings of one side.

    Attributes:
        frames: Seconds per frame, for every lap.
        stages: Seconds per frame by stage, for every lap.
        gflop: Operations per frame by stage, in 10^9.
    """

    frames: list[float] = field(default_factory=list)
    stages: dict[str, list[float]] = field(default_factory=dict)
    gflop: dict[str, float] = field(default_factory=dict)

    def add(self, seconds: float, stages: dict[str, float], num_frames: int) -> None:
        """Add a lap of ``num_frames`` frames."""
        self.frames.append(seconds / num_frames)
        for name in STAGES:
            self.stages.setdefault(name, []).append(stages.get(name, 0.0) / num_frames)
        self.stages.setdefault("rest", []).append((seconds - sum(stages.values())) / num_frames)

    def median(self, stage: str = "frame") -> float:
        return statistics.median(self.frames if stage == "frame" else self.stages[stage])


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of :func:`make_sides`."""
    parser.add_argument("--config", default="i2v-infer")
    add_trust_option(parser)
    parser.add_argument("--checkpoint", help="default: random weights, which cost the same")
    parser.add_argument("--device")
    parser.add_argument("--dtype", nargs="+", help="float32, bfloat16 or float16, one or more; default: the device's")
    parser.add_argument("--compile", action="store_true", help="also run the first dtype with torch.compile")
    parser.add_argument(
        "--plain-dtype", default="float32", help="dtype of the plain path, to which others are compared"
    )
    parser.add_argument(
        "--clock", choices=CLOCKS, default="wall", help="cpu: CPU time of this process, for busy machines"
    )
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="config override")


def make_sides(args: argparse.Namespace) -> list[Side]:
    """Build the plain path, then ours in every requested dtype, all with the same weights."""
    predictor = build_i2v_video_predictor(
        args.config,
        args.checkpoint,
        device=args.device,
        hydra_overrides_extra=args.set,
        trust_config=args.trust_config,
        random_weights=args.checkpoint is None,
    )
    if args.checkpoint is None:
        keep_in_view(predictor.model)
    model, policy = predictor.model, predictor.policy
    one_by_one = replace(policy, settings=replace(policy.settings, frames_at_once=1))
    plain_dtype = resolve_dtype(args.plain_dtype, model.device)
    sides = [Side("plain", I2VVideoPredictor(model, one_by_one, plain_dtype), True)]
    for name in args.dtype or [str(predictor.dtype).removeprefix("torch.")]:
        sides.append(Side(name, I2VVideoPredictor(model, policy, resolve_dtype(name, model.device)), False))
    if args.compile:
        compiled = copy.deepcopy(model)
        compile_model(compiled)
        static = replace(policy, static_shapes=True)
        sides.append(Side("compiled", I2VVideoPredictor(compiled, static, sides[1].predictor.dtype), False))
    return sides


def keep_in_view(model: nn.Module) -> None:
    """Bias random weights to predict that the object is present, so that masks are not all empty."""
    head = model.get_submodule("sam_mask_decoder.pred_obj_score_head")
    with torch.no_grad():
        list(head.parameters())[-1].fill_(5.0)


def take_turns(
    sides: Sequence[Side],
    steps: Sequence[Callable[[], Tensor]],
    clock: str,
    num_laps: int,
    num_warm_up: int = 0,
    count: bool = True,
    lap_frames: int = 1,
) -> tuple[list[Laps], list[list[Tensor]]]:
    """Run the sides in alternation, lap by lap.

    A timed lap follows an untimed one of the same side, so that caches and freed memory are those of this side.

    Args:
        sides: The sides.
        steps: For each side, a function that tracks one frame and returns its masks' logits.
        clock: Key in ``CLOCKS``.
        num_laps: Timed laps of each side.
        num_warm_up: Laps of each side before that.
        count: Whether to count operations in a further lap.
        lap_frames: Frames per lap.

    Returns:
        Timings and masks of each side, without the warm-up.
    """
    laps: list[Laps] = [Laps() for _ in sides]
    masks: list[list[Tensor]] = [[] for _ in sides]

    def now() -> float:
        machine.synchronize(sides[0].predictor.device)
        return CLOCKS[clock]()

    def run(step: Callable[[], Tensor]) -> list[Tensor]:
        return [(step() > 0).cpu() for _ in range(lap_frames)]  # includes the copy that a user needs

    with ExitStack() as stack:
        watches = {id(side.predictor.model): side.predictor.model for side in sides}
        stopped = {key: stack.enter_context(stopwatch(model, now)) for key, model in watches.items()}
        for lap in range(num_warm_up + num_laps):
            for side, step, record, found in zip(sides, steps, laps, masks, strict=True):
                with side.path():
                    found += run(step)
                    if lap < num_warm_up:
                        continue
                    times = stopped[id(side.predictor.model)]
                    times.clear()
                    start = now()
                    found += run(step)
                    record.add(now() - start, times, lap_frames)
    if count:
        for side, step, record in zip(sides, steps, laps, strict=True):
            if side.predictor.model is sides[0].predictor.model:  # operations of a compiled model cannot be counted
                record.gflop.update(_count(side, step, lap_frames))
    return laps, [found[num_warm_up * lap_frames :] for found in masks]


def _count(side: Side, step: Callable[[], Tensor], num_frames: int) -> dict[str, float]:
    """Count the operations per frame by stage, in 10^9."""
    counter = FlopCounter()
    with side.path(), counter, stopwatch(side.predictor.model, lambda: counter.gflop) as counts:
        for _ in range(num_frames):
            step()
    return {name: counts.get(name, 0.0) / num_frames for name in STAGES} | {"frame": counter.gflop / num_frames}


@contextmanager
def stopwatch(model: nn.Module, clock: Callable[[], float]) -> Iterator[dict[str, float]]:
    """Measure by how much a clock advances in every stage.

    Args:
        model: The model.
        clock: Any increasing counter.

    Yields:
        The total by stage since the dict was last cleared.
    """
    times: dict[str, float] = {}
    handles = []

    def move(name: str, sign: int) -> Callable[..., None]:
        def hook(*_: Any) -> None:
            times[name] = times.get(name, 0.0) + sign * clock()

        return hook

    for name, path in STAGES.items():
        module = model.get_submodule(path)
        handles += [module.register_forward_pre_hook(move(name, -1)), module.register_forward_hook(move(name, +1))]
    try:
        yield times
    finally:
        for handle in handles:
            handle.remove()


def lowest_iou(masks: Sequence[Tensor], reference: Sequence[Tensor]) -> float:
    """Lowest IoU of any object on any frame; masks are ``(N, 1, H, W)`` bool, and two empty ones have IoU 1."""
    lowest = 1.0
    for found, wanted in zip(masks, reference, strict=True):
        both, any_ = (found & wanted).flatten(1).sum(1), (found | wanted).flatten(1).sum(1)
        lowest = min(lowest, float(torch.where(any_ > 0, both / any_, 1.0).min()))
    return lowest
