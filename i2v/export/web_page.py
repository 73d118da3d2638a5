"""Exporting a predictor's model as a page that tracks in the browser: its parts, the page, and onnxruntime-web."""

from __future__ import annotations

import json
import re
import shutil
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import i2v
from i2v.download import fetch
from i2v.errors import InvalidFileError, brief, reading
from i2v.export.description import FILE_NAME, PART_NAMES, ModelDescription
from i2v.export.exporter import check_exportable, write_parts
from i2v.i2v_video_predictor import I2VVideoPredictor
from i2v.results.overlay import PALETTE
from i2v.utils.output_folder import new_folder

ORT_VERSION = "1.30.0"
ORT_URL = (
    f"https://registry.npmjs.org/onnxruntime-web/-/onnxruntime-web-{ORT_VERSION}.tgz"
    "#sha512=ab4cbe26baedba45d2cec05610c71c55fa97db92d19a8b171c5f8269126683ca"
    "590a5cdc57bb2f35ce2b298de32f4d956fb42644c0ecd528a0a91e025c07ca61"
)
"""The package of onnxruntime-web in npm's registry, and its checksum as npm publishes it."""

MAX_ORT_BYTES = 64 << 20  # of the package, and of each file that is taken from it
ORT_FILES = ("ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm")
"""Files of onnxruntime-web that the page needs. They are in the package's folder ``dist``."""

PAGE_FILES = (
    *("index.html", "style.css", "onnxruntime_license.txt"),
    *("main.js", "page.js", "frame_source.js", "picture.js", "results.js"),
    *("video_predictor.js", "prompt_answers.js", "memory_selection.js", "mask_arrays.js", "crop_box.js"),
    *("frame_encoder.js", "network.js"),
)
SHARED_FILES = ("cache.js", "overlay.js", "rle.js")
"""Files of the page, and those that it shares with the annotator's."""

SETTINGS_NAME = "page.json"
NUM_COLOURS = 24
CLIP_NAME = "clip"

_MADE = "|".join(map(re.escape, (FILE_NAME, SETTINGS_NAME, *ORT_FILES, *PAGE_FILES, *SHARED_FILES)))
MADE_FILES = rf"{_MADE}|({'|'.join(PART_NAMES)})\.onnx|{CLIP_NAME}\.[a-z0-9]+"
"""Regular expression of the names of the files of such an export."""

_PACKAGE = Path(i2v.__file__).parent
_MAGIC = {ORT_FILES[0]: b"ONNX Runtime Web v", ORT_FILES[1]: b"\0asm"}  # near their beginning


@dataclass(frozen=True)
class PageContent:
    """What a page has besides the model.

    Attributes:
        runtime: The folder of onnxruntime-web, or of its files; by default it is fetched from npm's registry.
        clip: A video that the page opens at its start, in a format that browsers play.
    """

    runtime: Path | None = None
    clip: Path | None = None


def export_page(
    predictor: I2VVideoPredictor,
    folder: Path,
    name: str,
    weight_type: str = "float32",
    content: PageContent | None = None,
    overwrite: bool = False,
    progress: Callable[[str], None] = lambda part: None,
) -> ModelDescription:
    """Export a predictor's model as a page. ``i2v.onnx_runtime`` tracks with its folder, too.

    Args:
        predictor: The predictor, on a CPU. It does not change.
        folder: The folder to make.
        name: What the model is called in the description.
        weight_type: Type in which large weights are stored, one of ``WEIGHT_TYPES``. All parts compute in float32.
        content: What else the page has.
        overwrite: Whether to replace an earlier export.
        progress: Called with what comes next.

    Returns:
        The description of the model.

    Raises:
        ValueError: If the type or a setting of the predictor cannot be exported, or a given file is not what it should
            be.
        FileNotFoundError: If a given file or folder does not exist.
        FileExistsError: If the folder exists and may not be replaced, or has files in it that are of no export.
        RuntimeError: If a package is missing that export needs.
        DownloadError: If onnxruntime-web cannot be fetched.
        OSError: If a file cannot be written.
    """
    content = content or PageContent()
    check_exportable(predictor, "onnx", weight_type)
    if content.clip is not None:
        _check_clip(content.clip)
    with new_folder(folder.parent, folder.name, MADE_FILES, overwrite) as hidden:
        progress("onnxruntime-web")
        _take_runtime(content.runtime, hidden)
        _write_page(hidden, content.clip)
        return write_parts(predictor, hidden, name, "onnx", weight_type, progress)


def _check_clip(clip: Path) -> None:
    """Check that a clip is a video, which whoever opens the page would find out otherwise."""
    from i2v.video.video_file import VideoFile

    if not re.fullmatch(r"\.[A-Za-z0-9]+", clip.suffix):
        raise ValueError(f"{clip}: expected a video file with a suffix such as .mp4, by which browsers know it")
    VideoFile(str(clip)).close()


def _write_page(folder: Path, clip: Path | None) -> None:
    for place, names in (("export/web", PAGE_FILES), ("annotator/static/js", SHARED_FILES)):
        for name in names:
            shutil.copyfile(_PACKAGE / place / name, folder / name)
    colours = ["#" + bytes(colour).hex() for colour in PALETTE[1 : NUM_COLOURS + 1]]
    clip_name = None if clip is None else f"{CLIP_NAME}{clip.suffix.lower()}"
    if clip is not None and clip_name is not None:
        shutil.copyfile(clip, folder / clip_name)
    settings = {"clip": clip_name, "palette": colours}
    (folder / SETTINGS_NAME).write_text(json.dumps(settings, indent=1) + "\n")


def _take_runtime(given: Path | None, folder: Path) -> None:
    """Copy the files of onnxruntime-web into a folder."""
    if given is None:
        _unpack(fetch(ORT_URL, max_bytes=MAX_ORT_BYTES), folder)
    for name in ORT_FILES:
        if given is not None:
            shutil.copyfile(_find(given, name), folder / name)
        with (folder / name).open("rb") as file:
            if _MAGIC[name] not in file.read(1024):
                raise InvalidFileError(given or name, f"{name} is not that of onnxruntime-web")


def _find(runtime: Path, name: str) -> Path:
    for place in (runtime, runtime / "dist"):
        if (place / name).is_file():
            return place / name
    raise FileNotFoundError(
        f"{runtime}: expected the folder of onnxruntime-web, but {name} is neither there nor in dist: make it with "
        f"`npm pack onnxruntime-web@{ORT_VERSION}` and `tar xzf`, or leave --ort out to fetch it"
    )


def _unpack(package: Path, folder: Path) -> None:
    """Take the files of onnxruntime-web, and nothing else, from npm's package."""
    with reading(package, "this package of npm"), tarfile.open(package) as archive:
        for name in ORT_FILES:
            member = archive.getmember(f"package/dist/{name}")
            content = archive.extractfile(member)
            if content is None or member.size > MAX_ORT_BYTES:
                raise InvalidFileError(
                    package, f"{brief(member.name)}: expected a file of at most {MAX_ORT_BYTES:,} bytes"
                )
            with content, (folder / name).open("wb") as file:
                shutil.copyfileobj(content, file)
