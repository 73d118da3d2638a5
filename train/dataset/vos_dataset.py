"""Clips for training: combines a reader of videos, a sampler and transforms."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch

from i2v.video.frame_loader import normalize
from train.dataset.structures import FrameObjects, RawClip, VideoClip
from train.dataset.survey import DatasetFacts, Surveyed, survey
from train.dataset.transforms import Transform, resize
from train.dataset.vos_raw_dataset import RawDataset, RawVideo, opened
from train.dataset.vos_sampler import Sample, Sampler

log = logging.getLogger(__name__)


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

        Videos that give no clip are left out with a warning each, if the data set can be surveyed.

        Args:
            video_dataset: The videos.
            sampler: Draws frames and objects of a clip.
            resolution: Side of the clip in pixels.
            transforms: Augmentations, in order.
            multiplier: Samples per video and epoch.

        Raises:
            ValueError: If a number is below 1, or no video gives a clip.
        """
        if resolution < 1 or multiplier < 1:
            raise ValueError(f"resolution and multiplier: expected at least 1, got {resolution} and {multiplier}")
        self._videos, self._sampler, self._transforms = video_dataset, sampler, tuple(transforms)
        self._resolution, self._multiplier = resolution, multiplier
        self._usable: Sequence[int] = range(len(video_dataset))
        if isinstance(video_dataset, Surveyed):
            self._usable = _usable(survey(video_dataset, self.frames_of_a_clip))

    def __len__(self) -> int:
        return len(self._usable) * self._multiplier

    @property
    def videos(self) -> RawDataset:
        """All videos, also those that give no clip."""
        return self._videos

    @property
    def resolution(self) -> int:
        """Side of a clip in pixels."""
        return self._resolution

    @property
    def frames_of_a_clip(self) -> int:
        """How many annotated frames a video needs at least."""
        return getattr(self._sampler, "num_frames", 1)

    def clip(self, index: int, generator: np.random.Generator) -> VideoClip:
        """Draw a clip of video ``index`` modulo the number of videos, see :class:`ClipDataset`."""
        with opened(self._videos, self._usable[index % len(self._usable)], generator) as video:
            raw = load_clip(video, self._sampler.sample(video, generator), self._resolution)
        for transform in self._transforms:
            raw = transform(raw, generator)
        return VideoClip(normalize(raw.frames), raw.masks, raw.name, raw.frame_indices)


def _usable(facts: DatasetFacts) -> list[int]:
    problems = facts.problems
    usable = [number for number in range(len(facts.videos)) if number not in problems]
    if not usable:
        raise ValueError(f"no video gives a clip: {next(iter(problems.values()), 'there are none')}")
    for problem in problems.values():
        log.warning("left out of training: %s", problem)
    for note in facts.notes():
        log.warning("%s", note)
    return usable


def load_clip(video: RawVideo, sample: Sample, resolution: int) -> RawClip:
    """Read the frames of a sample and resize them to squares of ``resolution`` pixels.

    Objects without a pixel left on the clip's first frame, where they may be prompted, are left out.

    Raises:
        ValueError: If there are no others, naming the video.
    """
    loaded: dict[int, FrameObjects] = {}
    aspect = 1.0
    # Read forward in time even if the clip is reversed, as video files decode that way.
    for frame in sorted(sample.frames):
        found = video.load(frame, sample.objects, resolution)
        aspect = found.image.shape[2] / found.image.shape[1]
        loaded[frame] = resize(found, resolution)
    masks = torch.stack([loaded[frame].masks for frame in sample.frames])
    is_left = masks[0].flatten(1).any(dim=1)
    if not is_left.any():
        raise ValueError(
            f"{video.source}: frame {sample.frames[0]}: objects {', '.join(map(str, sample.objects))} have no pixel "
            f"left at {resolution} pixels"
        )
    return RawClip(
        frames=torch.stack([loaded[frame].image for frame in sample.frames]),
        masks=masks[:, is_left],
        aspect=aspect,
        name=video.name,
        frame_indices=sample.frames,
    )
