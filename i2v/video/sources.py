"""Opening a video of any kind, and the model's temporal window.

Folders, arrays and cameras are in ``frame_source``, video files in ``video_file``, and frames at the model's size in
``frame_loader``. Their public names are re-exported here.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from i2v.video.frame_loader import WINDOW_LENGTH, FrameLoader, normalize
from i2v.video.frame_source import FrameArray, FrameSource, ImageFolder, LiveFrames
from i2v.video.video_file import VideoFile

__all__ = [
    "FrameArray",
    "FrameLoader",
    "FrameSource",
    "ImageFolder",
    "LiveFrames",
    "VideoFile",
    "normalize",
    "open_source",
    "window_indices",
]


def open_source(video: Any) -> FrameSource:
    """Open a video.

    Args:
        video: What to read:

            - path of a folder: ``ImageFolder``
            - path of a file, or bytes: ``VideoFile``
            - array or tensor ``(T, H, W, 3)`` or ``(T, 3, H, W)``, list or tuple of pictures: ``FrameArray``
            - iterator or generator of pictures: ``LiveFrames``
            - ``FrameSource``: itself

    Returns:
        The source. The caller closes it.

    Raises:
        FileNotFoundError: If a path does not exist.
        ValueError: If the contents are not a video.
        TypeError: If ``video`` is none of these.
    """
    if isinstance(video, FrameSource):
        return video
    if isinstance(video, (bytes, bytearray, memoryview)):
        return VideoFile(bytes(video))
    if isinstance(video, (str, os.PathLike)):
        path = os.fspath(video)
        if not os.path.exists(path):
            raise FileNotFoundError(f"{path}: there is no such file or folder")
        return ImageFolder(path) if os.path.isdir(path) else VideoFile(path)
    if isinstance(video, (np.ndarray, torch.Tensor, list, tuple)):
        return FrameArray(video)
    if isinstance(video, Iterator):
        return LiveFrames(video)
    raise TypeError(
        "video: expected a path, bytes, an array, a list of pictures, an iterator or a FrameSource, "
        f"got {type(video).__name__}"
    )


def window_indices(frame: int, length: int = WINDOW_LENGTH) -> list[int]:
    """Return the indices of the frames that the model reads for a frame: the preceding ones and itself.

    At the start of a video the window is padded with copies of the frame: 2 -> [0, 1, 2, 2, 2].

    Args:
        frame: Index of the current frame.
        length: Length of the window.

    Raises:
        IndexError: If ``frame`` is negative.
        ValueError: If ``length`` is below 1.
    """
    if frame < 0:
        raise IndexError(f"frame {frame}: frames are numbered from 0")
    if length < 1:
        raise ValueError(f"length: expected at least 1, got {length}")
    indices = list(range(max(0, frame - length + 1), frame + 1))
    return indices + [frame] * (length - len(indices))
