"""Videos that are picture files: folders, glob patterns and lists of them."""

from __future__ import annotations

import glob
import itertools
import os
import re
from collections.abc import Iterable, Sequence

import numpy as np

from i2v.errors import InvalidFileError, brief, locating
from i2v.utils.file_pattern import NUMBER
from i2v.utils.image_file import FRAME_FORMATS, MAX_BYTES, decode_image, read_image_size
from i2v.utils.input_file import read_input, read_text
from i2v.video.frame_source import IMAGE_SUFFIXES, FrameSource, natural_key, picture_to_rgb

LIST_SUFFIXES = (".txt", ".lst", ".list", ".ffconcat")
_KINDS = {".jpeg": ".jpg", ".jpe": ".jpg", ".jfif": ".jpg", ".tiff": ".tif", ".j2k": ".jp2"}


class ImageFiles(FrameSource):
    """Picture files in a given order; a frame's number is its place in that order.

    Pictures are taken as stored: EXIF orientation is not applied, as in the published model. All must have the size of
    the first, which is checked when a frame is read.
    """

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
        self.name = name
        self.frame_rate = None
        # They may be read from another working directory, in another process.
        self._paths = [os.path.abspath(os.fspath(path)) for path in paths]
        self._shown = [os.fspath(path) for path in paths]
        self.height, self.width = read_image_size(self._shown[0], FRAME_FORMATS)

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

    def read(self, index: int) -> np.ndarray:
        """Return frame ``index`` as (H,W,3) uint8.

        Raises:
            IndexError: If there is no such frame.
            InvalidFileError: If its file is damaged or of another size.
        """
        self._check_index(index)
        image = decode_image(read_input(self._paths[index], MAX_BYTES), self._shown[index], FRAME_FORMATS)
        if image.size != (self.width, self.height):
            raise InvalidFileError(
                self._shown[index],
                f"the image is {image.width}x{image.height}, expected {self.width}x{self.height} "
                f"like the first one, {os.path.basename(self._paths[0])}",
            )
        with locating(self._shown[index]):
            return picture_to_rgb(image)


class ImageFolder(ImageFiles):
    """The pictures of a folder in natural order.

    Files with the suffixes of ``IMAGE_SUFFIXES`` count, in any letter case; others, sub-folders and names that start
    with a dot are passed over.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        """List the folder.

        Raises:
            OSError: If there is no such folder.
            ValueError: If it holds no images that are read, or images that are not one sequence; see
                ``check_sequence``.
        """
        name = os.fspath(folder)
        with os.scandir(name) as entries:
            names = [entry.name for entry in entries if _is_image(entry.name) and entry.is_file()]
        if not names:
            raise ValueError(f"{name}: no images in this folder: expected {' '.join(IMAGE_SUFFIXES)}")
        check_sequence(names, name)
        super().__init__([os.path.join(name, file) for file in sorted(names, key=natural_key)], name)


def image_pattern(pattern: str) -> ImageFiles:
    """Open the pictures that a pattern matches, in natural order.

    Args:
        pattern: A path with ``*``, ``?``, ``[...]`` or ``**``, or with one number as FFmpeg writes it, ``%d`` or
            ``%05d``.

    Raises:
        FileNotFoundError: If no file matches.
        ValueError: If a match is no picture, or they are not one sequence; see ``check_sequence``.
    """
    found = _numbered_files(pattern) if NUMBER.search(pattern) else _globbed(pattern)
    paths: list[str] = [path for path in found if os.path.isfile(path) and not os.path.basename(path).startswith(".")]
    if not paths:
        raise FileNotFoundError(f"{pattern}: no file matches this pattern")
    strange = next((path for path in paths if not _is_image(os.path.basename(path))), None)
    if strange is not None:
        raise ValueError(f"{pattern}: {strange} is no picture, expected {' '.join(IMAGE_SUFFIXES)}")
    for folder, names in itertools.groupby(sorted(paths, key=os.path.dirname), key=os.path.dirname):
        check_sequence([os.path.basename(path) for path in names], os.path.join(folder, os.path.basename(pattern)))
    paths.sort(key=_path_key)
    return ImageFiles(paths, pattern)


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


def check_sequence(names: Iterable[str], where: str) -> None:
    """Check that pictures of one folder can be the frames of one video.

    Frames and their masks often lie in one folder, and would be taken for twice as many frames.

    Args:
        names: File names.
        where: The folder, for messages.

    Raises:
        ValueError: If two files have the same stem or number, if there are files of several kinds (such as JPEG and
            PNG) whose names differ by more than their numbers, or if names differ so and count the same frames twice.
    """
    numbers: dict[str, dict[tuple[int, ...], str]] = {}
    stems: dict[str, str] = {}
    kinds: dict[str, str] = {}
    for name in sorted(names):
        stem, suffix = os.path.splitext(name.casefold())
        if stem in stems:
            _fail(where, f"{stems[stem]} and {name} have the same name")
        stems[stem] = name
        kinds.setdefault(_KINDS.get(suffix, suffix), name)
        parts = re.split(r"([0-9]+)", stem)
        of_pattern = numbers.setdefault("#".join(parts[::2]), {})
        number = tuple(map(int, parts[1::2]))
        if number in of_pattern:
            _fail(where, f"{of_pattern[number]} and {name} have the same number")
        of_pattern[number] = name
    if len(numbers) > 1 and len(kinds) > 1:
        _fail(where, f"there are images of several kinds and names, such as {' and '.join(kinds.values())}")
    _check_overlap(list(numbers.values()), where)


def _check_overlap(series: list[dict[tuple[int, ...], str]], where: str) -> None:
    """ValueError if two series of names count the same frames, as 0.png, 1.png, 0_mask.png, 1_mask.png."""
    owners: dict[tuple[int, ...], list[int]] = {}
    long = [numbers for numbers in series if len(numbers) > 1 and () not in numbers]
    for place, numbers in enumerate(long):
        for number in numbers:
            owners.setdefault(number, []).append(place)
    shared: dict[tuple[int, int], int] = {}
    for places in owners.values():
        for pair in itertools.combinations(places[:8], 2):
            shared[pair] = shared.get(pair, 0) + 1
    for (first, second), count in shared.items():
        if 2 * count >= min(len(long[first]), len(long[second])):
            number = next(number for number in long[first] if number in long[second])
            _fail(where, f"{long[first][number]} and {long[second][number]} both count as frame {number[-1]}")


def _fail(where: str, reason: str) -> None:
    raise ValueError(
        f"{where}: {reason}: expected the frames of one video; where masks lie beside them, give a pattern like *.jpg"
    )


def _is_image(name: str) -> bool:
    # A leading dot marks hidden files, among them the ones macOS leaves beside each copied picture.
    return name.lower().endswith(IMAGE_SUFFIXES) and not name.startswith(".")


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
    concat = re.fullmatch(r"file\s+(?:'([^']*)'|(\S.*))", text)
    return (concat[1] or concat[2]) if concat else text
