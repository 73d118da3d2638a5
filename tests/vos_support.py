"""Small trees of rendered videos in the layouts of SA-V and of benchmarks with label images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

HEIGHT, WIDTH = 48, 64


def disc_mask(obj: int, t: int, height: int = HEIGHT, width: int = WIDTH) -> NDArray[np.bool_]:
    """Mask of one of up to 8 discs that drift to the right."""
    rows, columns = np.mgrid[:height, :width]
    x, y = width * (0.15 + 0.2 * (obj % 4)) + t / 2, height * (0.3 + 0.4 * (obj // 4))
    return (columns - x) ** 2 + (rows - y) ** 2 < (height / 7) ** 2


def render(masks: Sequence[NDArray[np.bool_]], height: int = HEIGHT, width: int = WIDTH) -> NDArray[np.uint8]:
    """A frame (H,W,3): discs in colours of their own over a texture."""
    rows, columns = np.mgrid[:height, :width]
    base = 90 + 40 * np.sin(columns / 5) * np.cos(rows / 7)
    frame = np.repeat(base[..., None], 3, axis=2)
    for obj, mask in enumerate(masks):
        frame[mask] = [230 - 25 * obj, 40 + 25 * obj, (90 * obj) % 256]
    return frame.clip(0, 255).astype(np.uint8)


def write_frames(folder: Path, num_frames: int, starts: Sequence[int], size: tuple[int, int] = (HEIGHT, WIDTH)) -> None:
    """JPEG frames 00000.jpg and so on; disc k is there from frame ``starts[k]`` on."""
    folder.mkdir(parents=True)
    for t in range(num_frames):
        masks = [disc_mask(obj, t, *size) for obj, start in enumerate(starts) if t >= start]
        Image.fromarray(render(masks, *size)).save(folder / f"{t:05d}.jpg", quality=95)


def write_mask(path: Path, mask: NDArray[np.bool_]) -> None:
    """A binary PNG of 0 and 255."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(mask.astype(np.uint8) * 255).save(path)


def write_labels(path: Path, labels: NDArray[np.uint8]) -> None:
    """A palette PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(labels)
    image.putpalette([value % 256 for value in range(0, 768 * 7, 7)])
    image.save(path)


def make_sav_tree(root: Path, videos: dict[str, tuple[int, Sequence[int]]]) -> Path:
    """SA-V test: by name a number of frames, and the frames where its objects appear; every 4th frame is annotated."""
    for name, (num_frames, starts) in videos.items():
        write_frames(root / "JPEGImages_24fps" / name, num_frames, starts)
        for obj, start in enumerate(starts):
            for t in range(0, num_frames, 4):
                mask = disc_mask(obj, t) & (t >= start)
                write_mask(root / "Annotations_6fps" / name / f"{obj:03d}" / f"{t:05d}.png", mask)
    (root / "sav_test.txt").write_text("".join(f"{name}\n" for name in videos))
    return root


def make_label_tree(
    root: Path, videos: dict[str, tuple[int, Sequence[int]]], every: int = 1, folders: str = ""
) -> Path:
    """Label images in ``Annotations`` (below ``folders``) for every so many frames; object k is label k + 1."""
    for name, (num_frames, starts) in videos.items():
        write_frames(root / folders / "JPEGImages" / name, num_frames, starts)
        for t in range(0, num_frames, every):
            labels = np.zeros((HEIGHT, WIDTH), np.uint8)
            for obj, start in enumerate(starts):
                if t >= start:
                    labels[disc_mask(obj, t)] = obj + 1
            write_labels(root / folders / "Annotations" / name / f"{t:05d}.png", labels)
    return root
