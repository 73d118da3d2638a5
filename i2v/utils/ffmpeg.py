"""How files are named to FFmpeg."""

from __future__ import annotations

import os

from i2v.errors import StrPath


def file_url(path: StrPath) -> str:
    """Name a file so that FFmpeg takes it for one: of 12:30.mp4 it would think that 12 is a protocol."""
    return f"file:{os.fspath(path)}"
