"""What killed processes leave behind goes with the next write; what others work on, and what is the user's, stays."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from i2v.utils import temporary
from i2v.utils.files import replacing, replacing_folder
from i2v.utils.temporary import remove_leftovers

ROOT = Path(__file__).parents[1]

AT_WORK = """
import sys
from pathlib import Path
from i2v.utils.files import replacing, replacing_folder
out = Path(sys.argv[1])
with replacing(out / "a.txt") as file, replacing_folder(out / "b") as folder:
    file.write_text("half")
    (folder / "1.txt").write_text("half")
    print("at work", flush=True)
    sys.stdin.read(1)
"""


class Worker:
    """A process that writes a file and a folder until it is told to end."""

    def __init__(self, out: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", AT_WORK, str(out)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "at work\n"

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.communicate()

    def end(self) -> None:
        self.process.communicate("\n")
        assert self.process.returncode == 0


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def hidden(folder: Path) -> list[Path]:
    return sorted(folder.glob(".*"))


def test_the_next_write_removes_what_a_killed_process_left(tmp_path: Path) -> None:
    Worker(tmp_path).kill()
    assert [path.is_dir() for path in hidden(tmp_path)] == [False, True]
    with replacing(tmp_path / "other.txt", one_of_many=True) as path:
        path.write_text("whole")
    assert len(hidden(tmp_path)) == 2
    with replacing(tmp_path / "other.txt") as path:
        path.write_text("whole")
    assert names(tmp_path) == ["other.txt"]
    Worker(tmp_path).kill()
    with replacing_folder(tmp_path / "b") as path:
        (path / "1.txt").write_text("whole")
    assert names(tmp_path) == ["b", "other.txt"]
    assert names(tmp_path / "b") == ["1.txt"]


def test_what_a_living_process_works_on_stays(tmp_path: Path) -> None:
    worker = Worker(tmp_path)
    remove_leftovers(tmp_path)
    for path in hidden(tmp_path):
        os.utime(path, (0, 0))  # however long it takes
    remove_leftovers(tmp_path)
    assert len(hidden(tmp_path)) == 2
    worker.end()
    assert names(tmp_path) == ["a.txt", "b"]
    assert (tmp_path / "a.txt").read_text() == (tmp_path / "b" / "1.txt").read_text() == "half"
    assert names(tmp_path / "b") == ["1.txt"]


def test_what_this_process_works_on_stays(tmp_path: Path) -> None:
    with replacing(tmp_path / "a.txt") as one, replacing(tmp_path / "a.txt") as other:
        one.write_text("one")
        other.write_text("other")
    assert (tmp_path / "a.txt").read_text() == "one"
    assert names(tmp_path) == ["a.txt"]


def test_other_machines_are_given_a_week(tmp_path: Path) -> None:
    Worker(tmp_path).kill()
    old = time.time() - 8 * 24 * 3600
    for number, path in enumerate(hidden(tmp_path)):
        ours = temporary._machine()
        path.rename(path.with_name(path.name.replace(ours, f"{number}{ours[1:][::-1]}")))
    remove_leftovers(tmp_path)
    assert len(hidden(tmp_path)) == 2
    for path in hidden(tmp_path):
        os.utime(path, (old, old))
    remove_leftovers(tmp_path)
    assert hidden(tmp_path) == []


def test_without_locks_nothing_young_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(file: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    Worker(tmp_path).kill()
    monkeypatch.setattr(fcntl, "flock", no_locks)
    with replacing(tmp_path / "c.txt") as path, replacing_folder(tmp_path / "d") as folder:
        path.write_text("whole")
        remove_leftovers(tmp_path)
        (folder / "1.txt").touch()
    assert len(hidden(tmp_path)) == 2
    assert names(tmp_path)[2:] == ["c.txt", "d"]
    old = time.time() - 8 * 24 * 3600
    for leftover in hidden(tmp_path):
        os.utime(leftover, (old, old))
    remove_leftovers(tmp_path)
    assert names(tmp_path) == ["c.txt", "d"]


def test_nothing_of_the_user_is_removed(tmp_path: Path) -> None:
    machine = temporary._machine()
    ours = f".a.i2v-{machine}-0123456789abcdef.tmp"
    for name in (".a.1.tmp", ".a.tmp", "a.tmp", ".i2v", ours[1:], f"{ours}.txt", ours.replace("f.tmp", ".tmp")):
        (tmp_path / name).write_text("mine")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "kept.txt").touch()
    (tmp_path / ours.replace(".a.", ".b.")).symlink_to(tmp_path / "folder")
    os.mkfifo(tmp_path / ours.replace(".a.", ".c."))
    (tmp_path / ours.replace(".a.", ".d.")).mkdir()
    (tmp_path / ours.replace(".a.", ".d.") / ".lock").symlink_to(tmp_path / "folder" / "kept.txt")
    before = names(tmp_path)
    remove_leftovers(tmp_path)
    assert names(tmp_path) == before
    assert names(tmp_path / "folder") == ["kept.txt"]
    remove_leftovers(tmp_path / "none")  # which is no error


def test_a_file_taken_for_a_leftover_before_it_is_locked_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock, made = fcntl.flock, []

    def late(file: int, operation: int) -> None:
        if not made:
            made.extend(hidden(tmp_path))
            monkeypatch.setattr(fcntl, "flock", lock)
            remove_leftovers(tmp_path)  # as another process may, between making and locking
        lock(file, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    with replacing(tmp_path / "a.txt") as path:
        path.write_text("whole")
        assert made and path not in made
    assert (tmp_path / "a.txt").read_text() == "whole"
    assert names(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("name", ["x" * 255, "ä" * 127, "a\nb"])
def test_any_name_that_is_allowed_has_a_hidden_one(tmp_path: Path, name: str) -> None:
    with replacing(tmp_path / name) as path:
        path.write_text("whole")
        assert temporary._PATTERN.fullmatch(path.name)
    assert names(tmp_path) == [name]


def test_a_folder_is_replaced_as_a_whole_or_not_at_all(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    with replacing_folder(folder) as path:
        (path / "old.txt").touch()
    with pytest.raises(RuntimeError), replacing_folder(folder) as path:
        (path / "new.txt").touch()
        raise RuntimeError
    assert names(folder) == ["old.txt"]
    with replacing_folder(folder) as path:
        (path / "new.txt").touch()
    assert names(folder) == ["new.txt"]
    assert names(tmp_path) == ["a"]


def test_a_folder_that_cannot_be_put_in_place_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "a"
    with replacing_folder(folder) as path:
        (path / "old.txt").touch()
    rename = Path.rename

    def fails(path: Path, target: Path) -> Path:
        if (path / "new.txt").exists():
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", fails)
    with pytest.raises(PermissionError), replacing_folder(folder) as path:
        (path / "new.txt").touch()
    assert names(folder) == ["old.txt"]
    assert names(tmp_path) == ["a"]


@pytest.mark.parametrize("kind", ["file", "link"])
def test_a_folder_does_not_take_the_place_of_something_else(tmp_path: Path, kind: str) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "kept.txt").touch()
    if kind == "file":
        (tmp_path / "a").touch()
    else:
        (tmp_path / "a").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(FileExistsError, match="expected a folder or nothing"), replacing_folder(tmp_path / "a"):
        pass
    assert names(tmp_path) == ["a", "elsewhere"]
    assert names(tmp_path / "elsewhere") == ["kept.txt"]
