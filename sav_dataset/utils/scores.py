"""What an evaluation finds: scores by frame, object and video, and their averages."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean

ObjectKey = tuple[str, str]
"""Video and object."""


@dataclass(frozen=True)
class FrameScore:
    """An object on one frame: J and F within 0..1, and whether ground truth and prediction have any pixel."""

    frame: str
    j: float
    f: float
    in_gt: bool
    in_pred: bool


@dataclass(frozen=True)
class ObjectScore:
    """An object's mean J and F in percent, and the scores of the ``frames`` they are means of."""

    video: str
    obj: str
    j: float
    f: float
    frames: tuple[FrameScore, ...]

    @classmethod
    def of(cls, key: ObjectKey, frames: Sequence[FrameScore]) -> ObjectScore:
        """The score over some frames, at least one."""
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
    """Scores of objects in the order of videos. Averages are over objects, whatever video they are in.

    ``warnings``: sentences about what was found but not scored.
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
        """The objects by rising J&F."""
        return sorted(self.objects, key=lambda score: (score.jf, *score.key))

    def by_video(self) -> dict[str, Scores]:
        """The objects of each video, in order."""
        videos: dict[str, list[ObjectScore]] = {}
        for score in self.objects:
            videos.setdefault(score.video, []).append(score)
        return {video: Scores(tuple(scores)) for video, scores in videos.items()}

    def per_object(self) -> dict[str, tuple[dict[str, float], dict[str, float]]]:
        """``{video: ({object: J}, {object: F})}`` in percent, the published form."""
        return {
            video: ({s.obj: s.j for s in scores.objects}, {s.obj: s.f for s in scores.objects})
            for video, scores in self.by_video().items()
        }

    def split(self, unseen: Collection[ObjectKey]) -> dict[str, Scores]:
        """The objects whose kind was ``seen`` in training and the ``unseen`` ones; a part without any is left out."""
        parts = {
            "seen": tuple(score for score in self.objects if score.key not in unseen),
            "unseen": tuple(score for score in self.objects if score.key in unseen),
        }
        return {name: Scores(objects) for name, objects in parts.items() if objects}


def overall(parts: Iterable[Scores]) -> float:
    """YouTube-VOS's total, G: mean of the J and F of all parts, which weigh the same."""
    return fmean(value for part in parts for value in (part.j, part.f))
