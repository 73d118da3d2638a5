"""Things are cut out along the edges of pictures, and rendered clips are made of them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from train.dataset.synthetic import SyntheticRawDataset
from train.dataset.synthetic_builder import SceneSettings
from train.dataset.synthetic_footage import Cutouts, find_cutouts
from train.scripts import make_cutouts
from train.scripts.make_cutouts import CutoutSettings, cut_out

RED, GREEN = (220, 30, 30), (30, 160, 40)
STILL = SceneSettings(
    max_objects=1, lookalike=0, exit=0, cut=0, limbs=0, bend=0, occluder=0, camera=0, motion_blur=0, defocus=0,
    noise=0, jpeg=0, in_place=1,
)  # fmt: skip


def picture(scale: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """A red disc on green (96,128,3), or `scale` times that, and where it is."""
    y, x = np.mgrid[: 96 * scale, : 128 * scale]
    disc = np.hypot(y - 40 * scale, x - 70 * scale) < 20 * scale
    return np.where(disc[..., None], RED, GREEN).astype(np.uint8), disc


def write_pair(folder: Path) -> np.ndarray:
    image, disc = picture()
    folder.mkdir(exist_ok=True)
    Image.fromarray(image).save(folder / "a.jpg", quality=95)
    Image.fromarray(disc.astype(np.uint8)).save(folder / "a.png")
    return disc


def test_things_end_where_their_colour_does() -> None:
    image, disc = picture(4)
    things = cut_out(image, np.random.default_rng(0), CutoutSettings())
    thing = things == things[160, 280]
    assert things[160, 280] > 0 and things[0, 0] == 0  # the background is too large to be a thing
    assert np.count_nonzero(thing & disc) / np.count_nonzero(thing | disc) > 0.9


def test_too_small_too_thin_and_cut_off_is_no_thing() -> None:
    settings = CutoutSettings()
    whole = np.zeros((100, 100), bool)
    whole[40:60, 40:60] = True
    thin, tiny, cut_off = np.zeros_like(whole), np.zeros_like(whole), np.zeros_like(whole)
    thin[50:53, 10:90] = True
    tiny[50:55, 50:55] = True
    cut_off[:15, 30:60] = True
    found = [make_cutouts._is_thing(mask, settings) for mask in (whole, thin, tiny, cut_off)]
    assert found == [True, False, False, False]


def test_the_command_writes_pairs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    video = tmp_path / "footage" / "video"
    video.mkdir(parents=True)
    for frame in range(5):
        Image.fromarray(picture()[0]).save(video / f"{frame:05d}.jpg", quality=95)
    command = ["--input", str(tmp_path / "footage"), "--output", str(tmp_path / "out"), "--every", "2"]
    assert make_cutouts.main(command) == 0
    counts = [int(np.asarray(Image.open(path)).max()) for path in find_cutouts(tmp_path / "out")]
    assert f"{sum(counts)} things" in capsys.readouterr().out and min(counts) >= 1
    names = [path.name for path in find_cutouts(tmp_path / "out")]
    assert names == ["video_00000.png", "video_00002.png", "video_00004.png"]
    with Image.open(tmp_path / "out" / names[0]) as labels, Image.open(tmp_path / "out" / "video_00000.jpg") as image:
        assert labels.size == image.size == (384, 288)
    assert make_cutouts.main(["--input", str(tmp_path / "none"), "--output", str(tmp_path / "out")]) == 1
    assert "none: no such video or folder" in capsys.readouterr().err


def test_a_sprite_is_the_thing_and_nothing_around_it(tmp_path: Path) -> None:
    write_pair(tmp_path)
    colours, alpha = Cutouts(find_cutouts(tmp_path), 1.0).sprite(np.random.default_rng(0), 40)
    assert colours.shape == (3, 40, 40) and alpha.shape == (40, 40)
    # A disc in a box 1.1 times its size.
    assert float((alpha > 0.5).float().mean()) == pytest.approx(np.pi / 4 / 1.1**2, abs=0.05)
    assert colours[:, 20, 20].tolist() == pytest.approx(RED, abs=8)


def test_a_thing_in_place_is_where_its_picture_has_it(tmp_path: Path) -> None:
    disc = write_pair(tmp_path)
    dataset = SyntheticRawDataset(1, 1, 64, STILL, cutouts=tmp_path, cutout_prob=1.0)
    wanted = torch.from_numpy(np.array(Image.fromarray(disc).resize((64, 64), Image.Resampling.NEAREST)))
    matches = []
    for seed in range(6):
        video = dataset.open(0, np.random.default_rng(seed))
        for label in video.visible(0):
            mask = video.load(0, [label], 64).masks[0]
            matches.append(float((mask & wanted).sum() / (mask | wanted).sum()))
    assert max(matches) > 0.9


def test_things_in_place_move_in_half_of_all_scenes(tmp_path: Path) -> None:
    write_pair(tmp_path)
    settings = dataclasses.replace(STILL, max_objects=0)
    dataset = SyntheticRawDataset(1, 12, 64, settings, cutouts=tmp_path, cutout_prob=1.0)
    moved = 0
    for seed in range(20):
        video = dataset.open(0, np.random.default_rng(seed))
        first, last = (video.load(frame, [1], 64).masks[0] for frame in (0, 11))
        moved += not torch.equal(first, last)
    assert 4 <= moved <= 16


def test_what_is_wrong_with_cutouts_is_told(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="gone: no such folder of cut-outs"):
        SyntheticRawDataset(1, 1, 64, cutouts=tmp_path / "gone")
    with pytest.raises(ValueError, match=r"no pairs of NAME\.png and NAME\.jpg"):
        SyntheticRawDataset(1, 1, 64, cutouts=tmp_path)
    write_pair(tmp_path)
    Image.new("L", (10, 10)).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"a\.png: expected labels of size \(96, 128\) in 1\.\.255"):
        Cutouts(find_cutouts(tmp_path), 1.0).still(np.random.default_rng(0), 32)
