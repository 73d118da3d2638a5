"""Folders that results go to: no name from a file leads out of them, and nothing goes that was not made here.

Every writer that puts a name from a file into a path takes that path from `child`.
"""

from __future__ import annotations

import contextlib
import os
import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path

from i2v.errors import brief
from i2v.utils.files import replacing_folder

MAX_NAME_BYTES = 200  # file systems have 255, of which a temporary name takes some more than the name itself
IMAGES = r"[^.].*\.(png|jpg)"
"""Names of the pictures that runs write, as a regular expression."""

_UNFINISHED = r"\..+\.tmp"
# Control characters, halves of characters, and separators of lines and paragraphs.
_NO_NAME = {"Cc", "Cs", "Zl", "Zp"}
# What turns the direction of writing, so that gnp.exe is shown as exe.png.
_TURNING = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}


def component(name: str) -> str:
    """A name, if it is one that a single file or folder can have, and not a hidden one; else ValueError."""
    reason = None
    if name in ("", ".", "..") or "/" in name or "\\" in name:
        reason = "it is empty, or names another folder"
    elif name.startswith("."):
        reason = "names that start with a dot are hidden"
    elif any(unicodedata.category(c) in _NO_NAME or unicodedata.bidirectional(c) in _TURNING for c in name):
        reason = "it has characters that cannot be shown"
    elif len(name.encode()) > MAX_NAME_BYTES:
        reason = f"it is longer than {MAX_NAME_BYTES} bytes"
    if reason is not None:
        raise ValueError(f"expected the name of a file or folder, got {brief(name)}: {reason}")
    return name


def child(folder: Path, name: str) -> Path:
    """A place for results right below a folder. ValueError for a name that leads elsewhere or a link in its place."""
    path = folder / component(name)
    refuse_link(path)
    return path


def refuse_link(path: Path) -> None:
    """ValueError if a path is a symbolic link: what is written there, and removed, would be somebody else's."""
    if path.is_symlink():
        raise ValueError(f"{path} is a symbolic link to {os.readlink(path)}: results go to real folders only")


def own_folder(folder: Path) -> Path:
    """Make a folder for results unless it is there. ValueError for a link in its place, FileExistsError for a file."""
    refuse_link(folder)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def clear_files(folder: Path, pattern: str) -> None:
    """Remove the files of earlier results from a folder: those whose whole name a regular expression matches.

    Other files stay, as the folder is the user's. ValueError for links and folders of such names.
    """
    stale = [entry for entry in os.scandir(folder) if re.fullmatch(pattern, entry.name)]
    for entry in stale:
        if not entry.is_file(follow_symlinks=False):
            raise ValueError(f"{entry.path} is in the way of results, and no file that was made here: move it away")
    for entry in stale:
        os.unlink(entry.path)


@contextlib.contextmanager
def new_folder(
    parent: Path, name: str, made: str = IMAGES, overwrite: bool = False, one_of_many: bool = False
) -> Iterator[Path]:
    """Give the block a hidden folder to fill with files; it gets its name only if the block succeeds.

    So a folder that is there is complete. ``made``: what names those files have, a regular expression. ``overwrite``:
    the folder takes the place of one that holds such files only. ``one_of_many``: the caller has what killed runs left
    behind removed, else it is done here. Raises ValueError for names that lead elsewhere and for links, FileExistsError
    where the place is taken; then nothing was changed.
    """
    folder = child(own_folder(parent), name)
    _check_free(folder, made, overwrite)
    with replacing_folder(folder, one_of_many) as hidden:
        yield hidden
        _check_free(folder, made, overwrite)  # much may have happened since


def _check_free(folder: Path, made: str, overwrite: bool) -> None:
    refuse_link(folder)
    if not folder.exists():
        return
    if not overwrite:
        raise FileExistsError(f"{folder} is there already")
    strange = _strange_entry(folder, made) if folder.is_dir() else folder.name
    if strange is not None:
        raise FileExistsError(f"{folder} cannot be replaced: {brief(strange)} was not made here, move it away")


def _strange_entry(folder: Path, made: str) -> str | None:
    """The name of something in a folder that is no file of the names that are made, nor an unfinished one."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if not (entry.is_file(follow_symlinks=False) and re.fullmatch(rf"{made}|{_UNFINISHED}", entry.name)):
                return entry.name
    return None


def default_output_folder(video: Path) -> Path:
    """Where the results of a video go that were given no folder: NAME_i2v in the working directory.

    NAME is that of a folder, of a file without its suffix, or of the folder that a pattern of files starts from.
    """
    named = video.resolve()
    if not named.exists() and re.search(r"[*?\[%]", video.name):
        named = next(folder for folder in named.parents if folder.is_dir())
    return Path(f"{named.name if named.is_dir() else named.stem}_i2v")
