"""`i2v segment` on rendered pictures with a tiny model, and on real photos with i2v-nano."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from support import TINY, make_predictor, render_video

from i2v.checkpoint import save_checkpoint
from i2v.cli.main import main
from i2v.i2v_image_predictor import I2VImagePredictor
from i2v.i2v_video_predictor import I2VVideoPredictor
from i2v.results.export import read_label_png
from i2v.utils import picture_file

MODEL = ["--config", str(TINY), "--checkpoint", "w.pt", "--device", "cpu"]
HEIGHT, WIDTH = 48, 64


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with a picture, three more in a folder, and a model's weights."""
    monkeypatch.chdir(tmp_path)
    frames = render_video(4)
    save_checkpoint(make_predictor().model, tmp_path / "w.pt")
    Image.fromarray(frames[0]).save("one.png")
    Path("many").mkdir()
    for number, frame in enumerate(frames[1:], start=9):
        Image.fromarray(frame[: HEIGHT - number]).save(f"many/{number}.png")
    return tmp_path


def coco_of(out: Path) -> dict[str, Any]:
    COCO(str(out / "annotations.json"))  # which checks the form
    return json.loads((out / "annotations.json").read_text())


def masks_of(out: Path, image: dict[str, Any]) -> Iterator[tuple[dict[str, Any], np.ndarray]]:
    for annotation in coco_of(out)["annotations"]:
        if annotation["image_id"] == image["id"]:
            yield annotation, coco_mask.decode(annotation["segmentation"]).astype(bool)


def check_results(out: Path, names: list[str]) -> None:
    """Label maps, overlays and COCO are there for these pictures, and agree."""
    content = coco_of(out)
    assert [image["file_name"] for image in content["images"]] == names
    masks = [image["mask"] for image in content["images"]]
    assert sorted(path.name for path in (out / "masks").iterdir()) == sorted(masks)
    assert sorted(path.stem for path in (out / "overlays").iterdir()) == sorted(Path(mask).stem for mask in masks)
    assert [a["id"] for a in content["annotations"]] == list(range(1, len(content["annotations"]) + 1))
    for image in content["images"]:
        labels = read_label_png(out / "masks" / image["mask"])
        assert labels.shape == (image["height"], image["width"])
        overlay = Image.open(out / "overlays" / f"{Path(image['mask']).stem}.jpg")
        assert overlay.size == (image["width"], image["height"])
        covered = np.zeros(labels.shape, bool)
        for annotation, mask in masks_of(out, image):
            ys, xs = np.nonzero(mask)
            assert annotation["area"] == mask.sum() > 0 and annotation["category_id"] == 1
            assert annotation["bbox"] == [xs.min(), ys.min(), np.ptp(xs) + 1, np.ptp(ys) + 1]
            assert not (labels == annotation["label"])[~mask].any(), "a label lies within its mask"
            assert 0 <= annotation["score"] <= 1
            covered |= mask
        np.testing.assert_array_equal(labels > 0, covered)


def test_masks_are_those_of_a_video_of_one_frame(folder: Path, capsys: Any) -> None:
    prompts = "--click 20,19 --click 60,2,0 --object 7 --box 35,22,55,40 --object 3 --click 48,31"
    assert main(["segment", "one.png", *prompts.split(), *MODEL]) == 0
    out = Path("one_i2v")
    check_results(out, ["one.png"])
    printed = capsys.readouterr().out
    assert "3 masks in 1 image, " in printed and "one_i2v/annotations.json" in printed

    video = make_predictor()
    with video.init_state(render_video(1)) as state:
        video.add_new_points_or_box(state, 0, 1, [[20, 19], [60, 2]], [1, 0])
        video.add_new_points_or_box(state, 0, 7, box=[35, 22, 55, 40])
        _, obj_ids, logits = video.add_new_points_or_box(state, 0, 3, [[48, 31]], [1])
    found = {annotation["object_id"]: mask for annotation, mask in masks_of(out, {"id": 1})}
    assert list(found) == obj_ids == [1, 7, 3]
    planes = logits[:, 0].numpy()
    for obj_id, plane in zip(obj_ids, planes, strict=True):
        np.testing.assert_array_equal(found[obj_id], plane > 0)
    winner = np.array(obj_ids)[planes.argmax(axis=0)]
    expected = np.where(planes.max(axis=0) > 0, winner, 0)
    np.testing.assert_array_equal(read_label_png(out / "masks" / "one.png"), expected)


def test_prompts_count_for_every_picture(folder: Path, capsys: Any) -> None:
    assert main(["segment", "many", "--click", "20,19", *MODEL]) == 0
    check_results(Path("many_i2v"), ["9.png", "10.png", "11.png"])
    assert {a["object_id"] for a in coco_of(Path("many_i2v"))["annotations"]} == {1}
    assert main(["segment", "many/1*.png", "one.png", "--click", "20,19", *MODEL]) == 0
    check_results(Path("images_i2v"), ["10.png", "11.png", "one.png"])
    capsys.readouterr()


def test_pictures_of_the_same_name_are_numbered(folder: Path) -> None:
    shutil.copy("one.png", "many/one.png")
    assert main(["segment", "one.png", "many/one.png", "--click", "20,19", "--out", "out", *MODEL]) == 0
    check_results(Path("out"), ["one.png", "many/one.png"])
    assert sorted(path.name for path in Path("out/masks").iterdir()) == ["00000.png", "00001.png"]


def test_everything_is_found_from_a_grid(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    predict = I2VImagePredictor.predict_low_res

    def counted(self: Any, points: Any, *args: Any, **kwargs: Any) -> Any:
        asked.append(len(points))
        return predict(self, points, *args, **kwargs)

    monkeypatch.setattr(I2VImagePredictor, "predict_low_res", counted)
    options = "--points-per-side 4 --pred-iou-thresh 0 --stability-score-thresh 0 --min-mask-region-area 5"
    assert main(["segment", "one.png", "many", "--everything", *options.split(), "--out", "out", *MODEL]) == 0
    check_results(Path("out"), ["one.png", "9.png", "10.png", "11.png"])
    assert asked == [16] * 4
    annotations = coco_of(Path("out"))["annotations"]
    assert annotations and all(0 <= a["stability_score"] <= 1 and len(a["point"]) == 2 for a in annotations)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("one.png", "nothing to segment: prompt an object with --click or --box, or ask for --everything"),
        ("one.png --everything --click 1,2", "--everything finds objects by itself"),
        ("one.png --everything --object 2", "--everything finds objects by itself"),
        ("one.png --click 1,2 --points-per-side 8", "--points-per-side is about --everything"),
        ("one.png --everything --points-per-side 0", "argument --points-per-side: expected a whole number from 1 up"),
        ("one.png --everything --pred-iou-thresh 2", "argument --pred-iou-thresh: expected a number from 0 to 1"),
        ("one.png --click 1,2 --object 2", "--object 2 applies to the prompts that follow, but there are none"),
        ("one.png --click 1", "argument --click: expected X,Y or X,Y,0 in pixels"),
        ("one.png --frame 1 --click 1,2", "unrecognized arguments: --frame"),
        ("--everything", "the following arguments are required: IMAGE"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_2(folder: Path, options: str, message: str, capsys: Any) -> None:
    assert main(["segment", *options.split()]) == 2
    error = capsys.readouterr().err
    assert error.startswith("i2v: error: ") and message in error and error.count("\n") == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("none.png --everything", "none.png: no such image file or folder of images"),
        ("none*.png --everything", "none*.png: no file matches this pattern"),
        ("empty --everything", "empty: no images in this folder"),
        ("w.pt --everything", "w.pt: this image cannot be read: it is none of JPEG"),
        ("one.png w.pt --everything", "w.pt: this image cannot be read"),
        ("one.png --click 64.5,2", "one.png, object 1: point (64.5, 2) is off the frame, which is 64 x 48"),
        ("one.png many --click 2,38", "many/11.png, object 1: point (2, 38) is off the frame, which is 64 x 37"),
        ("one.png --object 4 --box 65,2,80,40", "one.png, object 4: box (65, 2) to (80, 40) is off the frame"),
        ("one.png --everything --out full", "full is not empty: give --overwrite or another --out"),
        ("one.png --everything --out w.pt", "w.pt is a file, expected an output folder"),
        ("many --everything --out many --overwrite", "many/9.png is in the output folder, many"),
        ("one.png --everything --out . --overwrite", "one.png is in the output folder, ."),
        ("one.png --everything --checkpoint none.pt", "none.pt does not exist"),
    ],
)
def test_mistakes_are_one_line_and_exit_1(folder: Path, options: str, message: str, capsys: Any) -> None:
    Path("empty").mkdir()
    Path("full").mkdir()
    Path("full/notes.txt").write_text("mine")
    before = sorted(folder.rglob("*"))
    assert main(["segment", *options.split()]) == 1
    (error,) = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert error.startswith("i2v: error: ") and message in error
    assert sorted(folder.rglob("*")) == before


def test_overwriting_replaces_results_and_nothing_else(folder: Path) -> None:
    command = ["segment", "--click", "20,19", "--out", "out", *MODEL]
    assert main([*command, "many"]) == 0
    Path("out/notes.txt").write_text("mine")
    Path("out/overlays/mine.jpg").write_text("mine")
    assert main([*command, "one.png", "--overwrite"]) == 0
    assert Path("out/notes.txt").exists()
    Path("out/overlays/mine.jpg").unlink()
    check_results(Path("out"), ["one.png"])


def test_a_broken_picture_keeps_those_before_it(folder: Path, capsys: Any) -> None:
    data = Path("many/11.png").read_bytes()
    Path("many/11.png").write_bytes(data[: len(data) // 2])
    assert main(["segment", "many", "--click", "20,19", *MODEL]) == 1
    error = capsys.readouterr().err
    assert "i2v: stopped: 2 of 3 images are kept in many_i2v\n" in error
    assert error.splitlines()[-1].startswith("i2v: error: many/11.png: this image cannot be read")
    check_results(Path("many_i2v"), ["9.png", "10.png"])


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(28, "No space left on device")])
def test_a_stop_leaves_whole_files(folder: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    written: list[str] = []
    write = picture_file.write_picture

    def stopping(path: Path, *args: Any, **options: Any) -> None:
        if path.name == "10.jpg":
            raise error
        written.append(path.name)
        write(path, *args, **options)

    monkeypatch.setattr("i2v.results.image_results.write_picture", stopping)
    assert main(["segment", "many", "--click", "20,19", *MODEL]) == (1 if isinstance(error, OSError) else 130)
    check_results(Path("many_i2v"), ["9.png"])


def test_a_turned_photo_is_told(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open("one.png").save("turned.jpg", exif=exif)
    assert main(["segment", "turned.jpg", "--click", "20,19", *MODEL]) == 0
    assert "turned.jpg: its EXIF orientation is not applied" in caplog.text
    assert read_label_png("turned_i2v/masks/turned.png").shape == (HEIGHT, WIDTH)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two photos of scikit-image: a cat's head, and a cup of coffee."""
    data = pytest.importorskip("skimage").data
    folder = tmp_path_factory.mktemp("photos")
    for name in ("chelsea", "coffee"):
        Image.fromarray(getattr(data, name)()).save(folder / f"{name}.jpg", quality=95)
    return folder


CUP = (165, 90, 440, 330)  # of coffee, with its handle but not its saucer


@pytest.mark.parametrize(
    ("prompt", "several"),
    [
        ({"points": [[300, 200]], "labels": [1]}, True),
        ({"points": [[300, 200], [60, 60]], "labels": [1, 0]}, False),
        ({"box": CUP}, False),
        ({"points": [[300, 200]], "labels": [1], "box": CUP}, False),
    ],
)
def test_the_small_model_sees_a_photo_as_a_first_frame(photos: Path, prompt: dict[str, Any], several: bool) -> None:
    video = I2VVideoPredictor.from_pretrained("i2v-nano", device="cpu")
    photo = np.asarray(Image.open(photos / "coffee.jpg"))
    with video.init_state(photo[None]) as state:
        _, _, expected = video.add_new_points_or_box(state, 0, 1, **prompt)
    assert video.settings.refine_prompts
    predictor = I2VImagePredictor.from_pretrained("i2v-nano", device="cpu")
    predictor.set_image(photo)
    arguments = (prompt.get("points"), prompt.get("labels"), prompt.get("box"))
    masks, ious, _ = predictor.predict(*arguments, multimask_output=several, return_logits=True)
    np.testing.assert_array_equal(masks[ious.argmax()], expected[0, 0].numpy())
    assert 0.05 < (expected > 0).float().mean() < 0.6


def test_the_command_finds_a_cup_in_a_photo(photos: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    box = ",".join(map(str, CUP))
    assert main(["segment", str(photos / "coffee.jpg"), "--box", box, "--device", "cpu"]) == 0
    check_results(Path("coffee_i2v"), ["coffee.jpg"])
    ((annotation, mask),) = masks_of(Path("coffee_i2v"), {"id": 1})
    x, y, width, height = annotation["bbox"]
    assert np.abs(np.subtract((x, y, x + width, y + height), CUP)).max() < 75
    assert mask[150:250, 250:350].mean() > 0.9, "the middle of the cup"


def test_the_command_finds_things_in_photos(photos: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    command = ["segment", str(photos), "--everything", "--points-per-side", "6", "--device", "cpu", "--out", "out"]
    assert main(command) == 0
    check_results(Path("out"), ["chelsea.jpg", "coffee.jpg"])
    found = coco_of(Path("out"))["annotations"]
    for image_id in (1, 2):
        areas = [a["area"] for a in found if a["image_id"] == image_id]
        assert areas and max(areas) > 5000
