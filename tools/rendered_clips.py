"""Held-out rendered clips as a benchmark: scenes like those of training, made from seeds that training never draws."""

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

# First number of these clips' seeds. Those of training begin with the one of its config, which is small.
_HELD_OUT = 0x48454C44

REMEDY = "give another --output"
NUM_WRITERS = 2  # threads that compress pictures


@dataclass(frozen=True)
class RenderedClips:
    """So many clips of ``num_frames`` square frames of ``size`` pixels, drawn with a ``seed``.

    ``backgrounds`` are real videos that half of the scenes play before, as in training.
    """

    num_clips: int
    num_frames: int = 32
    size: int = 384
    seed: int = 0
    backgrounds: tuple[str, ...] = ()

    def describe(self) -> dict[str, Any]:
        """As JSON values."""
        return {**asdict(self), "backgrounds": list(self.backgrounds)}

    def open(self, folder: Path) -> Dataset:
        """Claim a folder, and render the clips into ``clips`` in it, laid out as DAVIS 2017; those there already stay.

        The objects are those that show on the first frame, with a label each. Raises ValueError for numbers that make
        no clips, FileNotFoundError or ValueError for backgrounds that are none, and as ``claim_folder`` does.
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
        mask_folder(root / "Annotations", name, write_label_png, threads) as labels,  # ends last: then all is there
        # A run that was killed between the two leaves its frames, which are the same again.
        mask_folder(root / "JPEGImages", name, write_jpeg, threads, overwrite=True) as frames,
    ):
        for t in video.frames:
            shown = video.load(t, objects, size)
            frames.put(f"{t:05d}.jpg", shown.image.permute(1, 2, 0).numpy())
            labels.put(f"{t:05d}.png", (numbers * shown.masks.numpy()).sum(axis=0, dtype=np.uint8))


def write_jpeg(path: Path, picture: NDArray[np.uint8]) -> None:
    """Write a picture (H,W,3) as a JPEG of high quality, atomically."""
    write_picture(path, Image.fromarray(picture), "JPEG", quality=95)
