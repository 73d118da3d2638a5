"""Validation during training: held-out videos are tracked from their first masks and scored as J&F."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from i2v.i2v_video_predictor import I2VVideoPredictor
from i2v.inference.policy import InferencePolicy
from i2v.modeling.i2v_model import I2VModel
from i2v.video.image_files import ImageFolder
from sav_dataset.utils.mask_files import MaskVideo, list_videos
from sav_dataset.utils.measures import mask_scores
from sav_dataset.utils.scores import FrameScore, ObjectScore, Scores
from train.distributed import World


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


class Validator:
    """Tracks held-out videos with the model being trained, under the inference policy."""

    def __init__(
        self,
        model: I2VModel,
        policy: InferencePolicy,
        videos: Sequence[HeldOutVideo],
        dtype: torch.dtype | None = None,
    ) -> None:
        """Wrap the model in a predictor.

        Args:
            model: The model being trained, used with its current weights at every call.
            policy: The inference policy.
            videos: The held-out videos.
            dtype: Compute dtype; ``None`` for the default of the device.
        """
        self._model = model
        self._predictor = I2VVideoPredictor(model, policy, dtype)
        self._videos = tuple(videos)

    def __call__(self, world: World) -> Scores:
        """Score all videos, spread over the processes; the model's training mode is restored afterwards.

        Args:
            world: The processes; all have to call.

        Returns:
            The scores of all objects, in every process.
        """
        with evaluating(self._model):
            mine = [score for video in self._videos[world.rank :: world.size] for score in self._score(video)]
        scores = [score for share in world.gather(mine) for score in share]
        return Scores(tuple(sorted(scores, key=lambda score: score.key)))

    def _score(self, video: HeldOutVideo) -> list[ObjectScore]:
        """Prompt every object with its first mask, and score the annotated frames after it.

        As in the SA-V and DAVIS benchmarks, the first and the last annotated frame are not scored.
        """
        predictor, scores = self._predictor, dict[str, list[FrameScore]]()
        with predictor.init_state(str(video.frames)) as state:
            starts: dict[str, int] = {}
            for obj, frame, mask in video.masks.first_masks():
                starts[obj] = video.numbers[frame]
                predictor.add_new_mask(state, starts[obj], obj, mask)
            per_object = video.masks.is_folder_per_object
            scored = {obj: set(video.masks.frames(obj if per_object else None)[1:-1]) for obj in starts}
            names = {number: name for name, number in video.numbers.items()}
            for number, _, logits in predictor.propagate_in_video(state):
                found = zip(starts, (logits[:, 0] > 0).cpu().numpy(), strict=True)
                for obj, mask in found:
                    name = names.get(number)
                    if name in scored[obj] and number > starts[obj]:
                        true = video.masks.read(name, obj if per_object else None).mask(obj)
                        score = FrameScore(name, *mask_scores(true, mask), bool(true.any()), bool(mask.any()))
                        scores.setdefault(obj, []).append(score)
        return [ObjectScore.of((video.name, obj), frames) for obj, frames in scores.items()]


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


def find_videos(img_folder: str | Path, gt_folder: str | Path, max_videos: int | None = None) -> list[HeldOutVideo]:
    """Find held-out videos and match their masks with frames of the same stem.

    Frames without a mask are tracked but not scored.

    Args:
        img_folder: Holds a folder of frames per video.
        gt_folder: Holds a folder of masks per video; see ``sav_dataset.utils.mask_files`` for layouts.
        max_videos: Use only the first so many; ``None`` for all.

    Raises:
        FileNotFoundError: If a folder is missing.
        ValueError: If there are no videos, or the masks of one do not fit its frames, show no object or are too few.
    """
    for key, folder in (("img_folder", img_folder), ("gt_folder", gt_folder)):
        if not Path(folder).is_dir():
            raise FileNotFoundError(f"validation.{key}: {folder} is not a folder")
    names = list_videos(gt_folder)[:max_videos]
    if not names:
        raise ValueError(f"validation.gt_folder: {gt_folder} contains no video folders")
    return [_open_video(Path(img_folder) / name, Path(gt_folder) / name) for name in names]


def _open_video(frames: Path, labels: Path) -> HeldOutVideo:
    if not frames.is_dir():
        raise FileNotFoundError(f"{frames} does not exist, but there are masks for it in {labels}")
    masks = MaskVideo.open(labels)
    stems = {Path(name).stem: number for number, name in enumerate(ImageFolder(frames).files)}
    objects: list[str | None] = [*masks.objects()] or [None]
    found = sorted({name for obj in objects for name in masks.frames(obj)})
    missing = [name for name in found if Path(name).stem not in stems]
    if missing:
        raise ValueError(f"{labels}: {len(missing)} masks have no frame in {frames}, such as {missing[0]}")
    if len(found) < 3:
        raise ValueError(f"{labels}: expected at least 3 masks, as the first and last are not scored, got {len(found)}")
    if next(masks.first_masks(), None) is None:
        raise ValueError(f"{labels}: all {len(found)} masks are empty")
    return HeldOutVideo(frames, masks, {name: stems[Path(name).stem] for name in found})
