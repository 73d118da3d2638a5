"""mask_info: written by the tool, read back; published files read without running anything."""

from __future__ import annotations

import io
import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from vos_support import disc_mask, make_label_tree, make_sav_tree, write_mask

from i2v.errors import InvalidFileError
from i2v.results.rle import encode_mask
from sav_dataset.utils.mask_info import MaskInfo, mask_info_files, read_mask_info
from sav_dataset.utils.published_masks import load_published
from tools.save_gt_mask_multiprocess import main

CONTENT = {"video": "v", "object": "000", "size": [2, 3], "annotated": [0, 4], "counts": {"0": "06"}}


def convert(root: Path, *arguments: str) -> int:
    return main(["--data_root", str(root), "--workers", "1", *arguments])


def test_objects_are_numbered_as_published_and_keep_their_names(tmp_path):
    root = make_sav_tree(tmp_path, {"v": (13, [0, 99, 5])})  # the second object never appears
    assert convert(root) == 0
    infos = [read_mask_info(path) for path in mask_info_files(root / "mask_info" / "v")]
    assert [path.name for path in mask_info_files(root / "mask_info" / "v")] == ["000.json", "001.json"]
    assert [info.name for info in infos] == ["000", "002"]
    assert [info.first_frame for info in infos] == [0, 8]
    assert infos[1].annotated == (0, 4, 8, 12)
    assert np.array_equal(infos[1].mask(8), disc_mask(2, 8))
    assert not infos[1].mask(4).any() and infos[1].mask(4).shape == (48, 64)
    with pytest.raises(KeyError, match="v, object 002: frame 3 has no annotation"):
        infos[1].mask(3)


def test_label_images_are_converted_too(tmp_path):
    root = make_label_tree(tmp_path, {"v": (6, [0, 3])})
    assert convert(root, "--output", str(tmp_path / "out")) == 0
    infos = [read_mask_info(path) for path in mask_info_files(tmp_path / "out" / "v")]
    assert [(info.name, info.first_frame) for info in infos] == [("1", 0), ("2", 3)]


def test_finished_videos_are_skipped_and_failures_leave_nothing(tmp_path, capsys):
    root = make_sav_tree(tmp_path, {"a": (5, [0]), "b": (5, [0])})
    write_mask(root / "Annotations_6fps" / "b" / "000" / "00000.png", np.zeros((3, 3), bool))
    assert convert(root) == 1
    assert "video b: " in capsys.readouterr().err
    assert [path.name for path in (root / "mask_info").iterdir()] == ["a"]
    written = (root / "mask_info" / "a" / "000.json").stat().st_mtime_ns
    write_mask(root / "Annotations_6fps" / "b" / "000" / "00000.png", disc_mask(0, 0))
    assert convert(root) == 0
    assert sorted(path.name for path in (root / "mask_info").iterdir()) == ["a", "b"]
    assert (root / "mask_info" / "a" / "000.json").stat().st_mtime_ns == written


def test_places_tried_are_named(tmp_path, capsys):
    assert convert(tmp_path) == 1
    assert f"tried {tmp_path / 'Annotations_6fps'} and {tmp_path / 'Annotations'}" in capsys.readouterr().err


@pytest.fixture
def masks() -> dict[int, np.ndarray]:
    return {8: disc_mask(0, 8), 0: np.asfortranarray(disc_mask(0, 0)), 4: np.zeros((48, 64), bool)}


def save_published(path: Path, content: object) -> Path:
    np.save(path, content, allow_pickle=True)  # type: ignore[arg-type]
    return path


def test_published_files_are_read(tmp_path, masks):
    path = save_published(tmp_path / "001.npy", {frame: {0: mask} for frame, mask in masks.items()})
    loaded = load_published(path)
    assert all(np.array_equal(loaded[frame], masks[frame]) and loaded[frame].dtype == bool for frame in masks)
    info = read_mask_info(path)
    assert info == MaskInfo(tmp_path.name, "001", (48, 64), (0, 4, 8), {f: encode_mask(masks[f]) for f in (0, 8)})


def replace_body(path: Path, body: bytes) -> Path:
    """Keep the header of a saved file, change what is pickled behind it."""
    saved = path.read_bytes()
    path.write_bytes(saved[: saved.index(b"\n") + 1] + body)
    return path


def test_files_of_older_numpy_are_read(tmp_path, masks):
    content = {frame: {0: mask} for frame, mask in masks.items()}
    # Protocol 3, that of older versions, ends names by line breaks, so they can be exchanged.
    body = pickle.dumps(np.array(content, dtype=object), protocol=3)
    assert b"numpy._core.multiarray\n" in body
    older = body.replace(b"numpy._core.multiarray\n", b"numpy.core.multiarray\n")
    path = replace_body(save_published(tmp_path / "000.npy", content), older)
    assert np.array_equal(load_published(path)[0], masks[0])


class Attack:
    """Runs a command when unpickled in the ordinary way."""

    def __init__(self, call: Callable[..., object], *arguments: object) -> None:
        self._call = call, arguments

    def __reduce__(self) -> tuple[object, ...]:
        return self._call


@pytest.mark.parametrize("where", ["frame", "mask", "root", "state"])
def test_nothing_in_a_file_is_executed(tmp_path, masks, where):
    target = tmp_path / "executed"
    attack = Attack(os.mkdir, str(target))
    content = {
        "frame": {0: {0: masks[0]}, 4: attack},
        "mask": {0: {0: attack}},
        "root": attack,
        "state": {0: {0: masks[0], 1: attack}},
    }[where]
    path = save_published(tmp_path / "000.npy", content)
    with pytest.raises(ValueError, match=r"000.npy: not a published mask_info file: it refers to posix.mkdir"):
        load_published(path)
    assert not target.exists()


@pytest.mark.parametrize("call", [eval, getattr, np.load, pickle.loads, np.frombuffer])
def test_no_function_is_within_reach(tmp_path, call):
    path = save_published(tmp_path / "000.npy", {0: {0: Attack(call, "1 + 1")}})
    with pytest.raises(ValueError, match="it refers to"):
        load_published(path)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"no pickle",
        b"\x80\x04cnumpy\ndtype\n(S'O8'\ntR\x93.",
        b"cnumpy\nndarray\n}S'__setstate__'\nI1\nsb.",  # setting attributes of a class
        b"cnumpy\ndtype\nN}S'name'\nI1\ns\x86b.",
        pickle.dumps({0: {0: "text"}}),
        pickle.dumps([1, 2]),
    ],
)
def test_damaged_and_odd_pickles_are_refused(tmp_path, body):
    path = replace_body(save_published(tmp_path / "000.npy", {0: {0: disc_mask(0, 0)}}), body)
    with pytest.raises(ValueError, match="not a published mask_info file"):
        load_published(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({0: {0: np.zeros((2, 2))}}, "frame 0: expected a Boolean mask"),
        ({0: {0: np.array([[None]])}}, "frame 0: expected a Boolean mask"),
        ({0: {1: np.zeros((2, 2), bool)}}, r"frame 0: expected \{0: mask\}"),
        ({"0": {0: np.zeros((2, 2), bool)}}, "expected frame numbers as keys, got '0'"),
        ({0: {0: np.zeros((2, 2, 2), bool)}}, "not a published mask_info file"),
        ([1], "expected a dictionary of frames|expected one pickled dictionary"),
    ],
)
def test_other_contents_are_refused(tmp_path, content, message):
    path = save_published(tmp_path / "000.npy", content)
    with pytest.raises(ValueError, match=message):
        load_published(path)


def test_arrays_that_are_no_pickle_are_refused(tmp_path):
    np.save(tmp_path / "000.npy", np.zeros(3))
    with pytest.raises(ValueError, match=r"got an array \(3,\) of float64"):
        load_published(tmp_path / "000.npy")
    (tmp_path / "001.npy").write_bytes(io.BytesIO(b"PK").getvalue())
    with pytest.raises(ValueError, match=r"001.npy: the header of this .npy file cannot be read"):
        load_published(tmp_path / "001.npy")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "this JSON cannot be read"),
        ("[]", r"expected an object, got \[\]"),
        ('{"video": "v"}', "the key 'annotated' is missing"),
        (json.dumps(CONTENT | {"annotated": [4, 0]}), "annotated: expected frame numbers in ascending order"),
        (json.dumps(CONTENT | {"annotated": [0, 0.5]}), "annotated.1: expected a whole number"),
        (json.dumps(CONTENT | {"annotated": [10**400]}), "annotated.0: expected a whole number"),
        (json.dumps(CONTENT | {"size": [2]}), "size: expected height and width, got 1 numbers"),
        (json.dumps(CONTENT | {"size": [65536, 65536]}), "size: a picture of 65536x65536 pixels, expected at most"),
        (json.dumps(CONTENT | {"size": [10**9, 10**9]}), "size.0: expected a whole number from 1 to 65536"),
        (json.dumps(CONTENT | {"size": [True, 2]}), "size.0: expected a whole number"),
        (json.dumps(CONTENT | {"object": 3}), "object: expected a text, got 3"),
        (json.dumps(CONTENT | {"counts": {"-1": "06"}}), "counts.-1: expected a frame number as the key"),
        (json.dumps(CONTENT | {"counts": {"00": "06"}}), "counts.00: expected a frame number as the key"),
        (json.dumps(CONTENT | {"counts": {"7": "06"}}), "counts: frame 7 is not listed under annotated"),
        (json.dumps(CONTENT | {"counts": {"0": "\u0660"}}), "counts.0: expected run lengths in ASCII"),
        (json.dumps(CONTENT | {"counts": None}), "the key 'counts' is missing"),
    ],
)
def test_bad_json_is_told_with_file_and_place(tmp_path, text, message):
    path = tmp_path / "000.json"
    path.write_text(text)
    with pytest.raises(InvalidFileError, match=rf"000.json: {message}"):
        read_mask_info(path)


@pytest.mark.parametrize("counts", ["01", "", "o", "0" * 9_000_000, "oooooooooooooooo0", "13"])
def test_run_lengths_that_do_not_cover_the_mask_are_told(tmp_path, counts):
    path = tmp_path / "000.json"
    path.write_text(json.dumps(CONTENT | {"counts": {"0": counts}}))
    with pytest.raises(InvalidFileError, match=r"000.json: counts.0: the run lengths of a mask"):
        read_mask_info(path).mask(0)


@pytest.mark.parametrize("key", ["object", "video"])
@pytest.mark.parametrize(
    "name", ["", ".", "..", "/etc", "../x", "a/b", "a\\b", ".hidden", "a\0b", "a\nb", "x" * 201, "\ud800"]
)
def test_names_in_a_file_are_names_of_one_folder(tmp_path, key, name):
    path = tmp_path / "000.json"
    path.write_text(json.dumps(CONTENT | {key: name}))
    with pytest.raises(InvalidFileError, match=rf"000.json: {key}: expected the name of a file or folder"):
        read_mask_info(path)


def test_json_wins_over_a_published_file_of_the_same_number(tmp_path):
    for name in ("001.npy", "000.json", "000.npy", ".000.json.1.tmp", "notes.txt"):
        (tmp_path / name).touch()
    assert [path.name for path in mask_info_files(tmp_path)] == ["000.json", "001.npy"]
