"""A folder to annotate: the frames of one video, or several videos."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from i2v.utils.listing import visible_entries
from i2v.utils.output_folder import RESULTS_SUFFIX, component
from i2v.video.frame_source import IMAGE_SUFFIXES, natural_key

VIDEO_SUFFIXES = (
    *(".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts", ".wmv", ".flv"),
    *(".ogv", ".3gp", ".mxf", ".y4m", ".mjpeg", ".mjpg", ".gif"),
)
"""Of files that count as videos among others in a folder, in lower case."""


@dataclass(frozen=True)
class _Contents:
    images: tuple[str, ...]
    videos: tuple[str, ...]
    folders: tuple[str, ...]


def find_videos(folder: Path) -> list[Path] | None:
    """Find the videos of a folder: video files, and sub-folders with the images of one video each.

    A folder that holds images is one video itself, whatever sub-folders it has. Passed over are hidden files and
    leftovers, see ``is_visible``, and results: sub-folders whose names end with ``_i2v``.

    Args:
        folder: The folder.

    Returns:
        Their paths in natural order, or ``None`` if the folder is one video itself.

    Raises:
        OSError: If the folder cannot be read.
        ValueError: If it, or a sub-folder, holds both images and video files, or it holds neither, or the name of a
            video cannot be that of a folder of results.
    """
    contents = _look_into(folder)
    if contents.images:
        return None
    found = [folder / name for name in contents.videos]
    subfolders = [name for name in contents.folders if not name.endswith(RESULTS_SUFFIX)]
    found += [folder / name for name in subfolders if _look_into(folder / name).images]
    if not found:
        raise ValueError(f"{folder}: expected the images of one video, or several videos, found neither")
    for video in found:
        component(video.name)
    return sorted(found, key=lambda video: natural_key(video.name))


def _look_into(folder: Path) -> _Contents:
    seen = [(entry.name, entry.is_dir()) for entry in visible_entries(folder)]
    files = [name for name, is_folder in seen if not is_folder]
    contents = _Contents(
        images=tuple(name for name in files if name.lower().endswith(IMAGE_SUFFIXES)),
        videos=tuple(name for name in files if name.lower().endswith(VIDEO_SUFFIXES)),
        folders=tuple(name for name, is_folder in seen if is_folder),
    )
    if contents.images and contents.videos:
        image, video = contents.images[0], contents.videos[0]
        raise ValueError(
            f"{folder} holds images, such as {image}, and video files, such as {video}: expected the images of one "
            f"video, or several videos (to choose, give a video file, or '{folder / ('*' + Path(image).suffix)}')"
        )
    return contents
