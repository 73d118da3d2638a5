"""How the C library gives memory back to the system, which is a good part of what a small model costs on a CPU."""

from __future__ import annotations

import ctypes
import os
import platform

# What glibc's mallopt() takes, see `man mallopt`.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_LARGEST_MMAP_THRESHOLD = 32 << 20  # glibc refuses more
KEPT_MEMORY = 1 << 30  # bytes of freed memory
GLIBC_KEEPS = 2 * _LARGEST_MMAP_THRESHOLD  # bytes that it keeps of its own accord, once blocks of 32 MiB were freed
REFUSED = "I2V_KEEP_FREED_MEMORY"  # environment variable: 0 leaves the process as it is
_OWN_SETTINGS = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")


def keep_freed_memory(limit: int = KEPT_MEMORY) -> bool:
    """Let the process use freed memory again, up to ``limit`` bytes, instead of returning it. Says whether it will.

    Every frame needs the same blocks of some megabytes. By default glibc takes many of them anew from the system, which
    clears each page when it is first touched; a twentieth to a tenth of a frame's time goes into that. The peak of what
    the process needs stays as it was.

    It is a setting of the whole process, and one of glibc's. If the user has made such settings in the environment
    (``MALLOC_TRIM_THRESHOLD_``, ``MALLOC_MMAP_THRESHOLD_``, ``GLIBC_TUNABLES``), these stand, and
    ``I2V_KEEP_FREED_MEMORY=0`` refuses it.
    """
    if os.environ.get(REFUSED) == "0":
        return False
    if platform.libc_ver()[0] != "glibc" or any(name in os.environ for name in _OWN_SETTINGS):
        return False
    try:
        set_option = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    return bool(set_option(_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD) and set_option(_TRIM_THRESHOLD, limit))
