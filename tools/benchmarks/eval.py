"""Scoring and testing: the evaluator against a plain one, and all objects in one pass against one pass each."""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from i2v.build_i2v import build_i2v_video_predictor, resolve_device
from i2v.cli.arguments import add_trust_option
from i2v.i2v_video_predictor import I2VVideoPredictor
from sav_dataset.utils.sav_benchmark import EvaluationSettings, evaluate
from test_pvs.prompts import Target, protocol
from test_pvs.tracking import track_together
from tools.benchmarks import machine
from tools.benchmarks.sides import keep_in_view

Mask = NDArray[np.bool_]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", default="i2v-infer")
    add_trust_option(parser)
    parser.add_argument("--checkpoint")
    parser.add_argument("--device")
    parser.add_argument("--image-size", type=int, nargs="*", default=[128], help="model image sizes for the passes")
    parser.add_argument("--objects", type=int, nargs="*", default=[1, 3, 8], help="objects in a pass")
    parser.add_argument("--frames", type=int, default=12, help="frames of a pass")
    parser.add_argument("--video-size", type=int, nargs=2, default=[270, 480], help="height and width of the video")
    parser.add_argument("--mask-size", type=int, nargs=2, default=[1080, 1440], help="height and width of scored masks")
    parser.add_argument("--masks", type=int, default=1200, help="number of scored masks, 0 for none")
    parser.add_argument("--processes", type=int, default=os.cpu_count(), help="of our evaluator; the plain one has one")
    parser.add_argument("--repeats", type=int, default=3, help="alternating runs of each; medians are reported")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Time our implementation and the plain one; a ratio above 1 means that ours is faster."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        if args.masks:
            rows.append(_scoring_row(Path(folder), args))
        for image_size in args.image_size:
            predictor = build_i2v_video_predictor(
                args.config,
                args.checkpoint,
                args.device,
                hydra_overrides_extra=[f"model.image_size={image_size}"],
                trust_config=args.trust_config,
                random_weights=args.checkpoint is None,
            )
            if args.checkpoint is None:
                keep_in_view(predictor.model)
            video = Path(folder) / "video"
            if not video.exists():
                write_video(video, args.frames, args.video_size)
            rows += [_pass_row(predictor, str(video), num_objects, args) for num_objects in args.objects]
    return {"rows": rows, "repeats": args.repeats, "machine": machine.describe(resolve_device(args.device))}


def _row(name: str, ours: Callable[[], str], plain: Callable[[], str], repeats: int) -> dict[str, Any]:
    """Time two implementations in alternation; each returns a result to report."""
    times: dict[str, list[tuple[float, float]]] = {"ours": [], "plain": []}
    counts = {}
    for _ in range(repeats):
        for side, call in (("ours", ours), ("plain", plain)):
            wall, cpu = time.perf_counter(), _cpu_seconds()
            counts[side] = call()
            times[side].append((time.perf_counter() - wall, _cpu_seconds() - cpu))
    (our_wall, our_cpu), (plain_wall, plain_cpu) = (
        map(statistics.median, zip(*times[side], strict=True)) for side in ("ours", "plain")
    )
    return {
        "what": name,
        "ours s": round(our_wall, 3),
        "plain s": round(plain_wall, 3),
        "ratio": round(plain_wall / our_wall, 2),
        "CPU ratio": round(plain_cpu / our_cpu, 2),
        "ours": counts["ours"],
        "plain": counts["plain"],
    }


def _cpu_seconds() -> float:
    """CPU time in seconds of this process and of its finished children."""
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def _scoring_row(folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    write_masks(folder, args.masks, args.mask_size)
    settings = EvaluationSettings(skip="none", num_processes=args.processes)

    def ours() -> str:
        return f"J&F {evaluate(folder / 'gt', folder / 'pred', settings).jf:.6f}"

    def plain() -> str:
        return f"J&F {plain_evaluate(folder / 'gt', folder / 'pred'):.6f}"

    size = "x".join(map(str, args.mask_size))
    return _row(f"scoring {args.masks} masks of {size}, {args.processes} processes", ours, plain, args.repeats)


def _pass_row(predictor: I2VVideoPredictor, video: str, num_objects: int, args: argparse.Namespace) -> dict[str, Any]:
    targets = [Target(str(obj), 0, disc(obj, 0, args.video_size)) for obj in range(num_objects)]
    prompt = protocol("gm")

    def follow(*groups: list[Target]) -> str:
        with _counting(predictor) as count:
            for group in groups:
                for _, _, logits in track_together(predictor, video, group, prompt):
                    (logits > 0).cpu()
        return f"{count[0]} frames encoded"

    name = f"pass at {predictor.model.image_size}, {args.frames} frames, {num_objects} objects"
    return _row(name, lambda: follow(targets), lambda: follow(*([t] for t in targets)), args.repeats)


@contextmanager
def _counting(predictor: I2VVideoPredictor) -> Iterator[list[int]]:
    """Count the frames that the image encoder gets in the block."""
    count = [0]

    def add(*_: Any) -> None:
        count[0] += 1

    handle = predictor.model.image_encoder.register_forward_pre_hook(add)
    try:
        yield count
    finally:
        handle.remove()


def disc(obj: int, t: int, size: tuple[int, int]) -> Mask:
    """Draw one of eight drifting discs."""
    height, width = size
    rows, columns = np.mgrid[:height, :width]
    x, y = width * (0.15 + 0.2 * (obj % 4)) + t, height * (0.3 + 0.4 * (obj // 4))
    return (columns - x) ** 2 + (rows - y) ** 2 < (height / 8) ** 2


def write_video(folder: Path, num_frames: int, size: tuple[int, int]) -> None:
    """Write JPEG frames of eight discs over a texture."""
    folder.mkdir()
    rows, columns = np.mgrid[: size[0], : size[1]]
    for t in range(num_frames):
        frame = np.repeat((90 + 40 * np.sin(columns / 11) * np.cos(rows / 17))[..., None], 3, axis=2)
        for obj in range(8):
            frame[disc(obj, t, size)] = [230 - 25 * obj, 40 + 25 * obj, (90 * obj) % 256]
        Image.fromarray(frame.clip(0, 255).astype(np.uint8)).save(folder / f"{t:05d}.jpg", quality=95)


def write_masks(folder: Path, num_masks: int, size: tuple[int, int], num_objects: int = 4, num_drawn: int = 80) -> None:
    """Write two trees in SA-V's layout, gt and pred, of realistically irregular masks.

    Args:
        folder: Where the trees are created.
        num_masks: Masks per tree.
        size: Height and width.
        num_objects: Objects per frame.
        num_drawn: Different masks; further ones are copies.
    """
    for i in range(num_masks):
        for kind, wave in (("gt", 0.0), ("pred", 0.1)):
            path, first = (
                folder / kind / "video" / f"{n % num_objects:03d}" / f"{n // num_objects:05d}.png"
                for n in (i, i % num_drawn)
            )
            path.parent.mkdir(parents=True, exist_ok=True)
            if path != first:
                shutil.copyfile(first, path)
                continue
            mask = blob(i % num_objects, i // num_objects, size, wave)
            # As in practice: annotations have 8 bits per pixel, our predictions 1.
            Image.fromarray(mask.astype(np.uint8) * 255 if kind == "gt" else mask).save(path)


def blob(obj: int, t: int, size: tuple[int, int], wave: float) -> Mask:
    """Draw an irregular shape, which ``wave`` deforms differently on every frame."""
    rows, columns = np.mgrid[: size[0], : size[1]]
    x, y = size[1] * (0.2 + 0.15 * obj) + 3 * t, size[0] * (0.3 + 0.1 * obj)
    angle, distance = np.arctan2(rows - y, columns - x), np.hypot(columns - x, rows - y)
    edge = 1 + 0.2 * np.sin(3 * angle + obj) + 0.05 * np.sin(17 * angle) + wave * np.sin(5 * angle + t)
    return distance < size[0] * (0.08 + 0.04 * obj) * edge


def plain_evaluate(gt_root: Path, pred_root: Path) -> float:
    """J&F in percent over all objects and frames, computed literally from its definition. Needs OpenCV (extra dev)."""
    objects: dict[Path, list[float]] = {}
    for path in sorted(gt_root.rglob("*.png")):
        gt, pred = (plain_mask(root / path.relative_to(gt_root)) for root in (gt_root, pred_root))
        objects.setdefault(path.parent, []).append((plain_region(gt, pred) + plain_boundary(gt, pred)) / 2)
    return 100 * statistics.fmean(statistics.fmean(values) for values in objects.values())


def plain_mask(path: Path) -> Mask:
    """Read a binary PNG as a mask ``(H, W)``."""
    values = np.array(Image.open(path))
    if len(np.unique(values)) > 2:
        raise ValueError(f"{path}: expected a binary mask")
    return values > 0


def plain_region(gt: Mask, pred: Mask) -> float:
    """J of two masks ``(H, W)``."""
    union = np.sum(gt | pred)
    return float(np.sum(gt & pred) / union) if union else 1.0


def plain_boundary(gt: Mask, pred: Mask) -> float:
    """F of two masks ``(H, W)``, by dilating the boundaries of full frames with a disk."""
    import cv2

    radius = int(np.ceil(0.008 * np.linalg.norm(gt.shape)))
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    disk = (x * x + y * y <= radius * radius).astype(np.uint8)
    gt_edge, pred_edge = plain_edge(gt), plain_edge(pred)
    if not gt_edge.any() or not pred_edge.any():
        return float(gt_edge.any() == pred_edge.any())
    near_gt, near_pred = (cv2.dilate(edge.astype(np.uint8), disk) > 0 for edge in (gt_edge, pred_edge))
    precision = np.sum(pred_edge & near_gt) / np.sum(pred_edge)
    recall = np.sum(gt_edge & near_pred) / np.sum(gt_edge)
    return float(2 * precision * recall / (precision + recall)) if precision + recall else 0.0


def plain_edge(mask: Mask) -> Mask:
    """Boundary map of a mask ``(H, W)``: pixels that differ from their right, lower or lower right neighbour."""
    right, below, corner = (np.zeros_like(mask) for _ in range(3))
    right[:, :-1], below[:-1], corner[:-1, :-1] = mask[:, 1:], mask[1:], mask[1:, 1:]
    edge = (mask ^ right) | (mask ^ below) | (mask ^ corner)
    edge[-1] = mask[-1] ^ right[-1]
    edge[:, -1] = mask[:, -1] ^ below[:, -1]
    edge[-1, -1] = False
    return edge
