"""Results of tracking as datasets."""

from __future__ import annotations

import contextlib
import io
import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
import torch
from export_support import write_clip
from pycocotools.coco import COCO
from support import options_of_tiny_track

from i2v.cli.main import main
from i2v.results.datasets import DATASET_FORMATS, write_datasets
from i2v.results.export import ResultFolder, read_label_png
from i2v.results.polygons import fill_polygons

SIZE = (30, 40)


class Score:
    object_score, iou = 2.0, 0.5


class Grey:
    frame_rate = 5.0

    def read(self, frame: int) -> np.ndarray:
        return np.full((*SIZE, 3), 10 * frame, np.uint8)


def logits(*boxes: tuple[int, int, int, int]) -> torch.Tensor:
    found = torch.full((len(boxes), 1, *SIZE), -5.0)
    for plane, (top, bottom, left, right) in zip(found, boxes, strict=True):
        plane[0, top:bottom, left:right] = 5.0
    return found


@pytest.fixture
def results(tmp_path: Path) -> ResultFolder:
    made = ResultFolder(tmp_path / "out", [3, 7])
    for frame in (2, 4, 5):
        scores = {3: Score(), 7: Score()}
        second = (20, 25, 5, 9) if frame < 5 else (0, 0, 0, 0)
        made.add(frame, [3, 7], logits((2, 12, frame, 10 + frame), second), scores)
    made.finish(Grey(), [])
    return made


def labels(results: ResultFolder) -> dict[int, np.ndarray]:
    return {frame: read_label_png(results.mask_path(frame)) for frame in results.frames}


def load(path: Path) -> COCO:
    with contextlib.redirect_stdout(io.StringIO()):
        return COCO(str(path))


def test_every_format_has_the_masks_of_the_pngs(results: ResultFolder) -> None:
    written = write_datasets(results.folder, DATASET_FORMATS, {3: "cup", 7: "plate"})
    assert [path.name for path in written] == ["coco.json", "yolo", "labelme", "youtube_vis.json", "cvat.xml"]
    wanted = labels(results)
    coco = load(results.folder / "coco.json")
    assert [category["name"] for category in coco.loadCats([1, 2])] == ["cup", "plate"]
    for frame, merged in wanted.items():
        found = np.zeros(SIZE, np.uint8)
        for annotation in coco.loadAnns(coco.getAnnIds(imgIds=[frame + 1])):
            assert annotation["score"] == pytest.approx(0.5 / (1 + np.exp(-2)), abs=1e-4)
            found[coco.annToMask(annotation).astype(bool)] = annotation["track_id"]
        np.testing.assert_array_equal(found, merged)
        yolo = np.zeros(SIZE, np.uint8)
        for line in (results.folder / "yolo" / f"{frame:05d}.txt").read_text().splitlines():
            category, *numbers = line.split()
            corners = np.array(numbers, float).reshape(-1, 2) * SIZE[::-1]
            yolo[fill_polygons([corners], SIZE)] = (3, 7)[int(category)]
        np.testing.assert_array_equal(yolo, merged)
        content = json.loads((results.folder / "labelme" / f"{frame:05d}.json").read_text())
        labelme = np.zeros(SIZE, np.uint8)
        for shape in content["shapes"]:
            labelme[fill_polygons([np.array(shape["points"])], SIZE)] = shape["group_id"]
        np.testing.assert_array_equal(labelme, merged)
    vis = json.loads((results.folder / "youtube_vis.json").read_text())
    lengths = {entry["id"]: [area is not None for area in entry["areas"]] for entry in vis["annotations"]}
    assert lengths == {3: [False, False, True, False, True, True], 7: [False, False, True, False, True, False]}
    in_view = {number: [] for number in (3, 7)}
    for track in ElementTree.parse(results.folder / "cvat.xml").getroot().iter("track"):
        number = int(track.attrib["group_id"])
        assert track.attrib["label"] == {3: "cup", 7: "plate"}[number]
        for shape in track:
            if shape.attrib["outside"] == "0":
                frame = int(shape.attrib["frame"])
                corners = [[float(v) for v in pair.split(",")] for pair in shape.attrib["points"].split(";")]
                np.testing.assert_array_equal(fill_polygons([np.array(corners)], SIZE), wanted[frame] == number)
                in_view[number].append(frame)
    assert in_view == {3: [2, 4, 5], 7: [2, 4]}


def test_what_is_no_result_is_refused(results: ResultFolder, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected coco, yolo, labelme, youtube_vis, cvat, got 'voc'"):
        write_datasets(results.folder, ["voc"])  # type: ignore[list-item]
    with pytest.raises(FileNotFoundError, match=r"masks\.json"):
        write_datasets(tmp_path, ["coco"])
    for content in ("", "[]", '{"frames":[', '{"size":[1],"objects":[],"frames":['):
        (tmp_path / "masks.json").write_text(content)
        with pytest.raises(ValueError, match=r"masks\.json: expected masks as i2v track writes them"):
            write_datasets(tmp_path, ["coco"])
    assert not (tmp_path / "coco.json").exists()


def test_track_writes_datasets(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    clip, out = write_clip(tmp_path / "clip"), tmp_path / "out"
    options = ["--click", "20,20", "--dataset", "coco", "--dataset", "yolo", "--out", str(out)]
    assert main(["track", str(clip), *options, *options_of_tiny_track(tmp_path)]) == 0
    assert f"wrote {out / 'coco.json'}" in capsys.readouterr().out
    coco = load(out / "coco.json")
    images = coco.loadImgs(coco.getImgIds())
    pngs = sorted((out / "masks").iterdir())
    assert len(images) == len(pngs) == len(list((out / "yolo").glob("*.txt")))
    for image, path in zip(images, pngs, strict=True):
        assert Path(image["file_name"]).stem == path.stem  # frames that are files keep their names
        mask = read_label_png(path) == 1
        annotations = coco.loadAnns(coco.getAnnIds(imgIds=[image["id"]]))
        assert len(annotations) == mask.any()
        for annotation in annotations:
            np.testing.assert_array_equal(coco.annToMask(annotation).astype(bool), mask)
    assert main(["track", str(clip), "--click", "20,20", "--dataset", "voc"]) == 2
