"""Ways of running one model, measured turn by turn so that what else a machine does hits all of them alike."""

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

# Stages that are modules, by what the paper calls them.
STAGES = {
    "TinyViT": "image_encoder.trunk_image",
    "TFI": "image_encoder.trunk_video",
    "memory attention": "memory_attention",
    "prompt generator": "memory_prompt_generator",
    "mask decoder": "sam_mask_decoder",
    "memory encoder": "memory_encoder",
}


RUNS_OF_A_LAP = 2  # the first of which is not timed
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


@dataclass(frozen=True)
class Side:
    """One way: a predictor, in the published order of operations or in our own."""

    name: str
    predictor: I2VVideoPredictor
    plain: bool

    @contextmanager
    def path(self) -> Iterator[None]:
        """Inside of it the model runs this way. The plain one has memory given to it as any program on a CPU has."""
        if self.predictor.device.type == "cpu":
            keep_freed_memory(GLIBC_KEEPS if self.plain else KEPT_MEMORY)
        with plain_path(self.predictor.model) if self.plain else nullcontext():
            yield


@dataclass
class Laps:
    """What the frames of one side took, in seconds, and their stages."""

    frames: list[float] = field(default_factory=list)
    stages: dict[str, list[float]] = field(default_factory=dict)
    gflop: dict[str, float] = field(default_factory=dict)  # of one frame, by stage

    def add(self, seconds: float, stages: dict[str, float], num_frames: int) -> None:
        """A lap of so many frames."""
        self.frames.append(seconds / num_frames)
        for name in STAGES:
            self.stages.setdefault(name, []).append(stages.get(name, 0.0) / num_frames)
        self.stages.setdefault("rest", []).append((seconds - sum(stages.values())) / num_frames)

    def median(self, stage: str = "frame") -> float:
        return statistics.median(self.frames if stage == "frame" else self.stages[stage])


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options that make sides."""
    parser.add_argument("--config", default="i2v-infer")
    add_trust_option(parser)
    parser.add_argument("--checkpoint", help="default: random weights, which cost the same")
    parser.add_argument("--device")
    parser.add_argument("--dtype", nargs="+", help="float32, bfloat16 or float16, one or more; default: the device's")
    parser.add_argument("--compile", action="store_true", help="one more side: the first dtype, through torch.compile")
    parser.add_argument("--plain-dtype", default="float32", help="of the plain path that all others are compared with")
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="cpu: of this process, for busy machines")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="config override")


def make_sides(args: argparse.Namespace) -> list[Side]:
    """The plain path first, then ours in every dtype asked for; all have the same weights."""
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
    """Make random weights see the object, so that masks are not all absent."""
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
    """Run each side's step lap by lap. Returns times and masks by side, without those of the warm-up.

    A step is a frame: it gives out masks. ``lap_frames``: steps of a lap, of which there are ``num_warm_up`` and then
    ``num_laps``. A timed lap follows one of the same side that is not, so that caches and freed memory are its own.
    ``count``: a lap after the last counts operations and is not timed either.
    """
    laps: list[Laps] = [Laps() for _ in sides]
    masks: list[list[Tensor]] = [[] for _ in sides]

    def now() -> float:
        machine.synchronize(sides[0].predictor.device)
        return CLOCKS[clock]()

    def run(step: Callable[[], Tensor]) -> list[Tensor]:
        return [(step() > 0).cpu() for _ in range(lap_frames)]  # a user reads the masks

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
            if side.predictor.model is sides[0].predictor.model:  # what is compiled hides its operations
                record.gflop.update(_count(side, step, lap_frames))
    return laps, [found[num_warm_up * lap_frames :] for found in masks]


def _count(side: Side, step: Callable[[], Tensor], num_frames: int) -> dict[str, float]:
    """Operations of a frame by stage, in 10^9."""
    counter = FlopCounter()
    with side.path(), counter, stopwatch(side.predictor.model, lambda: counter.gflop) as counts:
        for _ in range(num_frames):
            step()
    return {name: counts.get(name, 0.0) / num_frames for name in STAGES} | {"frame": counter.gflop / num_frames}


@contextmanager
def stopwatch(model: nn.Module, clock: Callable[[], float]) -> Iterator[dict[str, float]]:
    """By how much a clock moved in every stage since the dict was last cleared."""
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
    """The smallest IoU of any object on any frame; masks (N,1,H,W) bool. Two empty masks agree."""
    lowest = 1.0
    for found, wanted in zip(masks, reference, strict=True):
        both, any_ = (found & wanted).flatten(1).sum(1), (found | wanted).flatten(1).sum(1)
        lowest = min(lowest, float(torch.where(any_ > 0, both / any_, 1.0).min()))
    return lowest
