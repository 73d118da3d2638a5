"""Layouts of the benchmarks: where frames, annotations and lists of videos are, and how objects are scored."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from i2v.errors import InvalidFileError, StrPath, locating
from i2v.utils.input_file import read_text
from i2v.utils.json_file import JsonValue, read_json
from i2v.utils.listing import visible_entries
from i2v.utils.output_folder import component
from sav_dataset.utils.mask_files import list_videos
from sav_dataset.utils.scores import ObjectKey


@dataclass(frozen=True)
class Layout:
    """Layout of a benchmark. Paths are relative to its root and tried in order; ``{split}`` is substituted.

    Attributes:
        images: Folders of frames.
        annotations: Folders of annotations.
        split: Default split.
        lists: Lists of videos.
        meta: Files with the categories of objects.
        object_folders: Whether masks are in a folder per object instead of in label images.
        single_object: As in ``EvaluationSettings``.
        skip: As in ``EvaluationSettings``.
        submission_folder: Folder inside the zip file that the benchmark's server expects.
    """

    images: tuple[str, ...]
    annotations: tuple[str, ...]
    split: str
    lists: tuple[str, ...] = ()
    meta: tuple[str, ...] = ()
    object_folders: bool = False
    single_object: bool = False
    skip: str = "first-last"
    submission_folder: str = ""


_DAVIS = Layout(("JPEGImages/480p", "JPEGImages"), ("Annotations/480p", "Annotations"), split="val")
_BY_SPLIT = Layout(
    images=("{split}/JPEGImages", "JPEGImages"),
    annotations=("{split}/Annotations", "Annotations"),
    split="valid",
    meta=("{split}/meta.json", "meta.json", "{split}_meta.json", "{split}/{split}_meta.json"),
)

LAYOUTS = {
    "sav": Layout(("JPEGImages_24fps",), ("Annotations_6fps",), split="test", object_folders=True),
    "davis2016": replace(
        _DAVIS, lists=("ImageSets/2016/{split}.txt", "ImageSets/480p/{split}.txt"), single_object=True
    ),
    "davis2017": replace(_DAVIS, lists=("ImageSets/2017/{split}.txt",)),
    "mose": _BY_SPLIT,
    "lvos": _BY_SPLIT,
    "ytvos": replace(_BY_SPLIT, skip="prompt", submission_folder="Annotations"),
}


@dataclass(frozen=True)
class Dataset:
    """A benchmark on disk.

    Attributes:
        name: Key in ``LAYOUTS``.
        layout: Its layout.
        images: Folder of frames.
        annotations: Folder of annotations.
        videos: Names of the videos to use.
        meta: File with the categories of objects, if there is one.
    """

    name: str
    layout: Layout
    images: Path
    annotations: Path
    videos: tuple[str, ...]
    meta: Path | None = None

    def frames(self, video: str) -> Path:
        """Path of a video's frames: a folder of images or, without one, an mp4."""
        folder, file = self.images / video, self.images / f"{video}.mp4"
        return file if file.is_file() and not folder.is_dir() else folder


def open_dataset(
    name: str,
    root: StrPath,
    split: str | None = None,
    images: StrPath | None = None,
    annotations: StrPath | None = None,
    video_list: StrPath | None = None,
) -> Dataset:
    """Find the files of a benchmark.

    Args:
        name: One of ``LAYOUTS``.
        root: Folder of the benchmark.
        split: Split, such as ``val``; ``None`` for the default.
        images: Folder of frames, if not at its usual place.
        annotations: Folder of annotations, if not at its usual place.
        video_list: List of the videos to use; ``None`` for that of the benchmark or, without one, all with frames.

    Raises:
        ValueError: If the name is unknown.
        FileNotFoundError: If something is missing, naming the paths tried.
    """
    if name not in LAYOUTS:
        raise ValueError(f"dataset: expected one of {', '.join(LAYOUTS)}, got {name!r}")
    layout, root = LAYOUTS[name], Path(root)
    split = split or layout.split
    frames = Path(images) if images else _first(root, layout.images, split, "folder of frames")
    masks = Path(annotations) if annotations else _first(root, layout.annotations, split, "folder of annotations")
    names = _list_file(root, layout, split, video_list)
    if names is None:
        files = (Path(entry.name) for entry in visible_entries(frames))
        names = sorted({*list_videos(frames), *(file.stem for file in files if file.suffix == ".mp4")})
    meta = next((path for path in _places(root, layout.meta, split) if path.is_file()), None)
    dataset = Dataset(name, layout, frames, masks, tuple(names), meta)
    missing = [video for video in names if not dataset.frames(video).exists()]
    if missing or not names:
        what = ", ".join(missing[:5]) + (", ..." if len(missing) > 5 else "")
        raise FileNotFoundError(f"{frames}: no frames of {what or 'any video'}")
    return dataset


def _list_file(root: Path, layout: Layout, split: str, video_list: StrPath | None) -> list[str] | None:
    if video_list is not None:
        return read_video_list(video_list)
    found = next((path for path in _places(root, layout.lists, split) if path.is_file()), None)
    return None if found is None else read_video_list(found)


def _first(root: Path, places: Sequence[str], split: str, what: str) -> Path:
    tried = _places(root, places, split)
    for path in tried:
        if path.is_dir():
            return path
    raise FileNotFoundError(f"no {what}; tried {', '.join(map(str, tried))}")


def _places(root: Path, places: Iterable[str], split: str) -> list[Path]:
    return [root / place.format(split=split) for place in places]


def read_video_list(path: StrPath) -> list[str]:
    """Read the videos of a list, one per line; blank lines are skipped.

    DAVIS 2016 lists the files of every frame instead: their folders are the videos.

    Raises:
        InvalidFileError: If the list is empty, or a name is not that of a folder.
    """
    names = []
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        if line.strip():
            name = line.split()[0]
            name = name.split("/")[-2] if name.endswith(".jpg") and "/" in name else name
            with locating(path, f"line {number}"):
                names.append(component(name))
    if not names:
        raise InvalidFileError(path, "no video in this list")
    return list(dict.fromkeys(names))


def unseen_objects(meta: StrPath, seen: Collection[str]) -> set[ObjectKey]:
    """Find the objects of a ``meta.json`` (YouTube-VOS, LVOS) whose category is not among the ``seen`` ones."""
    return {key for key, category in read_categories(meta).items() if category not in seen}


def read_categories(meta: StrPath) -> dict[ObjectKey, str]:
    """Read the category of every object from a ``meta.json``.

    Raises:
        InvalidFileError: If the file has another format.
    """
    categories = {key: entry.member("category").text() for key, entry in _read_objects(meta)}
    if not categories:
        raise InvalidFileError(meta, "expected categories of objects, got none")
    return categories


def read_seen_categories(path: StrPath) -> set[str]:
    """Read the categories of a training set from its ``meta.json``, or from a text file with one per line."""
    if Path(path).suffix == ".json":
        return set(read_categories(path).values())
    return {line.strip() for line in read_text(path).splitlines() if line.strip()}


def wanted_frames(meta: StrPath) -> dict[str, list[str]]:
    """Find the frames on which a ``meta.json`` asks for masks.

    Args:
        meta: The file.

    Returns:
        Sorted names of frames by video, without videos that have none.

    Raises:
        InvalidFileError: If the file has another format, or a name is not that of a file.
    """
    wanted: dict[str, set[str]] = {}
    for (video, _), entry in _read_objects(meta):
        frames = entry.get("frames")
        for frame in () if frames is None else frames.elements():
            with locating(meta, frame.place):
                wanted.setdefault(video, set()).add(component(frame.text()))
    return {video: sorted(frames) for video, frames in wanted.items()}


def _read_objects(meta: StrPath) -> Iterator[tuple[ObjectKey, JsonValue]]:
    """Iterate over the objects and their entries."""
    for video, content in read_json(meta).member("videos").members():
        with locating(meta, content.place):
            component(video)
        for obj, entry in content.member("objects").members():
            yield (video, obj), entry
