"""One video's masks on disk: what is written, what is skipped, and what a failure leaves."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from disk_support import leave_folder
from PIL import Image
from vos_support import disc_mask, make_label_tree, make_sav_tree

from i2v.results.overlay import VideoWriter
from sav_dataset.utils.label_pictures import read_labels
from test_pvs import mask_writer
from test_pvs.mask_writer import write_labels
from test_pvs.prompts import protocol
from test_pvs.targets import Annotations, FrameList, list_frames, read_targets
from test_pvs.video_job import VideoJob, run_video
from tools.save_gt_mask_multiprocess import convert_video


@pytest.fixture
def job(tmp_path) -> VideoJob:
    """Three objects in SA-V's layout, the last of which appears on frame 4."""
    root = make_sav_tree(tmp_path / "sav", {"v": (9, [0, 0, 3])})
    annotations = Annotations(root / "Annotations_6fps" / "v")
    return VideoJob("v", root / "JPEGImages_24fps" / "v", 9, annotations, tmp_path / "out" / "v", object_folders=True)


@pytest.fixture
def label_job(tmp_path) -> VideoJob:
    """Two objects in label images, the second of which appears on frame 2."""
    root = make_label_tree(tmp_path / "labels", {"v": (6, [1, 2])})
    annotations = Annotations(root / "Annotations" / "v")
    return VideoJob("v", root / "JPEGImages" / "v", 6, annotations, tmp_path / "out" / "v", object_folders=False)


def run(predictor, job: VideoJob, prompt: str = "gm") -> list[float]:
    with ThreadPoolExecutor(2) as threads:
        return list(run_video(predictor, job, protocol(prompt), threads))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*.png"))}


def read(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def test_every_object_gets_a_mask_for_every_frame(predictor, job):
    steps = run(predictor, job)
    assert steps == sorted(steps) and steps[-1] == 1.0
    names = [f"{frame:05d}.png" for frame in range(9)]
    assert list(contents(job.output)) == [f"{obj:03d}/{name}" for obj in range(3) for name in names]
    masks = {obj: [read(job.output / obj / name) for name in names] for obj in ("000", "002")}
    assert {mask.shape for mask in masks["000"]} == {(48, 64)}
    assert not any(mask.any() for mask in masks["002"][:4])
    overlap = masks["002"][4] & disc_mask(2, 4)
    assert overlap.sum() > 0.7 * disc_mask(2, 4).sum()
    assert job.is_finished()


def test_one_pass_per_object_writes_the_same(predictor, job):
    run(predictor, job)
    apart = replace(job, output=job.output.parent / "apart", per_object=True)
    steps = run(predictor, apart)
    assert contents(apart.output) == contents(job.output)
    assert len(steps) == 9 + 9 + 5 and steps == sorted(steps)


def test_finished_objects_are_left_alone(predictor, job):
    run(predictor, job)
    expected = contents(job.output)
    for path in (job.output / "001").iterdir():
        path.unlink()
    (job.output / "001").rmdir()
    left = leave_folder(job.output / "001")
    (job.output / "000" / "00000.png").write_bytes(b"kept")
    assert not job.is_finished()
    run(predictor, job)
    assert contents(job.output) == expected | {"000/00000.png": b"kept"}
    assert not left.exists()
    assert sorted(path.name for path in job.output.iterdir()) == ["000", "001", "002"]
    assert run(predictor, job) == []
    run(predictor, replace(job, redo=True))
    assert contents(job.output) == expected


def test_a_failed_write_fails_the_video_and_leaves_nothing(predictor, job, monkeypatch):
    def no_space(path, mask):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr("test_pvs.video_job.write_binary_png", no_space)
    with pytest.raises(OSError, match="No space left on device"):
        run(predictor, job)
    assert list(job.output.iterdir()) == []
    assert not job.is_finished()


def test_label_images_of_all_frames(predictor, label_job):
    run(predictor, label_job)
    labels = [read(label_job.output / f"{frame:05d}.png") for frame in range(6)]
    assert not labels[0].any()
    assert set(np.unique(labels[1])) == {0, 1}
    assert set(np.unique(labels[2])) == {0, 1, 2}
    assert label_job.is_finished()
    apart = replace(label_job, output=label_job.output.parent / "apart", per_object=True)
    run(predictor, apart)
    assert contents(apart.output) == contents(label_job.output)


@pytest.mark.parametrize("names", [(300, 65535), (255, 200 << 16)])
def test_labels_of_more_than_8_bits_are_written_as_they_were_read(predictor, label_job, names):
    run(predictor, label_job)
    wide = replace(label_job, output=label_job.output.parent / "wide")
    for path in label_job.annotations.folder.iterdir():
        write_labels(path, np.array([0, *names])[read(path)])
    run(predictor, wide)
    for frame in range(6):
        expected = np.array([0, *names])[read(label_job.output / f"{frame:05d}.png")]
        np.testing.assert_array_equal(read_labels(wide.output / f"{frame:05d}.png"), expected)


def test_mask_info_prompts_as_annotations_do(predictor, job, tmp_path):
    run(predictor, job, "bb")
    convert_video(job.annotations.folder.parent, tmp_path / "mask_info", "v")
    again = replace(
        job, annotations=Annotations(tmp_path / "mask_info" / "v", is_mask_info=True), output=tmp_path / "again"
    )
    assert again.annotations.known_objects() == ["000", "001", "002"]
    run(predictor, again, "bb")
    assert contents(again.output) == contents(job.output)


def test_a_single_object_of_all_labels(label_job):
    merged = replace(label_job.annotations, single_object=True)
    (target,) = read_targets(merged, list_frames(label_job.frames))
    assert (target.obj, target.frame) == ("255", 1)
    assert np.array_equal(target.mask, disc_mask(0, 1))


def test_frames_are_matched_by_number(job, tmp_path):
    frames = list_frames(job.frames)
    assert frames.names[:2] == ("00000", "00001")
    kept = FrameList(tuple(f"{frame:05d}" for frame in (2, 4, 5)), frames.size)
    (target,) = read_targets(job.annotations, kept, done=["000", "001"])
    assert target.frame == 1
    with pytest.raises(ValueError, match="object 000: annotated on frame 0, which the video does not have"):
        read_targets(job.annotations, kept)


def test_an_mp4_has_numbers_for_names(predictor, job, tmp_path):
    with VideoWriter(tmp_path / "v.mp4") as video:
        for name in list_frames(job.frames).names:
            video.write(read(job.frames / f"{name}.jpg"))
    filmed = replace(job, frames=tmp_path / "v.mp4")
    assert list_frames(filmed.frames) == list_frames(job.frames)
    run(predictor, filmed)
    assert len(contents(job.output)) == 27


def test_a_video_without_objects_is_told(predictor, tmp_path, caplog):
    root = make_sav_tree(tmp_path / "sav", {"v": (5, [99])})
    annotations = Annotations(root / "Annotations_6fps" / "v")
    job = VideoJob("v", root / "JPEGImages_24fps" / "v", 5, annotations, tmp_path / "out", object_folders=True)
    assert run(predictor, job) == []
    assert "video v: no object to track" in caplog.text


def test_masks_wait_for_a_slow_disk(tmp_path, monkeypatch):
    monkeypatch.setattr(mask_writer, "MAX_WAITING", 2)
    written = []
    with (
        ThreadPoolExecutor(1) as threads,
        mask_writer.mask_folder(tmp_path, "masks", lambda path, _: written.append(path.name), threads) as folder,
    ):
        for i in range(20):
            folder.put(f"{i}.png", np.zeros((2, 2), np.uint8))
            assert len(written) >= i - 2
    assert written == [f"{i}.png" for i in range(20)]
    assert (tmp_path / "masks").is_dir()
