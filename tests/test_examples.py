"""The scripts of examples/ run, do what they say, and fit a screen; so does the code of the pages in docs/."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from i2v.demo import render_demo_clip
from i2v.prompts.sampling import centroid_pixel
from i2v.results.overlay import VideoWriter

ROOT = Path(__file__).parents[1]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
PAGES = ("images.md", "models.md", "from_sam2.md")
CLIP = render_demo_clip(5, 160, 120)
CLICK = [str(value) for value in centroid_pixel(CLIP.masks[0])]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with a clip as a file and as frames, and a photo."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "frames").mkdir()
    (tmp_path / "videos").mkdir()
    for number, frame in enumerate(CLIP.frames):
        Image.fromarray(frame).resize((320, 240)).save(tmp_path / "frames" / f"{number}.jpg")
    for path in ("clip.mp4", "videos/a.mp4", "videos/b.mp4"):
        with VideoWriter(path, 10.0) as writer:
            for frame in CLIP.frames:
                writer.write(frame)
    photo = Image.fromarray(pytest.importorskip("skimage").data.coffee())
    photo.resize((480, 320)).save("photo.jpg")
    return tmp_path


def run(name: str, *arguments: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, str(ROOT / "examples" / name), *arguments]
    finished = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


def overlap(mask: np.ndarray, expected: np.ndarray) -> float:
    return (mask & expected).sum() / (mask | expected).sum()


def test_two_objects_are_tracked(folder: Path) -> None:
    printed = run("track_objects.py", "clip.mp4", "--click", *CLICK, "--box", "85", "0", "105", "120")
    assert len(printed.splitlines()) == 5
    saved = np.load("masks/00004.npz")
    assert saved["ids"].tolist() == [1, 2] and saved["masks"].shape == (2, 120, 160)
    first = np.load("masks/00000.npz")["masks"][0]
    assert overlap(first, CLIP.masks[0]) > 0.6


def test_a_correction_changes_what_follows(folder: Path) -> None:
    lines = run("correct_and_go_on.py", "clip.mp4", "--click", *CLICK, "--background", "150", "110").splitlines()
    assert [line.partition(":")[0] for line in lines] == ["frame 2", "frame 3", "frame 4"]


def test_a_stream_is_tracked_frame_by_frame(folder: Path) -> None:
    lines = run("webcam.py", "clip.mp4", "--click", *CLICK, "--frames", "3").splitlines()
    assert len(lines) == 3
    share = float(re.search(r"(\d+)%", lines[0])[1]) / 100  # type: ignore[index]
    assert share == pytest.approx(CLIP.masks[0].mean(), abs=0.04)


def test_a_folder_of_videos_is_tracked_once(folder: Path) -> None:
    run("folder_of_videos.py", "videos")
    sheets = [folder / "tracked" / name / "contact_sheet.png" for name in ("a", "b")]
    times = [sheet.stat().st_mtime_ns for sheet in sheets]
    run("folder_of_videos.py", "videos")
    assert [sheet.stat().st_mtime_ns for sheet in sheets] == times


def test_an_object_is_cut_out(folder: Path) -> None:
    assert run("cut_out.py", "clip.mp4", "--click", *CLICK) == "cut_out.mp4: 5 frames\n"
    with av.open("cut_out.mp4") as container:
        first = next(container.decode(video=0)).to_ndarray(format="rgb24").astype(int)
    is_green = np.abs(first - (0, 177, 64)).max(axis=2) < 30
    assert is_green[~CLIP.masks[0]].mean() > 0.9 and is_green[CLIP.masks[0]].mean() < 0.4


def test_an_object_in_an_image_is_segmented(folder: Path) -> None:
    printed = run("segment_image.py", "photo.jpg", "--click", "240", "160")
    assert printed.startswith("three masks with predicted IoUs 0.") and "from its box [" in printed
    assert 0.02 < np.asarray(Image.open("mask.png")).mean() < 0.7


def test_everything_in_an_image_is_found(folder: Path) -> None:
    printed = run("find_everything.py", "photo.jpg", "--points-per-side", "8")
    assert re.search(r"^1: \d+ pixels at \[", printed, re.MULTILINE)
    assert Image.open("everything.png").size == (480, 320)


def test_a_model_is_saved_and_loaded(folder: Path) -> None:
    assert "parameters, model image 320 pixels" in run("save_model.py", "saved")
    assert sorted(path.name for path in Path("saved").iterdir()) == ["config.yaml", "model.pt"]


def test_examples_fit_a_screen_and_are_listed() -> None:
    listed = (ROOT / "examples" / "README.md").read_text()
    tested = Path(__file__).read_text()
    for path in EXAMPLES:
        assert len(path.read_text().splitlines()) <= 45, path.name
        assert f"`{path.name} " in listed and f'"{path.name}"' in tested
    assert len(EXAMPLES) == len(re.findall(r"^\| `\w+\.py ", listed, re.MULTILINE))


@pytest.mark.parametrize("page", PAGES)
def test_the_code_of_a_page_runs(folder: Path, page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    text = (ROOT / "docs" / page).read_text()
    blocks = re.findall(r"^```python\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)
    assert blocks
    names: dict[str, object] = {}
    for block in blocks:
        exec(block, names)
    if page == "images.md":
        assert names["masks"].shape == (2, 1, 320, 480) and names["best"].any()  # type: ignore[attr-defined]
        assert names["largest"].sum() > 1000  # type: ignore[attr-defined]
    if page == "from_sam2.md":
        assert names["frame"] == 4 and names["segmented"].shape == (1, 1, 240, 320)  # type: ignore[attr-defined]
