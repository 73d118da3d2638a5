"""Keeping freed memory in the process, because returning it to the system slows down a small model on a CPU."""

from __future__ import annotations

import ctypes
import os
import platform

# Option numbers of glibc's mallopt(), see `man mallopt`.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_MAX_MMAP_THRESHOLD = 32 << 20  # bytes, the largest value that glibc accepts
KEPT_MEMORY = 1 << 30  # bytes of freed memory that the process keeps
GLIBC_KEEPS = 2 * _MAX_MMAP_THRESHOLD  # bytes that glibc keeps by default after freeing blocks of 32 MiB
OPT_OUT_VARIABLE = "I2V_KEEP_FREED_MEMORY"  # environment variable; 0 turns this off
_GLIBC_VARIABLES = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")


def keep_freed_memory(limit: int = KEPT_MEMORY) -> bool:
    """Let the process reuse freed memory instead of returning it to the system.

    Every frame needs the same blocks of a few megabytes. By default glibc gets many of them from the system each time,
    which clears every page on first use: 5 to 10 % of a frame's time. Peak memory stays the same.

    The setting affects the whole process and works with glibc only. Settings that the user made in the environment
    (``MALLOC_TRIM_THRESHOLD_``, ``MALLOC_MMAP_THRESHOLD_``, ``GLIBC_TUNABLES``) take precedence, and
    ``I2V_KEEP_FREED_MEMORY=0`` turns this off.

    Args:
        limit: Most bytes of freed memory to keep.

    Returns:
        Whether the setting took effect.

    Raises:
        ValueError: If the value of ``I2V_KEEP_FREED_MEMORY`` means neither on nor off.
    """
    if not _is_enabled(os.environ.get(OPT_OUT_VARIABLE, "")):
        return False
    if platform.libc_ver()[0] != "glibc" or any(name in os.environ for name in _GLIBC_VARIABLES):
        return False
    try:
        set_option = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    return bool(set_option(_MMAP_THRESHOLD, _MAX_MMAP_THRESHOLD) and set_option(_TRIM_THRESHOLD, limit))


def _is_enabled(value: str) -> bool:
    if value.lower() in ("0", "false", "no", "off"):
        return False
    if value.lower() in ("", "1", "true", "yes", "on"):
        return True
    raise ValueError(f"{OPT_OUT_VARIABLE}: expected 0 or 1, got {value!r}")
