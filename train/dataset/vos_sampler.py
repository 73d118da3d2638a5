"""Samplers: choose the frames and objects of a clip."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from train.dataset.vos_raw_dataset import RawVideo

# Attempts to find a clip with an object on its first frame.
_MAX_DRAWS = 100


@dataclass(frozen=True)
class Sample:
    """What to load from a video.

    Attributes:
        frames: Numbers of the frames in the order of the clip.
        objects: Numbers of the objects.
    """

    frames: tuple[int, ...]
    objects: tuple[int, ...]


class TooShortError(ValueError):
    """A video has fewer frames than a clip takes, whatever is drawn."""


class Sampler(Protocol):
    """Draws a clip from a video."""

    def sample(self, video: RawVideo, generator: np.random.Generator) -> Sample:
        """Draw a clip.

        Raises:
            ValueError: If the video has no suitable clip, naming the video.
        """
        ...


@dataclass(frozen=True)
class RandomUniformSampler:
    """Consecutive annotated frames from a random start, and objects visible on the first frame of the clip.

    Attributes:
        num_frames: Frames of a clip.
        max_num_objects: Maximum number of objects.
        reverse_time_prob: Probability (0..1) of reversing the frames.
    """

    num_frames: int
    max_num_objects: int
    reverse_time_prob: float = 0.0

    def __post_init__(self) -> None:
        if self.num_frames < 1 or self.max_num_objects < 1:
            raise ValueError(
                f"num_frames and max_num_objects: expected at least 1, got {self.num_frames} and {self.max_num_objects}"
            )

    def sample(self, video: RawVideo, generator: np.random.Generator) -> Sample:
        frames = list(video.frames)
        if len(frames) < self.num_frames:
            raise TooShortError(f"{video.source}: expected {self.num_frames} frames with masks, got {len(frames)}")
        for _ in range(_MAX_DRAWS):
            start = int(generator.integers(len(frames) - self.num_frames + 1))
            clip = frames[start : start + self.num_frames]
            if generator.random() < self.reverse_time_prob:
                clip.reverse()
            visible = video.visible(clip[0])
            if visible:
                count = min(len(visible), self.max_num_objects)
                objects = generator.choice(np.asarray(visible), count, replace=False)
                return Sample(tuple(clip), tuple(int(number) for number in objects))
        raise ValueError(f"{video.source}: no object visible on the first frame of a clip, in {_MAX_DRAWS} draws")


@dataclass(frozen=True)
class EvalSampler:
    """All annotated frames, and all objects visible on the first."""

    def sample(self, video: RawVideo, generator: np.random.Generator) -> Sample:
        frames = tuple(video.frames)
        objects = tuple(video.visible(frames[0])) if frames else ()
        if not objects:
            raise ValueError(f"{video.source}: no object visible on the first annotated frame")
        return Sample(frames, objects)
