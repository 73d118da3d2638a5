"""Seconds and memory of a training step, by precision and activation checkpointing."""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from i2v.build_i2v import resolve_device
from i2v.cli.arguments import TRUST, add_trust_option
from tools.benchmarks import machine

ROOT = Path(__file__).parents[2]
CHECKPOINTING = (
    "model.image_encoder.trunk_image.use_checkpoint=true",
    "model.memory_attention.use_checkpoint=true",
    "trainer.rollout.use_act_ckpt_iterative_pt_sampling=true",
)
FLOAT32 = ("trainer.optim.amp.enabled=false",)
BFLOAT16 = ("trainer.optim.amp.enabled=true", "trainer.optim.amp.amp_dtype=bfloat16")
OPTIONS = {
    "float32": FLOAT32,
    "bfloat16": BFLOAT16,
    "float32, checkpointing": FLOAT32 + CHECKPOINTING,
    "bfloat16, checkpointing": BFLOAT16 + CHECKPOINTING,
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", default="i2v-train")
    add_trust_option(parser)
    parser.add_argument("--options", nargs="+", choices=list(OPTIONS), default=list(OPTIONS), metavar="OPTION")
    parser.add_argument("--size", type=int, default=512, help="side of the frames")
    parser.add_argument("--frames", type=int, default=8, help="frames of a clip")
    parser.add_argument("--steps", type=int, default=3, help="steps, of which the first is not timed")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="config override")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Measure the median step of each option on a rendered clip, each in its own process.

    Raises:
        ValueError: If there are fewer than 2 steps.
        RuntimeError: If a run fails.
    """
    if args.steps < 2:
        raise ValueError(f"--steps: expected at least 2, as the first one is a warm-up, got {args.steps}")
    rows = [_row(name, args) for name in args.options]
    return {
        "rows": rows,
        "config": args.config,
        "size": args.size,
        "frames": args.frames,
        "machine": machine.describe(resolve_device()),
    }


def _row(name: str, args: argparse.Namespace) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        steps = train(Path(folder), OPTIONS[name], args)
    seconds, waited = ([step[key] for step in steps[1:]] for key in ("seconds", "data_seconds"))
    return {
        "option": name,
        "seconds": round(statistics.median(seconds), 2),
        "of which data": round(statistics.median(waited), 2),
        "memory GiB": round(max(step["memory_gib"] for step in steps), 2),
    }


def train(folder: Path, overrides: tuple[str, ...], args: argparse.Namespace) -> list[dict[str, float]]:
    """Train for a few steps, and return the log entry of each step.

    Raises:
        RuntimeError: If the run fails.
    """
    settings = (
        "data=synthetic",
        f"dataset.num_videos={args.steps}",
        f"launcher.experiment_log_dir={folder}",
        f"scratch.resolution={args.size}",
        f"scratch.num_frames={args.frames}",
        "scratch.num_epochs=1",
        "scratch.num_train_workers=0",
        "scratch.train_batch_size=1",
        "trainer.mode=train_only",
        "trainer.checkpoint.initial=none",
        "trainer.logging.log_freq=1",
    )
    trust = [TRUST] if args.trust_config else []
    command = [sys.executable, "-m", "train.train", "-c", args.config, *trust, *settings, *overrides, *args.set]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed: {done.stderr.strip().splitlines()[-1:]}")
    return [json.loads(line) for line in (folder / "logs" / "train_stats.jsonl").read_text().splitlines()]
