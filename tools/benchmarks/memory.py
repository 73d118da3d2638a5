"""Resident memory while a long video is tracked."""

from __future__ import annotations

import argparse
import tempfile
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from i2v.build_i2v import build_i2v_video_predictor
from i2v.cli.arguments import add_trust_option
from tools.benchmarks import machine
from tools.benchmarks.sides import keep_in_view


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", default="i2v-infer")
    add_trust_option(parser)
    parser.add_argument("--checkpoint")
    parser.add_argument("--device")
    parser.add_argument("--at", type=int, nargs="+", default=[200, 500, 1000, 2000], help="frames at which to measure")
    parser.add_argument("--objects", type=int, default=2)
    parser.add_argument(
        "--image-size", type=int, default=128, help="model image size; small by default, as many frames are needed"
    )


def run(args: argparse.Namespace) -> dict[str, Any]:
    predictor = build_i2v_video_predictor(
        args.config,
        args.checkpoint,
        args.device,
        hydra_overrides_extra=[f"model.image_size={args.image_size}"],
        trust_config=args.trust_config,
        random_weights=args.checkpoint is None,
    )
    if args.checkpoint is None:
        keep_in_view(predictor.model)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "long.mp4"
        write_clip(path, max(args.at) + 1)
        start = time.perf_counter()
        with predictor.init_state(path) as state:
            opened = time.perf_counter() - start
            for obj_id in range(args.objects):
                predictor.add_new_points_or_box(state, 0, obj_id, points=[[80 + 40 * obj_id, 90]], labels=[1])
            for frame, _, _ in predictor.propagate_in_video(state):
                if frame in args.at:
                    rows.append({"frame": frame, "resident MB": round(machine.resident_megabytes(), 1)})
    base = rows[0]["resident MB"]
    for row in rows:
        row["growth"] = f"{row['resident MB'] / base - 1:+.2%}"
    return {
        "rows": rows,
        "seconds to open": round(opened, 3),
        "image_size": args.image_size,
        "objects": args.objects,
        "machine": machine.describe(predictor.device),
    }


def write_clip(path: Path, num_frames: int, height: int = 180, width: int = 320) -> None:
    """Write an H.264 clip of two circling discs."""
    rows, columns = np.mgrid[:height, :width]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(24))
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for t in range(num_frames):
            image = np.full((height, width, 3), 90, np.uint8)
            for phase, colour in ((0.0, (220, 60, 60)), (3.1, (60, 90, 230))):
                x, y = width / 2 + 70 * np.cos(t / 40 + phase), height / 2 + 40 * np.sin(t / 40 + phase)
                image[(columns - x) ** 2 + (rows - y) ** 2 < 26**2] = colour
            for packet in stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
