"""Reading video: the front door to every kind of frame source, and the model's window over frames.

Pictures from folders, arrays and cameras are in `frame_source`, video files in `video_file`, frames at the
model's size in `frame_loader`; their public names can be had from here.
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
    """The frames of whatever a user calls a video.

    | `video` | read as |
    |---|---|
    | path of a folder | `ImageFolder` |
    | path of a file, or `bytes` | `VideoFile` |
    | array or tensor (T,H,W,3) or (T,3,H,W), list or tuple of pictures | `FrameArray` |
    | iterator or generator of pictures | `LiveFrames` |
    | `FrameSource` | itself |

    Raises FileNotFoundError for a path that does not exist, ValueError for contents that are no video, and
    TypeError for anything else.
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
        f"video: got {type(video).__name__}, expected a path, bytes, an array, a list of pictures, an iterator "
        "or a FrameSource"
    )


def window_indices(frame: int, length: int = WINDOW_LENGTH) -> list[int]:
    """The `length` frames the model looks at for `frame`: those before it and itself, in order.

    At the start of the video, where there are fewer, copies of `frame` follow: 2 -> 0 1 2 2 2.
    """
    if frame < 0:
        raise IndexError(f"frame {frame}: frames are numbered from 0")
    if length < 1:
        raise ValueError(f"length: got {length}, expected at least 1")
    indices = list(range(max(0, frame - length + 1), frame + 1))
    return indices + [frame] * (length - len(indices))
