"""Reading untrusted JSON: size limits before parsing, and errors that say where in the file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NoReturn

import numpy as np

from i2v.errors import InvalidFileError, StrPath, brief, reading, shortened
from i2v.utils.input_file import as_text, read_input

# Parsed JSON can take a hundred times the memory of its text. These limits keep it below a gigabyte.
MAX_BYTES = 64 << 20
MAX_DEPTH = 32
MAX_CONTAINERS = 2_000_000  # objects and lists
MAX_VALUES = 8_000_000

_CHUNK = 1 << 20
_TO_STEPS = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")  # change of depth at each bracket, as int8
_ALL_BUT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_LARGEST_INTEGER = 2**53  # floats represent all integers up to this one exactly


def read_json(path: StrPath, max_bytes: int = MAX_BYTES) -> JsonValue:
    """Read a JSON file.

    Args:
        path: Path of the file.
        max_bytes: Largest accepted size.

    Returns:
        The top-level value.

    Raises:
        OSError: If the file cannot be read.
        InvalidFileError: If it is not JSON, or exceeds the limits on size, nesting and values.
    """
    return parse_json(read_input(path, max_bytes), path)


def parse_json(data: bytes, name: StrPath) -> JsonValue:
    """Parse JSON from bytes.

    Args:
        data: The bytes.
        name: Name of the file in messages.

    Returns:
        The top-level value.

    Raises:
        InvalidFileError: If they are not JSON, or exceed the limits on nesting and values.
    """
    check_structure(data, name)
    text = as_text(data, name)
    with reading(name, "this JSON"):
        return JsonValue(name, json.loads(text, parse_constant=_refuse_constant))


def check_structure(data: bytes, name: StrPath) -> None:
    """Check nesting and number of values of JSON before parsing it.

    Args:
        data: The JSON.
        name: Name of the file in messages.

    Raises:
        InvalidFileError: If it exceeds the limits.
    """
    depth = containers = values = 0
    for outside in _outside_strings(data):
        brackets = outside.translate(None, _ALL_BUT_BRACKETS)
        steps = np.cumsum(np.frombuffer(brackets.translate(_TO_STEPS), np.int8), dtype=np.int64)
        deepest = depth + int(steps.max(initial=0))
        depth += int(steps[-1]) if len(steps) else 0
        containers += brackets.count(b"[") + brackets.count(b"{")
        values += outside.count(b",") + outside.count(b":")
        for what, got, most in (
            ("levels of nesting", deepest, MAX_DEPTH),
            ("objects and lists", containers, MAX_CONTAINERS),
            ("values", values, MAX_VALUES),
        ):
            if got > most:
                raise InvalidFileError(name, f"this JSON has more than {most:,} {what}")


def _outside_strings(data: bytes) -> Iterator[bytes]:
    """Yield the bytes of JSON that are outside strings, one piece per chunk of the data."""
    in_string, rest = False, b""
    for start in range(0, len(data), _CHUNK):
        # Drop escaped backslashes first; then a quote ends a string unless a backslash precedes it.
        chunk = (rest + data[start : start + _CHUNK]).replace(b"\\\\", b"")
        rest = b"\\" if chunk.endswith(b"\\") else b""
        parts = chunk[: len(chunk) - len(rest)].replace(b'\\"', b"").split(b'"')
        yield b" ".join(parts[int(in_string) :: 2])
        in_string ^= len(parts) % 2 == 0


def _refuse_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number of JSON")


@dataclass(frozen=True)
class JsonValue:
    """A value of a JSON file with its place. Each accessor raises InvalidFileError if the value has another type.

    Attributes:
        path: Path of the file.
        value: The parsed value.
        place: Keys and indices that lead to it, joined by dots.
    """

    path: StrPath
    value: Any = field(repr=False)
    place: str = ""

    def fail(self, reason: str) -> NoReturn:
        """Raise InvalidFileError about this place."""
        raise InvalidFileError(self.path, reason, self.place)

    def member(self, key: str) -> JsonValue:
        """Return the value of a required key."""
        found = self.get(key)
        if found is None:
            self.fail(f"the key {key!r} is missing")
        return found

    def get(self, key: str) -> JsonValue | None:
        """Return the value of a key, or ``None`` if it is missing or null."""
        found = self._as(dict, "an object").get(key)
        return None if found is None else self._inner(key, found)

    def members(self) -> Iterator[tuple[str, JsonValue]]:
        """Iterate over keys and values of an object."""
        for key, value in self._as(dict, "an object").items():
            yield key, self._inner(key, value)

    def elements(self) -> Iterator[JsonValue]:
        """Iterate over the values of a list."""
        for number, value in enumerate(self._as(list, "a list")):
            yield self._inner(str(number), value)

    def text(self) -> str:
        """Return a string."""
        return str(self._as(str, "a text"))

    def boolean(self) -> bool:
        """Return true or false."""
        return bool(self._as(bool, "true or false"))

    def integer(self, least: int = 0, most: int = _LARGEST_INTEGER) -> int:
        """Return an integer. Floats with an integer value, such as 4.0, are accepted.

        Args:
            least: Smallest accepted value.
            most: Largest accepted value.

        Raises:
            InvalidFileError: If it is anything else.
        """
        value = self.value
        is_whole = type(value) is int or (isinstance(value, float) and value.is_integer())
        if not is_whole or not least <= value <= most:
            self.fail(f"expected a whole number from {least} to {most}, got {brief(value)}")
        return int(value)

    def number(self) -> float:
        """Return a number as a float, clamped to +-2^53."""
        if isinstance(self.value, bool) or not isinstance(self.value, int | float):
            self.fail(f"expected a number, got {brief(self.value)}")
        return float(max(-_LARGEST_INTEGER, min(_LARGEST_INTEGER, self.value)))

    def _inner(self, key: str, value: Any) -> JsonValue:
        name = shortened(key, 40)
        return JsonValue(self.path, value, f"{self.place}.{name}" if self.place else name)

    def _as(self, kind: type, described: str) -> Any:
        if not isinstance(self.value, kind):
            self.fail(f"expected {described}, got {brief(self.value)}")
        return self.value
