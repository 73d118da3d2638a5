"""One video of a test run: finds the objects that are not done yet, and tracks them."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from i2v.i2v_video_predictor import I2VVideoPredictor
from i2v.results.export import MAX_OBJECTS, label_map
from test_pvs.mask_writer import mask_folder, write_binary_png, write_labels
from test_pvs.prompts import Protocol, Target
from test_pvs.targets import Annotations, list_frames, read_targets
from test_pvs.tracking import track_apart, track_together

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class VideoJob:
    """A video to be tested.

    Attributes:
        video: Name of the video.
        frames: Folder of images, or video file.
        num_frames: Number of frames.
        annotations: Ground truth for the prompts.
        output: Folder of its masks.
        object_folders: Whether to write a folder of binary PNGs per object instead of label images.
        per_object: Whether to use one pass per object.
        redo: Whether to predict existing masks again.
    """

    video: str
    frames: Path
    num_frames: int
    annotations: Annotations
    output: Path
    object_folders: bool
    per_object: bool = False
    redo: bool = False

    def done(self) -> set[str]:
        """Objects with finished masks; empty for label images, which are all or none, see :meth:`is_finished`."""
        if self.redo or not self.object_folders or not self.output.is_dir():
            return set()
        folders = (path for path in self.output.iterdir() if path.is_dir() and not path.is_symlink())
        return {path.name for path in folders if path.name[0] != "."}

    def is_finished(self) -> bool:
        """Whether all masks are finished, as far as is known without reading annotations."""
        if self.object_folders:
            return self.done().issuperset(self.annotations.known_objects())
        return self.output.is_dir() and not self.redo


def run_video(
    predictor: I2VVideoPredictor, job: VideoJob, prompt: Protocol, threads: ThreadPoolExecutor
) -> Iterator[float]:
    """Track the objects that are not done yet and write their masks.

    Args:
        predictor: The predictor.
        job: The video.
        prompt: The prompt protocol.
        threads: Where masks are written.

    Yields:
        Progress in 0..1.
    """
    if void := job.annotations.void_labels():
        labels = ", ".join(map(str, void))
        log.warning("video %s: label %s is void and not followed (--ignore_labels none follows it)", job.video, labels)
    frames = list_frames(job.frames)
    names = frames.names
    targets = read_targets(job.annotations, frames, job.done())
    if not targets:
        log.warning("video %s: no object to track", job.video)
        return
    if not job.object_folders:
        write, groups = _write_labels, [targets]
    else:
        write, groups = _write_objects, [[target] for target in targets] if job.per_object else [targets]
    for place, group in enumerate(groups):
        for frame in write(predictor, job, group, names, prompt, threads):
            yield (place + (frame + 1) / len(names)) / len(groups)


def _write_objects(
    predictor: I2VVideoPredictor,
    job: VideoJob,
    targets: Sequence[Target],
    names: Sequence[str],
    prompt: Protocol,
    threads: ThreadPoolExecutor,
) -> Iterator[int]:
    absent = np.zeros_like(targets[0].mask)
    start = min(target.frame for target in targets)
    with ExitStack() as stack:
        folders = {
            target.obj: stack.enter_context(mask_folder(job.output, target.obj, write_binary_png, threads, job.redo))
            for target in targets
        }
        for name in names[:start]:
            for folder in folders.values():
                folder.put(f"{name}.png", absent)
        for frame, objects, logits in track_together(predictor, str(job.frames), targets, prompt):
            found = dict(zip(objects, (logits[:, 0] > 0).cpu().numpy(), strict=True))
            for obj, folder in folders.items():
                folder.put(f"{names[frame]}.png", found.get(obj, absent))
            yield frame


def _write_labels(
    predictor: I2VVideoPredictor,
    job: VideoJob,
    targets: Sequence[Target],
    names: Sequence[str],
    prompt: Protocol,
    threads: ThreadPoolExecutor,
) -> Iterator[int]:
    labels = np.array([0, *(int(target.obj) for target in targets)])
    if labels.max() <= MAX_OBJECTS:
        labels = labels.astype(np.uint8)
    places = {target.obj: place for place, target in enumerate(targets, start=1)}
    absent = np.zeros(targets[0].mask.shape, labels.dtype)
    track = track_apart if job.per_object else track_together
    with mask_folder(job.output.parent, job.output.name, write_labels, threads, job.redo) as folder:
        for name in names[: min(target.frame for target in targets)]:
            folder.put(f"{name}.png", absent)
        for frame, objects, logits in track(predictor, str(job.frames), targets, prompt):
            folder.put(f"{names[frame]}.png", labels[label_map(logits, [places[str(obj)] for obj in objects])])
            yield frame
