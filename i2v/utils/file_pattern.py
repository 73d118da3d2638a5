"""Patterns of files: those of the shell, and FFmpeg's numbers."""

from __future__ import annotations

import os
import re

_SHELL = re.compile(r"[*?\[]")
NUMBER = re.compile(r"%(0\d{1,2})?d")
"""A number as FFmpeg writes it in the names of pictures: %d, or %05d for five digits at least."""


def is_pattern(path: str) -> bool:
    """Whether a path can only be a pattern of picture files."""
    return bool(_SHELL.search(path) or NUMBER.search(path)) and not os.path.exists(path)
