"""Packed photos, the clips that are made of them, and the commands around them."""

from __future__ import annotations

import json
import re
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from i2v.errors import InvalidFileError
from tools import photo_scores
from train.dataset.photo_clips import BatchSettings, PhotoClipLoader, SceneComposer, SceneSettings
from train.dataset.photo_library import PhotoLibrary
from train.dataset.posts import render_posts
from train.dataset.random_draws import RandomDraws
from train.dataset.structures import BatchedClip
from train.scripts import pack_photos, show_batch

SIDE = 64
STILL = SceneSettings(
    num_layers=0, in_place=1.0, camera_speed=0, zoom=0, turn=0, warp=0, noise=0, light=0, min_area=0.001
)


def write_photos(folder: Path, count: int = 3) -> Path:
    """Photos of a red square (label 3) and a blue one (label 7) on green."""
    (folder / "JPEGImages").mkdir(parents=True)
    (folder / "Annotations").mkdir()
    for number in range(count):
        labels = np.zeros((60, 80), np.uint8)
        labels[10:30, 10 + number : 30 + number] = 3
        labels[35:55, 45:70] = 7
        photo = np.full((60, 80, 3), (20, 160, 30), np.uint8)
        photo[labels == 3], photo[labels == 7] = (220, 20, 20), (20, 20, 220)
        Image.fromarray(photo).save(folder / "JPEGImages" / f"{number}.jpg", quality=95)
        Image.fromarray(labels).save(folder / "Annotations" / f"{number}.png")
    lines = [{"file": str(n), "objects": [{"index": 3, "category": "red"}]} for n in range(count)]
    (folder / "meta.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return folder


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    photos = write_photos(folder / "squares")
    background = folder / "background.png"
    Image.fromarray(np.full((40, 60, 3), 200, np.uint8)).save(background)
    output = folder / "pack.zip"
    arguments = ["--photos", str(photos), "--backgrounds", str(background), "--output", str(output), "--size", "64"]
    assert pack_photos.main(arguments) == 0
    return output


def test_pack_keeps_pixels_labels_and_categories(pack: Path) -> None:
    library = PhotoLibrary.open(pack)

    assert library.photos.shape == (3, 3, SIDE, SIDE) and library.backgrounds.shape == (1, 3, SIDE, SIDE)
    assert library.label_of.tolist() == [3, 7] * 3
    assert library.categories[0] != library.categories[1]
    torch.testing.assert_close(library.aspects, torch.full((3,), 80 / 60))
    torch.testing.assert_close(library.areas[0], torch.tensor(400 / 4800))
    red = library.photos[0][:, library.labels[0] == 3].float().mean(dim=1)
    assert red[0] > 180 and red[1] < 60


@pytest.mark.parametrize("damage", ["missing", "no zip", "no index", "cut picture"])
def test_a_file_that_is_no_pack_is_named(pack: Path, tmp_path: Path, damage: str) -> None:
    path = tmp_path / "bad.zip"
    if damage == "no zip":
        path.write_bytes(b"photos")
    elif damage != "missing":
        with zipfile.ZipFile(pack) as source, zipfile.ZipFile(path, "w") as target:
            for name in source.namelist():
                if damage != "no index" or name != "index.json":
                    data = source.read(name)
                    target.writestr(name, data[:20] if damage == "cut picture" and name.endswith(".webp") else data)

    with pytest.raises((FileNotFoundError, ValueError), match=r"bad\.zip"):
        PhotoLibrary.open(path)


def index_of(**changes: object) -> dict[str, object]:
    """The index of a pack of one photo with one object, some of whose values are others."""
    entry = {"label": 3, "category": "red", "center": [0, 0], "area": 0.2}
    photo = {"aspect": 1.0, "objects": [{**entry, **changes}]}
    return {"photos": [{**photo, **{key: changes[key] for key in photo if key in changes}}], "backgrounds": []}


@pytest.mark.parametrize(
    ("index", "message"),
    [
        (index_of(aspect=0), "photos.0.aspect: expected a number from 0.01 to 100"),
        (index_of(center=[1e308, 0]), "center.0: expected a number from -1 to 1"),
        (index_of(center=[0]), "expected a center of two numbers"),
        (index_of(label=[1]), "label: expected a whole number"),
        (index_of(category={}), "category: expected a text"),
        (index_of(area=None), "the key 'area' is missing"),
        (index_of(objects=3), "objects: expected a list"),
        ([], "expected an object"),
        ({"photos": [], "backgrounds": []}, "no object that covers"),
        ({**index_of(), "backgrounds": [{"aspect": 1}] * 10_000}, "its pictures would take"),
    ],
)
def test_the_index_of_a_pack_is_checked(pack: Path, tmp_path: Path, index: object, message: str) -> None:
    with zipfile.ZipFile(pack) as source, zipfile.ZipFile(tmp_path / "bad.zip", "w") as target:
        target.writestr("index.json", json.dumps(index))
        for name in ("photos/0.webp", "labels/0.png"):
            target.writestr(name, source.read(name))
    with pytest.raises(InvalidFileError, match=re.escape(message)):
        PhotoLibrary.open(tmp_path / "bad.zip")


def test_a_pack_holds_no_more_than_it_has_bytes(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("index.json", b" " * 100_000_000)
    with pytest.raises(InvalidFileError, match=r"bomb\.zip: .*its files are compressed"):
        PhotoLibrary.open(tmp_path / "bomb.zip")
    with zipfile.ZipFile(tmp_path / "shared.zip", "w") as archive:
        archive.writestr("index.json", b" " * 100_000)
        archive.filelist *= 3  # three names of the same bytes
    with pytest.raises(InvalidFileError, match=r"shared\.zip: .*more bytes than the archive has"):
        PhotoLibrary.open(tmp_path / "shared.zip")


def test_pictures_of_packs_and_photos_are_bounded(pack: Path, tmp_path: Path) -> None:
    photos = write_photos(tmp_path / "photos", count=1)
    Image.new("L", (9000, 9000)).save(photos / "Annotations" / "0.png")
    arguments = ["--photos", str(photos), "--backgrounds", str(photos), "--output", str(tmp_path / "x.zip")]
    assert pack_photos.main(arguments) == 1
    (photos / "meta.jsonl").write_text('{"file": 3}\n' + "[" * 5000)
    assert pack_photos.main(arguments) == 1
    assert not (tmp_path / "x.zip").exists()
    with zipfile.ZipFile(pack) as source, zipfile.ZipFile(tmp_path / "eps.zip", "w") as target:
        for name in source.namelist():
            script = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n%%EndComments\n"
            target.writestr(name, script if name == "photos/0.webp" else source.read(name))
    with pytest.raises(InvalidFileError, match=r"eps\.zip: photos/0\.webp: .*it is none of WEBP"):
        PhotoLibrary.open(tmp_path / "eps.zip")


def test_masks_lie_on_their_objects(pack: Path) -> None:
    composer = SceneComposer(PhotoLibrary.open(pack), STILL, num_frames=3, resolution=SIDE)

    batch = composer.compose(8, 2, torch.Generator().manual_seed(1))

    assert batch.frames.shape == (3, 8, 3, SIDE, SIDE) and batch.masks.shape[0] == 3
    assert sorted(set(batch.video_of.tolist())) == list(range(8))
    for number, clip in enumerate(batch.video_of.tolist()):
        mask, frame = batch.masks[0, number], batch.frames[0, clip]
        assert mask.any()
        inside = frame[:, mask].mean(dim=1)
        # Red or blue, in any case not the green around it.
        assert inside[1] < frame[1][~mask].mean()
        assert torch.equal(batch.masks[0, number], batch.masks[2, number])


def test_moving_layers_hide_what_is_below_them(pack: Path) -> None:
    scene = SceneSettings(num_layers=2, layer_prob=1.0, in_place=1.0, min_size=0.4)
    composer = SceneComposer(PhotoLibrary.open(pack), scene, num_frames=4, resolution=SIDE)

    batch = composer.compose(6, 3, torch.Generator().manual_seed(2))

    for clip in range(6):
        masks = batch.masks[:, batch.video_of == clip]
        assert masks.sum(dim=1).max() <= 1  # no pixel belongs to two objects
    assert not torch.equal(batch.masks[0], batch.masks[-1])
    assert torch.isfinite(batch.frames).all()


def test_a_post_hides_what_is_behind_it(pack: Path) -> None:
    def composed(posts: float) -> BatchedClip:
        scene = replace(STILL, posts=posts, speed=0.5)
        composer = SceneComposer(PhotoLibrary.open(pack), scene, num_frames=4, resolution=SIDE)
        return composer.compose(16, 1, torch.Generator().manual_seed(3))

    plain, with_posts = composed(0.0), composed(1.0)

    assert torch.equal(plain.masks[0], plain.masks[-1])  # nothing else moves in these scenes
    assert not torch.equal(with_posts.masks[0], with_posts.masks[-1])
    hidden = plain.masks[0].any(0) & ~with_posts.masks[0].any(0)
    assert hidden.any()


def test_a_post_reaches_from_edge_to_edge_and_covers_what_it_moves_over() -> None:
    draw = RandomDraws(torch.Generator().manual_seed(4), torch.device("cpu"))
    photos, paths = torch.rand((6, 3, 8, 8)), torch.tensor([0.0, 0.5]).expand(6, 2)

    pixels, opacity = render_posts(photos, paths, torch.ones(6), 64, draw)

    assert pixels.shape == (6, 2, 3, 64, 64) and opacity.shape == (6, 2, 64, 64)
    assert pixels.min() >= 0 and pixels.max() <= 1
    post = opacity[0, 0] > 0.5
    assert post.any(dim=1).all() or post.any(dim=0).all()
    center = (opacity * torch.arange(64)).sum((-2, -1)) / opacity.sum((-2, -1))
    assert ((center[:, 1] - center[:, 0]) > 2).any()  # half a half height is 16 pixels, for an upright post


def test_a_batch_follows_from_seed_epoch_and_number(pack: Path) -> None:
    def loader(seed: int, **changes: float) -> PhotoClipLoader:
        options = {"resolution": SIDE, "num_frames": 2, "clips_per_batch": 2, "images_per_batch": 3} | changes
        batches = BatchSettings(steps_per_epoch=6, **options)  # type: ignore[arg-type]
        return PhotoClipLoader(str(pack), seed, batches=batches, device="cpu")

    whole, tail = list(loader(4).epoch(1)), list(loader(4).epoch(1, start=4))

    assert len(whole) == len(loader(4)) == 6 and len(tail) == 2
    assert torch.equal(whole[4].frames, tail[0].frames) and torch.equal(whole[5].masks, tail[1].masks)
    assert not torch.equal(next(loader(5).epoch(1)).masks[:1, :1], whole[0].masks[:1, :1])
    assert {batch.num_frames for batch in loader(4, image_prob=1.0).epoch(0)} == {1}
    with pytest.raises(ValueError, match="image_prob"):
        loader(4, image_prob=1.5)


def test_show_batch_draws_a_row_for_each_object(pack: Path, tmp_path: Path) -> None:
    output = tmp_path / "batch.png"
    options = [f"dataset.pack={pack}", "scratch.resolution=64", "scratch.train_batch_size=2", "dataset.image_prob=0"]

    assert show_batch.main(["i2v-nano-train", "trainer.accelerator=cpu", *options, "--output", str(output)]) == 0

    with Image.open(output) as picture:
        assert picture.width == 4 * show_batch.SIDE and picture.height in (256, 384, 512)
    assert show_batch.main(["i2v-nano-train", "dataset.pack=/nowhere.zip", "--output", str(output)]) == 1


def test_photo_scores_counts_objects_and_refuses_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photos, scores = write_photos(tmp_path / "squares", count=1), tmp_path / "scores.json"

    assert photo_scores.main(["--photos", str(photos), "--json", str(scores)]) == 0

    written = json.loads(scores.read_text())
    assert [row["label"] for row in written["objects"]] == [3, 7]
    assert written["means"]["box"] == pytest.approx(np.mean([row["box"] for row in written["objects"]]))
    assert written["means"]["box"] > 0.3  # two plain squares
    assert photo_scores.main(["--photos", str(photos), "--min_area", "0.9"]) == 1
    assert "no object" in capsys.readouterr().err


def test_single_images_show_photos_as_they_are_with_all_their_objects(pack: Path) -> None:
    composer = SceneComposer(PhotoLibrary.open(pack), STILL, num_frames=1, resolution=SIDE)
    batch = composer.photos(16, max_num_objects=6, generator=torch.Generator().manual_seed(0))

    assert batch.frames.shape == (1, 16, 3, SIDE, SIDE)
    counts = torch.bincount(batch.video_of, minlength=16)
    assert counts.max() == 2 and counts.min() >= 1, "both squares, but for photos that are seen closely"
    for mask, video in zip(batch.masks[0], batch.video_of, strict=True):
        inside = batch.frames[0, video][:, mask].mean(dim=1)
        assert max(inside[0], inside[2]) > inside[1] + 1, "red or blue, not green"
    alone = composer.photos(16, max_num_objects=1, generator=torch.Generator().manual_seed(0))
    assert torch.equal(torch.bincount(alone.video_of), torch.ones(16, dtype=torch.long))


def test_shares_of_photos_and_compositions_follow_their_probabilities(pack: Path) -> None:
    settings = BatchSettings(resolution=32, images_per_batch=2, image_prob=1.0, max_image_objects=2, max_num_objects=1)
    for plain_prob, most in ((1.0, 2), (0.0, 1)):
        scene = SceneSettings(plain_prob=plain_prob)
        loader = PhotoClipLoader(str(pack), 0, batches=settings, device="cpu", scene=scene)
        counts = [torch.bincount(loader.batch(0, number).video_of).max() for number in range(8)]
        assert max(counts) == most
