"""The folders that clients may read from."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from starlette.exceptions import HTTPException

from i2v.errors import brief
from i2v.video.frame_source import FrameSource
from i2v.video.image_files import ImageFolder
from i2v.video.sources import open_video_file


class AllowedFolders:
    """Finds files below the folders that the service's user has allowed, wherever symbolic links lead."""

    def __init__(self, roots: Sequence[Path] = ()) -> None:
        """Allow folders.

        Args:
            roots: The folders; without any, nothing can be read.

        Raises:
            NotADirectoryError: If one of them is no folder.
        """
        for root in roots:
            if not root.is_dir():
                raise NotADirectoryError(f"--root {root}: there is no such folder")
        self._roots = tuple(root.resolve() for root in roots)

    def find(self, name: str) -> Path:
        """Find a file or folder. What is elsewhere is answered as if it did not exist.

        Args:
            name: Its absolute path, or its path from one of the folders.

        Raises:
            HTTPException: With status 403 if no folder is allowed, or 404 if there is no such file below any.
        """
        if not self._roots:
            raise HTTPException(403, "no folder is allowed: start the service with --root FOLDER, or send the file")
        for root in self._roots:
            found = _resolved(root, name)  # an absolute name replaces the root
            if found is not None and any(found.is_relative_to(allowed) for allowed in self._roots):
                return found
        raise HTTPException(404, f"path: there is no {brief(name)} below the folders that --root allows")

    def open_video(self, name: str) -> FrameSource:
        """Open a video file, or a folder of frames.

        Args:
            name: As for ``find``.

        Raises:
            HTTPException: As ``find``, and with status 403 if frames are links that lead out of the allowed folders.
            OSError: If it cannot be read.
            ValueError: If it is no video.
        """
        path = self.find(name)
        if not path.is_dir():
            return open_video_file(str(path))
        with os.scandir(path) as entries:
            links = [entry.name for entry in entries if entry.is_symlink()]
        for link in links:
            target = _resolved(path, link)
            if target is None or not any(target.is_relative_to(allowed) for allowed in self._roots):
                raise HTTPException(403, f"path: {brief(link)} in this folder leads out of what --root allows")
        return ImageFolder(path)


def _resolved(folder: Path, name: str) -> Path | None:
    """The real path of an existing file, ``None`` if there is none."""
    try:
        return (folder / name).resolve(strict=True)
    except (OSError, ValueError, RuntimeError):  # also a null character, a loop of links, or a name that is too long
        return None
