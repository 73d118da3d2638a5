"""What FFmpeg needs before it opens a file."""

from __future__ import annotations

import os

import av.logging

from i2v.errors import StrPath


def file_url(path: StrPath) -> str:
    """Name a file so that FFmpeg takes it for one: of 12:30.mp4 it would think that 12 is a protocol."""
    return f"file:{os.fspath(path)}"


def stop_log() -> None:
    """Stop handing FFmpeg's messages to Python, before a file is opened.

    Who frees a decoder holds the GIL and waits for its threads; a thread that has a message would wait for the GIL, and
    both would hang for ever. By default PyAV hands over nothing, but importing older releases of torchvision, 0.21
    among them, turns it on for the whole process.
    """
    if av.logging.get_level() is not None:
        av.logging.set_level(None)
