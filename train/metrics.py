"""What a run tells of itself: JSON lines, TensorBoard, a progress bar, lines in the log."""

from __future__ import annotations

import json
import logging
import os
import resource
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from i2v.modeling.structures import IMAGE_MEAN, IMAGE_STD
from i2v.utils.files import naming_full_disk, replacing
from i2v.utils.output_folder import own_folder, refuse_link
from train.dataset.structures import BatchedClip

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

log = logging.getLogger(__name__)

Item = TypeVar("Item")

_BOARD = "tensorboard"  # the folder's name
PICTURE_SIDE = 192  # pixels of a frame in a picture
TRUE_COLOUR, FOUND_COLOUR = (0.2, 1.0, 0.2), (1.0, 0.2, 0.2)


class RunningMeans:
    """Means of named values since they were last taken. ``state``: sum and count by name, to go on from later."""

    def __init__(self, state: Mapping[str, tuple[float, int]] | None = None) -> None:
        self.state = dict(state or {})

    def add(self, values: Mapping[str, float]) -> None:
        """One more value of each name."""
        for name, value in values.items():
            total, count = self.state.get(name, (0.0, 0))
            self.state[name] = (total + value, count + 1)

    def take(self) -> dict[str, float]:
        """The means, and begin anew."""
        means = {name: total / count for name, (total, count) in self.state.items()}
        self.state = {}
        return means


class MetricLog:
    """Where the main process writes what is measured; the others have one that writes nothing.

    Files in the folder: ``train_stats.jsonl`` and ``val_stats.jsonl``, one object a line; curves and pictures go to
    ``tensorboard/`` beside it. Its methods raise DiskFullError.
    """

    def __init__(self, folder: Path | None, tensorboard: bool = True, flush_secs: int = 120) -> None:
        """``folder``: ``None`` writes nothing."""
        self._folder = folder
        self._tensorboard = tensorboard
        self._flush_secs = flush_secs
        self._board: SummaryWriter | None = None

    def begin(self, resumed_step: int = 0) -> None:
        """Open the files. What they have of steps after ``resumed_step`` is dropped: it comes again."""
        if self._folder is None:
            return
        own_folder(self._folder)
        for path in self._folder.glob("*_stats.jsonl"):
            drop_lines_after(path, resumed_step)
        if self._tensorboard:
            refuse_link(self._folder.parent / _BOARD)
            with naming_full_disk(self._folder.parent / _BOARD):
                self._board = open_board(self._folder.parent / _BOARD, resumed_step, self._flush_secs)

    def write(self, kind: str, step: int, values: Mapping[str, float | int | str]) -> None:
        """One line of ``KIND_stats.jsonl``, and its numbers as curves."""
        if self._folder is None:
            return
        path = self._folder / f"{kind}_stats.jsonl"
        with naming_full_disk(path), path.open("a") as file:
            file.write(json.dumps({"step": step, **values}) + "\n")
        self.curves(step, {f"{kind}/{name}": value for name, value in values.items() if not isinstance(value, str)})

    def curves(self, step: int, values: Mapping[str, float]) -> None:
        """Numbers for TensorBoard alone."""

        def draw(board: SummaryWriter) -> None:
            for name, value in values.items():
                board.add_scalar(name, value, step)

        self._draw(draw)

    @property
    def takes_pictures(self) -> bool:
        """Whether there is a place for pictures."""
        return self._board is not None

    def picture(self, name: str, step: int, image: Tensor) -> None:
        """A picture (3,H,W) in 0..1 for TensorBoard."""
        self._draw(lambda board: board.add_image(name, image, step))

    def bar(self, items: Iterable[Item], total: int, done: int, label: str) -> Iterable[Item]:
        """The items, with a progress bar where somebody is watching."""
        # disable=None: no bar where stderr is a file.
        hidden = True if self._folder is None else None
        return tqdm(items, desc=label, total=total, initial=done, disable=hidden, dynamic_ncols=True)

    def close(self) -> None:
        """Write what is still held back."""
        self._draw(lambda board: board.close())

    def _draw(self, draw: Callable[[SummaryWriter], object]) -> None:
        if self._folder is not None and self._board is not None:
            # Trouble with its file comes out of any later call, without a name.
            with naming_full_disk(self._folder.parent / _BOARD):
                draw(self._board)


def open_board(folder: Path, resumed_step: int, flush_secs: int) -> SummaryWriter | None:
    """TensorBoard's writer, or ``None`` where TensorBoard is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        log.warning(
            "TensorBoard is not installed: there will be no curves and pictures, only JSON lines; install it with "
            "`pip install tensorboard`, or set trainer.logging.tensorboard=false"
        )
        return None
    return SummaryWriter(os.fspath(folder), purge_step=resumed_step + 1, flush_secs=flush_secs)


def drop_lines_after(path: Path, step: int) -> None:
    """Remove the lines of later steps, and one that a killed process left unfinished."""
    kept = []
    for line in path.read_text().splitlines():
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line)
        except (ValueError, LookupError, TypeError):
            log.warning("%s: dropped an unfinished line", path)
    with replacing(path) as temporary:
        temporary.write_text("".join(f"{line}\n" for line in kept))


def peak_memory(device: torch.device) -> int:
    """Bytes: the most that tensors had of a GPU's memory, or the process of the machine's."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    in_bytes = sys.platform == "darwin"
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if in_bytes else 1024)


def draw_clip(clip: BatchedClip, masks: Tensor) -> Tensor:
    """A clip's first object (3,H,W) in 0..1: truth above, found masks (T,N,S,S) below, frames side by side."""
    frames = denormalize(clip.frames[:, clip.video_of[0]])
    rows = [tint(frames, clip.masks[:, 0], TRUE_COLOUR), tint(frames, masks[:, 0], FOUND_COLOUR)]
    side = min(PICTURE_SIDE, frames.shape[-1])
    small = [F.interpolate(row, size=(side, side), mode="bilinear", antialias=True) for row in rows]
    return torch.cat([torch.cat(list(row), dim=-1) for row in small], dim=-2).clamp(0, 1).cpu()


def denormalize(frames: Tensor) -> Tensor:
    """Normalized frames (...,3,S,S) as pictures: 0..1 but for what augmentations have brought beyond."""
    frames = frames.float()
    return frames * _colour(frames, IMAGE_STD) + _colour(frames, IMAGE_MEAN)


def tint(frames: Tensor, masks: Tensor, colour: tuple[float, float, float]) -> Tensor:
    """Frames (T,3,S,S) with masks (T,S,S) laid over them."""
    return torch.where(masks[:, None], 0.5 * frames + 0.5 * _colour(frames, colour), frames)


def _colour(like: Tensor, values: tuple[float, float, float]) -> Tensor:
    """Three values (3,1,1), one a channel."""
    return like.new_tensor(values)[:, None, None]
