"""Opening a video of any kind, and the model's temporal window.

Arrays and cameras are in ``frame_source``, pictures in ``image_files`` and ``animated_image``, video files in
``video_file``, and frames at the model's size in ``frame_loader``. Their public names are re-exported here.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from i2v.utils.file_pattern import is_pattern
from i2v.video.animated_image import AnimatedImage, is_animated
from i2v.video.frame_loader import WINDOW_LENGTH, FrameLoader, normalize
from i2v.video.frame_source import FrameArray, FrameSource, LiveFrames
from i2v.video.image_files import ImageFiles, ImageFolder, image_list, image_pattern, is_list
from i2v.video.video_file import VideoFile

__all__ = [
    "AnimatedImage",
    "FrameArray",
    "FrameLoader",
    "FrameSource",
    "ImageFiles",
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
            - path of a video file, or its bytes: ``VideoFile``
            - path of an animated WebP, PNG or AVIF or of a TIFF with several pages, or its bytes: ``AnimatedImage``
            - pattern such as ``frames/*.jpg`` or ``frames/%05d.jpg``, or text file with a picture on each line:
              ``ImageFiles``
            - open binary file, or ``io.BytesIO``: what its path or its bytes are
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
        return _open_file(bytes(video))
    if isinstance(video, (str, os.PathLike)):
        return _open_path(os.fsdecode(video))
    if isinstance(video, (np.ndarray, torch.Tensor, list, tuple)):
        return FrameArray(video)
    if callable(getattr(video, "read", None)):
        return _open_stream(video)
    if isinstance(video, Iterator):
        return LiveFrames(video)
    raise TypeError(
        "video: expected a path, bytes, an array, a list of pictures, an iterator or a FrameSource, "
        f"got {type(video).__name__}"
    )


def _open_path(path: str) -> FrameSource:
    if is_pattern(path):
        return image_pattern(path)
    if not os.path.exists(path):
        raise FileNotFoundError(f"{path}: there is no such file or folder")
    if os.path.isdir(path):
        return ImageFolder(path)
    return image_list(path) if os.path.isfile(path) and is_list(path) else _open_file(path)


def _open_file(file: str | bytes) -> FrameSource:
    if isinstance(file, str) and not os.path.isfile(file):
        return VideoFile(file)  # says what is wrong
    return AnimatedImage(file) if is_animated(file) else VideoFile(file)


def _open_stream(stream: Any) -> FrameSource:
    """What an open file holds from where it stands; a file on disk that stands at its start is opened by its path."""
    path = _path_of(stream)
    if path is not None:
        return _open_path(path)
    data = stream.read()
    if not isinstance(data, bytes):
        raise TypeError(f"video: got a file that gives {type(data).__name__}, expected one that is open in binary mode")
    return _open_file(data)


def _path_of(stream: Any) -> str | None:
    name = getattr(stream, "name", None)
    if not isinstance(name, str):
        return None
    try:
        is_it = os.path.isfile(name) and os.path.samestat(os.fstat(stream.fileno()), os.stat(name))
        return name if is_it and stream.tell() == 0 else None
    except (OSError, ValueError, AttributeError):  # closed, gone, or no real file
        return None


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
