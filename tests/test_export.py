"""Label maps, palette PNGs, run-length JSON and the folder of results."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from export_support import (
    Array,
    Score,
    decode,
)
from PIL import Image
from pycocotools import mask as coco_mask

from i2v.results.export import ResultFolder, assign_labels, label_map, read_label_png, write_label_png
from i2v.results.masks_json import RleJson
from i2v.results.overlay import PALETTE, UserPrompt


class Video:
    """Frame t is a plain picture of brightness 10 * t, made when asked for."""

    frame_rate: float | None = 12.5

    def __init__(self, height: int = 48, width: int = 64) -> None:
        self.shape = (height, width, 3)

    def read(self, frame: int) -> Array:
        return np.full(self.shape, 10 * frame % 256, np.uint8)


def square(value: int, top: int = 8, left: int = 16, side: int = 16) -> Array:
    labels = np.zeros((48, 64), np.uint8)
    labels[top : top + side, left : left + side] = value
    return labels


def logits_of(*masks: Array) -> torch.Tensor:
    return torch.stack([torch.from_numpy(mask > 0).float()[None] * 8 - 4 for mask in masks])


def test_labels_are_ids_where_they_fit_and_positions_otherwise() -> None:
    assert assign_labels([7, 2, 7, 255]) == {7: 7, 2: 2, 255: 255}
    assert assign_labels([7, 0]) == {7: 1, 0: 2}
    assert assign_labels([256, 3]) == {256: 1, 3: 2}
    assert assign_labels(["cat", 3]) == {"cat": 1, 3: 2}
    assert list(assign_labels(range(1000, 1255)).values()) == list(range(1, 256))
    with pytest.raises(ValueError, match="at most 255 objects, got 256"):
        assign_labels(range(256))


def test_the_object_of_highest_positive_logit_gets_the_pixel() -> None:
    logits = torch.tensor([[1.0, 2.0, -1.0, 0.0, 3.0], [2.0, 1.0, -2.0, -1.0, -9.0]])[:, None, None]
    assert label_map(logits, [9, 200]).tolist() == [[200, 9, 0, 0, 9]]
    assert label_map(torch.zeros(0, 1, 2, 3), []).tolist() == [[0, 0, 0], [0, 0, 0]]
    with pytest.raises(ValueError, match="expected 2, one per object, got 1"):
        label_map(logits, [9])


def test_label_png_keeps_indices_and_shows_palette_colours(tmp_path: Path) -> None:
    labels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    write_label_png(tmp_path / "a.png", labels)
    np.testing.assert_array_equal(read_label_png(tmp_path / "a.png"), labels)
    with Image.open(tmp_path / "a.png") as image:
        assert image.mode == "P"
        np.testing.assert_array_equal(np.asarray(image.convert("RGB")).reshape(-1, 3), PALETTE)


def test_rle_json_holds_masks_boxes_areas_and_scores(tmp_path: Path) -> None:
    path = tmp_path / "masks.json"
    labels = square(7)
    labels[40:42, 0:3] = 9
    with RleJson(path, {7: 7, 9: 9}, frame_rate=25.0) as writer:
        writer.write(4, labels, {7: Score(2.5, 0.75), 9: Score(float("nan"), 0.123456)})
        writer.write(5, np.zeros_like(labels), {7: Score(-3.0, 0.1), 9: None})
        assert not path.exists()
    text = path.read_text()
    assert ": " not in text
    content = json.loads(text)
    assert content["size"] == [48, 64]
    assert content["frame_rate"] == 25.0
    assert content["objects"] == [{"id": 7, "label": 7}, {"id": 9, "label": 9}]
    assert [record["frame"] for record in content["frames"]] == [4, 5]
    seven, nine = content["frames"][0]["objects"]
    assert (seven["id"], seven["bbox"], seven["area"]) == (7, [16, 8, 16, 16], 256)
    assert (seven["object_score"], seven["iou"]) == (2.5, 0.75)
    assert (nine["bbox"], nine["area"], nine["object_score"], nine["iou"]) == ([0, 40, 3, 2], 6, None, 0.1235)
    np.testing.assert_array_equal(coco_mask.decode(nine["segmentation"]), labels == 9)
    absent, unknown = content["frames"][1]["objects"]
    assert (absent["area"], absent["bbox"], absent["object_score"]) == (0, [0, 0, 0, 0], -3.0)
    assert (unknown["object_score"], unknown["iou"]) == (None, None)


def test_rle_json_of_a_failed_run_is_valid_and_of_an_empty_one_absent(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), RleJson(tmp_path / "a.json", {1: 1}) as writer:
        writer.write(0, square(1), {1: Score(2.5, 0.75)})
        raise KeyboardInterrupt
    assert len(json.loads((tmp_path / "a.json").read_text())["frames"]) == 1
    with RleJson(tmp_path / "b.json", {1: 1}):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_results_of_a_backward_run_come_out_in_the_order_of_the_video(tmp_path: Path) -> None:
    results = ResultFolder(tmp_path / "out", [3, 300])
    assert not results.folder.exists()
    for frame in (6, 5, 4, 3):
        near, far = square(1, left=2 * frame), square(1, top=30)
        results.add(frame, [3, 300], logits_of(near, far), {3: Score(2.5, frame / 10)})
    results.finish(Video(), [UserPrompt(3, 6, ((14.0, 9.0, 1),))])
    assert results.frames == [3, 4, 5, 6]
    assert sorted(path.name for path in results.folder.iterdir()) == [
        "contact_sheet.png",
        "masks",
        "masks.json",
        "objects.csv",
        "overlay.mp4",
    ]
    names = sorted(path.name for path in (results.folder / "masks").iterdir())
    assert names == ["00003.png", "00004.png", "00005.png", "00006.png"]
    frames = decode(results.folder / "overlay.mp4")
    assert [round(float(frame[:5].mean())) for frame in frames] == pytest.approx([30, 40, 50, 60], abs=2)
    content = json.loads((results.folder / "masks.json").read_text())
    assert content["objects"] == [{"id": 3, "label": 1}, {"id": 300, "label": 2}]
    for record, frame in zip(content["frames"], (3, 4, 5, 6), strict=True):
        assert record["frame"] == frame
        png = read_label_png(results.mask_path(frame))
        for entry, label in zip(record["objects"], (1, 2), strict=True):
            np.testing.assert_array_equal(coco_mask.decode(entry["segmentation"]), png == label)
            assert entry["area"] == 256
        assert [entry["iou"] for entry in record["objects"]] == [frame / 10, None]


def test_results_replace_older_ones_only_when_told_and_leave_other_files(tmp_path: Path) -> None:
    masks = tmp_path / "masks"
    masks.mkdir()
    for path in (tmp_path / "overlay.mp4", tmp_path / "notes.txt", masks / "00009.png", masks / "mine.png"):
        path.write_text("old")
    with pytest.raises(FileExistsError, match="is not empty: give --overwrite"):
        ResultFolder(tmp_path, [1])
    results = ResultFolder(tmp_path, [1], overwrite=True)
    assert (masks / "00009.png").exists()
    results.add(0, [1], logits_of(square(1)), {1: Score(2.5, 0.75)})
    # The JSON grows under a temporary name.
    visible = sorted(path.name for path in tmp_path.rglob("*") if not path.name.startswith("."))
    assert visible == ["00000.png", "masks", "mine.png", "notes.txt"]
    with pytest.raises(FileExistsError, match="is a file"):
        ResultFolder(tmp_path / "notes.txt", [1], overwrite=True)


def test_a_run_without_frames_writes_nothing(tmp_path: Path) -> None:
    ResultFolder(tmp_path / "out", [1]).finish(Video(), [])
    assert list(tmp_path.iterdir()) == []


def test_memory_does_not_grow_with_the_video(tmp_path: Path) -> None:
    def peak(num_frames: int) -> int:
        video = Video(240, 320)
        logits = torch.full((1, 1, 240, 320), -1.0)
        logits[..., 50:100, 50:100] = 1
        results = ResultFolder(tmp_path / str(num_frames), [1])
        tracemalloc.start()
        for frame in range(num_frames):
            results.add(frame, [1], logits, {1: Score(2.5, 0.75)})
        results.finish(video, [])
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return used

    peak(2)  # first use loads fonts and codecs
    # 45 more frames are 10 MB of pictures.
    assert peak(60) - peak(15) < 1_000_000
