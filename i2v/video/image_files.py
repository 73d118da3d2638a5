"""Videos that are picture files: folders, glob patterns and lists of them."""

from __future__ import annotations

import contextlib
import functools
import glob
import itertools
import logging
import os
import re
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from PIL.Image import Image
from PIL.ImageFile import ImageFile

from i2v.errors import USER_ERRORS, InvalidFileError, brief, locating
from i2v.utils.file_pattern import NUMBER, is_pattern
from i2v.utils.image_file import FRAME_FORMATS, MAX_BYTES, decode_image, open_picture
from i2v.utils.input_file import read_input, read_text
from i2v.utils.listing import is_visible, visible_entries
from i2v.video.frame_content import FrameContent, is_photo
from i2v.video.frame_source import IMAGE_SUFFIXES, FrameSource, natural_key, picture_to_rgb
from i2v.video.sequence_names import check_sequence

log = logging.getLogger(__name__)

_QUOTED = r"'([^']*)'|\\(.)"  # in FFmpeg's lists: text between quotes, and one character after a backslash
LIST_SUFFIXES = (".txt", ".lst", ".list", ".ffconcat")


class PictureFrames(FrameSource):
    """Pictures as the frames of a video.

    They are taken as stored: EXIF orientation is not applied, as in the published model. All must have the size of the
    first, and none may be a mask or a cut-out among pictures in colour; that is checked when a frame is read. Of
    what may be one, such as a mask as JPEG, a warning tells.
    """

    def __init__(self, name: str, formats: tuple[str, ...]) -> None:
        """Look at the first picture. Raises the errors of ``i2v.utils.image_file.load_image``."""
        self.name = name
        self.frame_rate = None
        self._formats = formats
        with self._open(0) as first:
            self.height, self.width = first.height, first.width
        self._content = FrameContent.of([image.mode for image in self._sampled(self._open)])
        self._warned = False

    @property
    @abstractmethod
    def num_frames(self) -> int:
        """Number of pictures."""

    @abstractmethod
    def _encoded(self, index: int) -> bytes:
        """The file of picture ``index``."""

    @abstractmethod
    def _where(self, index: int) -> str:
        """How picture ``index`` is called in messages."""

    def read(self, index: int) -> np.ndarray:
        """Return frame ``index`` as (H,W,3) uint8.

        Raises:
            IndexError: If there is no such frame.
            InvalidFileError: If its picture is damaged, of another size, a mask or a cut-out.
        """
        self._check_index(index)
        image = self._decoded(index)
        if image.size != (self.width, self.height):
            raise InvalidFileError(
                self._where(index),
                f"the image is {image.width}x{image.height}, expected {self.width}x{self.height} like the first one, "
                f"{os.path.basename(self._where(0))}",
            )
        self._check_content(image, self._where(index))
        with locating(self._where(index)):
            return picture_to_rgb(image)

    def _open(self, index: int) -> ImageFile:
        return open_picture(self._encoded(index), self._where(index), self._formats)

    def _decoded(self, index: int) -> Image:
        return decode_image(self._encoded(index), self._where(index), self._formats)

    def _sampled(self, load: Callable[[int], Image]) -> Iterator[Image]:
        for index in sorted({0, self.num_frames // 2, self.num_frames - 1}):
            with contextlib.suppress(*USER_ERRORS):  # what is wrong is said when it is read
                yield load(index)

    @functools.cached_property
    def _is_photographic(self) -> bool:
        return any(map(is_photo, self._sampled(self._decoded)))

    def _check_content(self, image: Image, where: str) -> None:
        def is_photographic() -> bool:
            return self._is_photographic

        objection = self._content.objection(image, is_photographic)
        if objection is not None:
            raise InvalidFileError(where, f"{objection}: expected the frames of one video")
        if not self._warned and self._content.is_doubtful(image, is_photographic):
            self._warned = True
            log.warning("%s: this black and white picture among others may be a mask; it is taken for a frame", where)


class ImageFiles(PictureFrames):
    """Picture files in a given order; a frame's number is its place in that order."""

    def __init__(self, paths: Sequence[str | os.PathLike[str]], name: str) -> None:
        """Look at the first file.

        Args:
            paths: The files.
            name: What they are called together, for messages.

        Raises:
            OSError: If the first file cannot be read.
            InvalidFileError: If it is no picture.
            ValueError: If there are none.
        """
        if not paths:
            raise ValueError(f"{name}: no images: expected {' '.join(IMAGE_SUFFIXES)}")
        # They may be read from another working directory, in another process.
        self._paths = [os.path.abspath(os.fspath(path)) for path in paths]
        self._shown = [os.fspath(path) for path in paths]
        super().__init__(name, FRAME_FORMATS)

    @property
    def files(self) -> list[str]:
        """Names of the files, without their folders."""
        return [os.path.basename(path) for path in self._paths]

    @property
    def num_frames(self) -> int:
        return len(self._paths)

    def frame_name(self, index: int) -> str:
        self._check_index(index)
        return os.path.basename(self._paths[index])

    def _encoded(self, index: int) -> bytes:
        return read_input(self._paths[index], MAX_BYTES)

    def _where(self, index: int) -> str:
        return self._shown[index]


class ImageFolder(ImageFiles):
    """The pictures of a folder in natural order.

    Files with the suffixes of ``IMAGE_SUFFIXES`` count, in any letter case; others, sub-folders and leftovers (see
    ``i2v.utils.listing``) are passed over.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        """List the folder.

        Raises:
            OSError: If there is no such folder.
            ValueError: If it holds no images that are read, or images that are not one sequence; see
                ``check_sequence``.
        """
        name = os.fspath(folder)
        paths = _in_folder(name)
        check_sequence(map(os.path.basename, paths), name)
        super().__init__(paths, name)


def image_pattern(pattern: str) -> ImageFiles:
    """Open the pictures that a pattern matches, in natural order.

    Args:
        pattern: A path with ``*``, ``?``, ``[...]`` or ``**``, or with one number as FFmpeg writes it, ``%d`` or
            ``%05d``.

    Raises:
        FileNotFoundError: If no file matches.
        ValueError: If a match is no picture, or they are not one sequence; see ``check_sequence``.
    """
    paths = _matching(pattern)
    for folder, names in itertools.groupby(sorted(paths, key=os.path.dirname), key=os.path.dirname):
        check_sequence([os.path.basename(path) for path in names], os.path.join(folder, os.path.basename(pattern)))
    return ImageFiles(paths, pattern)


def find_pictures(given: str | os.PathLike[str]) -> list[str]:
    """Find pictures that need not be the frames of one video.

    Args:
        given: A picture file, a folder of them, or a pattern as in ``image_pattern``.

    Returns:
        Their paths, those of a folder or pattern in natural order.

    Raises:
        FileNotFoundError: If there is no such file or folder, or no file matches.
        ValueError: If a folder has no pictures, or a match is none.
    """
    path = os.fspath(given)
    if os.path.isdir(path):
        return _in_folder(path)
    if is_pattern(path):
        return _matching(path)
    if not os.path.exists(path):
        raise FileNotFoundError(f"{path}: no such image file or folder of images")
    return [path]


def is_list(path: str) -> bool:
    """Whether a text file begins like a list of picture files."""
    if not path.lower().endswith(LIST_SUFFIXES):
        return False
    with open(path, "rb") as file:
        head = file.read(4096).decode("utf-8", "replace").removeprefix("\ufeff")
    first = next(filter(None, map(_listed, head.splitlines())), None)
    return first is not None and _is_image(os.path.basename(first))


def image_list(path: str | os.PathLike[str]) -> ImageFiles:
    """Open the pictures that a text file names, one path a line, in its order.

    Empty lines and those that start with ``#`` are passed over; FFmpeg's form, ``file 'PATH'``, is read, too. Relative
    paths start at the folder of the list.

    Raises:
        OSError: If the list or its first picture cannot be read.
        InvalidFileError: If it is no text, or a line names no file.
    """
    shown = os.fspath(path)
    folder = os.path.dirname(shown)
    paths = []
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        entry = _listed(line)
        if entry is not None:
            paths.append(os.path.join(folder, entry))
            if not _is_image(os.path.basename(entry)) or not os.path.isfile(paths[-1]):
                raise InvalidFileError(shown, f"expected the path of a picture, got {brief(entry)}", f"line {number}")
    if not paths:
        raise InvalidFileError(shown, "expected the path of a picture on each line, found none")
    return ImageFiles(paths, shown)


def _is_image(name: str) -> bool:
    # macOS leaves a hidden file beside each copied picture, with the same suffix.
    return name.lower().endswith(IMAGE_SUFFIXES) and is_visible(name)


def _in_folder(folder: str) -> list[str]:
    """Pictures of a folder in natural order. ValueError if there are none."""
    names = [entry.name for entry in visible_entries(folder) if _is_image(entry.name) and entry.is_file()]
    if not names:
        raise ValueError(f"{folder}: no images in this folder: expected {' '.join(IMAGE_SUFFIXES)}")
    return [os.path.join(folder, name) for name in sorted(names, key=natural_key)]


def _matching(pattern: str) -> list[str]:
    """Pictures that match a pattern in natural order. Raises the errors of ``find_pictures``."""
    found = _numbered_files(pattern) if NUMBER.search(pattern) else _globbed(pattern)
    paths: list[str] = [path for path in found if os.path.isfile(path) and is_visible(os.path.basename(path))]
    if not paths:
        raise FileNotFoundError(f"{pattern}: no file matches this pattern")
    strange = next((path for path in paths if not _is_image(os.path.basename(path))), None)
    if strange is not None:
        raise ValueError(f"{pattern}: {strange} is no picture, expected {' '.join(IMAGE_SUFFIXES)}")
    return sorted(paths, key=_path_key)


def _path_key(path: str) -> list[tuple[list[str | int], str]]:
    folder, name = os.path.split(path)
    return [natural_key(part) for part in (*folder.split(os.sep), name)]


def _globbed(pattern: str) -> list[str]:
    folder, form = os.path.split(pattern)
    # Brackets in the name of a folder that is there are no pattern.
    start = glob.escape(folder) if os.path.isdir(folder) else folder
    return glob.glob(os.path.join(start, form), recursive=True)


def _numbered_files(pattern: str) -> list[str]:
    """Files of a pattern of FFmpeg: a number in the name, with a width that is the least one."""
    folder, form = os.path.split(pattern)
    before, width, after = _split_numbered(form)
    if before is None:
        raise ValueError(f"{pattern}: expected one number in the name of the file, as frame_%05d.jpg")
    wanted = re.compile(f"{re.escape(before)}([0-9]{{{width},}}){re.escape(after)}")
    try:
        names = os.listdir(folder or ".")
    except OSError:
        return []
    return [os.path.join(folder, name) for name in names if wanted.fullmatch(name)]


def _split_numbered(form: str) -> tuple[str | None, int, str]:
    matches = list(NUMBER.finditer(form))
    if len(matches) != 1:
        return None, 0, ""
    found = matches[0]
    return form[: found.start()], int(found[1] or 1), form[found.end() :]


def _listed(line: str) -> str | None:
    """The path that a line of a list names, if it names one."""
    text = line.strip()
    if not text or text.startswith(("#", "ffconcat ", "duration ")):
        return None
    concat = re.fullmatch(r"file\s+(\S.*)", text)
    return re.sub(_QUOTED, lambda part: part[1] or part[2] or "", concat[1]) if concat else text
