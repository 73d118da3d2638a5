"""Listing users' folders without what file managers, archives and notebooks leave behind in them."""

from __future__ import annotations

import os

from i2v.errors import StrPath

# In lower case; other leftovers, such as .DS_Store, ._NAME and .ipynb_checkpoints, start with a dot.
_LEFTOVERS = frozenset(
    ("__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "@eadir", "$recycle.bin", "system volume information")
)


def is_visible(name: str) -> bool:
    """Whether a file or folder is the user's own: not hidden by a leading dot, and no leftover such as ``__MACOSX``."""
    return not name.startswith(".") and name.lower() not in _LEFTOVERS


def visible_entries(folder: StrPath) -> list[os.DirEntry[str]]:
    """List what is visible in a folder, sorted by name.

    Args:
        folder: The folder.

    Returns:
        Its entries, which know whether they are folders without another system call for each.

    Raises:
        OSError: If it is missing or not a folder.
    """
    try:
        with os.scandir(folder) as found:
            return sorted((entry for entry in found if is_visible(entry.name)), key=lambda entry: entry.name)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{os.fspath(folder)}: there is no such folder") from error
    except NotADirectoryError as error:
        raise NotADirectoryError(f"{os.fspath(folder)}: this is a file, expected a folder") from error
