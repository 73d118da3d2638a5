"""Seconds per frame by stage on a rendered clip, ours against the plain path, with a full memory bank."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from i2v.demo import render_demo_clip
from i2v.inference.inference_state import InferenceState
from tools.benchmarks import machine, pipeline, plots, sides
from tools.benchmarks.sides import STAGES, Laps, Side

VIDEO_SIZE = "480x270"  # of the video for the whole command


def add_arguments(parser: argparse.ArgumentParser) -> None:
    sides.add_arguments(parser)
    parser.add_argument("--objects", type=int, default=1)
    parser.add_argument("--warm-up", type=int, default=10, help="untimed frames (the memory bank is full at 9)")
    parser.add_argument("--frames", type=int, default=5, help="timed frames, in laps of as many as are encoded at once")
    parser.add_argument(
        "--whole", type=int, default=30, metavar="N", help="frames of the whole `i2v track`, 0 for none"
    )
    parser.add_argument("--plot", type=Path, metavar="PNG", help="also plot the figures (needs matplotlib)")


def run(args: argparse.Namespace) -> dict[str, Any]:
    ways = sides.make_sides(args)
    at_once = max(side.predictor.settings.frames_at_once for side in ways)
    num_warm_up, num_laps = -(-args.warm_up // at_once), -(-args.frames // at_once)
    # The prompted frame, and one more lap in which operations are counted.
    num_frames = 1 + at_once * (num_warm_up + sides.RUNS_OF_A_LAP * num_laps + 1)
    with ExitStack() as stack:
        frames = [follow(stack, side, num_frames, args.objects) for side in ways]
        laps, masks = sides.take_turns(ways, frames, args.clock, num_laps, num_warm_up, lap_frames=at_once)
    report = {
        "rows": rows(ways, laps),
        "lowest mask IoU with plain": {
            side.name: round(sides.lowest_iou(found, masks[0]), 6) for side, found in zip(ways, masks, strict=True)
        },
        "image_size": ways[0].predictor.model.image_size,
        "objects": args.objects,
        "frames": num_laps * at_once,
        "frames encoded at once": at_once,
        "clock": args.clock,
        "plain dtype": args.plain_dtype,
        "machine": machine.describe(ways[0].predictor.device),
    }
    if args.whole and not args.set:
        report["frames/s with decoding and writing"] = _whole_command(args)
    _add_roofline(report, ways)
    if args.plot:
        plots.stages(report, [side.name for side in ways], args.plot)
    return report


def _whole_command(args: argparse.Namespace) -> float:
    """Measure frames per second of `i2v track`, from a rendered video file to written results."""
    with tempfile.TemporaryDirectory() as folder:
        click = pipeline.write_video(Path(folder) / f"{VIDEO_SIZE}.mp4", VIDEO_SIZE, args.whole)
        return pipeline.track(Path(folder), VIDEO_SIZE, click, torch.get_num_threads(), args)


def follow(stack: ExitStack, side: Side, num_frames: int, num_objects: int) -> Callable[[], Tensor]:
    """Start a session with ``num_objects`` copies of an object. Returns a function that tracks the next frame."""
    clip = render_demo_clip(num_frames=num_frames)
    state = stack.enter_context(side.predictor.init_state(clip.frames))
    with side.path():
        for obj_id in range(num_objects):
            side.predictor.add_new_mask(state, 0, obj_id, clip.masks[0])
    return _next_masks(side, state)


def _next_masks(side: Side, state: InferenceState) -> Callable[[], Tensor]:
    frames: Iterator[tuple[int, list[Any], Tensor]] = side.predictor.propagate_in_video(state)
    return lambda: next(frames)[2]


def rows(ways: Sequence[Side], laps: Sequence[Laps]) -> list[dict[str, Any]]:
    """Make one row per stage and for the whole frame: seconds, ratios to the plain path, operations."""
    table = []
    for stage in [*STAGES, "rest", "frame"]:
        row: dict[str, Any] = {"stage": stage}
        plain = laps[0].median(stage)
        for side, lap in zip(ways, laps, strict=True):
            seconds = lap.median(stage)
            row[f"{side.name} s"] = round(seconds, 4)
            if side is not ways[0]:
                row[f"{side.name} ratio"] = round(seconds / plain, 3) if plain > 0 else ""
            if stage in lap.gflop:
                row[f"{side.name} GFLOP"] = float(f"{lap.gflop[stage]:.4g}")
        table.append(row)
    return table


def _add_roofline(report: dict[str, Any], ways: Sequence[Side]) -> None:
    """Add each part's fraction of the machine's matmul rate, which is measured at the end of the run."""
    rates = report["machine"]["matmul_gflops"]
    for row in report["rows"]:
        for side in ways:
            dtype = str(side.predictor.dtype).removeprefix("torch.")
            gflop, seconds = row.get(f"{side.name} GFLOP"), row[f"{side.name} s"]
            if gflop and seconds and dtype in rates:
                row[f"{side.name} of matmul"] = f"{gflop / seconds / rates[dtype]:.0%}"
