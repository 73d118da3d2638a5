"""What file managers, archives and notebooks leave in users' folders is no frame, mask, object or video anywhere."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from data_support import write_davis, write_mp4, write_sa1b, write_sav
from train_support import write_held_out
from vos_support import make_label_tree, make_sav_tree

from i2v.annotator.video_folder import find_videos
from i2v.utils.listing import is_visible, visible_entries
from i2v.video.image_files import find_pictures
from i2v.video.sources import open_source
from sav_dataset.utils.datasets import open_dataset
from sav_dataset.utils.sav_benchmark import EvaluationSettings, evaluate
from sav_dataset.utils.sav_utils import SAVDataset
from train.dataset.survey import survey
from train.dataset.vos_raw_dataset import ImageMaskRawDataset, JSONRawDataset, PNGRawDataset, SA1BRawDataset
from train.validation import find_videos as find_held_out


def litter(root: Path) -> Path:
    """Leave in every folder of a tree what programs leave there."""
    folders = [root, *(path for path in root.rglob("*") if path.is_dir())]
    for folder in folders:
        files = [path for path in folder.iterdir() if path.is_file()]
        for name in (".ipynb_checkpoints", "__MACOSX", "@eaDir"):
            (folder / name).mkdir()
            for file in files[:1]:
                shutil.copy(file, folder / name / file.name)
        for name in (".DS_Store", "Thumbs.db", "desktop.ini", *(f"._{file.name}" for file in files)):
            (folder / name).write_bytes(b"\0\5\x16\7 no picture")
    return root


def test_names() -> None:
    assert not any(map(is_visible, (".DS_Store", "._a.png", ".ipynb_checkpoints", "__MACOSX", "THUMBS.DB")))
    assert all(map(is_visible, ("a.png", "MACOSX", "_a", "thumbs")))


def test_folders_that_are_not_there(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(FileNotFoundError, match="nowhere: there is no such folder"):
        visible_entries(tmp_path / "nowhere")
    with pytest.raises(NotADirectoryError, match="file: this is a file, expected a folder"):
        visible_entries(tmp_path / "file")


def test_frames_and_videos_of_a_folder(tmp_path: Path) -> None:
    write_davis(tmp_path / "many", ["a", "b"], num_frames=3)
    write_mp4(tmp_path / "many" / "JPEGImages" / "c.mp4", 3)
    folder = litter(tmp_path / "many") / "JPEGImages"
    assert open_source(folder / "a").num_frames == open_source(folder / "a" / "*.jpg").num_frames == 3
    assert len(find_pictures(folder / "a")) == 3
    assert [path.name for path in find_videos(folder) or ()] == ["a", "b", "c.mp4"]


def test_training_data(tmp_path: Path) -> None:
    write_davis(tmp_path / "davis", ["a", "b"])
    write_sav(tmp_path / "sav", ["sav_000001"])
    write_sa1b(tmp_path / "sa1b", ["sa_1", "sa_2"])
    litter(tmp_path)
    davis = PNGRawDataset(tmp_path / "davis" / "JPEGImages", tmp_path / "davis" / "Annotations")
    facts = survey(davis, 3)
    assert (davis.names, dict(facts.problems)) == (["a", "b"], {})
    assert [(video.num_frames, video.objects) for video in facts.videos] == [(6, (1, 2))] * 2
    assert JSONRawDataset(tmp_path / "sav" / "jpg", tmp_path / "sav" / "json").names == ["sav_000001"]
    assert SA1BRawDataset(tmp_path / "sa1b" / "jpg", tmp_path / "sa1b" / "json").names == ["sa_1", "sa_2"]
    assert SAVDataset(tmp_path / "sav" / "json").videos == ["sav_000001"]
    pairs = ImageMaskRawDataset(tmp_path / "davis" / "JPEGImages" / "a", tmp_path / "davis" / "Annotations" / "a")
    assert len(pairs) == 6


def test_masks_of_objects(tmp_path: Path) -> None:
    tree = make_sav_tree(tmp_path, {"v": (12, [0, 0])})
    litter(tree)
    facts = survey(PNGRawDataset(tree / "JPEGImages_24fps", tree / "Annotations_6fps"), 3)
    assert [(video.num_frames, video.objects) for video in facts.videos] == [(3, (1, 2))]


def test_testing_scoring_and_validation(tmp_path: Path) -> None:
    for tree, name in ((make_sav_tree, "sav"), (make_label_tree, "mose")):
        root = litter(tree(tmp_path / name, {"v": (12, [0, 0]), "w": (12, [0])}))
        data = open_dataset(name, root)
        assert data.videos == ("v", "w")
        scores = evaluate(data.annotations, data.annotations, EvaluationSettings(skip="none"))
        assert (scores.jf, len(scores.objects), scores.warnings) == (100, 3, ())
    (video,) = find_held_out(*map(litter, write_held_out(tmp_path / "held_out")))
    assert len(video.numbers) == 6
