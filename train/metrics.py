"""Metrics of a run: JSON lines, TensorBoard, a progress bar and pictures of masks."""

from __future__ import annotations

import json
import logging
import os
import resource
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from i2v.modeling.structures import IMAGE_MEAN, IMAGE_STD
from i2v.utils.files import naming_full_disk, replacing
from i2v.utils.output_folder import own_folder, refuse_link
from train.curve_loggers import CurveLogger
from train.dataset.structures import BatchedClip

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

log = logging.getLogger(__name__)

Item = TypeVar("Item")

_BOARD = "tensorboard"  # name of the folder
PICTURE_SIDE = 192  # of a frame in a picture, in pixels
TRUE_COLOUR, FOUND_COLOUR = (0.2, 1.0, 0.2), (1.0, 0.2, 0.2)


class RunningMeans:
    """Running means of named values since the last :meth:`take`."""

    def __init__(self, state: Mapping[str, tuple[float, int]] | None = None) -> None:
        """Start empty, or from a saved state.

        Args:
            state: Sum and count by name, the attribute ``state`` of earlier means.
        """
        self.state = dict(state or {})

    def add(self, values: Mapping[str, float]) -> None:
        """Add one value per name."""
        for name, value in values.items():
            total, count = self.state.get(name, (0.0, 0))
            self.state[name] = (total + value, count + 1)

    def take(self) -> dict[str, float]:
        """Return the means and reset."""
        means = {name: total / count for name, (total, count) in self.state.items()}
        self.state = {}
        return means


class MetricLog:
    """Writes metrics in the main process; in the others it writes nothing.

    ``train_stats.jsonl`` and ``val_stats.jsonl`` in its folder hold one JSON object per line; curves and pictures go to
    ``tensorboard/`` next to the folder. All methods that write raise DiskFullError on a full disk.
    """

    def __init__(
        self,
        folder: Path | None,
        tensorboard: bool = True,
        flush_secs: int = 120,
        loggers: Sequence[CurveLogger] = (),
    ) -> None:
        """Create a log; :meth:`begin` opens its files.

        Args:
            folder: Folder of the JSON lines; ``None`` writes nothing.
            tensorboard: Whether to write TensorBoard files, too.
            flush_secs: Seconds between flushes of TensorBoard's files.
            loggers: Further services that get the curves and pictures.
        """
        self._loggers = tuple(loggers)
        self._folder = folder
        self._tensorboard = tensorboard
        self._flush_secs = flush_secs
        self._board: SummaryWriter | None = None

    def begin(self, resumed_step: int = 0) -> None:
        """Open the files.

        Args:
            resumed_step: Step from which the run resumes; entries of later steps are dropped, as they will be repeated.
        """
        if self._folder is None:
            return
        own_folder(self._folder)
        for path in self._folder.glob("*_stats.jsonl"):
            drop_lines_after(path, resumed_step)
        if self._tensorboard:
            refuse_link(self._folder.parent / _BOARD)
            with naming_full_disk(self._folder.parent / _BOARD):
                self._board = open_board(self._folder.parent / _BOARD, resumed_step, self._flush_secs)

    def write(self, kind: str, step: int, values: Mapping[str, Any], curves: Mapping[str, float] | None = None) -> None:
        """Append a line to ``<kind>_stats.jsonl``, and draw curves.

        Args:
            kind: ``train`` or ``val``.
            step: Steps taken so far.
            values: What to write, by name; only numbers are drawn.
            curves: What to draw instead, by name.
        """
        if self._folder is None:
            return
        path = self._folder / f"{kind}_stats.jsonl"
        with naming_full_disk(path), path.open("a") as file:
            file.write(json.dumps({"step": step, **values}) + "\n")
        if curves is None:
            numbers = {name: value for name, value in values.items() if isinstance(value, int | float)}
            curves = {f"{kind}/{name}": value for name, value in numbers.items()}
        self.curves(step, curves)

    def curves(self, step: int, values: Mapping[str, float]) -> None:
        """Write scalars to TensorBoard only."""

        for logger in self._loggers:
            logger.curves(step, values)

        def draw(board: SummaryWriter) -> None:
            for name, value in values.items():
                board.add_scalar(name, value, step)

        self._draw(draw)

    @property
    def takes_pictures(self) -> bool:
        """Whether pictures are written anywhere."""
        return self._board is not None or bool(self._loggers)

    def picture(self, name: str, step: int, image: Tensor) -> None:
        """Write a picture ``(3, H, W)`` in 0..1 to TensorBoard and the loggers."""
        for logger in self._loggers:
            logger.picture(name, step, image)
        self._draw(lambda board: board.add_image(name, image, step))

    def bar(self, items: Iterable[Item], total: int, done: int, label: str) -> Iterable[Item]:
        """Iterate with a progress bar, which is shown in the main process if stderr is a terminal.

        Args:
            items: What to iterate over.
            total: Length of the whole bar.
            done: Items already done before this run resumed.
            label: Text in front of the bar.
        """
        # disable=None: no bar where stderr is a file.
        hidden = True if self._folder is None else None
        return tqdm(items, desc=label, total=total, initial=done, disable=hidden, dynamic_ncols=True)

    def close(self) -> None:
        """Flush and close TensorBoard's files and the loggers."""
        for logger in self._loggers:
            logger.close()
        self._draw(lambda board: board.close())

    def _draw(self, draw: Callable[[SummaryWriter], object]) -> None:
        if self._folder is not None and self._board is not None:
            # The writer's thread reports an error with its file on any later call, and without naming the file.
            with naming_full_disk(self._folder.parent / _BOARD):
                draw(self._board)


def open_board(folder: Path, resumed_step: int, flush_secs: int) -> SummaryWriter | None:
    """Open a TensorBoard writer.

    Args:
        folder: Where its files go.
        resumed_step: Step from which the run resumes; later entries are hidden.
        flush_secs: Seconds between flushes.

    Returns:
        The writer, or ``None`` with a warning if TensorBoard is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        log.warning(
            "TensorBoard is not installed: metrics are written as JSON lines only, without pictures; install it with "
            "`pip install tensorboard`, or set trainer.logging.tensorboard=false"
        )
        return None
    return SummaryWriter(os.fspath(folder), purge_step=resumed_step + 1, flush_secs=flush_secs)


def drop_lines_after(path: Path, step: int) -> None:
    """Remove the lines of later steps, and lines that a killed process left incomplete."""
    kept = []
    for line in path.read_text().splitlines():
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line)
        except (ValueError, LookupError, TypeError):
            log.warning("%s: dropped an incomplete line", path)
    with replacing(path) as temporary:
        temporary.write_text("".join(f"{line}\n" for line in kept))


def peak_memory(device: torch.device) -> int:
    """Peak memory in bytes: of tensors on a GPU, of the process (resident set) on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    in_bytes = sys.platform == "darwin"  # Linux reports KiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if in_bytes else 1024)


def draw_clip(clip: BatchedClip, masks: Tensor) -> Tensor:
    """Draw the first object of a batch: frames side by side, ground truth above, predicted masks below.

    Args:
        clip: The batch.
        masks: Predicted masks ``(T, N, S, S)`` bool.

    Returns:
        Picture ``(3, H, W)`` in 0..1 on the CPU.
    """
    frames = denormalize(clip.frames[:, clip.video_of[0]])
    rows = [tint(frames, clip.masks[:, 0], TRUE_COLOUR), tint(frames, masks[:, 0], FOUND_COLOUR)]
    side = min(PICTURE_SIDE, frames.shape[-1])
    small = [F.interpolate(row, size=(side, side), mode="bilinear", antialias=True) for row in rows]
    return torch.cat([torch.cat(list(row), dim=-1) for row in small], dim=-2).clamp(0, 1).cpu()


def denormalize(frames: Tensor) -> Tensor:
    """Undo the normalization of frames ``(..., 3, S, S)``; colour augmentations may leave values outside 0..1."""
    frames = frames.float()
    return frames * _colour(frames, IMAGE_STD) + _colour(frames, IMAGE_MEAN)


def tint(frames: Tensor, masks: Tensor, colour: tuple[float, float, float]) -> Tensor:
    """Overlay masks ``(T, S, S)`` on frames ``(T, 3, S, S)`` in 0..1, half transparent."""
    return torch.where(masks[:, None], 0.5 * frames + 0.5 * _colour(frames, colour), frames)


def _colour(like: Tensor, values: tuple[float, float, float]) -> Tensor:
    """Three channel values as a tensor ``(3, 1, 1)``."""
    return like.new_tensor(values)[:, None, None]
