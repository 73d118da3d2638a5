"""Held-out rendered clips as a benchmark: scenes like those of training, from seeds that training never uses."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from i2v.results.export import write_label_png
from i2v.utils.picture_file import write_picture
from sav_dataset.utils.datasets import Dataset, open_dataset
from test_pvs.mask_writer import mask_folder
from test_pvs.run_settings import claim_folder
from train.dataset.synthetic import SyntheticRawDataset, SyntheticVideo

# First part of the seeds of these clips. Seeds of training start with that of the config, a small number.
_HELD_OUT = 0x48454C44

REMEDY = "give another --output"
NUM_WRITERS = 2  # threads that compress pictures


@dataclass(frozen=True)
class RenderedClips:
    """Settings of the clips.

    Attributes:
        num_clips: Number of clips.
        num_frames: Frames of a clip.
        size: Side of the square frames in pixels.
        seed: Another seed gives other clips.
        backgrounds: Real videos used as background of half of the scenes, as in training.
    """

    num_clips: int
    num_frames: int = 32
    size: int = 384
    seed: int = 0
    backgrounds: tuple[str, ...] = ()

    def describe(self) -> dict[str, Any]:
        """Return the settings as JSON values."""
        return {**asdict(self), "backgrounds": list(self.backgrounds)}

    def open(self, folder: Path) -> Dataset:
        """Claim a folder and render the missing clips to ``clips`` in it, laid out as DAVIS 2017.

        The objects are those visible on the first frame.

        Args:
            folder: Folder of the results.

        Returns:
            The clips as a benchmark.

        Raises:
            ValueError: If a number is out of range, a background is not a video, or the folder belongs to other
                settings.
            FileNotFoundError: If a background does not exist.
        """
        root = folder / "clips"
        source = SyntheticRawDataset(self.num_clips, self.num_frames, self.size, backgrounds=self.backgrounds)
        claim_folder(folder, self, remedy=REMEDY)
        with ThreadPoolExecutor(NUM_WRITERS) as threads:
            for index in tqdm(range(self.num_clips), desc="rendering", unit=" clips"):
                name = f"clip_{index:03d}"
                if not (root / "Annotations" / name).is_dir():
                    video = source.open(index, np.random.default_rng([_HELD_OUT, self.seed, index]))
                    _write_clip(video, self.size, root, name, threads)
        return open_dataset("davis2017", root)


def _write_clip(video: SyntheticVideo, size: int, root: Path, name: str, threads: ThreadPoolExecutor) -> None:
    objects = video.visible(0)
    numbers = np.arange(1, len(objects) + 1, dtype=np.uint8)[:, None, None]
    with (
        # The labels appear last: then the clip is complete. A run killed in between leaves the frames only, which are
        # then overwritten by equal ones.
        mask_folder(root / "Annotations", name, write_label_png, threads) as labels,
        mask_folder(root / "JPEGImages", name, write_jpeg, threads, overwrite=True) as frames,
    ):
        for t in video.frames:
            shown = video.load(t, objects, size)
            frames.put(f"{t:05d}.jpg", shown.image.permute(1, 2, 0).numpy())
            labels.put(f"{t:05d}.png", (numbers * shown.masks.numpy()).sum(axis=0, dtype=np.uint8))


def write_jpeg(path: Path, picture: NDArray[np.uint8]) -> None:
    """Write a picture ``(H, W, 3)`` as a high-quality JPEG, atomically."""
    write_picture(path, Image.fromarray(picture), "JPEG", quality=95)
