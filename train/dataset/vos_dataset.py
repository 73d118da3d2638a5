"""Clips for training: combines a reader of videos, a sampler and transforms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch

from i2v.video.frame_loader import normalize
from train.dataset.structures import FrameObjects, RawClip, VideoClip
from train.dataset.transforms import Transform, resize
from train.dataset.vos_raw_dataset import RawDataset, RawVideo, opened
from train.dataset.vos_sampler import Sample, Sampler


class ClipDataset(Protocol):
    """Clips by index."""

    def __len__(self) -> int: ...

    def clip(self, index: int, generator: np.random.Generator) -> VideoClip:
        """Load a clip of sample ``index``.

        Raises:
            OSError: If a file is missing or unreadable, naming it.
            ValueError: If a file is damaged, naming it.
        """


class VOSDataset:
    """Clips from the videos of a data set, sampled, resized to squares and augmented."""

    def __init__(
        self,
        video_dataset: RawDataset,
        sampler: Sampler,
        resolution: int,
        transforms: Sequence[Transform] = (),
        multiplier: int = 1,
    ) -> None:
        """Combine the parts.

        Frames are resized as they are read, so that transforms cost the same for every source, and no clip is ever held
        at full size.

        Args:
            video_dataset: The videos.
            sampler: Draws frames and objects of a clip.
            resolution: Side of the clip in pixels.
            transforms: Augmentations, in order.
            multiplier: Samples per video and epoch.

        Raises:
            ValueError: If a number is below 1.
        """
        if resolution < 1 or multiplier < 1:
            raise ValueError(f"resolution and multiplier: expected at least 1, got {resolution} and {multiplier}")
        self._videos, self._sampler, self._transforms = video_dataset, sampler, tuple(transforms)
        self._resolution, self._multiplier = resolution, multiplier

    def __len__(self) -> int:
        return len(self._videos) * self._multiplier

    def clip(self, index: int, generator: np.random.Generator) -> VideoClip:
        """Draw a clip of video ``index`` modulo the number of videos, see :class:`ClipDataset`."""
        with opened(self._videos, index % len(self._videos), generator) as video:
            raw = load_clip(video, self._sampler.sample(video, generator), self._resolution)
        for transform in self._transforms:
            raw = transform(raw, generator)
        return VideoClip(normalize(raw.frames), raw.masks, raw.name, raw.frame_indices)


def load_clip(video: RawVideo, sample: Sample, resolution: int) -> RawClip:
    """Read the frames of a sample and resize them to squares of ``resolution`` pixels."""
    loaded: dict[int, FrameObjects] = {}
    aspect = 1.0
    # Read forward in time even if the clip is reversed, as video files decode that way.
    for frame in sorted(sample.frames):
        found = video.load(frame, sample.objects, resolution)
        aspect = found.image.shape[2] / found.image.shape[1]
        loaded[frame] = resize(found, resolution)
    return RawClip(
        frames=torch.stack([loaded[frame].image for frame in sample.frames]),
        masks=torch.stack([loaded[frame].masks for frame in sample.frames]),
        aspect=aspect,
        name=video.name,
        frame_indices=sample.frames,
    )
