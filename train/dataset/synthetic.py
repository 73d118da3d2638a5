"""Rendered clips with exact masks as a data set: tests, the demo, and the data of the small model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from train.dataset.structures import FrameObjects
from train.dataset.synthetic_builder import SceneSettings, build_scene
from train.dataset.synthetic_footage import Cutouts, Footage, find_cutouts, find_footage
from train.dataset.synthetic_scene import Scene, render
from train.dataset.vos_raw_dataset import PathLike

# Scenes tried until one has an object in view on the first frame and on the last.
_MAX_SCENES = 20


class SyntheticRawDataset:
    """Rendered videos; every epoch has new ones. `frames` of a video are 0 to `num_frames` - 1."""

    def __init__(
        self,
        num_videos: int,
        num_frames: int,
        resolution: int,
        settings: SceneSettings | None = None,
        backgrounds: Sequence[PathLike] = (),
        background_prob: float = 0.5,
        cutouts: PathLike | None = None,
        cutout_prob: float = 0.5,
    ) -> None:
        """`num_videos` per epoch, rendered at `resolution` squared.

        `backgrounds` are real videos, without masks: files, folders of images, which are read much faster, or
        folders of such. With a probability of `background_prob` each, a scene plays before one of them, and an
        object wears a piece of one. `cutouts` is a folder of things cut out of pictures, which objects are with a
        probability of `cutout_prob`. FileNotFoundError or ValueError if there are none where told.
        """
        if num_videos < 1 or num_frames < 1 or resolution < 16:
            raise ValueError(
                "num_videos, num_frames and resolution: expected at least 1, 1 and 16, "
                f"got {num_videos}, {num_frames} and {resolution}"
            )
        self._num_videos, self._num_frames, self._resolution = num_videos, num_frames, resolution
        self._settings = settings or SceneSettings()
        things = find_cutouts(cutouts)
        self._footage = Footage(
            find_footage(backgrounds),
            background_prob if len(backgrounds) else 0.0,
            Cutouts(things, cutout_prob if things else 0.0),
        )

    def __len__(self) -> int:
        return self._num_videos

    def open(self, index: int, generator: np.random.Generator) -> SyntheticVideo:
        """A new video. OSError or ValueError names a background that cannot be read."""
        for _ in range(_MAX_SCENES):
            scene = build_scene(generator, self._num_frames, self._resolution, self._settings, self._footage)
            video = SyntheticVideo(f"synthetic {index}", scene, self._resolution, self._settings.min_area)
            if video.visible(0) and video.visible(self._num_frames - 1):
                return video
        raise ValueError(f"synthetic {index}: no object in view in {_MAX_SCENES} scenes: see its settings")


class SyntheticVideo:
    """A RawVideo whose frames are rendered when asked for."""

    def __init__(self, name: str, scene: Scene, resolution: int, min_area: float) -> None:
        self.name = self.source = name
        self.frames = range(scene.num_frames)
        self._scene, self._resolution = scene, resolution
        self._min_pixels = max(min_area * resolution**2, 1)
        self._rendered: dict[int, tuple[Tensor, Tensor]] = {}

    def visible(self, frame: int) -> Sequence[int]:
        """Objects that show enough of themselves to be pointed at."""
        counts = torch.bincount(self._render(frame)[1].flatten().long())[1:]
        return [number + 1 for number, count in enumerate(counts.tolist()) if count >= self._min_pixels]

    def load(self, frame: int, objects: Sequence[int], size: int) -> FrameObjects:
        """The frame, at the data set's resolution."""
        image, labels = self._render(frame)
        wanted = torch.tensor(list(objects), dtype=labels.dtype).view(-1, 1, 1)
        return FrameObjects(image, labels == wanted)

    def close(self) -> None:
        self._rendered.clear()

    def _render(self, frame: int) -> tuple[Tensor, Tensor]:
        if frame not in self._rendered:
            self._rendered[frame] = render(self._scene, frame, self._resolution)
        return self._rendered[frame]
