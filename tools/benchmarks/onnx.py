"""Exported models against PyTorch on a real clip: equal masks, size on disk, and frames per second, side by side."""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from i2v.build_i2v import build_i2v_video_predictor
from i2v.cli.arguments import add_trust_option
from i2v.export.description import WEIGHT_TYPES
from i2v.export.exporter import export_model
from i2v.onnx_runtime.video_predictor import OnnxVideoPredictor
from i2v.pretrained import choose_model
from i2v.utils.iou import mask_iou
from i2v.video.sources import open_source
from tools.benchmarks import machine

Masks = NDArray[np.bool_]  # (objects, H, W)


@dataclass
class _Lap:
    """A predictor on its way through the clip."""

    name: str
    megabytes: float
    predictor: Any
    steps: Iterator[Any]
    seconds: list[float]
    masks: list[Masks]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("video", type=Path, help="a video file or a folder of frames")
    parser.add_argument("--config", help="default: i2v-nano-infer, or the checkpoint's own config")
    parser.add_argument("--checkpoint", help="default: the weights of i2v-nano")
    parser.add_argument("--frames", type=int, default=50)
    parser.add_argument("--box", type=float, nargs=4, metavar="PIXELS", help="on frame 0; default: the middle")
    parser.add_argument("--objects", type=int, default=1, help="objects, all with that box")
    parser.add_argument("--dtype", nargs="+", choices=WEIGHT_TYPES, default=list(WEIGHT_TYPES))
    parser.add_argument("--exports", type=Path, default=None, help="keep exports here, and use those that are there")
    parser.add_argument("--threads", type=int, default=None, help="of both; default: one for each usable CPU")
    add_trust_option(parser)


def run(args: argparse.Namespace) -> dict[str, Any]:
    if args.threads:
        torch.set_num_threads(args.threads)
    model = choose_model(args.config, args.checkpoint)
    predictor = build_i2v_video_predictor(model.config, model.checkpoint, device="cpu", trust_config=args.trust_config)
    with TemporaryDirectory() as scratch, open_source(args.video) as source:
        frames = [source.read(i) for i in range(min(args.frames, source.num_frames or args.frames))]
        laps = [_Lap("torch float32", _megabytes([model.checkpoint]), predictor, iter(()), [], [])]
        for weight_type in args.dtype:
            folder = (args.exports or Path(scratch)) / weight_type
            if not folder.exists():
                export_model(predictor, folder, Path(model.config).stem, "onnx", weight_type)
            exported = OnnxVideoPredictor(folder, args.threads or torch.get_num_threads())
            name = f"onnx {weight_type}"
            laps.append(_Lap(name, _megabytes(folder.iterdir()), exported, iter(()), [], []))
        for lap in laps:
            lap.steps = _track(lap.predictor, np.stack(frames), args.box, args.objects)
        for _ in frames:
            for lap in laps:  # in turns, so that other load affects all alike
                _step(lap)
    return {
        "rows": [_row(lap, laps[0]) for lap in laps],
        "video": str(args.video),
        "frames": len(frames),
        "objects": args.objects,
        "machine": machine.describe(torch.device("cpu")),
    }


def _track(predictor: Any, frames: NDArray[np.uint8], box: list[float] | None, objects: int) -> Iterator[Any]:
    height, width = frames.shape[1:3]
    corners = box or [0.3 * width, 0.3 * height, 0.6 * width, 0.7 * height]
    with predictor.init_state(frames) as state:
        for obj_id in range(objects):
            predictor.add_new_points_or_box(state, 0, obj_id, box=corners)
        yield from predictor.propagate_in_video(state)


def _step(lap: _Lap) -> None:
    started = time.perf_counter()
    _, _, logits = next(lap.steps)
    masks = np.asarray(logits)[:, 0] > 0
    lap.seconds.append(time.perf_counter() - started)
    lap.masks.append(masks)


def _row(lap: _Lap, reference: _Lap) -> dict[str, Any]:
    pairs = [
        (ours, theirs)
        for frame in zip(lap.masks, reference.masks, strict=True)
        for ours, theirs in zip(*frame, strict=True)
        if ours.any() or theirs.any()
    ]
    ious = [mask_iou(ours, theirs) for ours, theirs in pairs] or [float("nan")]
    # The first step answers the prompts and opens the clip, and memory is short on the next few.
    return {
        "runtime": lap.name,
        "MB": round(lap.megabytes, 1),
        "frames/s": round(1 / statistics.median(lap.seconds[len(lap.seconds) // 5 + 1 :] or lap.seconds), 2),
        "mean IoU with torch": round(float(np.mean(ious)), 5),
        "lowest IoU": round(float(np.min(ious)), 5),
    }


def _megabytes(paths: Any) -> float:
    return sum(Path(path).stat().st_size for path in paths) / 1e6
