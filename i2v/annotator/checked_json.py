"""Validating JSON from pages and files with pydantic: limits before parsing, and one error at a time."""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import ConfigDict, TypeAdapter, ValidationError

from i2v.errors import InvalidFileError, shortened
from i2v.utils.json_file import check_structure
from i2v.utils.terminal import printable

Value = TypeVar("Value")


CHECKED = ConfigDict(allow_inf_nan=False)
"""Configuration of a file's values. They are dataclasses with slots, because a file can contain half a million, and
their lists have ``fail_fast``, because pydantic takes a gigabyte to report the errors in a megabyte."""


def validate_json(kind: TypeAdapter[Value], data: bytes, name: str, described: str) -> Value:
    """Validate JSON against a type.

    Args:
        kind: The type.
        data: The JSON.
        name: Name of the file in messages.
        described: What it should be, such as "a session file".

    Returns:
        The value.

    Raises:
        InvalidFileError: If it is not valid; the message describes the first error and its place.
    """
    check_structure(data, name)
    try:
        return kind.validate_json(data)
    except ValidationError as error:
        problem: Any = error.errors(include_url=False, include_input=False)[0]
        place = shortened(printable(".".join(str(part) for part in problem["loc"])), 80)
        reason = shortened(printable(f"{place}: {problem['msg']}" if place else str(problem["msg"])), 200)
        raise InvalidFileError(name, f"not {described}: {reason}") from error
