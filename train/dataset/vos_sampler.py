"""Which frames and which objects of a video form a clip."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from train.dataset.vos_raw_dataset import RawVideo

# Starts tried before a video counts as one without objects.
_MAX_DRAWS = 100


@dataclass(frozen=True)
class Sample:
    """What to load of a video."""

    frames: tuple[int, ...]  # in the clip's order
    objects: tuple[int, ...]


class TooShortError(ValueError):
    """A video has fewer frames than a clip takes, whatever is drawn."""


class Sampler(Protocol):
    """Draws a clip out of a video; ValueError, that names the video, where it has none to offer."""

    def sample(self, video: RawVideo, generator: np.random.Generator) -> Sample: ...


@dataclass(frozen=True)
class RandomUniformSampler:
    """Consecutive annotated frames from a uniform start, at times reversed, and objects seen on the first of them."""

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
            raise TooShortError(f"{video.source}: {len(frames)} frames with masks, expected {self.num_frames}")
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
        raise ValueError(f"{video.source}: no object in view on the first frame of a clip, in {_MAX_DRAWS} draws")


@dataclass(frozen=True)
class EvalSampler:
    """All annotated frames and all objects of the first."""

    def sample(self, video: RawVideo, generator: np.random.Generator) -> Sample:
        frames = tuple(video.frames)
        objects = tuple(video.visible(frames[0])) if frames else ()
        if not objects:
            raise ValueError(f"{video.source}: no object in view on the first annotated frame")
        return Sample(frames, objects)
