"""Reader, sampler and transforms put together: the clip that an index and a generator stand for."""

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
        """A clip of sample `index`; OSError or ValueError, with the path, where its files are missing or broken."""


class VOSDataset:
    """Clips of the videos of a data set, drawn by a sampler, made square and augmented."""

    def __init__(
        self,
        video_dataset: RawDataset,
        sampler: Sampler,
        resolution: int,
        transforms: Sequence[Transform] = (),
        multiplier: int = 1,
    ) -> None:
        """`resolution`: side of the clip in pixels. `multiplier`: samples per video and epoch.

        Of data sets that can be looked at from end to end, videos that give no clip are left out, with a warning for
        each. ValueError if none is left.

        Frames are resized as they are read: what transforms do costs the same for every source, and no clip is
        ever held at full size.
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
        """Draw a clip of video `index` modulo their number; see ClipDataset."""
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
    """Read the frames of a sample and make them square.

    Objects that have no pixel left on the clip's first frame, where they may be prompted, are left out. ValueError,
    with the video, if there are no others.
    """
    loaded: dict[int, FrameObjects] = {}
    aspect = 1.0
    # Forward in time, also for a reversed clip: that is how video files are decoded.
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
