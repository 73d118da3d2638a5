"""Data set of rendered clips with exact masks, for tests, the demo and the training of the small model."""

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

# Attempts to build a scene with an object in view on the first and on the last frame.
_MAX_SCENES = 20


class SyntheticRawDataset:
    """Rendered videos, new ones in every epoch. Their frames are 0 to ``num_frames - 1``."""

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
        """Find the footage; scenes are built when opened.

        Args:
            num_videos: Videos per epoch.
            num_frames: Frames of a video.
            resolution: Side of the square frames in pixels.
            settings: What happens in a scene; ``None`` for the defaults.
            backgrounds: Real videos without masks: video files, folders of images (much faster), or folders of these.
            background_prob: Probability (0..1) that a scene has such a background, and that an object is textured with
                a patch of one.
            cutouts: Folder of cut-outs, see ``train.scripts.make_cutouts``.
            cutout_prob: Probability (0..1) that an object is a cut-out.

        Raises:
            FileNotFoundError: If ``backgrounds`` or ``cutouts`` do not exist.
            ValueError: If a number is out of range, or a folder holds no videos or cut-outs.
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
        """Build a new video.

        Raises:
            OSError: If a background cannot be read, naming the file.
            ValueError: As above, or if no scene has an object in view.
        """
        for _ in range(_MAX_SCENES):
            scene = build_scene(generator, self._num_frames, self._resolution, self._settings, self._footage)
            video = SyntheticVideo(f"synthetic {index}", scene, self._resolution, self._settings.min_area)
            if video.visible(0) and video.visible(self._num_frames - 1):
                return video
        raise ValueError(f"synthetic {index}: no object in view in {_MAX_SCENES} scenes: check the scene settings")


class SyntheticVideo:
    """A RawVideo whose frames are rendered on request."""

    def __init__(self, name: str, scene: Scene, resolution: int, min_area: float) -> None:
        """Wrap a scene.

        Args:
            name: Name for messages.
            scene: The scene.
            resolution: Side of the square frames in pixels.
            min_area: Fraction (0..1) of the frame that an object must show to count as visible.
        """
        self.name = self.source = name
        self.frames = range(scene.num_frames)
        self._scene, self._resolution = scene, resolution
        self._min_pixels = max(min_area * resolution**2, 1)
        self._rendered: dict[int, tuple[Tensor, Tensor]] = {}

    def visible(self, frame: int) -> Sequence[int]:
        """List the objects that show enough of themselves to be prompted."""
        counts = torch.bincount(self._render(frame)[1].flatten().long())[1:]
        return [number + 1 for number, count in enumerate(counts.tolist()) if count >= self._min_pixels]

    def load(self, frame: int, objects: Sequence[int], size: int) -> FrameObjects:
        """Render a frame at the resolution of the data set."""
        image, labels = self._render(frame)
        wanted = torch.tensor(list(objects), dtype=labels.dtype).view(-1, 1, 1)
        return FrameObjects(image, labels == wanted)

    def close(self) -> None:
        self._rendered.clear()

    def _render(self, frame: int) -> tuple[Tensor, Tensor]:
        if frame not in self._rendered:
            self._rendered[frame] = render(self._scene, frame, self._resolution)
        return self._rendered[frame]
