"""Check a CUDA GPU: parity with the CPU, time per frame and peak memory, as JSON.

python tools/gpu_check.py --json FILE [--checkpoint i2v-nano]
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

if not __package__:
    # A script has only its own folder on the path.
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from torch import Tensor

from i2v.build_i2v import build_i2v_video_predictor
from i2v.demo import render_demo_clip
from i2v.i2v_video_predictor import I2VVideoPredictor
from i2v.utils.files import replacing

PARITY_FRAMES = 12
WARM_UP, TIMED = 10, 8  # frames; memory is full at the tenth
WAYS: dict[str, dict[str, Any]] = {
    "float32": {"dtype": "float32"},
    "float32, tf32": {"dtype": "float32", "tf32": True},
    "bfloat16": {"dtype": "bfloat16"},
    "bfloat16, compiled": {"dtype": "bfloat16", "compile": True},
}


def track(predictor: I2VVideoPredictor, num_objects: int, num_frames: int) -> tuple[Tensor, list[float]]:
    """Track objects through a rendered clip.

    Returns:
        Masks ``(T, N, H, W)`` bool, and the seconds that each frame took.
    """
    clip = render_demo_clip(num_frames=num_frames)
    masks, seconds = [], []
    with predictor.init_state(clip.frames) as state:
        for obj_id in range(num_objects):
            predictor.add_new_mask(state, 0, obj_id, clip.masks[0])
        started = time.perf_counter()
        for _, _, logits in predictor.propagate_in_video(state):
            if logits.is_cuda:
                torch.cuda.synchronize()
            seconds.append(time.perf_counter() - started)
            masks.append((logits[:, 0] > 0).cpu())
            started = time.perf_counter()
    return torch.stack(masks), seconds


def parity(config: str, checkpoint: str) -> list[dict[str, Any]]:
    """Compare masks of the GPU with those of the CPU in float32: lowest and mean IoU over frames, by dtype."""
    cpu = build_i2v_video_predictor(config, checkpoint, device="cpu", dtype="float32")
    expected, _ = track(cpu, 1, PARITY_FRAMES)
    rows = []
    for dtype in ("float32", "bfloat16"):
        predictor = build_i2v_video_predictor(config, checkpoint, device="cuda", dtype=dtype)
        found, _ = track(predictor, 1, PARITY_FRAMES)
        union = (expected | found).flatten(1).sum(1)
        ious = ((expected & found).flatten(1).sum(1) / union.clamp(min=1)).where(union > 0, torch.tensor(1.0))
        rows.append({"dtype": dtype, "lowest IoU": ious.min().item(), "mean IoU": ious.mean().item()})
    return rows


def speed(config: str, checkpoint: str | None, way: str, num_objects: int) -> dict[str, Any]:
    """Measure the median time per frame once the memory bank is full, and the peak GPU memory."""
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    predictor = build_i2v_video_predictor(
        config, checkpoint, device="cuda", random_weights=checkpoint is None, **WAYS[way]
    )
    _, seconds = track(predictor, num_objects, WARM_UP + TIMED)
    median = sorted(seconds[WARM_UP:])[TIMED // 2]
    return {
        "config": config,
        "way": way,
        "objects": num_objects,
        "ms a frame": round(1000 * median, 2),
        "peak MiB": round(torch.cuda.max_memory_allocated() / 2**20),
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Run all checks; a failed one is reported and the next one runs. Returns the exit status: 1 if any failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--config", default="i2v-nano-infer", help="config of the small model (default: %(default)s)")
    parser.add_argument("--checkpoint", default="checkpoints/i2v-nano.pt", help="weights of the small model")
    parser.add_argument("--objects", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--seconds", type=float, default=120, help="no further check starts after this time")
    args = parser.parse_args(argv)
    if not torch.cuda.is_available():
        print("gpu_check: error: there is no CUDA GPU", file=sys.stderr)
        return 1
    started = time.perf_counter()
    report: dict[str, Any] = {"torch": torch.__version__, "gpu": torch.cuda.get_device_name(), "failed": []}
    checks: dict[str, Callable[[], Any]] = {"parity": partial(parity, args.config, args.checkpoint)}
    for way in WAYS:
        checks[f"speed {way} nano"] = partial(speed, args.config, args.checkpoint, way, 1)
        for number in args.objects:
            checks[f"speed {way} 1024 {number}"] = partial(speed, "i2v-infer", None, way, number)
    for name, check in checks.items():
        if time.perf_counter() - started > args.seconds:
            report["failed"].append(f"{name}: not started, {args.seconds:g} s are over")
            continue
        try:
            report[name] = check()
        except Exception as error:  # any failure is a result of this check  # noqa: BLE001
            report["failed"].append(f"{name}: {type(error).__name__}: {error}")
        print(name, report.get(name, report["failed"][-1:]), flush=True)
        with replacing(args.json) as path:
            path.write_text(json.dumps(report, indent=2) + "\n")
    return 1 if report["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
