"""JSON from pages and files through pydantic: bounded before it is parsed, and told by its first mistake."""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import ConfigDict, TypeAdapter, ValidationError

from i2v.errors import InvalidFileError, shortened
from i2v.utils.json_file import check_structure
from i2v.utils.terminal import printable

Value = TypeVar("Value")


CHECKED = ConfigDict(allow_inf_nan=False)
"""Of the values of a file, dataclasses with slots: a file may hold half a million. Lists in them, and in commands, are
fields with ``fail_fast``: to tell a megabyte of mistakes takes a gigabyte."""


def validate_json(kind: TypeAdapter[Value], data: bytes, name: str, described: str) -> Value:
    """The value of a kind that bytes hold as JSON; InvalidFileError tells what is wrong first, and where.

    ``name`` is that of the file, ``described`` what it should be, such as "a session file".
    """
    check_structure(data, name)
    try:
        return kind.validate_json(data)
    except ValidationError as error:
        problem: Any = error.errors(include_url=False, include_input=False)[0]
        place = shortened(printable(".".join(str(part) for part in problem["loc"])), 80)
        reason = shortened(printable(f"{place}: {problem['msg']}" if place else str(problem["msg"])), 200)
        raise InvalidFileError(name, f"not {described}: {reason}") from error
