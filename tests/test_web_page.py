"""`i2v export --to web`: the page tracks as the ONNX runtime does, its modules compute the same, errors are told."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from onnx_support import exported_folder
from PIL import Image
from pycocotools import mask as coco_mask
from support import TINY, make_predictor, render_video
from web_page_support import Guest, serving, visiting_page

from i2v.checkpoint import save_checkpoint
from i2v.cli.main import main
from i2v.download import DownloadError, fetch
from i2v.export import exporter, web_page
from i2v.export.description import read_description
from i2v.export.parts import split_model
from i2v.export.web_page import MAX_ORT_BYTES, ORT_FILES, ORT_URL, PAGE_FILES, export_page
from i2v.results.overlay import VideoWriter
from i2v.results.rle import RunLengths
from i2v.utils.iou import mask_iou

pytestmark = pytest.mark.timeout(400)  # the first test exports a model, the others may wait for it

NUM_FRAMES = 20


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of the tests' tiny model, with onnxruntime-web from npm's registry."""
    try:
        fetch(ORT_URL, max_bytes=MAX_ORT_BYTES)
    except DownloadError as error:
        pytest.skip(f"no onnxruntime-web: {error}")
    parts = exported_folder(tmp_path_factory)

    def take_parts(_: Any, hidden: Path, *__: Any) -> Any:
        shutil.copytree(parts, hidden, dirs_exist_ok=True)
        return read_description(hidden)

    made = tmp_path_factory.mktemp("web") / "page"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(web_page, "write_parts", take_parts)
        export_page(make_predictor(), made, "tiny")
    return made


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    with serving(folder) as served:
        yield served


@pytest.fixture(scope="module")
def guest(browser: Any, address: str) -> Iterator[Guest]:
    """A tab with the model loaded."""
    with visiting_page(browser, address) as visitor:
        visitor.page.wait_for_selector("#status:has-text('choose a video')")
        yield visitor


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    """The frames of a rendered clip."""
    paths = [tmp_path / f"{frame}.png" for frame in range(NUM_FRAMES)]
    for path, picture in zip(paths, render_video(NUM_FRAMES), strict=True):
        Image.fromarray(picture).save(path)
    return paths


def write_video(path: Path, codec: str, rate: int) -> None:
    """A video whose frame i has the grey level 10 i + 20."""
    with av.open(path, "w") as container:
        stream: Any = container.add_stream(codec, rate=rate)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        for frame in range(NUM_FRAMES):
            picture = np.full((48, 64, 3), grey_of(frame), np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


def grey_of(frame: int) -> int:
    return 10 * frame + 20


# The page


@pytest.mark.slow
def test_the_page_tracks_as_the_runtime_does(guest: Guest, folder: Path, pictures: list[Path]) -> None:
    from i2v.onnx_runtime.video_predictor import OnnxVideoPredictor

    guest.opens(pictures, NUM_FRAMES)
    first = guest.clicks(16, 19, "1")
    guest.goes_to(3)
    guest.page.click("#new-object")
    second = [guest.clicks(45, 31, "2"), guest.clicks(10, 40, "2", button="right")]
    guest.tracks(NUM_FRAMES)
    found = guest.downloads()
    assert (found["size"], found["objects"]) == ([48, 64], [{"id": 1, "label": 1}, {"id": 2, "label": 2}])
    assert [frame["name"] for frame in found["frames"]] == [path.name for path in pictures]

    predictor, ious = OnnxVideoPredictor(folder, threads=1), []
    with predictor.init_state(render_video(NUM_FRAMES)) as state:
        predictor.add_new_points_or_box(state, 0, 1, [first], [1])
        predictor.add_new_points_or_box(state, 3, 2, second[:1], [1])
        predictor.add_new_points_or_box(state, 3, 2, second[1:], [0], clear_old_points=False)
        for frame, _, logits in predictor.propagate_in_video(state):
            best = logits[:, 0].argmax(axis=0)
            entries = {entry["id"]: entry for entry in found["frames"][frame]["objects"]}
            for row, (obj_id, score) in enumerate(predictor.frame_scores(state, frame).items()):
                expected = (logits[row, 0] > 0) & (best == row)
                mask = RunLengths.of_coco(entries[obj_id]["segmentation"]).mask()
                ious += [mask_iou(mask, expected)] if mask.any() or expected.any() else []
                rows, columns = np.nonzero(mask)
                box = [columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1] if mask.any() else [0] * 4
                assert (entries[obj_id]["bbox"], entries[obj_id]["area"]) == (box, mask.sum())
                assert abs(entries[obj_id]["object_score"] - score.object_score) < 0.01
    assert len(ious) > NUM_FRAMES and np.mean(ious) > 0.99 and min(ious) > 0.95

    guest.goes_to(5)
    guest.page.mouse.click(*centre_of(guest))
    guest.is_told("frame 5, object 2: this frame was tracked already, and takes no corrections here: start over")
    guest.page.click("#reset")
    guest.page.wait_for_selector('#stage[data-masks="5:"]')
    guest.page.wait_for_selector("#download:disabled")
    guest.page.click("#track")
    guest.is_told("nothing to track: no object has a prompt")


def centre_of(guest: Guest) -> tuple[float, float]:
    box = guest.page.locator("#picture").bounding_box()
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


@pytest.mark.parametrize(("name", "codec", "rate"), [("a.mp4", "libx264", 25), ("b.webm", "libvpx-vp9", 60)])
def test_frames_of_videos_are_exact(guest: Guest, folder: Path, name: str, codec: str, rate: int) -> None:
    write_video(folder / name, codec, rate)
    script = """async ({ VideoSource }, name) => {
      const source = await VideoSource.open(await (await fetch(name)).blob(), name);
      const found = [];
      for (let i = 0; i < source.numFrames; i++) {
        const frame = (7 * i) % source.numFrames; // not in order
        const { data } = await source.read(frame);
        found.push([frame, data[4 * (24 * 64 + 32) + 1], source.describe(frame).time]);
      }
      source.close();
      return [source.width, source.height, source.frameRate, found.sort(([a], [b]) => a - b)];
    }"""
    width, height, frame_rate, found = guest.computes("frame_source.js", script, name)
    assert (width, height) == (64, 48) and abs(frame_rate / rate - 1) < 0.01
    assert [frame for frame, _, _ in found] == list(range(NUM_FRAMES))
    np.testing.assert_allclose([grey for _, grey, _ in found], [grey_of(f) for f in range(NUM_FRAMES)], atol=4)
    np.testing.assert_allclose([time for _, _, time in found], np.arange(NUM_FRAMES) / rate, atol=0.002)


def test_a_frame_is_taken_when_it_is_presented_not_when_the_seek_ends(guest: Guest, folder: Path) -> None:
    write_video(folder / "late.mp4", "libx264", 25)
    script = """async ({ VideoSource }) => {
      // A browser that ends each seek at once, while the picture before is still shown.
      const { set, get } = Object.getOwnPropertyDescriptor(HTMLMediaElement.prototype, "currentTime");
      const source = await VideoSource.open(await (await fetch("late.mp4")).blob(), "late.mp4");
      Object.defineProperty(source.video, "currentTime", { get, set(seconds) {
        set.call(this, seconds);
        this.dispatchEvent(new Event("seeked"));
      } });
      const found = [];
      for (const frame of [7, 2, 9, 0]) found.push((await source.read(frame)).data[4 * (24 * 64 + 32) + 1]);
      source.close();
      return found;
    }"""
    found = guest.computes("frame_source.js", script)
    np.testing.assert_allclose(found, [grey_of(frame) for frame in (7, 2, 9, 0)], atol=4)


def test_wrong_files_are_told_in_a_sentence(guest: Guest, tmp_path: Path, pictures: list[Path]) -> None:
    (tmp_path / "text.mp4").write_text("no video")
    with VideoWriter(tmp_path / "uneven.mp4") as writer:
        for frame, time in enumerate((0, 0.1, 0.2, 0.3, 0.7, 0.8)):
            writer.write(np.full((48, 64, 3), grey_of(frame), np.uint8), time)
    Image.new("RGB", (30, 20)).save(tmp_path / "99.png")
    (tmp_path / "00.png").write_text("no picture")
    for names, message in (
        (["text.mp4"], "text.mp4: this browser cannot play this file"),
        (["text.mp4", "1.png"], "expected one video, or pictures only, got 2 files: text.mp4, 1.png"),
        (["00.png"], "00.png: this browser cannot read this picture"),
    ):
        guest.page.set_input_files("#files", [str(tmp_path / name) for name in names])
        guest.is_told(message)
    for names, frames, last, message in (
        (["uneven.mp4"], 9, 4, "as frames do not come evenly: convert it with ffmpeg -i uneven.mp4"),
        (["1.png", "99.png"], 2, 1, "99.png is 30 x 20, but the first picture 64 x 48"),
    ):
        guest.opens([tmp_path / name for name in names], frames)
        guest.page.locator("#frame").fill(str(last))
        guest.is_told(message)


@pytest.mark.parametrize(
    ("missing", "query", "message"),
    [
        ("ort-wasm-simd-threaded.wasm", "", "ort-wasm-simd-threaded.wasm cannot be loaded (404)"),
        ("ort.wasm.bundle.min.mjs", "", "ort.wasm.bundle.min.mjs cannot be loaded"),
        ("model.json", "", "model.json cannot be loaded (404): it is missing in this page's folder"),
        ("", "?video=none.mp4", "none.mp4 cannot be loaded (404)"),
        ("", "?video=https://example.test/a.mp4", "expected a video from this page's own server"),
    ],
)
def test_what_is_missing_is_told_in_a_sentence(
    browser: Any, folder: Path, tmp_path: Path, missing: str, query: str, message: str
) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    if missing:
        (copy / missing).unlink()
    with serving(copy) as address, visiting_page(browser, address + query) as visitor:
        visitor.is_told(message)


def test_a_damaged_part_is_told_and_the_exported_clip_is_opened(browser: Any, folder: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    (copy / "stem.onnx").write_bytes(b"damaged")
    write_video(copy / "clip.mp4", "libx264", 25)
    settings = json.loads((copy / "page.json").read_text())
    (copy / "page.json").write_text(json.dumps({**settings, "clip": "clip.mp4"}))
    with serving(copy) as address, visiting_page(browser, address) as visitor:
        visitor.is_told("stem.onnx: this part is damaged, or of another export")
        visitor.goes_to(NUM_FRAMES - 1)
        pixel = visitor.page.evaluate("[...picture.getContext('2d').getImageData(32, 24, 1, 1).data]")
        np.testing.assert_allclose(pixel[:3], grey_of(NUM_FRAMES - 1), atol=4)


# Its modules


def test_pictures_are_resized_as_by_pillow(guest: Guest) -> None:
    from i2v.onnx_runtime.frame_encoder import to_model_pixels

    script = """({ toModelPixels }, width, height, bytes, size, box) => {
      const data = new Uint8ClampedArray(bytes);
      return [...toModelPixels({ width, height, data }, size, box)];
    }"""
    rng = np.random.default_rng(0)
    for width, height, size, box in ((91, 37, 32, None), (20, 30, 64, None), (90, 60, 32, (3.25, 10.5, 40.75, 35.5))):
        picture = rng.integers(0, 256, (height, width, 4), np.uint8)
        found = guest.computes("picture.js", script, width, height, picture.ravel().tolist(), size, box)
        expected = to_model_pixels(picture[..., :3], size, box)
        np.testing.assert_array_equal(found, expected.ravel())


def test_masks_are_computed_as_by_the_runtime(guest: Guest) -> None:
    from i2v.onnx_runtime.mask_arrays import fill_holes, resize, suppress_overlap

    rng = np.random.default_rng(0)
    noise = resize(rng.normal(size=(3, 1, 12, 12)).astype(np.float32), (32, 32))

    def maps(function: str, values: np.ndarray, *options: Any) -> np.ndarray:
        arrays = "maps.map((m) => Float32Array.from(m))"
        script = f"(module, maps, ...rest) => ({function})(module, {arrays}, ...rest).map((m) => [...m])"
        return np.array(guest.computes("mask_arrays.js", script, values.reshape(len(values), -1).tolist(), *options))

    for size, antialias in (((48, 64), False), ((9, 50), False), ((9, 50), True), ((40, 12), True)):
        each = "({ resize }, maps, size, antialias) => maps.map((m) => resize(m, [32, 32], size, antialias))"
        expected = resize(noise, size, antialias).reshape(3, -1)
        np.testing.assert_allclose(maps(each, noise, size, antialias), expected, atol=1e-5)
    for area in (0, 1, 4, 30):
        each = "({ fillHoles }, maps, area) => maps.map((m) => fillHoles(m, 32, area))"
        np.testing.assert_allclose(maps(each, noise + 0.4, area), fill_holes(noise + 0.4, area).reshape(3, -1))
    each = "({ suppressOverlap }, maps) => suppressOverlap(maps)"
    np.testing.assert_array_equal(maps(each, noise), suppress_overlap(noise).reshape(3, -1))


def test_draws_and_crops_are_those_of_the_runtime(guest: Guest) -> None:
    from i2v.onnx_runtime.memory_selection import MemoryDraws
    from i2v.onnx_runtime.prompt_answers import Crop

    rng = np.random.default_rng(0)
    scores = [rng.normal(size=n).astype(np.float32) for n in (2, 5, 16, 16, 9) * 40]
    for seed in (0, 123, 4294967295):
        draws = MemoryDraws(seed)
        expected = [draws.draw(row, max(1, len(row) // 3)) for row in scores]
        script = """({ MemoryDraws }, seed, rows) => {
          const draws = new MemoryDraws(seed);
          return rows.map((scores) => draws.draw(scores, Math.max(1, Math.floor(scores.length / 3))));
        }"""
        assert guest.computes("memory_selection.js", script, seed, [row.tolist() for row in scores]) == expected
    corners = rng.integers(0, 80, (60, 2, 2)) / 2
    for low, high in ((c.min(axis=0), c.max(axis=0)) for c in corners):
        crop = Crop.around(low, high, 40)
        found = guest.computes(
            "crop_box.js",
            "({ CropBox }, low, high) => CropBox.around(low, high, 40)?.pixels(64, 48) ?? null",
            low.tolist(),
            high.tolist(),
        )
        assert found == (None if crop is None else list(crop.pixels(64, 48)))


def test_run_lengths_are_those_of_coco(guest: Guest) -> None:
    rng = np.random.default_rng(0)
    script = "({ encodeCounts, encodePlane }, plane, width, height) => encodeCounts(encodePlane(plane, width, height))"
    for share in (0, 0.01, 0.5, 1):
        mask = (rng.random((40, 90)) < share).astype(np.uint8)
        mask[10:30, 20:70] |= share > 0
        expected = coco_mask.encode(np.asfortranarray(mask))["counts"].decode()
        assert guest.computes("rle.js", script, mask.ravel().tolist(), 90, 40) == expected


# The export


@pytest.fixture
def runtime(tmp_path: Path) -> Path:
    """What passes for onnxruntime-web as long as nobody runs it."""
    folder = tmp_path / "onnxruntime-web" / "dist"
    folder.mkdir(parents=True)
    (folder / ORT_FILES[0]).write_text("/*! ONNX Runtime Web v1.30.0 */")
    (folder / ORT_FILES[1]).write_bytes(b"\0asm\1\0\0\0")
    return folder.parent


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runtime: Path) -> list[str]:
    """The command without the export of the parts, which takes half a minute and has tests of its own."""
    pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    monkeypatch.setattr(exporter, "split_model", lambda *args: split_model(*args)[:1])
    monkeypatch.setattr(exporter, "_save_onnx", lambda spec, path: path.write_bytes(spec.name.encode()))
    monkeypatch.chdir(tmp_path)
    save_checkpoint(make_predictor().model, tmp_path / "w.pt")
    return ["export", "w.pt", "--config", str(TINY), "--to", "web"]


def test_the_command_makes_a_page(command: list[str], tmp_path: Path, runtime: Path, capsys: Any) -> None:
    write_video(tmp_path / "dog.MP4", "libx264", 25)
    given = [*command, "--ort", str(runtime), "--video", "dog.MP4", "--out", "page"]
    assert main(given) == 0
    printed = capsys.readouterr().out
    assert "python -m http.server --bind 127.0.0.1 --directory page" in printed
    page = tmp_path / "page"
    made = {path.name for path in page.iterdir()}
    assert {"index.html", "model.json", "stem.onnx", "clip.mp4", "page.json", *ORT_FILES} <= made
    assert json.loads((page / "page.json").read_text())["clip"] == "clip.mp4"
    for path in page.glob("*.js"):
        assert set(re.findall(r'^import .* from "\./(.+)";$', path.read_text(), re.MULTILINE)) <= made, path
    assert main(given) == 1
    assert "page is there already" in capsys.readouterr().err
    assert main([*given, "--overwrite"]) == 0
    (page / "notes.txt").write_text("mine")
    capsys.readouterr()
    assert main([*given, "--overwrite"]) == 1
    assert "'notes.txt' was not made here" in capsys.readouterr().err and (page / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--ort", "none"],
            "none: expected the folder of onnxruntime-web, but ort.wasm.bundle.min.mjs is neither there",
        ),
        (["--ort", "other"], "ort-wasm-simd-threaded.wasm is not that of onnxruntime-web"),
        (["--ort", "onnxruntime-web", "--video", "none.mp4"], "none.mp4"),
        (["--ort", "onnxruntime-web", "--video", "w.pt"], "w.pt"),
    ],
)
def test_wrong_options_leave_nothing(
    command: list[str], runtime: Path, capsys: Any, options: list[str], message: str
) -> None:
    other = Path(shutil.copytree(runtime / "dist", "other"))
    (other / ORT_FILES[1]).write_bytes(b"no wasm")
    assert main([*command, *options, "--out", "page"]) == 1
    assert message in capsys.readouterr().err
    assert sorted(path.name for path in Path().iterdir()) == ["onnxruntime-web", "other", "w.pt"]


def test_a_package_that_cannot_be_fetched_leaves_nothing(
    command: list[str], monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    def fail(url: str, **_: Any) -> Path:
        assert url.startswith("https://registry.npmjs.org/onnxruntime-web/") and "#sha512=" in url
        raise DownloadError("onnxruntime-web cannot be fetched: no network")

    monkeypatch.setattr(web_page, "fetch", fail)
    assert main([*command, "--out", "page"]) == 1
    assert "cannot be fetched: no network" in capsys.readouterr().err
    assert not Path("page").exists() and not list(Path().glob(".*"))


def test_options_of_the_page_are_refused_elsewhere(capsys: Any) -> None:
    for option in (["--ort", "x"], ["--video", "x"]):
        assert main(["export", "--to", "onnx", *option]) == 2
        assert f"{option[0]} is about the page: expected none with --to onnx" in capsys.readouterr().err


def test_every_file_of_the_page_is_one_that_is_copied() -> None:
    there = {path.name for path in (Path(web_page.__file__).parent / "web").iterdir()}
    assert there == set(PAGE_FILES)
