"""Frames are extracted completely or not at all, and lists name what is there."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pytest
from data_support import HEIGHT, WIDTH, write_davis, write_mp4, write_sa1b, write_sav, write_sav_json
from PIL import Image

from i2v.video.video_file import VideoFile
from tools.benchmarks import data
from train.dataset.vos_raw_dataset import JSONRawDataset, SA1BRawDataset
from train.scripts import extract_sav_frames, make_file_lists
from train.scripts.extract_sav_frames import Extraction, extract


def level(path: Path) -> int:
    """The frame that a picture made by `data_support.picture` shows."""
    with Image.open(path) as image:
        return round(float(np.median(np.asarray(image)[..., 0])) / 4)


def test_every_fourth_frame_is_extracted_under_its_number(tmp_path: Path) -> None:
    write_mp4(tmp_path / "a.mp4", 10)
    assert extract(tmp_path / "a.mp4", tmp_path / "out" / "a", Extraction()) == 3
    files = sorted((tmp_path / "out" / "a").iterdir())
    assert [file.name for file in files] == ["00000.jpg", "00004.jpg", "00008.jpg"]
    assert [level(file) for file in files] == [0, 4, 8]
    extract(tmp_path / "a.mp4", tmp_path / "out" / "small", Extraction(every=9, short_side=18))
    with Image.open(tmp_path / "out" / "small" / "00009.jpg") as image:
        assert image.size == (WIDTH // 2, HEIGHT // 2)


def test_a_video_that_breaks_leaves_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_mp4(tmp_path / "a.mp4", 10)
    read = VideoFile.read

    def broken(self: VideoFile, index: int) -> np.ndarray:
        if index == 8:
            raise ValueError("damaged")
        return read(self, index)

    monkeypatch.setattr(VideoFile, "read", broken)
    with pytest.raises(ValueError, match="damaged"):
        extract(tmp_path / "a.mp4", tmp_path / "out" / "a", Extraction())
    assert list((tmp_path / "out").iterdir()) == []
    monkeypatch.undo()
    extract(tmp_path / "a.mp4", tmp_path / "out" / "a", Extraction())
    assert len(list((tmp_path / "out" / "a").iterdir())) == 3


def test_the_command_does_what_is_left_to_do_and_tells_what_failed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("sav_000/done", "sav_000/todo"):
        write_mp4(tmp_path / "in" / f"{name}.mp4", 5)
    (tmp_path / "in" / "sav_000" / "bad.mp4").write_bytes(b"no video")
    (tmp_path / "out" / "done").mkdir(parents=True)
    caplog.set_level("INFO")
    arguments = ["--input", str(tmp_path / "in"), "--output", str(tmp_path / "out")]
    assert extract_sav_frames.main(arguments) == 1
    assert "3 videos, 2 left to extract" in caplog.text and "bad was not extracted: " in caplog.text
    assert [file.name for file in sorted((tmp_path / "out" / "todo").iterdir())] == ["00000.jpg", "00004.jpg"]
    assert sorted(entry.name for entry in (tmp_path / "out").iterdir()) == ["done", "todo"]
    assert list((tmp_path / "out" / "done").iterdir()) == []
    write_sav_json(tmp_path / "json" / "todo_manual.json", 5)
    assert JSONRawDataset(tmp_path / "out", tmp_path / "json").names == ["todo"]
    with pytest.raises(SystemExit, match="no videos in"):
        extract_sav_frames.main(["--input", str(tmp_path / "json"), "--output", str(tmp_path / "out")])


def run_lists(kind: str, images: Path, annotations: Path, output: Path, *more: str) -> list[str]:
    arguments = [kind, "--images", str(images), "--annotations", str(annotations), "--output", str(output), *more]
    assert make_file_lists.main(arguments) == 0
    assert [entry.name for entry in output.parent.iterdir()] == [output.name]
    text = output.read_text()
    assert text.endswith("\n")
    return text.splitlines()


def test_lists_hold_what_has_frames_and_annotations(tmp_path: Path) -> None:
    write_sav(tmp_path / "sav", ["sav_000002", "sav_000001", "sav_000003"])
    (tmp_path / "sav" / "json" / "sav_000003_manual.json").unlink()
    folders = (tmp_path / "sav" / "jpg", tmp_path / "sav" / "json")
    assert run_lists("sav", *folders, tmp_path / "txt" / "sav.txt") == ["sav_000001", "sav_000002"]
    write_davis(tmp_path / "davis", ["cow", "bear"])
    folders = (tmp_path / "davis" / "JPEGImages", tmp_path / "davis" / "Annotations")
    assert run_lists("png", *folders, tmp_path / "png" / "list.txt") == ["bear", "cow"]


def test_samples_are_drawn_by_a_seed_and_read_back_in_order(tmp_path: Path) -> None:
    names = [f"sa_{i}" for i in range(12)]
    write_sa1b(tmp_path / "sa1b", names)
    folders = (tmp_path / "sa1b" / "jpg", tmp_path / "sa1b" / "json")
    output = tmp_path / "txt" / "sa1b.txt"
    drawn = run_lists("sa1b", *folders, output, "--sample", "8")
    assert len(set(drawn)) == 8 and drawn != sorted(drawn)
    assert {name.removesuffix(".jpg") for name in drawn} < set(names) and all(".jpg" in name for name in drawn)
    assert [f"{name}.jpg" for name in SA1BRawDataset(*folders, output).names] == drawn
    assert run_lists("sa1b", *folders, output, "--sample", "8") == drawn
    assert run_lists("sa1b", *folders, output, "--sample", "8", "--seed", "1") != drawn


def test_lists_that_cannot_be_made_leave_the_old_one(tmp_path: Path) -> None:
    write_sa1b(tmp_path, ["sa_1"])
    output = tmp_path / "list.txt"
    output.write_text("old\n")
    arguments = ["sa1b", "--images", str(tmp_path / "jpg"), "--output", str(output)]
    with pytest.raises(SystemExit, match="expected 5 samples, got 1"):
        make_file_lists.main([*arguments, "--annotations", str(tmp_path / "json"), "--sample", "5"])
    with pytest.raises(SystemExit, match="nowhere"):
        make_file_lists.main([*arguments, "--annotations", str(tmp_path / "nowhere")])
    assert output.read_text() == "old\n"


def test_the_benchmark_times_every_source_at_every_size(tmp_path: Path) -> None:
    write_mp4(tmp_path / "a.mp4", 20)
    parser = argparse.ArgumentParser()
    data.add_arguments(parser)
    arguments = ["--videos", str(tmp_path / "a.mp4"), "--size", "32", "48", "--frames", "2", "--clips", "3"]
    rows = data.run(parser.parse_args(arguments))["rows"]
    assert [(row["source"], row["size"]) for row in rows] == [
        (source, size) for size in (32, 48) for source in ("JPEG folder", "MP4", "synthetic")
    ]
    assert all(row["clips/s"] == row["clips/s per worker"] > 0 for row in rows)
