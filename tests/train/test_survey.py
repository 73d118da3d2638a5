"""What is wrong with a data set is said once, before training, and costs no more than the videos that it is about."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
from data_support import HEIGHT, WIDTH, Numbered, disc, write_davis
from omegaconf import OmegaConf
from PIL import Image

from i2v.config import ConfigError, load_config
from train.build import build
from train.dataset.mixed_loader import LoaderSpec, MixedLoader
from train.dataset.structures import VideoClip
from train.dataset.survey import survey
from train.dataset.vos_dataset import VOSDataset
from train.dataset.vos_raw_dataset import PNGRawDataset
from train.dataset.vos_sampler import RandomUniformSampler, TooShortError


def dataset_of(root: Path, num_frames: int = 3, resolution: int = 32) -> VOSDataset:
    raw = PNGRawDataset(root / "JPEGImages", root / "Annotations")
    return VOSDataset(raw, RandomUniformSampler(num_frames, 2), resolution)


def repaint(folder: Path, change) -> None:  # type: ignore[no-untyped-def]
    for path in sorted(folder.glob("*.png")):
        Image.fromarray(change(np.array(Image.open(path)))).save(path)


def test_videos_that_give_no_clip_are_left_out_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_davis(tmp_path, ["empty", "good", "short", "torn"])
    annotations = tmp_path / "Annotations"
    repaint(annotations / "empty", np.zeros_like)
    for path in sorted((annotations / "short").iterdir())[2:]:
        path.unlink()
    (annotations / "torn" / "00000.png").write_bytes(b"no picture")
    with caplog.at_level(logging.WARNING):
        dataset = dataset_of(tmp_path)
        loader = MixedLoader([LoaderSpec(dataset, 1)], seed=0)
        clips = [clip for epoch in range(3) for clip in loader.epoch(epoch)]
    assert [clip.names for clip in clips] == [("good",)] * 3 and loader.num_skipped == 0
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 3
    assert "empty: no object on any of the 6 masks" in told[0]
    assert "short: 2 frames with masks, a clip takes 3" in told[1]
    assert "torn" in told[2] and "00000.png" in told[2]


def test_a_data_set_without_any_clip_is_an_error(tmp_path: Path) -> None:
    write_davis(tmp_path, ["a"])
    with pytest.raises(ValueError, match=r"no video gives a clip: .*a: 6 frames with masks, a clip takes 7"):
        dataset_of(tmp_path, num_frames=7)


def test_masks_of_another_shape_are_found_before_training(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_davis(tmp_path, ["good", "turned"])
    repaint(tmp_path / "Annotations" / "turned", lambda labels: labels[: HEIGHT // 2])
    with caplog.at_level(logging.WARNING):
        assert len(dataset_of(tmp_path)) == 1
    assert "turned: frame 0: the image is" in caplog.text and "resized" not in caplog.text


def test_what_is_wrong_with_data_is_said_without_hydra(tmp_path: Path) -> None:
    write_davis(tmp_path, ["a"])
    for folder in ("JPEGImages", "Annotations"):
        for path in (tmp_path / folder / "a").glob("0000[1-9].*"):
            path.unlink()
    config = load_config("i2v-finetune", [f"dataset.root={tmp_path}"])
    with pytest.raises(ConfigError) as raised:
        build(config, "data.train", seed=0, rank=0, world_size=1)
    assert "Error in call" not in str(raised.value)
    start = "cannot build the node 'data.train.loaders[0].dataset' of the config: no video gives a clip: "
    assert str(raised.value).startswith(start)


def test_videos_without_a_partner_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_davis(tmp_path, [*"abcde", "f"])
    for name in "abcd":
        shutil.rmtree(tmp_path / "Annotations" / name)
    shutil.rmtree(tmp_path / "JPEGImages" / "e")
    assert PNGRawDataset(tmp_path / "JPEGImages", tmp_path / "Annotations").names == ["f"]
    assert "left out for want of annotations" in caplog.text and "a, b, c and 1 more" in caplog.text
    assert "left out for want of a video" in caplog.text and ": e\n" in caplog.text


def test_masks_of_half_the_size_and_void_are_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_davis(tmp_path, ["a", "b"])
    repaint(tmp_path / "Annotations" / "a", lambda labels: labels[::2, ::2])
    repaint(tmp_path / "Annotations" / "b", lambda labels: np.where(labels == 1, np.uint8(255), labels))
    dataset_of(tmp_path)
    assert f"resized: a, {WIDTH // 2}x{HEIGHT // 2} for frames of {WIDTH}x{HEIGHT}" in caplog.text
    assert "label 255 is void, not an object, where it stands in b" in caplog.text


def test_nothing_is_said_of_a_sound_data_set(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_davis(tmp_path, ["a", "b"])
    dataset_of(tmp_path)
    assert caplog.text == ""


def test_an_object_that_vanishes_is_left_out_or_named(tmp_path: Path) -> None:
    write_davis(tmp_path, ["both", "dot"])
    dot = disc(30, 30, 1).astype(np.uint8)  # one pixel
    repaint(tmp_path / "Annotations" / "dot", lambda labels: dot)
    repaint(tmp_path / "Annotations" / "both", lambda labels: np.where(dot, np.uint8(3), labels))
    dataset = VOSDataset(
        PNGRawDataset(tmp_path / "JPEGImages", tmp_path / "Annotations"), RandomUniformSampler(2, 3), 16
    )
    clip = dataset.clip(0, np.random.default_rng(0))
    assert clip.masks.shape[:2] == (2, 2) and clip.masks[0].flatten(1).any(dim=1).all()
    with pytest.raises(ValueError, match=r"dot: frame \d: objects 1 have no pixel left at 16 pixels"):
        dataset.clip(1, np.random.default_rng(0))
    facts = survey(dataset.videos, 2, 16)  # type: ignore[arg-type]
    assert [video.vanishing for video in facts.videos] == [(3,), (1,)]
    assert any("too small to have a pixel" in note and "both, dot (3 in the first)" in note for note in facts.notes())


class WithTooShort(Numbered):
    """Clips of which one is always too short."""

    def __init__(self) -> None:
        super().__init__(4)
        self.asked = 0

    def clip(self, index: int, generator: np.random.Generator) -> VideoClip:
        if index == 1:
            self.asked += 1
            raise TooShortError("v1: 2 frames with masks, expected 3")
        return super().clip(index, generator)


def test_what_is_too_short_is_found_once(caplog: pytest.LogCaptureFixture) -> None:
    dataset = WithTooShort()
    loader = MixedLoader([LoaderSpec(dataset, 1)], seed=0)
    first = [[clip.names for clip in loader.epoch(epoch)] for epoch in range(3)]
    assert dataset.asked == loader.num_skipped == 1 and caplog.text.count("v1: 2 frames") == 1
    # What is drawn in its place does not depend on what was known.
    assert [clip.names for clip in MixedLoader([LoaderSpec(WithTooShort(), 1)], seed=0).epoch(2)] == first[2]


def test_a_wrong_path_is_named(tmp_path: Path) -> None:
    config = load_config("i2v-finetune", [f"dataset.root={tmp_path}/nowhere"])
    with pytest.raises(ConfigError, match=r"data.train.*nowhere/"):
        build(config, "data.train", seed=0, rank=0, world_size=1)
    assert OmegaConf.select(config, "dataset.ignored_labels") is None
