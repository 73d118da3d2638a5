"""Scores by frame, object and video, and their averages."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean

ObjectKey = tuple[str, str]
"""Video and object."""


@dataclass(frozen=True)
class FrameScore:
    """Score of an object on one frame.

    Attributes:
        frame: File name of the frame's masks.
        j: J in 0..1.
        f: F in 0..1.
        in_gt: Whether the object has any pixel in the ground truth.
        in_pred: Whether the object has any pixel in the prediction.
    """

    frame: str
    j: float
    f: float
    in_gt: bool
    in_pred: bool


@dataclass(frozen=True)
class ObjectScore:
    """Score of an object.

    Attributes:
        video: Name of the video.
        obj: Name of the object.
        j: Mean J in percent.
        f: Mean F in percent.
        frames: Scores of the frames that were averaged.
    """

    video: str
    obj: str
    j: float
    f: float
    frames: tuple[FrameScore, ...]

    @classmethod
    def of(cls, key: ObjectKey, frames: Sequence[FrameScore]) -> ObjectScore:
        """Average the scores of at least one frame."""
        j, f = (100 * fmean(values) for values in zip(*((frame.j, frame.f) for frame in frames), strict=True))
        return cls(*key, j, f, tuple(frames))

    @property
    def key(self) -> ObjectKey:
        return self.video, self.obj

    @property
    def jf(self) -> float:
        return (self.j + self.f) / 2


@dataclass(frozen=True)
class Scores:
    """Scores of all objects; averages are over objects, not over videos.

    Attributes:
        objects: Scores of the objects, ordered by video.
        warnings: Sentences about objects and videos that were not scored.
    """

    objects: tuple[ObjectScore, ...]
    warnings: tuple[str, ...] = ()

    @property
    def j(self) -> float:
        return fmean(score.j for score in self.objects)

    @property
    def f(self) -> float:
        return fmean(score.f for score in self.objects)

    @property
    def jf(self) -> float:
        return (self.j + self.f) / 2

    def worst_first(self) -> list[ObjectScore]:
        """List the objects by ascending J&F."""
        return sorted(self.objects, key=lambda score: (score.jf, *score.key))

    def by_video(self) -> dict[str, Scores]:
        """Group the scores by video, in order."""
        videos: dict[str, list[ObjectScore]] = {}
        for score in self.objects:
            videos.setdefault(score.video, []).append(score)
        return {video: Scores(tuple(scores)) for video, scores in videos.items()}

    def per_object(self) -> dict[str, tuple[dict[str, float], dict[str, float]]]:
        """Scores in percent as ``{video: ({object: J}, {object: F})}``, the format of SA-V's evaluator."""
        return {
            video: ({s.obj: s.j for s in scores.objects}, {s.obj: s.f for s in scores.objects})
            for video, scores in self.by_video().items()
        }

    def split(self, unseen: Collection[ObjectKey]) -> dict[str, Scores]:
        """Split the scores into ``seen`` and ``unseen``; an empty part is left out.

        Args:
            unseen: Objects whose category was not seen in training.
        """
        parts = {
            "seen": tuple(score for score in self.objects if score.key not in unseen),
            "unseen": tuple(score for score in self.objects if score.key in unseen),
        }
        return {name: Scores(objects) for name, objects in parts.items() if objects}


def overall(parts: Iterable[Scores]) -> float:
    """YouTube-VOS's overall score G: the unweighted mean of J and F over all parts."""
    return fmean(value for part in parts for value in (part.j, part.f))
