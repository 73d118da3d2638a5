"""Folders of results: names stay in them, they appear whole, and nothing goes that was not made there."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from disk_support import leave_folder

from i2v.utils.output_folder import (
    check_replaceable,
    check_results_folder,
    check_writable,
    child,
    clear_files,
    component,
    new_folder,
    own_folder,
)

OUTSIDE = ["", ".", "..", "/", "/etc/passwd", "../x", "a/b", "a/", "a\\b", "..\\x"]
ODD = [".hidden", "a\0", "a\nb", "a\x1b[2J", "\u2028", "\u202egnp.exe", "a\u2066b", "\ud800", "x" * 201, "\u00e9" * 101]


@pytest.mark.parametrize("name", [*OUTSIDE, *ODD])
def test_a_name_that_is_none_is_refused(tmp_path: Path, name: str) -> None:
    for refuse in (component, lambda name: child(tmp_path, name), lambda name: new_folder(tmp_path, name).__enter__()):
        with pytest.raises(ValueError, match="expected the name of a file or folder, got"):
            refuse(name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "name", ["000", "a b", "sav_000001", "v1.2", "\u00e9t\u00e9", "\u65e5\u672c", "\u0645\u06cc\u200c\u0631", "x" * 200]
)
def test_ordinary_names_stay_as_they_are(tmp_path: Path, name: str) -> None:
    assert component(name) == name
    with new_folder(tmp_path, name):
        pass
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_where_nothing_can_be_written_is_known_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    check_writable(tmp_path / "new" / "folder")
    with pytest.raises(NotADirectoryError, match=r"x cannot be an output folder: .*file is a file"):
        check_writable(tmp_path / "file" / "x")
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # all is allowed to the user under whom tests may run
    for refuse in (
        lambda: check_writable(tmp_path / "new"),
        lambda: check_results_folder(tmp_path, (), overwrite=True),
        lambda: check_replaceable(tmp_path / "new", "", overwrite=False),
    ):
        with pytest.raises(PermissionError, match=f"there is no permission to write in {tmp_path}"):
            refuse()
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def fill(folder: Path, *names: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_bytes(b"old")


def tree(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def make(parent: Path, overwrite: bool = False) -> None:
    with new_folder(parent, "v", overwrite=overwrite) as hidden:
        (hidden / "00000.png").write_bytes(b"new")


def test_a_folder_appears_when_it_is_complete(tmp_path: Path) -> None:
    with new_folder(tmp_path / "run", "v") as hidden:
        (hidden / "00000.png").write_bytes(b"new")
        assert not (tmp_path / "run" / "v").exists()
    assert tree(tmp_path / "run") == {"v", "v/00000.png"}
    with pytest.raises(RuntimeError, match="half way"), new_folder(tmp_path / "run", "w") as hidden:
        (hidden / "00000.png").write_bytes(b"new")
        raise RuntimeError("half way")
    assert tree(tmp_path / "run") == {"v", "v/00000.png"}


def test_earlier_results_stay_unless_they_are_to_be_replaced(tmp_path: Path) -> None:
    fill(tmp_path / "v", "00000.png", "00007.png")
    with pytest.raises(FileExistsError, match=r"v is there already: .*--overwrite"):
        make(tmp_path)
    assert (tmp_path / "v" / "00007.png").read_bytes() == b"old"
    with pytest.raises(RuntimeError), new_folder(tmp_path, "v", overwrite=True):
        raise RuntimeError
    assert (tmp_path / "v" / "00007.png").read_bytes() == b"old"
    make(tmp_path, overwrite=True)
    assert tree(tmp_path) == {"v", "v/00000.png"}
    assert (tmp_path / "v" / "00000.png").read_bytes() == b"new"


def with_notes(folder: Path) -> None:
    fill(folder, "00000.png", "notes.txt")


def with_folder(folder: Path) -> None:
    fill(folder / "inner", "00000.png")


def with_link(folder: Path) -> None:
    fill(folder)
    (folder / "00000.png").symlink_to(folder / "nowhere")


def with_hidden_file(folder: Path) -> None:
    fill(folder, ".git.png")


@pytest.mark.parametrize("strange", [with_notes, with_folder, with_link, with_hidden_file])
def test_a_folder_with_other_things_is_not_replaced(tmp_path: Path, strange: Callable[[Path], None]) -> None:
    strange(tmp_path / "v")
    before = tree(tmp_path)
    with pytest.raises(FileExistsError, match="was not made here, move it away"):
        make(tmp_path, overwrite=True)
    assert tree(tmp_path) == before


def test_what_comes_while_a_folder_is_made_is_not_replaced_either(tmp_path: Path) -> None:
    with pytest.raises(FileExistsError), new_folder(tmp_path, "v"):
        fill(tmp_path / "v", "notes.txt")
    assert tree(tmp_path) == {"v", "v/notes.txt"}


def test_left_overs_go_and_what_looks_like_them_stays(tmp_path: Path) -> None:
    left = leave_folder(tmp_path / "w")
    fill(left, "00000.png", "notes.txt")
    fill(tmp_path / ".v.4242.tmp", "00000.png")
    fill(tmp_path / ".v.mine.tmp", "00000.png")
    fill(tmp_path / "elsewhere", "00000.png")
    link = left.with_name(left.name.replace(".w.", ".x."))
    link.symlink_to(tmp_path / "elsewhere")
    make(tmp_path)
    there = {".v.4242.tmp", ".v.mine.tmp", "elsewhere", "v", link.name}
    assert {path.name for path in tmp_path.iterdir()} == there
    assert (tmp_path / "elsewhere" / "00000.png").read_bytes() == b"old"


@pytest.mark.parametrize("dangling", [False, True])
def test_links_in_the_place_of_folders_are_refused(tmp_path: Path, dangling: bool) -> None:
    run, victim = tmp_path / "run", tmp_path / "victim"
    run.mkdir()
    if not dangling:
        fill(victim, "00000.png")
    (run / "v").symlink_to(victim)
    (tmp_path / "link").symlink_to(run)
    for write in (
        lambda: make(run),
        lambda: make(run, overwrite=True),
        lambda: make(tmp_path / "link"),
        lambda: child(run, "v"),
        lambda: own_folder(run / "v"),
    ):
        with pytest.raises(ValueError, match=r"is a symbolic link to .*: results go to real folders only"):
            write()
    assert tree(victim) == (set() if dangling else {"00000.png"})
    assert sorted(os.listdir(run)) == ["v"]


def test_only_files_of_our_names_are_cleared(tmp_path: Path) -> None:
    fill(tmp_path, "00000.png", "123456.png", "1.png", "00000.png.bak", "notes.txt")
    clear_files(tmp_path, r"\d{5,}\.png")
    assert tree(tmp_path) == {"1.png", "00000.png.bak", "notes.txt"}


def test_folders_and_links_of_our_names_are_not_cleared(tmp_path: Path) -> None:
    fill(tmp_path, "00000.png", "notes.txt")
    (tmp_path / "00001.png").symlink_to(tmp_path / "notes.txt")
    with pytest.raises(ValueError, match=r"00001\.png is in the way of results"):
        clear_files(tmp_path, r"\d{5,}\.png")
    assert tree(tmp_path) == {"00000.png", "00001.png", "notes.txt"}
    (tmp_path / "00001.png").unlink()
    (tmp_path / "00001.png").mkdir()
    with pytest.raises(ValueError, match=r"00001\.png is in the way of results"):
        clear_files(tmp_path, r"\d{5,}\.png")
    assert tree(tmp_path) == {"00000.png", "00001.png", "notes.txt"}


def test_a_file_in_place_of_a_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "model").touch()
    with pytest.raises(FileExistsError, match="model is a file, expected a folder"):
        own_folder(tmp_path / "model")
