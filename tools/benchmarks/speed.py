"""Seconds per frame by stage, memory full, one rendered clip."""

from __future__ import annotations

import argparse
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from i2v.build_i2v import build_i2v_video_predictor
from i2v.demo import render_demo_clip
from i2v.i2v_video_predictor import I2VVideoPredictor
from tools.benchmarks import machine

# Stages that are modules, by what the paper calls them.
STAGES = {
    "TinyViT": "image_encoder.trunk_image",
    "TFI": "image_encoder.trunk_video",
    "memory attention": "memory_attention",
    "prompt generator": "memory_prompt_generator",
    "mask decoder": "sam_mask_decoder",
    "memory encoder": "memory_encoder",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", default="i2v-infer")
    parser.add_argument("--checkpoint", help="default: random weights, which cost the same")
    parser.add_argument("--device")
    parser.add_argument("--dtype", help="float32, bfloat16 or float16; default: the device's")
    parser.add_argument("--objects", type=int, default=1)
    parser.add_argument("--warm-up", type=int, default=10, help="frames before the clock starts (memory is full at 9)")
    parser.add_argument("--frames", type=int, default=5, help="frames that are timed")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="config override")


def run(args: argparse.Namespace) -> dict[str, Any]:
    predictor = build_i2v_video_predictor(
        args.config, args.checkpoint, device=args.device, dtype=args.dtype, hydra_overrides_extra=args.set
    )
    if args.checkpoint is None:
        keep_in_view(predictor.model)
    times, per_frame = _time_frames(predictor, args.warm_up, args.frames, args.objects)
    total = statistics.median(per_frame)
    rows = [
        {
            "stage": name,
            "seconds": round(statistics.median(values), 4),
            "share": f"{statistics.median(values) / total:.1%}",
        }
        for name, values in times.items()
    ]
    rows.append({"stage": "frame", "seconds": round(total, 4), "share": f"{1 / total:.2f} frames/s"})
    return {
        "rows": rows,
        "image_size": predictor.model.image_size,
        "objects": args.objects,
        "dtype": str(predictor.dtype),
        "machine": machine.describe(predictor.device),
    }


def keep_in_view(model: nn.Module) -> None:
    """Make random weights see the object, so that masks are not all absent."""
    head = model.get_submodule("sam_mask_decoder.pred_obj_score_head")
    with torch.no_grad():
        list(head.parameters())[-1].fill_(5.0)


def _time_frames(
    predictor: I2VVideoPredictor, warm_up: int, num_frames: int, num_objects: int
) -> tuple[dict[str, list[float]], list[float]]:
    clip = render_demo_clip(num_frames=warm_up + num_frames)
    with predictor.init_state(clip.frames) as state, stopwatch(predictor) as frame_times:
        for obj_id in range(num_objects):
            predictor.add_new_mask(state, 0, obj_id, clip.masks[0])
        stages: dict[str, list[float]] = defaultdict(list)
        totals = []
        start = time.perf_counter()
        for frame, _, logits in predictor.propagate_in_video(state):
            (logits > 0).sum().item()  # a user reads the masks
            machine.synchronize(predictor.device)
            if frame >= warm_up:
                totals.append(time.perf_counter() - start)
                for name in STAGES:
                    stages[name].append(frame_times.get(name, 0.0))
                stages["rest"].append(totals[-1] - sum(frame_times.values()))
            frame_times.clear()
            start = time.perf_counter()
    return stages, totals


@contextmanager
def stopwatch(predictor: I2VVideoPredictor) -> Iterator[dict[str, float]]:
    """Seconds spent in every stage since the dict was last cleared."""
    times: dict[str, float] = {}
    handles = []

    def begin(name: str) -> Callable[..., None]:
        def hook(*_: Any) -> None:
            machine.synchronize(predictor.device)
            times[name] = times.get(name, 0.0) - time.perf_counter()

        return hook

    def end(name: str) -> Callable[..., None]:
        def hook(*_: Any) -> None:
            machine.synchronize(predictor.device)
            times[name] += time.perf_counter()

        return hook

    for name, path in STAGES.items():
        module = predictor.model.get_submodule(path)
        handles += [module.register_forward_pre_hook(begin(name)), module.register_forward_hook(end(name))]
    try:
        yield times
    finally:
        for handle in handles:
            handle.remove()
