"""Readers find videos in every layout, give exact masks of the right frames, and name what is broken."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from data_support import (
    HEIGHT,
    WIDTH,
    disc,
    found_frame,
    moving,
    picture,
    resting,
    rle,
    write_davis,
    write_jpegs,
    write_mp4,
    write_sa1b,
    write_sav,
    write_sav_json,
)
from PIL import Image

from i2v.results.rle import RunLengths
from sav_dataset.utils.label_pictures import read_labels
from train.dataset.frame_reader import open_frames, read_image
from train.dataset.vos_raw_dataset import (
    AnnotatedVideo,
    ImageMaskRawDataset,
    JSONRawDataset,
    PNGRawDataset,
    RawDataset,
    SA1BRawDataset,
    read_list,
)
from train.dataset.vos_segment_loader import JSONSegmentLoader, SA1BSegmentLoader


def opened(dataset: RawDataset, index: int = 0) -> AnnotatedVideo:
    video = dataset.open(index, np.random.default_rng(0))
    assert isinstance(video, AnnotatedVideo)
    return video


def same(mask: torch.Tensor, wanted: np.ndarray) -> bool:
    return bool((mask.numpy() == wanted).all())


@pytest.mark.parametrize("kind", ["jpg", "mp4", "nested"])
def test_sav_gives_annotated_frames_with_their_masks(tmp_path: Path, kind: str) -> None:
    write_sav(tmp_path, ["sav_000001"])
    folder = tmp_path / "jpg"
    if kind != "jpg":
        folder = tmp_path / "videos"
        write_mp4(folder / ("sav_000" if kind == "nested" else "") / "sav_000001.mp4", 20)
    video = opened(JSONRawDataset(folder, tmp_path / "json"))
    assert video.name == "sav_000001"
    assert list(video.frames) == [0, 4, 8, 12, 16]
    assert (list(video.visible(0)), list(video.visible(4))) == ([0, 2], [0])
    found = video.load(4, [2, 0], 16)
    assert found_frame(found) == 4
    assert same(found.masks[0], np.zeros((HEIGHT, WIDTH), bool))
    assert same(found.masks[1], moving(4))
    assert video.load(8, [], 16).masks.shape == (0, HEIGHT, WIDTH)
    video.close()


def test_sav_as_downloaded_prefers_extracted_frames_and_reads_the_kind_of_masks_told(tmp_path: Path) -> None:
    shard = tmp_path / "sav_000"
    write_mp4(shard / "sav_000001.mp4", 9)
    write_jpegs(shard / "sav_000001", [0, 4])
    write_sav_json(shard / "sav_000001_manual.json", 9)
    write_sav_json(shard / "sav_000001_auto.json", 5)
    # Frame 8 is in the video file alone.
    assert list(opened(JSONRawDataset(tmp_path, tmp_path)).frames) == [0, 4]
    (shard / "sav_000001").rename(tmp_path / "elsewhere")
    assert list(opened(JSONRawDataset(tmp_path, tmp_path)).frames) == [0, 4, 8]
    assert list(opened(JSONRawDataset(tmp_path, tmp_path, annotation="auto")).frames) == [0, 4]


def test_sample_rate_takes_every_nth_annotated_frame(tmp_path: Path) -> None:
    write_sav(tmp_path, ["a"])
    assert list(opened(JSONRawDataset(tmp_path / "jpg", tmp_path / "json", sample_rate=2)).frames) == [0, 8, 16]


def test_json_masks_in_other_shapes_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    runs = {"size": [2, 3], "counts": [1, 2, 3]}
    path.write_text(json.dumps([[runs], None, [None]]))
    loader = JSONSegmentLoader(path, ann_every=5)
    assert list(loader.frames) == [0, 10]
    assert loader.load(0, [0])[0].tolist() == [[False, True, False], [True, False, False]]
    assert list(loader.visible(10)) == []
    assert loader.load(10, [0]).tolist() == [[[False] * 3] * 2]
    path.write_text(json.dumps({"fps": [6], "masks": [[runs], [runs]]}))
    assert list(JSONSegmentLoader(path, ann_every=1).frames) == [0, 4]
    path.write_text(json.dumps({"fps": 7, "masks": []}))
    with pytest.raises(ValueError, match=r"a\.json: fps: expected a divisor of 24 as annotation rate, got 7"):
        JSONSegmentLoader(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "cannot be read"),
        ('{"video_id": 1}', "no list of masks under the key masklet or masks"),
        ('[[{"size": [2], "counts": "0"}]]', "frame 0: the run lengths of a mask: expected a size of two numbers"),
        (
            '[[{"size": [2, 3], "counts": 7}]]',
            "object 0: the run lengths of a mask: expected a text or integers, got 7",
        ),
        (
            '[[{"size": [2, 3], "counts": "0"}]]',
            "object 0: the run lengths of a mask: expected them to cover 3x2 pixels",
        ),
        (
            '[[{"size": [2, 3], "counts": "99"}]]',
            "object 0: the run lengths of a mask: expected them to cover 3x2 pixels",
        ),
        ("[[]]", "this frame has 0 objects"),
        ("[]", "frame 0 is not annotated"),
    ],
)
def test_broken_json_masks_are_told_with_their_path(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "broken.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=message) as caught:
        JSONSegmentLoader(path).load(0, [0])
    assert str(path) in str(caught.value)


def test_rle_decodes_as_it_was_encoded() -> None:
    generator = np.random.default_rng(0)
    for _ in range(20):
        mask = generator.random(generator.integers(1, 70, 2)) > generator.random()
        lengths = RunLengths.of_coco(rle(mask))
        assert same(torch.from_numpy(lengths.mask()), mask)
        assert lengths.area == mask.sum()


def test_sa1b_keeps_masks_with_pixels_and_below_the_threshold(tmp_path: Path) -> None:
    write_sa1b(tmp_path, ["sa_2", "sa_1"])
    dataset = SA1BRawDataset(tmp_path / "jpg", tmp_path / "json")
    assert dataset.names == ["sa_1", "sa_2"]
    video = opened(dataset)
    assert (list(video.frames), list(video.visible(0))) == ([0], [0, 1])
    found = video.load(0, [1, 0], 16)
    assert same(found.masks[0], np.ones((HEIGHT, WIDTH), bool)) and same(found.masks[1], moving(0))
    small = SA1BRawDataset(tmp_path / "jpg", tmp_path / "json", mask_area_frac_thresh=0.9)
    assert list(opened(small).visible(0)) == [0]


def test_sa1b_uncertain_masks_are_dropped_where_the_file_says_so(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    mask = {"segmentation": rle(moving(0)), "area": 5}
    path.write_text(json.dumps({"annotations": [mask, {**mask, "uncertain_iou": 0.3}]}))
    assert len(SA1BSegmentLoader(path).visible(0)) == 2
    assert len(SA1BSegmentLoader(path, uncertain_iou=0.5).visible(0)) == 1
    path.write_text("{}")
    with pytest.raises(ValueError, match="the key 'annotations' is missing"):
        SA1BSegmentLoader(path)


def test_palette_pngs_hold_several_objects(tmp_path: Path) -> None:
    write_davis(tmp_path, ["b", "a"])
    dataset = PNGRawDataset(tmp_path / "JPEGImages", tmp_path / "Annotations")
    assert dataset.names == ["a", "b"]
    video = opened(dataset)
    assert (list(video.frames), list(video.visible(3))) == ([0, 1, 2, 3, 4, 5], [1, 2])
    found = video.load(3, [2, 1, 7], 16)
    assert found_frame(found) == 3
    assert same(found.masks[0], resting()) and same(found.masks[1], moving(3) & ~resting())
    assert not found.masks[2].any()
    ignoring = PNGRawDataset(tmp_path / "JPEGImages", tmp_path / "Annotations", ignored_labels=[2])
    assert list(opened(ignoring).visible(3)) == [1]


def test_255_is_void_beside_other_labels_and_an_object_alone(tmp_path: Path) -> None:
    write_davis(tmp_path, ["a", "b"])
    folder = tmp_path / "Annotations"
    for path in sorted(folder.rglob("*.png")):
        labels = np.array(Image.open(path))
        if path.parent.name == "b":
            labels[labels > 0] = 255
        elif path.stem > "00001":
            labels[labels == 1] = 255  # there is no more than void, but for the first frames
        Image.fromarray(labels).save(path)
    dataset = PNGRawDataset(tmp_path / "JPEGImages", folder)
    assert [list(opened(dataset, 0).visible(frame)) for frame in (0, 4)] == [[1, 2], [2]]
    assert list(opened(dataset, 1).visible(4)) == [255]
    both = PNGRawDataset(tmp_path / "JPEGImages", folder, ignored_labels=[])
    assert list(opened(both, 0).visible(4)) == [2, 255]
    images = ImageMaskRawDataset(tmp_path / "JPEGImages", folder)
    assert {name: list(opened(images, i).visible(0)) for i, name in enumerate(images.names)}["00004"] in ([2], [255])


def test_among_colours_and_wide_labels_255_is_an_object(tmp_path: Path) -> None:
    write_davis(tmp_path, ["a", "b"])
    for path in sorted((tmp_path / "Annotations").rglob("*.png")):
        labels = np.array(Image.open(path)).astype(np.uint16)
        labels[labels == 1] = 255
        colours = np.stack([0 * labels, labels % 255, labels * (labels == 255)], axis=2).astype(np.uint8)
        Image.fromarray(labels if path.parent.name == "a" else colours).save(path)
    dataset = PNGRawDataset(tmp_path / "JPEGImages", tmp_path / "Annotations")
    assert list(opened(dataset, 0).visible(0)) == [2, 255]
    assert list(opened(dataset, 1).visible(0)) == [255, 2 << 8]


def test_masks_are_matched_to_frames_by_name_where_names_are_no_numbers(tmp_path: Path) -> None:
    write_davis(tmp_path, ["a"])
    for folder, suffix in (("JPEGImages", "jpg"), ("Annotations", "png")):
        for frame in range(6):
            file = tmp_path / folder / "a" / f"{frame:05d}.{suffix}"
            file.rename(file.with_name(f"shot{frame}.{suffix}"))
    for frame in (0, 1, 3):  # as where only some frames have masks
        (tmp_path / "Annotations" / "a" / f"shot{frame}.png").unlink()
    video = opened(PNGRawDataset(tmp_path / "JPEGImages", tmp_path / "Annotations"))
    assert list(video.frames) == [2, 4, 5]
    found = video.load(4, [1], WIDTH)
    assert found_frame(found) == 4 and same(found.masks[0], moving(4) & ~resting())


def test_a_video_file_can_stand_for_a_folder_of_frames(tmp_path: Path) -> None:
    write_davis(tmp_path, ["a"])
    write_mp4(tmp_path / "videos" / "a.mp4", 6)
    video = opened(PNGRawDataset(tmp_path / "videos", tmp_path / "Annotations", sample_rate=2))
    assert list(video.frames) == [0, 2, 4]
    assert found_frame(video.load(4, [1], 16)) == 4


def test_folders_of_objects_as_in_sav_val(tmp_path: Path) -> None:
    write_jpegs(tmp_path / "frames" / "v", range(5))
    for folder, frames in (("000", (0, 4)), ("002", (4,))):
        (tmp_path / "masks" / "v" / folder).mkdir(parents=True)
        for frame in frames:
            Image.fromarray(moving(frame)).save(tmp_path / "masks" / "v" / folder / f"{frame:05d}.png")
    video = opened(PNGRawDataset(tmp_path / "frames", tmp_path / "masks"))
    assert list(video.frames) == [0, 4]
    assert (list(video.visible(0)), list(video.visible(4))) == ([1], [1, 3])
    masks = video.load(0, [3, 1], 16).masks
    assert not masks[0].any() and same(masks[1], moving(0))


def test_images_with_masks_of_the_same_name(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    for name in ("cat", "dog", "no_mask"):
        Image.fromarray(picture(0)).save(tmp_path / "images" / f"{name}.jpg")
    for name in ("cat", "dog"):
        Image.fromarray(moving(0).astype(np.uint8) * 255).save(tmp_path / "masks" / f"{name}.png")
    dataset = ImageMaskRawDataset(tmp_path / "images", tmp_path / "masks")
    assert dataset.names == ["cat", "dog"]
    video = opened(dataset, 1)
    assert (video.name, list(video.visible(0))) == ("dog", [255])
    assert same(video.load(0, [255], 16).masks[0], moving(0))


def test_labels_of_every_kind_of_mask_image(tmp_path: Path) -> None:
    path = tmp_path / "mask.png"
    square = np.zeros((4, 6), np.uint8)
    square[1:3, 2:4] = 1
    for image, label in (
        (Image.fromarray(square.astype(bool)), 255),
        (Image.fromarray(square * 7), 7),
        (Image.fromarray(square.astype(np.uint16) * 300), 300),
        (Image.fromarray(np.stack([square, square * 2, square * 3], -1)), 0x010203),
    ):
        image.save(path)
        assert (read_labels(path) == square.astype(int) * label).all(), image.mode


def test_names_that_are_no_numbers_count_in_natural_order(tmp_path: Path) -> None:
    for name in ("img10.jpg", "img9.jpg", ".hidden.jpg", "notes.txt"):
        (tmp_path / name).touch()
    Image.fromarray(picture(1)).save(tmp_path / "img9.jpg")
    reader = open_frames(tmp_path)
    assert list(reader.frames) == [0, 1]
    assert reader.read(0, WIDTH).shape == (3, HEIGHT, WIDTH)


def test_jpegs_are_reduced_while_decoding_but_never_below_the_size_wanted(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    Image.fromarray(np.zeros((128, 256, 3), np.uint8)).save(path)
    shapes = {size: tuple(read_image(path, size).shape) for size in (None, 20, 64, 65)}
    assert shapes == {None: (3, 128, 256), 20: (3, 32, 64), 64: (3, 64, 128), 65: (3, 128, 256)}


def test_frames_stored_smaller_than_their_masks_are_fine_but_turned_ones_are_not(tmp_path: Path) -> None:
    write_davis(tmp_path, ["a"])
    path = tmp_path / "JPEGImages" / "a" / "00001.jpg"
    Image.fromarray(picture(1)).resize((WIDTH // 2, HEIGHT // 2)).save(path)
    video = opened(PNGRawDataset(tmp_path / "JPEGImages", tmp_path / "Annotations"))
    found = video.load(1, [1], 16)
    assert (found.image.shape[1:], found.masks.shape[1:]) == ((HEIGHT // 2, WIDTH // 2), (HEIGHT, WIDTH))
    Image.fromarray(picture(1)).transpose(Image.Transpose.ROTATE_90).save(path)
    with pytest.raises(ValueError, match="JPEGImages/a: frame 1: the image is 36x64, its masks are 64x36"):
        video.load(1, [1], WIDTH)


def test_broken_images_are_told_with_their_path(tmp_path: Path) -> None:
    path = tmp_path / "cut.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:900])
    with pytest.raises(ValueError, match=r"cut\.jpg: this image cannot be read"):
        read_image(path)
    (tmp_path / "mask.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"mask\.png: this image cannot be read"):
        read_labels(tmp_path / "mask.png")
    with pytest.raises(FileNotFoundError, match="gone"):
        read_image(tmp_path / "gone.jpg")


def test_lists_choose_and_exclude(tmp_path: Path) -> None:
    write_sa1b(tmp_path, ["sa_1", "sa_2", "sa_3"])
    wanted, out = tmp_path / "list.txt", tmp_path / "out.txt"
    wanted.write_text("sa_3.jpg\n\n  sa_1.jpg \nsa_2.jpg")
    out.write_text("sa_1\n")
    folders = (tmp_path / "jpg", tmp_path / "json")
    assert SA1BRawDataset(*folders, wanted).names == ["sa_3", "sa_1", "sa_2"]
    assert SA1BRawDataset(*folders, wanted, out).names == ["sa_3", "sa_2"]
    assert SA1BRawDataset(*folders, None, [out]).names == ["sa_2", "sa_3"]


def test_missing_samples_are_left_out_up_to_a_share(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_sa1b(tmp_path, ["sa_1", "sa_2", "sa_3"])
    (tmp_path / "json" / "sa_2.json").unlink()
    wanted = tmp_path / "list.txt"
    wanted.write_text("sa_1\nsa_2\nsa_3\nsa_4\n")
    folders = (tmp_path / "jpg", tmp_path / "json")
    with pytest.raises(ValueError, match=r"2 are missing \(sa_2 first\)"):
        SA1BRawDataset(*folders, wanted)
    assert SA1BRawDataset(*folders, wanted, max_missing=0.5).names == ["sa_1", "sa_3"]
    assert "2 are missing" in caplog.text


def test_lists_that_make_no_sense(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_text("\n \n")
    with pytest.raises(ValueError, match="this list is empty"):
        read_list(path)
    path.write_text("a\nb.jpg\nb\n")
    with pytest.raises(ValueError, match="b is listed 2 times"):
        read_list(path)


def test_empty_and_missing_folders(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"there are no videos in .*empty with a folder of the same name"):
        PNGRawDataset(tmp_path / "empty", tmp_path / "empty")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        SA1BRawDataset(tmp_path / "nowhere", tmp_path / "empty")
    write_davis(tmp_path, ["a"])
    for file in (tmp_path / "Annotations" / "a").iterdir():
        file.unlink()
    dataset = PNGRawDataset(tmp_path / "JPEGImages", tmp_path / "Annotations")
    with pytest.raises(ValueError, match="neither PNG masks nor folders of objects"):
        opened(dataset)


def test_masks_of_one_frame_that_differ_in_size(tmp_path: Path) -> None:
    write_jpegs(tmp_path / "frames" / "v", [0])
    for folder, size in (("000", (36, 64)), ("001", (18, 32))):
        (tmp_path / "masks" / "v" / folder).mkdir(parents=True)
        Image.fromarray(disc(9, 9, 5, size)).save(tmp_path / "masks" / "v" / folder / "00000.png")
    video = opened(PNGRawDataset(tmp_path / "frames", tmp_path / "masks"))
    with pytest.raises(ValueError, match=r"00000\.png: expected a mask of size \(36, 64\) like .*, got \(18, 32\)"):
        video.load(0, [1, 2], 16)
