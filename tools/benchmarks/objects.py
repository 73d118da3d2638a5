"""Seconds per frame for an increasing number of objects, ours against the plain path, with a full memory bank."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from typing import Any

from torch import Tensor

from i2v.demo import render_demo_clip
from i2v.inference.inference_state import InferenceState
from i2v.modeling.structures import TrackingStep
from tools.benchmarks import machine, plots, sides
from tools.benchmarks.sides import Side

LAST_FILLED = 8  # with a prompt on frame 0, all memory slots are in use from frame 9 on


def add_arguments(parser: argparse.ArgumentParser) -> None:
    sides.add_arguments(parser)
    parser.add_argument("--objects", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32])
    parser.add_argument("--plain-up-to", type=int, default=32, help="skip the plain path above this number")
    parser.add_argument("--frames", type=int, default=3, help="timed frames per number of objects")
    parser.add_argument("--plot", type=Path, metavar="PNG", help="also plot the figures (needs matplotlib)")


def run(args: argparse.Namespace) -> dict[str, Any]:
    ways = sides.make_sides(args)
    with ExitStack() as stack:
        sessions = [_fill_memory(stack, side, sides.RUNS_OF_A_LAP * args.frames * len(args.objects)) for side in ways]
        table = [_row(args, ways, sessions, number) for number in args.objects]
    report = {
        "rows": table,
        "image_size": ways[0].predictor.model.image_size,
        "frames": args.frames,
        "clock": args.clock,
        "plain dtype": args.plain_dtype,
        "machine": machine.describe(ways[0].predictor.device),
    }
    if args.plot:
        plots.objects(report, [side.name for side in ways], args.plot)
    return report


def _fill_memory(stack: ExitStack, side: Side, num_frames: int) -> InferenceState:
    """Start a session with one object and a full memory bank, with frames left to measure."""
    clip = render_demo_clip(num_frames=LAST_FILLED + num_frames + 1)
    state = stack.enter_context(side.predictor.init_state(clip.frames))
    with side.path():
        side.predictor.add_new_mask(state, 0, 0, clip.masks[0])
        for _ in side.predictor.propagate_in_video(state, max_frame_num_to_track=LAST_FILLED):
            pass
    return state


def _row(args: argparse.Namespace, ways: list[Side], sessions: list[InferenceState], number: int) -> dict[str, Any]:
    running = [
        (side, state)
        for side, state in zip(ways, sessions, strict=True)
        if not side.plain or number <= args.plain_up_to
    ]
    steps = [_step(side, state, number) for side, state in running]
    laps, _ = sides.take_turns([side for side, _ in running], steps, args.clock, args.frames, count=False)
    row: dict[str, Any] = {"objects": number}
    for (side, _), lap in zip(running, laps, strict=True):
        row[f"{side.name} s"] = round(lap.median(), 4)
        row[f"{side.name} s/object"] = round(lap.median() / number, 4)
    for side in ways[1:]:
        if "plain s" in row:
            row[f"{side.name} ratio"] = round(row[f"{side.name} s"] / row["plain s"], 3)
    return row


def _step(side: Side, state: InferenceState, number: int) -> Callable[[], Tensor]:
    """Make a step to the next frame in which all objects are copies of the session's first object as it is now."""
    snapshot, frames = state.snapshot_object(0), count(state.frames_with_mask(0)[-1] + 1)
    for obj_id in range(number):
        state.restore_object(obj_id, snapshot)

    def step() -> Tensor:
        return side.predictor.advance(state, TrackingStep(next(frames)))[2]

    return step
