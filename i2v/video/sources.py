"""Opening a video of any kind.

Arrays and cameras are in ``frame_source``, pictures in ``image_files`` and ``animated_image``, video files in
``video_file``. Their public names are re-exported here. Frames at the model's size are in ``frame_loader``, which needs
PyTorch.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import numpy as np

from i2v.utils.file_pattern import is_pattern
from i2v.utils.tensors import is_tensor
from i2v.video.animated_image import AnimatedImage, is_animated
from i2v.video.frame_source import FrameArray, FrameSource, LiveFrames
from i2v.video.image_files import ImageFiles, ImageFolder, image_list, image_pattern, is_list
from i2v.video.picture_stream import PictureStream, begins_with_pictures
from i2v.video.video_file import VideoFile
from i2v.video.window import window_indices

__all__ = [
    "AnimatedImage",
    "FrameArray",
    "FrameSource",
    "ImageFiles",
    "ImageFolder",
    "LiveFrames",
    "PictureStream",
    "VideoFile",
    "open_source",
    "open_video_file",
    "window_indices",
]


def open_source(video: Any) -> FrameSource:
    """Open a video.

    Args:
        video: What to read:

            - path of a folder: ``ImageFolder``
            - path of a video file, or its bytes: ``VideoFile``
            - path of an animated WebP, PNG or AVIF or of a TIFF with several pages, or its bytes: ``AnimatedImage``
            - path of JPEG or PNG pictures one after another, or their bytes: ``PictureStream``
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
        return open_video_file(bytes(video))
    if isinstance(video, (str, os.PathLike)):
        return _open_path(os.fsdecode(video))
    if isinstance(video, (np.ndarray, list, tuple)) or is_tensor(video):
        return FrameArray(video)
    if callable(getattr(video, "read", None)):
        return _open_stream(video)
    if isinstance(video, Iterator):
        return LiveFrames(video)
    raise TypeError(
        "video: expected a path, bytes, an array, a list of pictures, an iterator or a FrameSource, "
        f"got {type(video).__name__}"
    )


def open_video_file(file: str | bytes) -> FrameSource:
    """Open one file that is the whole video: never a folder, a pattern or a list that names other files.

    Args:
        file: Path of the file, or its bytes.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no video.
    """
    if isinstance(file, str) and not os.path.isfile(file):
        return VideoFile(file)  # says what is wrong
    if is_animated(file):
        return AnimatedImage(file)
    return PictureStream(file) if begins_with_pictures(file) else VideoFile(file)


def _open_path(path: str) -> FrameSource:
    if is_pattern(path):
        return image_pattern(path)
    if not os.path.exists(path):
        raise FileNotFoundError(f"{path}: there is no such file or folder")
    if os.path.isdir(path):
        return ImageFolder(path)
    return image_list(path) if os.path.isfile(path) and is_list(path) else open_video_file(path)


def _open_stream(stream: Any) -> FrameSource:
    """What an open file holds from where it stands; a file on disk that stands at its start is opened by its path."""
    path = _path_of(stream)
    if path is not None:
        return _open_path(path)
    data = stream.read()
    if not isinstance(data, bytes):
        raise TypeError(f"video: got a file that gives {type(data).__name__}, expected one that is open in binary mode")
    return open_video_file(data)


def _path_of(stream: Any) -> str | None:
    name = getattr(stream, "name", None)
    if not isinstance(name, str):
        return None
    try:
        is_it = os.path.isfile(name) and os.path.samestat(os.fstat(stream.fileno()), os.stat(name))
        return name if is_it and stream.tell() == 0 else None
    except (OSError, ValueError, AttributeError):  # closed, gone, or no real file
        return None
