"""Output folders: names from files cannot lead out of them, and nothing is removed that i2v did not write.

Writers that use a name from a file in a path get that path from ``child``.
"""

from __future__ import annotations

import contextlib
import os
import re
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path

from i2v.errors import brief
from i2v.utils.files import replacing_folder

MAX_NAME_BYTES = 200  # file systems allow 255, but temporary names are longer
RESULTS_SUFFIX = "_i2v"
"""End of the names of default output folders."""

IMAGES = r"[^.].*\.(png|jpg)"
"""Regular expression of the names of images that runs write."""

_UNFINISHED = r"\..+\.tmp"
# Unicode categories: control characters, surrogates, line and paragraph separators.
_NO_NAME = {"Cc", "Cs", "Zl", "Zp"}
# Characters that change the text direction, which can make gnp.exe look like exe.png.
_TURNING = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}


def component(name: str) -> str:
    """Return a name if it is valid for a single, visible file or folder.

    Raises:
        ValueError: If the name is empty, hidden or too long, or contains separators or unprintable characters.
    """
    reason = None
    if name in ("", ".", "..") or "/" in name or "\\" in name:
        reason = "it is empty, or names another folder"
    elif name.startswith("."):
        reason = "names that start with a dot are hidden"
    elif not is_showable(name):
        reason = "it has characters that cannot be shown"
    elif len(name.encode()) > MAX_NAME_BYTES:
        reason = f"it is longer than {MAX_NAME_BYTES} bytes"
    if reason is not None:
        raise ValueError(f"expected the name of a file or folder, got {brief(name)}: {reason}")
    return name


def is_showable(name: str) -> bool:
    """Whether a name has no control characters, and none that change the direction of the text."""
    return not any(unicodedata.category(c) in _NO_NAME or unicodedata.bidirectional(c) in _TURNING for c in name)


def child(folder: Path, name: str) -> Path:
    """Return the path of a result in ``folder``.

    Raises:
        ValueError: If the name is not a valid ``component``, or a symbolic link is in its place.
    """
    path = folder / component(name)
    refuse_link(path)
    return path


def refuse_link(path: Path) -> None:
    """Refuse a symbolic link: writing and removing there would affect another folder.

    Raises:
        ValueError: If the path is a symbolic link.
    """
    if path.is_symlink():
        raise ValueError(f"{path} is a symbolic link to {os.readlink(path)}: results go to real folders only")


def check_writable(folder: Path) -> None:
    """Check that files can be written into a folder, or that it can be created. Nothing is created.

    Raises:
        NotADirectoryError: If it, or a folder above it, is a file.
        PermissionError: If the system does not let this user write there.
    """
    above = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    if not above.is_dir():
        raise NotADirectoryError(f"{folder} cannot be an output folder: {above} is a file")
    if not os.access(above, os.W_OK | os.X_OK):
        raise PermissionError(f"{folder} cannot be written to: there is no permission to write in {above}")


def check_results_folder(folder: Path, inner: Iterable[str], overwrite: bool) -> None:
    """Check that results can go into a folder. Nothing is created.

    Args:
        folder: The folder, which need not exist.
        inner: Names of the folders in it that hold results.
        overwrite: Whether earlier results may be replaced.

    Raises:
        ValueError: If one of the folders is a symbolic link.
        FileExistsError: If the folder is a file, or not empty and ``overwrite`` is false.
        OSError: As ``check_writable``.
    """
    for own in (folder, *(folder / name for name in inner)):
        refuse_link(own)
    if folder.exists() and not folder.is_dir():
        raise FileExistsError(f"{folder} is a file, expected an output folder")
    check_writable(folder)
    if not overwrite and folder.is_dir() and any(folder.iterdir()):
        raise FileExistsError(f"{folder} is not empty: give --overwrite or another --out")


def own_folder(folder: Path) -> Path:
    """Create a folder for results if it does not exist.

    Returns:
        The folder.

    Raises:
        ValueError: If it is a symbolic link.
        FileExistsError: If it is a file.
    """
    refuse_link(folder)
    if folder.exists() and not folder.is_dir():
        raise FileExistsError(f"{folder} is a file, expected a folder")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def clear_files(folder: Path, pattern: str) -> None:
    """Remove earlier results from a folder: files whose whole name matches a regular expression.

    Other files are kept: the folder is the user's.

    Raises:
        ValueError: If a link or folder has such a name. Nothing is removed then.
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
    """Create a folder atomically: the block fills a hidden one, which gets its name if the block succeeds.

    So an existing folder is complete.

    Args:
        parent: The folder above; created if necessary.
        name: Name of the folder.
        made: Regular expression of the files' names.
        overwrite: Whether to replace an existing folder. It may only contain such files.
        one_of_many: Whether to skip removing leftovers of killed processes, see ``i2v.utils.files.replacing``.

    Yields:
        The hidden folder.

    Raises:
        ValueError: If the name is not a valid ``component``, or a symbolic link is in its place.
        FileExistsError: If the folder exists and may not be replaced. Nothing is changed then.
    """
    folder = child(own_folder(parent), name)
    check_replaceable(folder, made, overwrite)
    with replacing_folder(folder, one_of_many) as hidden:
        yield hidden
        check_replaceable(folder, made, overwrite)  # again: the folder may have changed meanwhile


def check_replaceable(folder: Path, made: str, overwrite: bool) -> None:
    """Check that a folder can be made as a whole. Nothing is created.

    Args:
        folder: The folder.
        made: Regular expression of the names of the files that it will hold.
        overwrite: Whether it may replace an existing folder, which may only contain such files.

    Raises:
        ValueError: If it is a symbolic link.
        FileExistsError: If it exists and may not be replaced.
        OSError: As ``check_writable``, for the folder above.
    """
    refuse_link(folder)
    check_writable(folder.parent)
    if not folder.exists():
        return
    if not overwrite:
        raise FileExistsError(f"{folder} is there already: overwrite=True (--overwrite) replaces it")
    strange = _strange_entry(folder, made) if folder.is_dir() else folder.name
    if strange is not None:
        raise FileExistsError(f"{folder} cannot be replaced: {brief(strange)} was not made here, move it away")


def _strange_entry(folder: Path, made: str) -> str | None:
    """Return the name of an entry that is neither one of our files nor an unfinished one, or ``None``."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if not (entry.is_file(follow_symlinks=False) and re.fullmatch(rf"{made}|{_UNFINISHED}", entry.name)):
                return entry.name
    return None


def default_output_folder(video: Path) -> Path:
    """Return the default output folder of a video: NAME_i2v in the working directory.

    NAME is that of a folder, of a file without its suffix, or of the folder in which a pattern starts.
    """
    named = video.resolve()
    if not named.exists() and re.search(r"[*?\[%]", video.name):
        named = next(folder for folder in named.parents if folder.is_dir())
    return Path(f"{named.name if named.is_dir() else named.stem}{RESULTS_SUFFIX}")
