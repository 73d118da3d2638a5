"""Errors as users see them."""

from __future__ import annotations

import pickle
import struct
import zlib
from pathlib import Path

import pytest

from i2v.errors import USER_ERRORS, InvalidFileError, brief, describe_error, locating, reading


def test_a_file_error_says_file_place_and_reason() -> None:
    error = InvalidFileError("a.json", "expected a text", "frames.3")
    assert str(error) == "a.json: frames.3: expected a text"
    assert str(InvalidFileError("a.json", "expected a text")) == "a.json: expected a text"
    assert isinstance(error, USER_ERRORS)


def test_a_file_error_comes_whole_out_of_another_process() -> None:
    again = pickle.loads(pickle.dumps(InvalidFileError("a.json", "expected a text", "frames.3")))
    assert (type(again), again.path, again.place, again.reason) == (
        InvalidFileError,
        "a.json",
        "frames.3",
        "expected a text",
    )


def test_errors_are_told_in_one_printable_line() -> None:
    assert describe_error(ValueError("one\n\ttwo")) == "one two"
    assert describe_error(ValueError("red\x1b[31m \u202ename \ud800")) == "red\\x1b[31m \\u202ename \\ud800"
    assert describe_error(MemoryError()) == "MemoryError"
    told = describe_error(ValueError("x" * 10**6))
    assert told == "x" * 2000 + "... (1,000,000 characters)"


def test_long_values_are_shown_in_short() -> None:
    nested: list[object] = []
    for _ in range(5000):
        nested = [nested]
    for value in (list(range(10**6)), "x" * 10**6, nested, {n: n for n in range(10**5)}):
        assert len(brief(value)) <= 80


KINDS = (RecursionError, OverflowError, KeyError, MemoryError, EOFError, OSError, SyntaxError, struct.error, zlib.error)


@pytest.mark.parametrize("kind", KINDS)
def test_whatever_a_parser_raises_becomes_one_error(kind: type[Exception]) -> None:
    message = r"a\.bin: frame 2: this file cannot be read: .*deep inside"
    with pytest.raises(InvalidFileError, match=message) as caught, reading("a.bin", "this file", "frame 2"):
        raise kind("deep inside")
    assert isinstance(caught.value.__cause__, kind)


def test_the_systems_own_errors_stay() -> None:
    with pytest.raises(FileNotFoundError), reading("a.bin", "this file"):
        Path("/nowhere/at/all").read_bytes()
    with pytest.raises(InvalidFileError, match="inner: no"), reading("outer", "this file"):
        raise InvalidFileError("inner", "no")


def test_errors_of_code_that_knows_no_file_get_one() -> None:
    with pytest.raises(InvalidFileError, match=r"a\.json: frame 2: too wide"), locating("a.json", "frame 2"):
        raise ValueError("too wide")
    with pytest.raises(KeyError), locating("a.json"):
        raise KeyError("a fault of the program")
