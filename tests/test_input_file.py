"""Files read whole: bounded in size, and regular ones only."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from i2v.errors import InvalidFileError
from i2v.utils.input_file import read_input, read_text


def test_a_file_within_the_bound_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xef\xbb\xbfcaf\xc3\xa9\n")
    assert read_input(path, 9) == path.read_bytes()
    assert read_text(path) == "caf\u00e9\n"
    with pytest.raises(InvalidFileError, match=r"a\.txt: the file has 9 bytes, expected at most 8"):
        read_input(path, 8)


def test_other_encodings_are_told_with_their_place(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"caf\xe9")
    with pytest.raises(InvalidFileError, match=r"a\.txt: byte 3: this is no UTF-8 text"):
        read_text(path)


def test_what_is_no_regular_file_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    start = time.monotonic()
    for path, what in (
        (tmp_path / "pipe", "no regular file"),
        (tmp_path, "a folder"),
        ("/dev/zero", "no regular file"),
    ):
        with pytest.raises(InvalidFileError, match=f"this is {what}, expected a file"):
            read_input(path, 100)
    assert time.monotonic() - start < 5
    with pytest.raises(FileNotFoundError):
        read_input(tmp_path / "nowhere", 100)
