"""Frames per second of `i2v track` from a video file to written results: decoding, tracking and writing."""

from __future__ import annotations

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from i2v.cli.arguments import add_trust_option
from i2v.demo import render_demo_clip
from i2v.prompts.sampling import centroid_pixel
from i2v.results.overlay import VideoWriter
from tools.benchmarks import machine
from tools.benchmarks.command_line import model_options

ROOT = Path(__file__).parents[2]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", default="i2v-nano-infer")
    add_trust_option(parser)
    parser.add_argument("--checkpoint", help="default: those of i2v-nano for its config, else random ones")
    parser.add_argument("--device", default="cpu")
    parser.add_argument(
        "--sizes", nargs="+", default=["480x270", "1280x720"], metavar="WxH", help="sizes of rendered videos"
    )
    parser.add_argument("--frames", type=int, default=60)
    parser.add_argument(
        "--threads", type=int, nargs="+", default=[1, os.cpu_count() or 1], help="PyTorch's CPU threads"
    )
    parser.add_argument("--repeats", type=int, default=3, help="alternating runs of each; medians are reported")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Measure frames per second by size and number of threads.

    Raises:
        RuntimeError: If the command fails.
    """
    cases = [(size, threads) for size in args.sizes for threads in dict.fromkeys(args.threads)]
    rates: dict[tuple[str, int], list[float]] = {case: [] for case in cases}
    with tempfile.TemporaryDirectory() as folder:
        clicks = {size: write_video(Path(folder) / f"{size}.mp4", size, args.frames) for size in args.sizes}
        for _ in range(args.repeats):
            for size, threads in cases:
                rates[size, threads].append(track(Path(folder), size, clicks[size], threads, args))
    rows = [
        {"video": size, "threads": threads, "frames/s": round(statistics.median(values), 2), "best": max(values)}
        for (size, threads), values in rates.items()
    ]
    return {
        "rows": rows,
        "config": args.config,
        "frames": args.frames,
        "repeats": args.repeats,
        "machine": machine.describe(torch.device(args.device)),
    }


def write_video(path: Path, size: str, num_frames: int) -> str:
    """Render a clip as MP4.

    Args:
        path: The file.
        size: WIDTHxHEIGHT.
        num_frames: Frames of the clip.

    Returns:
        A click on its object, X,Y.

    Raises:
        ValueError: If the size is malformed.
    """
    if not re.fullmatch(r"[1-9]\d*x[1-9]\d*", size):
        raise ValueError(f"--sizes: expected width and height such as 480x270, got {size!r}")
    width, height = map(int, size.split("x"))
    clip = render_demo_clip(num_frames, width, height)
    with VideoWriter(path) as writer:
        for frame in clip.frames:
            writer.write(frame)
    x, y = centroid_pixel(clip.masks[0])
    return f"{x},{y}"


def track(folder: Path, size: str, click: str, threads: int, args: argparse.Namespace) -> float:
    """Run `i2v track` and return the frames per second it reports, without startup, loading and contact sheet.

    Raises:
        RuntimeError: If the command fails.
    """
    command = [sys.executable, "-m", "i2v", "track", str(folder / f"{size}.mp4"), "--click", click, "--overwrite"]
    command += ["--out", str(folder / "out"), *model_options(args)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    reported = re.search(r"\(([\d.]+) frames/s\)", done.stdout)
    if done.returncode or reported is None:
        raise RuntimeError(f"{' '.join(command)} failed: {done.stderr.strip().splitlines()[-1:]}")
    return float(reported[1])
