"""Validation during training: held-out videos are tracked from simulated prompts and scored as J&F."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from i2v.i2v_video_predictor import I2VVideoPredictor
from i2v.inference.policy import InferencePolicy
from i2v.modeling.i2v_model import I2VModel
from i2v.results.overlay import blend_overlay
from i2v.results.rle import Mask
from i2v.utils.image_file import read_image_size
from i2v.video.frame_source import FrameSource
from i2v.video.image_files import ImageFolder
from sav_dataset.utils.mask_files import MaskVideo, list_videos, natural_order
from sav_dataset.utils.measures import mask_scores
from sav_dataset.utils.scores import FrameScore, ObjectKey, ObjectScore, Scores
from test_pvs.prompts import Protocol, Target, protocol
from train.dataset.survey import describe_size, shorten
from train.distributed import World

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class HeldOutVideo:
    """A video for validation.

    Attributes:
        frames: Folder of the frames.
        masks: Ground-truth masks.
        numbers: Frame number by file name of its mask.
    """

    frames: Path
    masks: MaskVideo
    numbers: dict[str, int]

    @property
    def name(self) -> str:
        return self.frames.name

    def true_masks(self, frame: str) -> list[Mask]:
        """The masks of the objects on a frame, by the name of the mask's file, in the order of their names."""
        objects: list[str | None] = [*self.masks.objects()] or [None]
        there = [obj for obj in objects if frame in self.masks.frames(obj)]
        read = [self.masks.read(frame, obj) for obj in there]
        return [masks.mask(name) for masks in read for name in natural_order(masks.values)]


PROMPT_NAMES = {"gm": "mask", "bb": "box", "1c": "click", "3c": "3 clicks", "5c": "5 clicks"}
"""The prompts that testing knows, see `test_pvs.prompts`, as people call them."""

PICTURE_FRAMES, PICTURE_SIDE = 5, 192


@dataclass(frozen=True)
class ValidationResult:
    """Scores by prompt, in the order in which the prompts were asked for, and a picture of the first video.

    ``picture``: (3,H,W) in 0..1, annotated masks above and found ones below; None on other processes than the first.
    """

    by_prompt: Mapping[str, Scores]
    picture: Tensor | None = None

    @property
    def jf(self) -> float:
        """J&F in percent, the mean over the prompts."""
        return fmean(scores.jf for scores in self.by_prompt.values())

    def describe(self) -> str:
        """The scores in a line."""
        parts = [f"from a {PROMPT_NAMES[name]} {scores.jf:.1f}" for name, scores in self.by_prompt.items()]
        whole = Scores(tuple(score for scores in self.by_prompt.values() for score in scores.objects))
        return f"J&F {self.jf:.1f} ({', '.join(parts)}), J {whole.j:.1f}, F {whole.f:.1f}"

    def object_lines(self, limit: int | None = None) -> list[str]:
        """A line for each object, with its J&F from every prompt; no more than a limit of them, the worst first."""
        by_object: dict[ObjectKey, dict[str, float]] = {}
        for prompt, scores in self.by_prompt.items():
            for score in scores.objects:
                by_object.setdefault(score.key, {})[prompt] = score.jf
        worst = sorted(by_object.items(), key=lambda item: fmean(item[1].values()))
        lines = [
            f"{video}, object {obj}: " + ", ".join(f"{PROMPT_NAMES[name]} {jf:.1f}" for name, jf in found.items())
            for (video, obj), found in worst[:limit]
        ]
        left_out = len(worst) - len(lines)
        return [*lines, f"and {left_out} better objects"] if left_out else lines


class Validator:
    """Tracks held-out videos with the model being trained, under the inference policy."""

    def __init__(
        self,
        model: I2VModel,
        policy: InferencePolicy,
        videos: Sequence[HeldOutVideo],
        dtype: torch.dtype | None = None,
        prompts: Sequence[str] = ("gm",),
    ) -> None:
        """Wrap the model in a predictor.

        Args:
            model: The model being trained, used with its current weights at every call.
            policy: The inference policy.
            videos: The held-out videos.
            dtype: Compute dtype; ``None`` for the default of the device.
            prompts: Names of prompt protocols, see ``test_pvs.prompts``.

        Raises:
            ValueError: If there are no prompts, or one is unknown.
        """
        if not prompts:
            raise ValueError(f"validation.prompts: expected some of {', '.join(PROMPT_NAMES)}, got none")
        self._protocols = {name: protocol(name) for name in prompts}
        self._model = model
        self._predictor = I2VVideoPredictor(model, policy, dtype)
        self._videos = tuple(videos)

    def by_prompt(self, world: World) -> ValidationResult:
        """Score all videos with every prompt, each process its share."""
        pictures: list[Tensor] = []
        found = {name: self(world, name, pictures) for name in self._protocols}
        return ValidationResult(found, pictures[0] if pictures else None)

    def __call__(self, world: World, prompt: str | None = None, pictures: list[Tensor] | None = None) -> Scores:
        """Score all videos with one prompt, spread over the processes; the model's training mode is then restored.

        Args:
            world: The processes; all have to call.
            prompt: Name of the prompt protocol; ``None`` for the first.
            pictures: A picture of the first video is appended, in the process that tracks it.

        Returns:
            The scores of all objects, in every process.

        Raises:
            ValueError: If no object is visible on a scored frame.
        """
        name = prompt or next(iter(self._protocols))
        mine: list[ObjectScore] = []
        with evaluating(self._model):
            for video in self._videos[world.rank :: world.size]:
                picture = FramePicture(video) if pictures is not None and video is self._videos[0] else None
                mine += self._score(video, self._protocols[name], picture)
                if picture is not None and pictures is not None:
                    pictures.append(picture.draw())
        scores = [score for share in world.gather(mine) for score in share]
        if not scores:
            raise ValueError(
                "held-out videos: no object is seen on a frame that counts, after the one it is prompted on"
            )
        return Scores(tuple(sorted(scores, key=lambda score: score.key)))

    def _score(self, video: HeldOutVideo, prompt: Protocol, picture: FramePicture | None) -> list[ObjectScore]:
        """Prompt every object where it first appears, and score the annotated frames after that.

        As in the SA-V and DAVIS benchmarks, the first and the last annotated frame are not scored.
        """
        predictor, scores = self._predictor, dict[str, list[FrameScore]]()
        with predictor.init_state(str(video.frames)) as state:
            starts: dict[str, int] = {}
            for obj, frame, mask in video.masks.first_masks():
                starts[obj] = video.numbers[frame]
                prompt(predictor, state, Target(obj, starts[obj], mask))
            per_object = video.masks.is_folder_per_object
            scored = {obj: set(video.masks.frames(obj if per_object else None)[1:-1]) for obj in starts}
            names = {number: name for name, number in video.numbers.items()}
            for number, _, logits in predictor.propagate_in_video(state):
                masks = (logits[:, 0] > 0).cpu().numpy()
                if picture is not None:
                    picture.add(number, masks, state.source)
                for obj, mask in zip(starts, masks, strict=True):
                    name = names.get(number)
                    if name in scored[obj] and number > starts[obj]:
                        annotated = video.masks.read(name, obj if per_object else None)
                        true, void = annotated.mask(obj), annotated.void
                        seen = mask if void is None else mask & ~void
                        score = FrameScore(name, *mask_scores(true, seen), bool(true.any()), bool(seen.any()))
                        scores.setdefault(obj, []).append(score)
        return [ObjectScore.of((video.name, obj), frames) for obj, frames in scores.items()]


class FramePicture:
    """A few frames of a held-out video side by side: annotated masks above, found ones below."""

    def __init__(self, video: HeldOutVideo) -> None:
        numbers = sorted(video.numbers.values())
        places = np.linspace(0, len(numbers) - 1, min(PICTURE_FRAMES, len(numbers))).round().astype(int)
        self._video, self._wanted = video, {numbers[place] for place in places}
        self._names = {number: name for name, number in video.numbers.items()}
        self._columns: list[Tensor] = []

    def add(self, number: int, masks: NDArray[np.bool_], source: FrameSource) -> None:
        """The masks (N,H,W) found on a frame; only those of some frames are drawn."""
        if number not in self._wanted:
            return
        frame = source.read(number)
        found = _labels(masks, frame.shape[:2])
        annotated = _labels(self._video.true_masks(self._names[number]), frame.shape[:2])
        pair = np.stack([blend_overlay(frame, labels) for labels in (annotated, found)])
        rows = torch.from_numpy(pair).permute(0, 3, 1, 2).float() / 255
        height = max(1, round(PICTURE_SIDE * frame.shape[0] / frame.shape[1]))
        small = F.interpolate(rows, size=(height, PICTURE_SIDE), mode="bilinear", antialias=True)
        self._columns.append(torch.cat(list(small), dim=-2).clamp(0, 1))

    def draw(self) -> Tensor:
        """The picture (3,H,W) in 0..1."""
        return torch.cat(self._columns, dim=-1)


def _labels(masks: Sequence[NDArray[np.bool_]] | NDArray[np.bool_], size: tuple[int, ...]) -> NDArray[np.uint8]:
    labels = np.zeros(size, np.uint8)
    for place, mask in enumerate(masks):
        labels[mask] = 1 + place % 255
    return labels


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put a model into evaluation mode for the block, then restore the mode of every submodule."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def find_videos(
    img_folder: str | Path,
    gt_folder: str | Path,
    max_videos: int | None = None,
    ignore_labels: Sequence[int] | None = None,
) -> list[HeldOutVideo]:
    """Find held-out videos and match their masks with frames of the same stem.

    Frames without a mask are tracked but not scored.

    Args:
        img_folder: Holds a folder of frames per video.
        gt_folder: Holds a folder of masks per video; see ``sav_dataset.utils.mask_files`` for layouts.
        max_videos: Use only the first so many; ``None`` for all.
        ignore_labels: Void labels, as in :meth:`MaskVideo.open`.

    Raises:
        FileNotFoundError: If a folder is missing.
        ValueError: If there are no videos, or the masks of one do not fit its frames, show no object or are too few.
    """
    for key, folder in (("img_folder", img_folder), ("gt_folder", gt_folder)):
        if not Path(folder).is_dir():
            raise FileNotFoundError(f"validation.{key}: {folder} is not a folder")
    annotated = list_videos(gt_folder)
    names = annotated[:max_videos]
    if not names:
        raise ValueError(f"validation.gt_folder: {gt_folder} contains no video folders")
    without = [name for name in list_videos(img_folder) if name not in set(annotated)]
    if without:
        log.warning("held-out videos without annotations in %s are left out: %s", gt_folder, shorten(without))
    videos = [_open_video(Path(img_folder) / name, Path(gt_folder) / name, ignore_labels) for name in names]
    with_void = [video.name for video in videos if video.masks.has_void()]
    if with_void:
        log.info("held-out videos: void pixels are left out of the scores of %s", ", ".join(with_void))
    return videos


def _check_sizes(source: ImageFolder, masks: MaskVideo) -> None:
    """ValueError, with the file, for a mask that is not of the size of the frames."""
    size = (source.height, source.width)
    objects: list[str | None] = [*masks.objects()] or [None]
    for obj in objects:
        for name in masks.frames(obj):
            path = masks.folder / (obj or "") / name
            found = read_image_size(path)
            if found != size:
                raise ValueError(
                    f"{path}: the mask is {describe_size(found)}, the frames in {source.name} are {describe_size(size)}"
                )


def _open_video(frames: Path, labels: Path, ignore_labels: Sequence[int] | None) -> HeldOutVideo:
    if not frames.is_dir():
        raise FileNotFoundError(f"{frames} does not exist, but there are masks for it in {labels}")
    masks = MaskVideo.open(labels, ignore_labels=ignore_labels)
    source = ImageFolder(frames)
    stems = {Path(name).stem: number for number, name in enumerate(source.files)}
    objects: list[str | None] = [*masks.objects()] or [None]
    found = sorted({name for obj in objects for name in masks.frames(obj)})
    _check_sizes(source, masks)
    missing = [name for name in found if Path(name).stem not in stems]
    if missing:
        raise ValueError(f"{labels}: {len(missing)} masks have no frame in {frames}, such as {missing[0]}")
    if len(found) < 3:
        raise ValueError(f"{labels}: expected at least 3 masks, as the first and last are not scored, got {len(found)}")
    if next(masks.first_masks(), None) is None:
        raise ValueError(f"{labels}: all {len(found)} masks are empty")
    return HeldOutVideo(frames, masks, {name: stems[Path(name).stem] for name in found})
