"""JSON of unknown origin: its bounds, and the places of its mistakes."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from i2v.errors import InvalidFileError
from i2v.utils import json_file
from i2v.utils.json_file import check_structure, parse_json, read_json

QUOTES = ['"', "\\", "\\\\", '\\"', "[", "]", "{", "}", ",", ":", "\u00e9", "\n", "x"]


def measured(value: Any, depth: int = 0) -> tuple[int, int, int]:
    """Depth, containers and separators of a value."""
    if not isinstance(value, list | dict):
        return depth, 0, 0
    inner = [measured(item, depth + 1) for item in (value.values() if isinstance(value, dict) else value)]
    separators = max(len(value) - 1, 0) + (len(value) if isinstance(value, dict) else 0)
    deepest = max((found[0] for found in inner), default=depth + 1)
    return deepest, 1 + sum(found[1] for found in inner), separators + sum(found[2] for found in inner)


def made_up(chance: random.Random, depth: int) -> Any:
    kind = chance.choice(["text", "number", "list", "dict"]) if depth else "text"
    text = "".join(chance.choices(QUOTES, k=chance.randrange(6)))
    if kind == "list":
        return [made_up(chance, depth - 1) for _ in range(chance.randrange(4))]
    if kind == "dict":
        return {f"{text}{n}": made_up(chance, depth - 1) for n in range(chance.randrange(4))}
    return text if kind == "text" else chance.randrange(100)


@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 1 << 20])
def test_bounds_are_found_without_parsing(monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    monkeypatch.setattr(json_file, "_CHUNK", chunk)
    chance = random.Random(chunk)
    for _ in range(150):
        value = [made_up(chance, 4)]
        text = json.dumps(value, ensure_ascii=chance.random() < 0.5).encode()
        names = ("MAX_DEPTH", "MAX_CONTAINERS", "MAX_VALUES")
        for name, count in zip(names, measured(value), strict=True):
            monkeypatch.setattr(json_file, name, count)
        check_structure(text, "a.json")
        for name, count in zip(names, measured(value), strict=True):
            monkeypatch.setattr(json_file, name, count - 1)
            with pytest.raises(InvalidFileError, match=r"a\.json: this JSON has more than"):
                check_structure(text, "a.json")
            monkeypatch.setattr(json_file, name, count)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"[" * 10**6, "more than 32 levels of nesting"),
        (b"[" + b"[]," * 2_000_001, "more than 2,000,000 objects and lists"),
        (b"[" + b"0," * 8_000_001, "more than 8,000,000 values"),
        (b"", "this JSON cannot be read"),
        (b"[NaN]", "NaN is no number of JSON"),
        (b"[-Infinity]", "Infinity is no number of JSON"),
        (b"9" * 5000, "this JSON cannot be read"),
        (b'"\xff"', "byte 1: this is no UTF-8 text"),
        ("[1]".encode("utf-16"), "this is no UTF-8 text"),
        (b'{"a": 1} x', "this JSON cannot be read"),
    ],
)
def test_what_is_no_json_or_too_much_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(InvalidFileError, match=message) as caught:
        parse_json(data, "a.json")
    assert str(caught.value).startswith("a.json: ")


def test_a_file_beyond_the_bound_is_not_read(tmp_path: Any) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(b"[1, 2]")
    assert [number.integer() for number in read_json(path).elements()] == [1, 2]
    with pytest.raises(InvalidFileError, match=r"a\.json: the file has 6 bytes, expected at most 5"):
        read_json(path, max_bytes=5)


def test_mistakes_have_a_place() -> None:
    value = parse_json(b'{"frames": [{"id": 1.0, "name": "a"}, {"id": true, "size": [2, null]}]}', "a.json")
    first, second = value.member("frames").elements()
    assert (first.member("id").integer(), first.member("name").text(), first.get("size")) == (1, "a", None)
    assert [key for key, _ in first.members()] == ["id", "name"]
    for ask, message in (
        (lambda: second.member("name"), "a.json: frames.1: the key 'name' is missing"),
        (lambda: second.member("id").integer(), "a.json: frames.1.id: expected a whole number from 0 to .*, got True"),
        (lambda: second.member("id").number(), "a.json: frames.1.id: expected a number, got True"),
        (
            lambda: list(second.member("size").elements())[1].text(),
            "a.json: frames.1.size.1: expected a text, got None",
        ),
        (lambda: list(first.member("name").elements()), "a.json: frames.0.name: expected a list, got 'a'"),
        (lambda: value.member("frames").member("x"), r"a.json: frames: expected an object, got \["),
        (lambda: value.integer(), "a.json: expected a whole number"),
    ):
        with pytest.raises(InvalidFileError, match=message):
            ask()


@pytest.mark.parametrize("text", ["1e999", "-1e999", "1.5", "-1", "11", '"1"', "null", "[1]"])
def test_what_is_no_whole_number_within_bounds_is_refused(text: str) -> None:
    with pytest.raises(InvalidFileError, match="0: expected a whole number from 0 to 10"):
        next(parse_json(f"[{text}]".encode(), "a.json").elements()).integer(most=10)
