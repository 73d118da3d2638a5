"""How the frames of results are called: after the files that the frames came from, or by number."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from i2v.results.overlay import PALETTE
from i2v.utils.output_folder import clear_files, component

NUMBERED = r"\d{5,}\.png"
"""Names of masks of numbered frames, as a regular expression."""

_PALETTE_AT = 37  # bytes of a PNG before the chunk of its palette, which comes first in those that are written here


@runtime_checkable
class DescribedFrames(Protocol):
    """A video that knows more of its frames than their pixels, as ``i2v.video.frame_source.FrameSource`` does."""

    name: str

    @property
    def num_frames(self) -> int | None: ...

    def frame_name(self, index: int, /) -> str | None: ...

    def frame_time(self, index: int, /) -> float | None: ...


class FrameNames:
    """What results say of each frame, and the names of mask files.

    Masks are called after the files of their frames, where every frame has one, and by number elsewhere: where the
    stems of two files are equal, or would be hidden files, too.
    """

    def __init__(self, source: object = None, renumber: bool = False) -> None:
        """Look at the names of the frames.

        Args:
            source: The video; one that is no ``DescribedFrames`` has no names.
            renumber: Whether to call masks by number in any case.
        """
        self._source = source if isinstance(source, DescribedFrames) else None
        self._stems = None if renumber or self._source is None else _stems(self._source)

    @property
    def video(self) -> str | None:
        """Name of the video, without its folder."""
        return None if self._source is None else Path(self._source.name).name

    def mask_name(self, frame: int) -> str:
        """Name of a frame's mask file."""
        return f"{frame:05d}.png" if self._stems is None else f"{self._stems[frame]}.png"

    def time(self, frame: int) -> float | None:
        """When a frame is shown, in seconds after the first one; ``None`` where nothing says so."""
        time = None if self._source is None else self._source.frame_time(frame)
        return None if time is None else round(time, 6)

    def describe(self, frame: int) -> dict[str, Any]:
        """What JSON says of a frame: its number, and the name of its file and its time in seconds where it has them."""
        known: dict[str, Any] = {"frame": frame}
        if self._source is not None:
            facts = {"name": self._source.frame_name(frame), "time": self.time(frame)}
            known |= {key: value for key, value in facts.items() if value is not None}
        return known


def uneven_times(source: object) -> Callable[[int], float | None]:
    """Return the times of a source's frames where they do not come at its frame rate, as videos of phones do.

    Args:
        source: The video.

    Returns:
        The time of a frame in seconds by its index; ``None`` for all if they are unknown, or within half a frame of an
        even rate.
    """
    rate = getattr(source, "frame_rate", None)
    if isinstance(source, DescribedFrames) and rate:
        times = [source.frame_time(frame) for frame in range(source.num_frames or 0)]
        known = [time for time in times if time is not None]
        if len(known) == len(times) and any(abs(time * rate - k) > 0.5 for k, time in enumerate(known)):
            return source.frame_time
    return lambda frame: None


def clear_masks(folder: Path) -> None:
    """Remove the masks of earlier results from a folder: numbered PNGs, and those that have exactly our palette.

    Raises ValueError as ``i2v.utils.output_folder.clear_files``.
    """
    clear_files(folder, "|".join((NUMBERED, *map(re.escape, own_masks(folder)))))


def own_masks(folder: Path) -> list[str]:
    """Names of the files in a folder that are PNGs with exactly our palette."""
    with os.scandir(folder) as entries:
        return [entry.name for entry in entries if entry.is_file(follow_symlinks=False) and _is_own(entry.path)]


def _is_own(path: str) -> bool:
    if not path.lower().endswith(".png"):
        return False
    with open(path, "rb") as file:
        return file.read(_PALETTE_AT + 4 + PALETTE.nbytes)[_PALETTE_AT:] == b"PLTE" + PALETTE.tobytes()


def _stems(source: DescribedFrames) -> list[str] | None:
    names = [source.frame_name(frame) for frame in range(source.num_frames or 0)]
    stems = [Path(name).stem for name in names if name is not None]
    if not stems or len({stem.casefold() for stem in stems}) < len(names):
        return None
    try:
        for stem in stems:
            component(f"{stem}.png")
    except ValueError:
        return None
    return stems
