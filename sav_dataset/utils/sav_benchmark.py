"""Scores a tree of predicted masks against the ground truth in parallel: J, F and J&F per object.

:func:`evaluate` returns all details; :func:`benchmark` has the interface of SA-V's evaluator. The measures themselves
are in ``measures.py`` and can be imported from here.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tqdm import tqdm

from i2v.errors import USER_ERRORS, describe_error, listed
from i2v.results.rle import Mask
from i2v.utils.terminal import printable
from i2v.utils.worker_pool import worker_pool
from sav_dataset.utils.label_pictures import labels_in
from sav_dataset.utils.mask_files import FrameMasks, MaskVideo, list_videos, natural_order
from sav_dataset.utils.measures import boundary_measure, mask_scores, region_similarity
from sav_dataset.utils.scores import FrameScore, ObjectScore, Scores
from sav_dataset.utils.void_labels import RULE

__all__ = ["EvaluationError", "EvaluationSettings", "benchmark", "boundary_measure", "evaluate", "region_similarity"]

FRAMES_PER_TASK = 24
TASKS_PER_PROCESS = 4  # minimum: starting a process takes as long as a few tasks
SKIP_RULES = ("first-last", "prompt", "none")

StrPath = str | os.PathLike[str]
PerObject = dict[str, tuple[dict[str, float], dict[str, float]]]


class EvaluationError(ValueError):
    """Predictions and ground truth do not match."""

    def __init__(self, problems: Sequence[str]) -> None:
        """Compose the message.

        Args:
            problems: One sentence per problem; the message shows at most 20, the attribute ``problems`` has all.
        """
        self.problems = tuple(map(printable, problems))
        shown = [*self.problems[:20], *([f"... and {len(problems) - 20} more"] if len(problems) > 20 else [])]
        super().__init__("predictions and ground truth do not match:\n  " + "\n  ".join(shown))


@dataclass(frozen=True)
class EvaluationSettings:
    """How trees are compared.

    Attributes:
        skip: Annotated frames of an object that are not scored: "first-last", its first and last (SA-V, DAVIS);
            "prompt", those up to its first appearance, where it was prompted (YouTube-VOS); or "none".
        strict: Whether both trees must contain the same videos; otherwise those in both are scored.
        single_object: Whether all labels of a label image count as one object.
        ignore_labels: Void labels of label images; ``None`` for the rule of ``void_labels``. Void pixels of the ground
            truth are left out of J and F, as DAVIS does, and predicted ones are background.
        num_processes: Worker processes; ``None`` for one per core.
        progress: Whether to show a progress bar.
    """

    skip: str = "first-last"
    strict: bool = True
    single_object: bool = False
    ignore_labels: tuple[int, ...] | None = None
    num_processes: int | None = None
    progress: bool = False

    def __post_init__(self) -> None:
        if self.skip not in SKIP_RULES:
            raise ValueError(f"skip: expected one of {', '.join(SKIP_RULES)}, got {self.skip!r}")
        if self.num_processes is not None and self.num_processes < 1:
            raise ValueError(f"num_processes: expected at least 1, got {self.num_processes}")


def benchmark(
    gt_roots: Sequence[StrPath],
    mask_roots: Sequence[StrPath],
    strict: bool = True,
    num_processes: int | None = None,
    *,
    verbose: bool = True,
    skip_first_and_last: bool = True,
) -> tuple[list[float], list[float], list[float], list[PerObject]]:
    """Score trees with the interface of SA-V's evaluator.

    Args:
        gt_roots: Ground-truth trees.
        mask_roots: Predicted trees, one per ground-truth tree.
        strict: As in :class:`EvaluationSettings`.
        num_processes: As in :class:`EvaluationSettings`.
        verbose: Whether to show a progress bar.
        skip_first_and_last: Whether to skip the first and the last annotated frame of every object.

    Returns:
        For every pair of trees, J&F, J, F and ``{video: ({object: J}, {object: F})}``, all in percent.

    Raises:
        ValueError: If the numbers of trees differ, and as :func:`evaluate`.
        FileNotFoundError: If a tree is missing.
    """
    if len(gt_roots) != len(mask_roots):
        raise ValueError(f"mask_roots: expected {len(gt_roots)}, one for each of gt_roots, got {len(mask_roots)}")
    skip = "first-last" if skip_first_and_last else "none"
    settings = EvaluationSettings(skip, strict, num_processes=num_processes, progress=verbose)
    found = [evaluate(gt, pred, settings) for gt, pred in zip(gt_roots, mask_roots, strict=True)]
    per_object = [scores.per_object() for scores in found]
    return [s.jf for s in found], [s.j for s in found], [s.f for s in found], per_object


def evaluate(
    gt_root: StrPath,
    pred_root: StrPath,
    settings: EvaluationSettings | None = None,
    videos: Iterable[str] | None = None,
) -> Scores:
    """Compare two trees of masks, see ``mask_files`` for their layout.

    The score of an object is the mean over its annotated frames, without those that ``settings.skip`` excludes and
    those before its first pixel in either tree. An object without ground-truth pixels on these frames is not scored,
    with a warning. Predictions on frames without annotation are ignored.

    Args:
        gt_root: Ground truth.
        pred_root: Predictions.
        settings: How to compare; ``None`` for the defaults.
        videos: Score only these videos.

    Raises:
        EvaluationError: If videos, objects or frames are missing or surplus, or files are not masks of the right size;
            names all of them.
        FileNotFoundError: If a tree is missing.
    """
    settings = settings or EvaluationSettings()
    gt_root, pred_root = annotation_folder(Path(gt_root)), Path(pred_root)
    names, unknown, others = _choose_videos(gt_root, pred_root, videos)
    problems, warnings = (unknown + others, list[str]()) if settings.strict else (unknown, others)
    videos_found = [_VideoFiles.open(gt_root / name, pred_root / name, settings) for name in names]
    problems += [problem for video in videos_found for problem in video.problems()]
    warnings += [warning for video in videos_found for warning in video.unscored()]
    # Where there are problems, the files are still read, so that all of them are told at once.
    tasks = [task for video in videos_found for task in video.tasks(only_reads=bool(problems))]
    table, with_void, labels = _Table(), dict[str, int](), dict[str, _Labels]()
    for task, result in _run(tasks, settings):
        table.add(task, result.scores)
        problems += result.problems
        if result.has_void:
            with_void[task.video] = with_void.get(task.video, 0) + 1
        labels[task.video] = labels.get(task.video, _Labels()) | result.labels
    if problems:
        raise EvaluationError(problems)
    warnings += _void_notes(list(with_void), len(names), settings.ignore_labels)
    warnings += _apart_notes({video: found for video, found in labels.items() if found.are_apart})
    objects = []
    for key, frames in table.objects():
        counted = _counted(frames, settings.skip)
        if any(frame.in_gt for frame in counted):
            objects.append(ObjectScore.of(key, counted))
        else:
            what = "predicted, but not annotated" if any(f.in_pred for f in counted) else "never seen"
            warnings.append(f"video {key[0]}, object {key[1]}: {what} on the frames that count, so not scored")
    if not objects:
        raise EvaluationError([f"{gt_root}: no object is seen on the frames that count", *warnings])
    return Scores(tuple(objects), tuple(warnings))


def annotation_folder(gt_root: Path) -> Path:
    """Return the folder ``Annotations`` of a root if there is one, else the root itself."""
    nested = gt_root / "Annotations"
    return nested if nested.is_dir() else gt_root


def _choose_videos(
    gt_root: Path, pred_root: Path, videos: Iterable[str] | None
) -> tuple[list[str], list[str], list[str]]:
    """Choose the videos to score. Returns messages about unknown ones of ``videos``, and about others, too."""
    for root, what in ((gt_root, "annotations"), (pred_root, "predictions")):
        if not root.is_dir():
            raise FileNotFoundError(f"{root}: no folder of {what} is here")
    gt, pred = set(list_videos(gt_root)), set(list_videos(pred_root))
    wanted = gt if videos is None else set(videos)
    unknown = [f"video {name}: not in {gt_root}" for name in sorted(wanted - gt)]
    others = [f"video {name}: no predictions in {pred_root}" for name in sorted((wanted & gt) - pred)]
    others += [f"video {name}: predicted, but not in {gt_root}" for name in sorted(pred - gt - wanted)]
    if not wanted & gt & pred:
        raise EvaluationError([f"{pred_root} and {gt_root} have no video in common", *unknown, *others])
    return sorted(wanted & gt & pred), unknown, others


def _void_notes(videos: Sequence[str], num_videos: int, ignore_labels: tuple[int, ...] | None) -> list[str]:
    """A sentence about the videos of which void pixels were left out."""
    if not videos:
        return []
    rule = RULE if ignore_labels is None else f"labels {', '.join(map(str, ignore_labels))} are void"
    shown = ", ".join(videos[:3]) + (", ..." if len(videos) > 3 else "")
    return [f"{rule}: such pixels are left out of the scores of {len(videos)} of {num_videos} videos ({shown})"]


def _apart_notes(labels: Mapping[str, _Labels]) -> list[str]:
    """A sentence about videos whose trees have no label in common, as masks of 0/1 and of 0/255."""
    if not labels:
        return []
    first = next(iter(labels.values()))
    true, found = (", ".join(natural_order(names)) for names in (first.true, first.found))
    is_single = all(len(own.true) == len(own.found) == 1 for own in labels.values())
    remedy = "--single_object takes any label for the object" if is_single else "expected the same labels in both"
    return [
        f"annotations and predictions have no label in common, so all scores are 0, in {listed(list(labels), 3)}: in "
        f"the first, annotations have label {true}, predictions {found}; {remedy}"
    ]


@dataclass(frozen=True)
class _Labels:
    """The labels in the label images of a video, or of some of its frames.

    Attributes:
        true: Of the annotations, without void ones.
        found: Of the predictions; void ones only of frames that have no others.
    """

    true: frozenset[str] = frozenset()
    found: frozenset[str] = frozenset()

    @classmethod
    def of(cls, gt: FrameMasks, pred: FrameMasks) -> _Labels:
        found = pred.values.keys() or (map(str, labels_in(pred.image)) if pred.ignored else ())
        return cls(frozenset(gt.values), frozenset(found))

    def __or__(self, other: _Labels) -> _Labels:
        return _Labels(self.true | other.true, self.found | other.found)

    @property
    def are_apart(self) -> bool:
        return bool(self.true and self.found) and self.true.isdisjoint(self.found)


@dataclass(frozen=True)
class _Task:
    """Some frames of a video to compare: of one object, or label images (``obj`` is ``None``).

    With ``only_reads`` the files are read, but nothing is scored.
    """

    gt: MaskVideo
    pred: MaskVideo
    obj: str | None
    frames: tuple[str, ...]
    only_reads: bool = False

    @property
    def video(self) -> str:
        return self.gt.folder.name


@dataclass(frozen=True)
class _TaskResult:
    scores: tuple[tuple[str, FrameScore], ...]  # by object
    problems: tuple[str, ...]
    has_void: bool
    labels: _Labels  # none where labels do not tell objects apart


@dataclass(frozen=True)
class _VideoFiles:
    """The mask files of a video.

    Attributes:
        gt: Ground truth.
        pred: Predictions.
        frames: Frames to compare, by object (``None`` for label images).
        missing: Frames without prediction, by object.
    """

    gt: MaskVideo
    pred: MaskVideo
    frames: dict[str | None, list[str]]
    missing: dict[str | None, list[str]]

    @classmethod
    def open(cls, gt_folder: Path, pred_folder: Path, settings: EvaluationSettings) -> _VideoFiles:
        gt = MaskVideo.open(gt_folder, settings.single_object, settings.ignore_labels)
        pred = replace(gt, folder=pred_folder)
        inner = slice(1, -1) if settings.skip == "first-last" else slice(None)
        objects: list[str | None] = [*gt.objects()] or [None]
        frames = {obj: gt.frames(obj)[inner] for obj in objects}
        missing = {obj: sorted(set(names) - set(pred.frames(obj))) for obj, names in frames.items()}
        return cls(gt, pred, frames, missing)

    def problems(self) -> list[str]:
        """Describe missing and surplus predictions, as far as file names tell."""
        found = []
        for obj, missing in self.missing.items():
            if missing and self._is_seen(obj):
                names = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
                number = f"{len(missing)} of {len(self.frames[obj])}"
                found.append(f"{self._name(obj)}: {number} predictions missing: {names}")
        surplus = natural_order(set(self.pred.objects()) - set(self.gt.objects()))
        return found + [f"{self._name(obj)}: predicted, but not annotated" for obj in surplus]

    def unscored(self) -> list[str]:
        """Describe objects that need no prediction because there is nothing to score."""
        names = [obj for obj, frames in self.frames.items() if not frames]
        found = [f"{self._name(obj)}: no annotated frame counts, so not scored" for obj in names]
        names = [obj for obj, missing in self.missing.items() if missing and not self._is_seen(obj)]
        return found + [f"{self._name(obj)}: never seen on the frames that count, so not scored" for obj in names]

    def _name(self, obj: str | None) -> str:
        return f"video {self.gt.folder.name}" + ("" if obj is None else f", object {obj}")

    def tasks(self, only_reads: bool = False) -> Iterator[_Task]:
        """Split the comparisons into pieces that balance well over processes; of frames that both trees have."""
        for obj, names in self.frames.items():
            missing = set(self.missing[obj])
            frames = [name for name in names if name not in missing] if only_reads or not missing else []
            for start in range(0, len(frames), FRAMES_PER_TASK):
                yield _Task(self.gt, self.pred, obj, tuple(frames[start : start + FRAMES_PER_TASK]), only_reads)

    def _is_seen(self, obj: str | None) -> bool:
        frames = (self.gt.read(frame, obj) for frame in self.frames[obj])
        return any(masks.mask(name).any() for masks in frames for name in masks.values)


def _run(tasks: Sequence[_Task], settings: EvaluationSettings) -> Iterator[tuple[_Task, _TaskResult]]:
    """Yield tasks and their results, in order."""
    num_frames = sum(len(task.frames) for task in tasks)
    num_processes = min(settings.num_processes or os.cpu_count() or 1, len(tasks) // TASKS_PER_PROCESS)
    with contextlib.ExitStack() as stack:
        bar = tqdm(total=num_frames, desc="evaluating", unit=" frames", disable=not settings.progress)
        stack.enter_context(bar)
        results: Iterable[_TaskResult] = map(_compare, tasks)
        if num_processes > 1:
            pool = stack.enter_context(worker_pool(num_processes))
            results = pool.map(_compare, tasks)
        for task, result in zip(tasks, results, strict=True):
            bar.update(len(task.frames))
            yield task, result


def _compare(task: _Task) -> _TaskResult:
    """Score the frames of a task in a worker process."""
    scores: list[tuple[str, FrameScore]] = []
    problems: list[str] = []
    has_void, labels = False, _Labels()
    for frame in task.frames:
        try:
            gt = task.gt.read(frame, task.obj)
            void = gt.void
            has_void = has_void or void is not None
            pred = task.pred.read(frame, task.obj)
            _check_sizes(gt, pred)
            if task.obj is None and not task.gt.single_object:
                labels |= _Labels.of(gt, pred)
            scores += [] if task.only_reads else _compare_frame(frame, gt, pred, void)
        except USER_ERRORS as error:
            who = f"video {task.video}" if task.obj is None else f"video {task.video}, object {task.obj}"
            problems.append(f"{who}, frame {frame}: {describe_error(error)}")
    return _TaskResult(tuple(scores), tuple(problems), has_void, labels)


def _compare_frame(frame: str, gt: FrameMasks, pred: FrameMasks, void: Mask | None) -> Iterator[tuple[str, FrameScore]]:
    for obj in gt.values.keys() | pred.values.keys():
        true, found = gt.mask(obj), pred.mask(obj)
        if void is not None:
            found &= ~void
        in_gt, in_pred = bool(true.any()), bool(found.any())
        j, f = mask_scores(true, found) if in_gt or in_pred else (1.0, 1.0)
        yield obj, FrameScore(frame, j, f, in_gt, in_pred)


def _check_sizes(gt: FrameMasks, pred: FrameMasks) -> None:
    if gt.size != pred.size:
        raise ValueError(f"the prediction has {_pixels(pred.size)}, the annotation {_pixels(gt.size)}")


def _pixels(size: tuple[int, int]) -> str:
    return f"{size[1]}x{size[0]} pixels"


class _Table:
    """Collects scores by video, object and frame."""

    def __init__(self) -> None:
        self._frames: dict[str, dict[str | None, list[str]]] = {}  # by video and by object or None, see _Task
        self._scores: dict[tuple[str, str], dict[str, FrameScore]] = {}

    def add(self, task: _Task, scores: Iterable[tuple[str, FrameScore]]) -> None:
        self._frames.setdefault(task.video, {}).setdefault(task.obj, []).extend(task.frames)
        if task.obj is not None:
            self._scores.setdefault((task.video, task.obj), {})
        for obj, score in scores:
            self._scores.setdefault((task.video, obj), {})[score.frame] = score

    def objects(self) -> Iterator[tuple[tuple[str, str], list[FrameScore]]]:
        """Yield every object with its score on every frame.

        An object that is in neither of two label images is correctly absent there: its score is 1.
        """
        for video, frames in self._frames.items():
            for obj in natural_order(name for where, name in self._scores if where == video):
                scores = self._scores[video, obj]
                names = frames[obj] if obj in frames else frames[None]
                yield (video, obj), [scores.get(n) or FrameScore(n, 1.0, 1.0, False, False) for n in names]


def _counted(frames: list[FrameScore], skip: str) -> list[FrameScore]:
    """Choose the frames on which an object is scored: from its first pixel on, see :class:`EvaluationSettings`."""
    if skip == "prompt":
        first = next((i for i, frame in enumerate(frames) if frame.in_gt), len(frames))
        return frames[first + 1 :]
    first = next((i for i, frame in enumerate(frames) if frame.in_gt or frame.in_pred), len(frames))
    return frames[first:]
