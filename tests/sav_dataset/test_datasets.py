"""Where the benchmarks keep their files."""

from __future__ import annotations

import json

import pytest
from vos_support import make_label_tree, make_sav_tree

from sav_dataset.utils.datasets import (
    open_dataset,
    read_categories,
    read_seen_categories,
    read_video_list,
    unseen_objects,
    wanted_frames,
)

META = {
    "videos": {
        "a": {"objects": {"1": {"category": "dog", "frames": ["00000", "00005"]}}},
        "b": {
            "objects": {"1": {"category": "yak", "frames": ["00005"]}, "2": {"category": "dog", "frames": ["00003"]}}
        },
    }
}


@pytest.fixture
def meta(tmp_path):
    path = tmp_path / "meta.json"
    path.write_text(json.dumps(META))
    return path


def test_sav(tmp_path):
    data = open_dataset("sav", make_sav_tree(tmp_path, {"b": (2, [0]), "a": (2, [0])}))
    assert data.videos == ("a", "b")
    assert data.frames("a") == tmp_path / "JPEGImages_24fps" / "a"
    assert data.annotations == tmp_path / "Annotations_6fps"
    assert data.layout.object_folders and data.layout.skip == "first-last"


def test_a_video_file_serves_where_there_is_no_folder(tmp_path):
    root = make_sav_tree(tmp_path, {"a": (2, [0])})
    (root / "JPEGImages_24fps" / "c.mp4").touch()
    data = open_dataset("sav", root)
    assert data.videos == ("a", "c")
    assert data.frames("c").name == "c.mp4"


@pytest.mark.parametrize(
    ("name", "listing", "text"),
    [
        ("davis2017", "ImageSets/2017/val.txt", "a\n\n"),
        ("davis2016", "ImageSets/2016/val.txt", "a\n"),
        (
            "davis2016",
            "ImageSets/480p/val.txt",
            "/JPEGImages/480p/a/00000.jpg /Annotations/480p/a/00000.png\n"
            "/JPEGImages/480p/a/00001.jpg /Annotations/480p/a/00001.png\n",
        ),
    ],
)
def test_davis_lists_choose_the_videos(tmp_path, name, listing, text):
    make_label_tree(tmp_path / "plain", {"a": (2, [0]), "b": (2, [0])})
    for kind in ("JPEGImages", "Annotations"):
        (tmp_path / kind).mkdir()
        (tmp_path / "plain" / kind).rename(tmp_path / kind / "480p")
    (tmp_path / listing).parent.mkdir(parents=True)
    (tmp_path / listing).write_text(text)
    data = open_dataset(name, tmp_path)
    assert data.videos == ("a",)
    assert data.images == tmp_path / "JPEGImages" / "480p"
    assert data.layout.single_object == (name == "davis2016")


@pytest.mark.parametrize("name", ["mose", "lvos", "ytvos"])
def test_trees_by_split(tmp_path, name):
    make_label_tree(tmp_path, {"a": (2, [0])}, folders="valid")
    make_label_tree(tmp_path, {"t": (2, [0])}, folders="test")
    assert open_dataset(name, tmp_path).videos == ("a",)
    assert open_dataset(name, tmp_path, split="test").videos == ("t",)


def test_what_is_missing_is_named(tmp_path):
    with pytest.raises(ValueError, match="dataset: expected one of sav, davis2016"):
        open_dataset("vos", tmp_path)
    places = f"tried {tmp_path}/JPEGImages/480p, {tmp_path}/JPEGImages"
    with pytest.raises(FileNotFoundError, match=places):
        open_dataset("davis2017", tmp_path)
    root = make_label_tree(tmp_path, {"a": (2, [0])})
    (root / "list.txt").write_text("a\nb\nc\n")
    with pytest.raises(FileNotFoundError, match="no frames of b, c"):
        open_dataset("davis2017", root, video_list=root / "list.txt")
    (root / "list.txt").write_text("\n")
    with pytest.raises(ValueError, match="no video in this list"):
        read_video_list(root / "list.txt")


def test_categories(meta, tmp_path):
    assert read_categories(meta) == {("a", "1"): "dog", ("b", "1"): "yak", ("b", "2"): "dog"}
    assert unseen_objects(meta, {"dog", "cat"}) == {("b", "1")}
    (tmp_path / "seen.txt").write_text("dog\ncat \n\n")
    assert read_seen_categories(tmp_path / "seen.txt") == {"dog", "cat"}
    assert read_seen_categories(meta) == {"dog", "yak"}
    meta.write_text('{"videos": {"a": {"objects": {"1": {}}}}}')
    with pytest.raises(ValueError, match=r"meta.json: videos.a.objects.1: the key 'category' is missing"):
        read_categories(meta)
    meta.write_text('{"videos": {"a": {}}}')
    with pytest.raises(ValueError, match=r"meta.json: videos.a: the key 'objects' is missing"):
        read_categories(meta)


def test_frames_that_a_server_wants(meta):
    assert wanted_frames(meta) == {"a": ["00000", "00005"], "b": ["00003", "00005"]}
