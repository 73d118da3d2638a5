"""Training clips per second: JPEG folders, MP4 files and rendered clips with the training loader."""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pycocotools import mask as coco

from i2v.config import PACKAGE_CONFIGS, instantiate, load_config
from i2v.demo import render_demo_clip
from i2v.results.overlay import VideoWriter
from i2v.video.video_file import VideoFile
from tools.benchmarks import machine
from train.dataset import transforms
from train.dataset.mixed_loader import LoaderSpec, MixedLoader
from train.dataset.synthetic import SyntheticRawDataset
from train.dataset.vos_dataset import VOSDataset
from train.dataset.vos_raw_dataset import JSONRawDataset, RawDataset
from train.dataset.vos_sampler import RandomUniformSampler
from train.scripts.extract_sav_frames import Extraction, extract


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--videos", type=Path, nargs="+", default=[], help="MP4 files to read; default: one rendered at 720p"
    )
    parser.add_argument("--size", type=int, nargs="+", default=[512, 1024], help="sides of the clips, in pixels")
    parser.add_argument("--frames", type=int, default=8, help="frames per clip")
    parser.add_argument("--clips", type=int, default=16, help="timed clips, after a warm-up of one per worker")
    parser.add_argument("--workers", type=int, default=0, help="loader processes; 0 loads in this one, with one thread")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Time every source at every size.

    Raises:
        OSError: If a video cannot be read.
        ValueError: If a video is damaged.
    """
    rows = []
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in a worker
    try:
        with tempfile.TemporaryDirectory() as folder:
            for size in args.size:
                for name, dataset in _sources(args, Path(folder), size).items():
                    rate = _clips_per_second(dataset, size, args)
                    rows.append(
                        {
                            "source": name,
                            "size": size,
                            "workers": args.workers,
                            "clips/s": round(rate, 2),
                            "clips/s per worker": round(rate / max(args.workers, 1), 2),
                        }
                    )
    finally:
        torch.set_num_threads(threads)
    return {"rows": rows, "frames per clip": args.frames, "machine": machine.describe(torch.device("cpu"))}


def write_sav(videos: Sequence[Path], folder: Path) -> None:
    """Lay videos out like SA-V's training split, as mp4 and as JPEGs, with masks of a moving ellipse."""
    for kind in ("mp4", "jpg", "json"):
        (folder / kind).mkdir()
    for i, video in enumerate(videos):
        name = f"sav_{i:06d}"
        (folder / "mp4" / f"{name}.mp4").symlink_to(video.absolute())
        extract(video, folder / "jpg" / name, Extraction())
        with VideoFile(video) as source:
            size, count = (source.height, source.width), source.num_frames
        entries = [[_ellipse(size, t / count)] for t in range(0, count, 4)]
        (folder / "json" / f"{name}_manual.json").write_text(json.dumps({"masklet": entries}))


def _sources(args: argparse.Namespace, folder: Path, size: int) -> dict[str, RawDataset]:
    if not (folder / "json").is_dir():
        write_sav(args.videos or [_rendered(folder / "rendered.mp4")], folder)
    return {
        "JPEG folder": JSONRawDataset(folder / "jpg", folder / "json"),
        "MP4": JSONRawDataset(folder / "mp4", folder / "json"),
        "synthetic": SyntheticRawDataset(max(len(args.videos), 1), args.frames, size),
    }


def _clips_per_second(dataset: RawDataset, size: int, args: argparse.Namespace) -> float:
    """Measure a source, with the augmentations of the published recipe except for rendered clips, which need none."""
    augment = () if isinstance(dataset, SyntheticRawDataset) else _published_transforms()
    warm_up = max(args.workers, 1)
    multiplier = -(-(args.clips + warm_up) // len(dataset))
    sampler = RandomUniformSampler(args.frames, 1, 0.5)
    clips = VOSDataset(dataset, sampler, size, augment, multiplier)
    batches = MixedLoader([LoaderSpec(clips, 1)], seed=0, num_workers=args.workers).epoch(0)
    for _ in range(warm_up):
        next(batches)
    start = time.perf_counter()
    for _ in range(args.clips):
        next(batches)
    return args.clips / (time.perf_counter() - start)


def _published_transforms() -> list[transforms.Transform]:
    config = load_config(PACKAGE_CONFIGS / "augmentation" / "published.yaml")
    return list(instantiate(config, "train_transforms"))


def _rendered(path: Path) -> Path:
    clip = render_demo_clip(96, 1280, 720)
    with VideoWriter(path) as writer:
        for frame in clip.frames:
            writer.write(frame)
    return path


def _ellipse(size: tuple[int, int], share: float) -> dict[str, Any]:
    """RLE of an ellipse that moves across a picture of size (height, width), at ``share`` (0..1) of its way."""
    height, width = size
    rows, columns = np.ogrid[:height, :width]
    x = (0.3 + 0.4 * share) * width
    inside = ((columns - x) / (0.2 * width)) ** 2 + ((rows - height / 2) / (0.3 * height)) ** 2 < 1
    rle = coco.encode(np.asfortranarray(inside, dtype=np.uint8))
    return {"size": list(rle["size"]), "counts": rle["counts"].decode("ascii")}
