"""Whatever is in a file of masks, pictures or annotations: it is read, or refused in a sentence with its name."""

from __future__ import annotations

import contextlib
import io
import json
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_support import disc, rle
from fuzz_files import changed_json, mutated, png_files
from fuzz_support import Target, fuzz
from hypothesis import strategies as st
from PIL import Image

from i2v.annotator.footage import Footage
from i2v.annotator.importer import Target as ImportTarget
from i2v.annotator.importer import read_masks
from i2v.annotator.session_file import read_session
from i2v.errors import InvalidFileError
from i2v.results.export import read_label_png
from i2v.results.overlay import PALETTE
from i2v.results.rle import encode_mask
from i2v.utils.image_file import decode_image, load_image
from sav_dataset.utils.datasets import read_categories, read_video_list, wanted_frames
from sav_dataset.utils.label_pictures import read_binary, read_labels
from sav_dataset.utils.mask_info import MaskInfo, read_mask_info
from sav_dataset.utils.sav_utils import read_annotation
from test_pvs.mask_writer import mask_folder, write_binary_png
from train.dataset import frame_reader
from train.dataset.vos_raw_dataset import read_list
from train.dataset.vos_segment_loader import JSONSegmentLoader, SA1BSegmentLoader

HEIGHT, WIDTH, NUM_FRAMES = 48, 64, 10
MASK = disc(20, 20, 9, (HEIGHT, WIDTH))
COUNTS = encode_mask(MASK).decode()
RLE = rle(MASK)
FULL_RLE = {"size": [2, 3], "counts": [0, 6]}


def written(folder: Path, name: str, data: bytes) -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


# mask_info

MASK_INFO = {"video": "v", "object": "000", "size": [HEIGHT, WIDTH], "annotated": [0, 4], "counts": {"4": COUNTS}}


def use_mask_info(info: MaskInfo, folder: Path) -> None:
    """Ask for all masks, and write one to where test_pvs does."""
    for frame in info.annotated:
        assert info.mask(frame).shape == info.size
    with ThreadPoolExecutor(1) as threads, mask_folder(folder / "out", info.name, write_binary_png, threads) as masks:
        masks.put("00000.png", np.ones((2, 2), bool))
    assert (folder / "out" / info.name / "00000.png").is_file()


def read_mask_info_json(data: bytes, folder: Path) -> None:
    use_mask_info(read_mask_info(written(folder, "000.json", data)), folder)


def npy(content: object, protocol: int) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.array(content, dtype=object), allow_pickle=True)
    header = buffer.getvalue()[: buffer.getvalue().index(b"\n") + 1]
    return header + pickle.dumps(np.array(content, dtype=object), protocol=protocol)


def read_mask_info_npy(data: bytes, folder: Path) -> None:
    use_mask_info(read_mask_info(written(folder, "000.npy", data)), folder)


MASKS = {0: {0: MASK}, 300: {0: np.asfortranarray(MASK)}, 70_000: {0: np.zeros_like(MASK)}}

# Annotations of training, and the lists that go with them

SAV = {
    "video_id": "sav_000001",
    "video_height": float(HEIGHT),
    "video_width": float(WIDTH),
    "masklet": [[RLE, None], [RLE, RLE]],
    "masklet_first_appeared_frame": [0.0, 1.0],
}
SA1B = {"annotations": [{"segmentation": RLE, "area": 3}, {"segmentation": RLE, "uncertain_iou": 0.5}]}
META = {"videos": {"a": {"objects": {"1": {"category": "dog", "frames": ["00000", "00005"]}}}}}


def read_sav(data: bytes, folder: Path) -> None:
    path = written(folder, "sav_000001_manual.json", data)
    annotation = read_annotation(path)
    for frame in annotation.frames[:3]:
        assert all(mask.shape == annotation.size for mask in annotation.masks(frame))


def load_sav(data: bytes, folder: Path) -> None:
    loader = JSONSegmentLoader(written(folder, "a.json", data))
    for frame in loader.frames[:3]:
        loader.load(frame, loader.visible(frame)[:3])


def load_sa1b(data: bytes, folder: Path) -> None:
    loader = SA1BSegmentLoader(written(folder, "a.json", data))
    loader.load(0, loader.visible(0)[:3])


def read_meta(data: bytes, folder: Path) -> None:
    path = written(folder, "meta.json", data)
    for video, frames in wanted_frames(path).items():
        assert "/" not in video + "".join(frames)
    read_categories(path)


def read_lists(data: bytes, folder: Path) -> None:
    path = written(folder, "list.txt", data)
    assert not any(name in (".", "..") or "/" in name for name in read_video_list(path))
    read_list(path)


# The annotator


class _Footage(Footage):
    name, height, width, frame_rate, num_available = "clip", HEIGHT, WIDTH, None, NUM_FRAMES

    open = jpeg = close = None  # type: ignore[assignment]


def session_file(**changes: Any) -> dict[str, Any]:
    video = {"name": "clip", "width": WIDTH, "height": HEIGHT, "frames": NUM_FRAMES}
    objects = [{"number": 1, "name": "a"}, {"number": 2, "name": "b", "visible": False}]
    steps = [{"click": [1.0, 2.0, 1]}, {"box": [1, 2, 3, 4]}, {"mask": COUNTS}]
    prompts = [{"object": 1, "frame": 0, "steps": steps}]
    masks = [{"frame": 3, "objects": [{"id": 2, "segmentation": RLE, "object_score": 1.5, "iou": 0.5}]}]
    content = {"format": "i2v-session", "version": 1, "video": video, "next_number": 3}
    return {**content, "objects": objects, "prompts": prompts, "masks": masks, **changes}


def read_session_json(data: bytes, folder: Path) -> None:
    footage = _Footage.__new__(_Footage)
    saved = read_session(written(folder, "session.json", data), footage)
    assert all(0 <= frame < NUM_FRAMES for _, frame in saved.document.prompts)


def import_masks(name: str) -> Any:
    return lambda data, folder: read_masks(name, data, ImportTarget((HEIGHT, WIDTH), NUM_FRAMES, 1))


# Pictures


def picture(form: str, mode: str, **options: Any) -> bytes:
    image = Image.fromarray(np.arange(HEIGHT * WIDTH * 3, dtype=np.uint8).reshape(HEIGHT, WIDTH, 3)).convert(mode)
    if mode == "P":
        image = Image.fromarray(MASK.astype(np.uint8) * 2)
        image.putpalette(PALETTE.tobytes())
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


PNGS = [picture("PNG", mode) for mode in ("P", "L", "1", "RGB", "RGBA", "LA", "I;16")]
PICTURES = [
    picture("JPEG", "RGB"),
    picture("JPEG", "L", progressive=True),
    picture("JPEG", "CMYK"),
    picture("WEBP", "RGB"),
    picture("WEBP", "RGBA", lossless=True),
    picture("BMP", "RGB"),
    picture("BMP", "P"),
    picture("GIF", "P"),
    picture("TIFF", "RGB"),
    b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n(x) run\n",
]


def read_png(data: bytes, folder: Path) -> None:
    """With every reader of masks: each of them refuses the file, or gives a mask of its size."""
    path = written(folder, "00000.png", data)
    width, height = load_image(path).size
    for read in (read_label_png, read_labels, read_binary):
        with contextlib.suppress(InvalidFileError):
            assert read(path).shape == (height, width)


def read_picture(data: bytes, folder: Path) -> None:
    path = written(folder, "00000.jpg", data)
    frame_reader.read_image(path, 16)
    decode_image(data, "upload", size=(HEIGHT, WIDTH))


def seeds(*files: bytes) -> st.SearchStrategy[bytes]:
    return st.sampled_from(files)


def json_files(*templates: Any) -> st.SearchStrategy[bytes]:
    """Mostly well-formed ones; broken ones are all alike."""
    return st.one_of(changed_json(templates), changed_json(templates), mutated(seeds(*map(dumped, templates))))


def dumped(template: Any) -> bytes:
    return json.dumps(template).encode()


TARGETS = [
    Target("mask_info", json_files(MASK_INFO), read_mask_info_json),
    Target("mask_info_npy", mutated(seeds(*(npy(MASKS, protocol) for protocol in (2, 3, 4)))), read_mask_info_npy),
    Target("sav_json", json_files(SAV), read_sav),
    Target("training_json", json_files(SAV, SAV["masklet"], {"fps": 6, "masks": [[FULL_RLE]]}), load_sav),
    Target("sa1b_json", json_files(SA1B), load_sa1b),
    Target("meta_json", json_files(META), read_meta),
    Target("lists", mutated(seeds(b"a\nb\n\n", b"JPEGImages/480p/bear/00000.jpg x\n", "é\n".encode())), read_lists),
    Target("session", json_files(session_file()), read_session_json),
    Target("import_json", json_files({"frames": session_file()["masks"]}), import_masks("masks.json")),
    Target("import_png", st.one_of(png_files(), mutated(seeds(*PNGS))), import_masks("00003.png")),
    Target("palette_png", st.one_of(png_files(), mutated(png_files()), mutated(seeds(*PNGS))), read_png),
    Target("pictures", mutated(seeds(*PICTURES)), read_picture),
]


@pytest.mark.timeout(900)
@pytest.mark.parametrize("target", TARGETS, ids=str)
def test_no_file_breaks_a_reader(target: Target, tmp_path: Path, fuzz_seconds: float) -> None:
    fuzz(target, tmp_path, fuzz_seconds)
