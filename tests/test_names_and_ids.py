"""Names and times of frames, and ids of objects, from the caller to the results."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from export_support import Score
from PIL import Image
from support import make_predictor, options_of_tiny_track, render_video

from i2v.cli.main import main
from i2v.inference.live_session import LiveSession
from i2v.prompts.object_ids import canonical_id
from i2v.results.export import ResultFolder, assign_labels, read_label_png, write_label_png
from i2v.results.frame_names import FrameNames, clear_masks
from i2v.results.masks_json import RleJson
from i2v.results.overlay import VideoWriter
from i2v.video.sources import open_source

VIDEO = render_video(4)


@pytest.fixture
def options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Of `i2v track` with a tiny model, in a working directory of its own."""
    monkeypatch.chdir(tmp_path)
    return options_of_tiny_track(tmp_path)


def write_frames(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True)
    for name, picture in zip(names, VIDEO, strict=False):
        Image.fromarray(picture).save(folder / name)
    return folder


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def content(out: Path) -> Any:
    return json.loads((out / "masks.json").read_text())


def test_masks_have_the_names_of_their_frames(options: list[str]) -> None:
    write_frames(Path("clip"), "00050.jpg", "00060.jpg", "00070.jpg")
    assert main(["track", "clip", *options]) == 0
    assert names_in(Path("clip_i2v/masks")) == ["00050.png", "00060.png", "00070.png"]
    found = content(Path("clip_i2v"))
    assert found["video"] == "clip"
    assert [(record["frame"], record["name"]) for record in found["frames"]] == [
        (0, "00050.jpg"),
        (1, "00060.jpg"),
        (2, "00070.jpg"),
    ]
    assert main(["track", "clip", *options, "--renumber", "--overwrite", "--direction", "both"]) == 0
    assert names_in(Path("clip_i2v/masks")) == ["00000.png", "00001.png", "00002.png"]
    assert [record["name"] for record in content(Path("clip_i2v"))["frames"]] == ["00050.jpg", "00060.jpg", "00070.jpg"]


def test_results_of_another_folder_replace_those_before(options: list[str]) -> None:
    write_frames(Path("a"), "left eye.png", "right eye.png")
    write_frames(Path("b"), "2024-08-01T12:30:05.jpg", "2024-08-01T12:30:06.jpg")
    assert main(["track", "a", *options, "--out", "out"]) == 0
    Image.fromarray(VIDEO[0]).save("out/masks/mine.png")
    assert names_in(Path("out/masks")) == ["left eye.png", "mine.png", "right eye.png"]
    assert main(["track", "b", *options, "--out", "out", "--overwrite"]) == 0
    assert names_in(Path("out/masks")) == ["2024-08-01T12:30:05.png", "2024-08-01T12:30:06.png", "mine.png"]


def test_frames_of_a_video_file_have_times(options: list[str]) -> None:
    with VideoWriter("12:30.mp4", frame_rate=10) as video:
        for picture in VIDEO:
            video.write(picture)
    assert main(["track", "12:30.mp4", *options]) == 0
    assert names_in(Path("12:30_i2v/masks")) == [f"{frame:05d}.png" for frame in range(4)]
    found = content(Path("12:30_i2v"))
    assert (found["video"], found["frame_rate"]) == ("12:30.mp4", 10)
    assert [record["time"] for record in found["frames"]] == pytest.approx([0, 0.1, 0.2, 0.3])
    assert all("name" not in record for record in found["frames"])


def test_names_that_cannot_be_kept_become_numbers(tmp_path: Path) -> None:
    write_frames(tmp_path / "a", "0.png", "1.png")
    write_frames(tmp_path / "b", "0.png", "1.png")
    source = open_source(tmp_path / "*" / "*.png")
    names = FrameNames(source)
    assert [names.mask_name(frame) for frame in range(4)] == ["00000.png", "00001.png", "00002.png", "00003.png"]
    assert names.describe(3) == {"frame": 3, "name": "1.png"}
    write_frames(tmp_path / "c", "a\nb.png", "c.png")
    assert FrameNames(open_source(tmp_path / "c")).mask_name(1) == "00001.png"
    write_frames(tmp_path / "d", f"{'x' * 220}.png", "c.png")
    assert FrameNames(open_source(tmp_path / "d")).mask_name(1) == "00001.png"
    for unnamed in (None, object(), open_source(VIDEO)):
        assert FrameNames(unnamed).mask_name(7) == "00007.png"


def test_only_masks_that_were_made_here_are_cleared(tmp_path: Path) -> None:
    write_label_png(tmp_path / "a frame.png", np.ones((4, 5), np.uint8))
    (tmp_path / "00007.png").write_bytes(b"as it was before")
    own = Image.fromarray(np.ones((4, 5), np.uint8))
    own.putpalette([1, 2, 3] * 256)
    own.save(tmp_path / "other palette.png")
    for name in ("short.png", "7.png", "notes.txt"):
        (tmp_path / name).write_bytes(b"\x89PNG")
    clear_masks(tmp_path)
    assert names_in(tmp_path) == ["7.png", "notes.txt", "other palette.png", "short.png"]


# Ids


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (3, 3),
        (np.int64(3), 3),
        (np.uint8(3), 3),
        (np.array(3), 3),
        (torch.tensor(3), 3),
        (torch.tensor([3], dtype=torch.uint8), 3),
        (True, 1),
        (np.True_, 1),
        ("cat", "cat"),
        (np.str_("cat"), "cat"),
        ((1, "a"), (1, "a")),
        (2.5, 2.5),
        (np.float32(2.5), 2.5),
        (None, None),
    ],
)
def test_ids_have_one_form(given: Any, wanted: Any) -> None:
    found = canonical_id(given)
    assert found == wanted
    assert type(found) is (int if isinstance(wanted, bool) else type(wanted))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([1], "got list"),
        ({"id": 1}, "got dict"),
        (torch.tensor([1, 2]), r"expected one integer, got Tensor of shape \(2,\)"),
        (torch.tensor(1.5), "expected one integer, got Tensor"),
        (np.array([1, 2]), "expected one integer, got ndarray"),
    ],
)
def test_what_is_no_id_is_told(given: Any, message: str) -> None:
    with pytest.raises(TypeError, match=f"^object id: .*{message}"):
        canonical_id(given)
    predictor = make_predictor()
    with predictor.init_state(VIDEO) as state, pytest.raises(TypeError, match=r"^object id: "):
        predictor.add_new_points_or_box(state, 0, given, points=[[16, 19]], labels=[1])
    assert state.obj_ids == []


def test_equal_ids_are_one_object() -> None:
    predictor = make_predictor()
    with predictor.init_state(VIDEO) as state:
        predictor.add_new_points_or_box(state, 0, torch.tensor(3), points=[[16, 19]], labels=[1])
        predictor.add_new_points_or_box(state, 0, torch.tensor(3), points=[[17, 19]], labels=[1])
        predictor.add_new_mask(state, 1, np.int64(3), VIDEO[0, ..., 0] > 200)
        predictor.add_new_points_or_box(state, 0, np.str_("cat"), points=[[40, 30]], labels=[1])
        assert [(type(i), i) for i in state.obj_ids] == [(int, 3), (str, "cat")]
        assert state.has_mask(torch.tensor(3), 1)
        assert list(predictor.masks_on_frame(state, 0, obj_ids=[np.int16(3)])[1]) == [3]
        assert [ids for _, ids, _ in predictor.propagate_in_video(state, obj_ids=[torch.tensor(3)])] == [[3]] * 4
        snapshot = state.snapshot_object(np.int64(3))
        predictor.clear_all_prompts_in_frame(state, 1, torch.tensor(3))
        assert predictor.remove_object(state, torch.tensor(3), strict=True)[0] == ["cat"]
        state.restore_object(np.int64(3), snapshot)
        assert state.obj_ids == ["cat", 3]


def test_ids_of_a_live_session_are_the_same() -> None:
    with LiveSession(make_predictor()) as session:
        session.step(VIDEO[0])
        session.add_new_points_or_box(np.int64(7), points=[[16, 19]], labels=[1])
        assert session.step(VIDEO[1])[1] == [7]
        assert session.remove_object(torch.tensor(7)) == []


def test_ids_of_numpy_are_labels_and_json(tmp_path: Path) -> None:
    ids = [np.int64(3), np.int64(7)]
    assert assign_labels(ids) == {3: 3, 7: 7}
    results = ResultFolder(tmp_path / "out", ids)
    logits = torch.full((2, 1, 48, 64), -1.0)
    logits[0, 0, :10], logits[1, 0, 20:] = 1, 1
    results.add(0, ids, logits, {ids[0]: Score(1.5, 0.5)})
    results.finish(open_source(VIDEO), [])
    assert set(np.unique(read_label_png(results.mask_path(0)))) == {0, 3, 7}
    found = content(tmp_path / "out")
    assert found["objects"] == [{"id": 3, "label": 3}, {"id": 7, "label": 7}]
    assert [(o["id"], o["object_score"]) for o in found["frames"][0]["objects"]] == [(3, 1.5), (7, None)]


def test_ids_that_json_has_not_are_refused_before_anything_is_done(tmp_path: Path) -> None:
    for ids in ([(1, 2)], [None], [2.5]):
        with pytest.raises(ValueError, match=r"masks\.json: ids of objects: expected integers or texts, got "):
            ResultFolder(tmp_path / "out", ids)
        with pytest.raises(ValueError, match="expected integers or texts"):
            RleJson(tmp_path / "masks.json", {ids[0]: 1})
    assert names_in(tmp_path) == []


def test_labels_that_are_not_the_ids_are_told(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    write_frames(Path("clip"), "0.png", "1.png")
    assert (
        main(["track", "clip", *options[:-2], "--object", "0", "--click", "16,19", "--object", "1", "--click", "40,30"])
        == 0
    )
    assert "object 0 has label 1, object 1 has label 2" in capsys.readouterr().out
    assert content(Path("clip_i2v"))["objects"] == [{"id": 0, "label": 1}, {"id": 1, "label": 2}]
    assert main(["track", "clip", *options, "--overwrite"]) == 0
    assert "label" not in capsys.readouterr().out
