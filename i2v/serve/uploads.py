"""Videos that clients send: opened only if they are whole, so that none makes FFmpeg look at other files."""

from __future__ import annotations

import av

from i2v.utils.ffmpeg import stop_log
from i2v.video.animated_image import is_animated
from i2v.video.frame_source import FrameSource
from i2v.video.sources import open_video_file


def open_upload(path: str) -> FrameSource:
    """Open a video that a client has sent.

    Args:
        path: Path of the file.

    Raises:
        OSError: If it cannot be read.
        ValueError: If it is no video, or a playlist: how FFmpeg fails on one would tell which other files exist.
    """
    if not is_animated(path):
        stop_log()
        with open(path, "rb") as file:
            try:
                # Through a file object FFmpeg reads this file and, as no protocol is allowed, nothing else.
                with av.open(file, mode="r", options={"protocol_whitelist": "none"}):
                    pass
            except (av.FFmpegError, OSError) as error:
                raise ValueError(f"{path}: this is no video that can be read") from error
    return open_video_file(path)
