"""Reads published mask_info files: ``.npy`` files with a pickled ``{frame: {0: mask}}``.

A pickle is a program, and unpickling runs it. Instead, this module interprets only the few opcodes that NumPy needs to
write such a file: they build numbers, strings, containers and masks, and cannot call anything.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from typing import Any, BinaryIO

import numpy as np

from i2v.errors import InvalidFileError, StrPath, brief, reading, shortened
from i2v.results.rle import Mask
from i2v.utils.input_file import open_input
from i2v.utils.picture_size import check_size

MAX_BYTES = 1 << 30  # one byte per pixel and frame
_MAX_OPERATIONS = 1_000_000  # about thirty per frame
_MAX_TEXT = 255  # bytes of a name
_MAX_HEADER = 1 << 14


def load_published(path: StrPath) -> dict[int, Mask]:
    """Read a published file.

    Args:
        path: The file.

    Returns:
        Masks ``(H, W)`` by frame number.

    Raises:
        OSError: If the file cannot be read.
        InvalidFileError: If it contains anything but masks.
    """
    with open_input(path, MAX_BYTES) as file:
        _skip_header(file, path)
        try:
            return _masks_of(_Pickle(file).value())
        except (LookupError, TypeError, ValueError) as error:
            raise InvalidFileError(path, f"not a published mask_info file: {error}") from error


def _skip_header(file: BinaryIO, path: StrPath) -> None:
    # Parse a bounded copy: NumPy would allocate as many bytes as the file claims for its header.
    head = io.BytesIO(file.read(_MAX_HEADER))
    with reading(path, "the header of this .npy file"):
        version = np.lib.format.read_magic(head)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(head)
    if shape != () or dtype != np.dtype(object):
        found = f"an array {brief(shape)} of {shortened(str(dtype), 40)}"
        raise InvalidFileError(path, f"not a published mask_info file: expected one pickled dictionary, got {found}")
    file.seek(head.tell())


class _Global:
    """Placeholder for a function or class that a pickle names."""

    def __init__(self, makes: type | None = None) -> None:
        self.makes = makes


class _Array:
    """Placeholder for a pickled array: keeps its state."""

    def __init__(self, *_: object) -> None:
        self.state: Any = None


class _DType:
    """Placeholder for a pickled dtype: keeps its name."""

    def __init__(self, name: object = "", *_: object) -> None:
        self.name = name


_GLOBALS = {
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _Global(makes=_Array) for core in ("core", "_core")},
    ("numpy", "ndarray"): _Global(),
    ("numpy", "dtype"): _Global(makes=_DType),
}


class _Pickle:
    """Stack machine for the pickle opcodes that masks need; takes no more memory than the file."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        start = file.tell()
        self._left = file.seek(0, io.SEEK_END) - start
        file.seek(start)
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}

    def value(self) -> Any:
        """Interpret the opcodes.

        Returns:
            The unpickled value, with placeholders for arrays and dtypes.

        Raises:
            ValueError: If an opcode or its argument is not allowed.
            LookupError: If a value is missing on the stack or in the memo.
            TypeError: If a value has the wrong type.
        """
        for _ in range(_MAX_OPERATIONS):
            code = self._take(1)
            if code == pickle.STOP:
                return self._stack.pop()
            if code not in _OPERATIONS:
                raise ValueError(f"it has the opcode {code!r}, which masks do not need")
            _OPERATIONS[code](self)
        raise ValueError(f"it has more than {_MAX_OPERATIONS:,} opcodes")

    def skip(self, count: int) -> None:
        self._take(count)

    def push(self, value: Any) -> None:
        self._stack.append(value)

    def push_number(self, num_bytes: int, signed: bool = False) -> None:
        self._stack.append(self._number(num_bytes, signed))

    def push_text(self, num_bytes: int) -> None:
        self._stack.append(str(self._take(self._number(num_bytes), _MAX_TEXT), "utf-8"))

    def push_bytes(self, num_bytes: int) -> None:
        self._stack.append(self._take(self._number(num_bytes)))

    def push_named_global(self) -> None:
        self._find_global(self._line(), self._line())

    def push_global(self) -> None:
        module, name = self._popped(2)
        self._find_global(module, name)

    def mark(self) -> None:
        self._marks.append(len(self._stack))

    def make_tuple(self, count: int | None = None) -> None:
        self._stack.append(tuple(self._popped(count)))

    def append(self, count: int | None = None) -> None:
        values = self._popped(count)
        self._target(list).extend(values)

    def set_items(self, count: int | None = None) -> None:
        items = self._popped(count)
        for key, value in zip(items[::2], items[1::2], strict=True):
            if type(key) is not int:
                raise ValueError(f"expected frame numbers as keys, got {brief(key)}")
            self._target(dict)[key] = value

    def call(self) -> None:
        function, arguments = self._popped(2)
        if not (isinstance(function, _Global) and function.makes is not None and isinstance(arguments, tuple)):
            raise ValueError("it calls something other than an array or a dtype")
        self._stack.append(function.makes(*arguments))

    def build(self) -> None:
        (state,) = self._popped(1)
        if isinstance(self._stack[-1], _Array):
            self._stack[-1].state = state
        elif not isinstance(self._stack[-1], _DType):  # a dtype's state, such as byte order, is irrelevant for bytes
            raise ValueError("it sets the state of something other than an array or a dtype")

    def remember(self, num_bytes: int | None = None) -> None:
        place = len(self._memo) if num_bytes is None else self._number(num_bytes)
        self._memo[place] = self._stack[-1]

    def recall(self, num_bytes: int) -> None:
        self._stack.append(self._memo[self._number(num_bytes)])

    def _take(self, count: int, limit: int = MAX_BYTES) -> bytes:
        # Check first: file.read would allocate as many bytes as requested, even if the file is shorter.
        if count > min(self._left, limit):
            raise ValueError("it ends too early" if count > self._left else f"a string of {count:,} bytes")
        self._left -= count
        return self._file.read(count)

    def _number(self, num_bytes: int, signed: bool = False) -> int:
        return int.from_bytes(self._take(num_bytes), "little", signed=signed)

    def _line(self) -> str:
        line = self._file.readline(_MAX_TEXT)
        self._left -= len(line)
        return str(line, "utf-8").removesuffix("\n")

    def _find_global(self, module: str, name: str) -> None:
        if (module, name) not in _GLOBALS:
            raise ValueError(f"it refers to {module}.{name}, which masks do not need")
        self._stack.append(_GLOBALS[module, name])

    def _popped(self, count: int | None) -> list[Any]:
        """Pop ``count`` values, or with ``None`` those above the last mark."""
        start = self._marks.pop() if count is None else len(self._stack) - count
        if start < 0:
            raise LookupError("it pops more values than are on the stack")
        values = self._stack[start:]
        del self._stack[start:]
        return values

    def _target(self, kind: type) -> Any:
        """The container on top of the stack."""
        if type(self._stack[-1]) is not kind:
            raise ValueError(f"it puts values into a {type(self._stack[-1]).__name__}, expected a {kind.__name__}")
        return self._stack[-1]


_OPERATIONS: dict[bytes, Callable[[_Pickle], None]] = {
    pickle.PROTO: lambda p: p.skip(1),
    pickle.FRAME: lambda p: p.skip(8),
    pickle.NONE: lambda p: p.push(None),
    pickle.NEWTRUE: lambda p: p.push(True),
    pickle.NEWFALSE: lambda p: p.push(False),
    pickle.EMPTY_TUPLE: lambda p: p.push(()),
    pickle.EMPTY_LIST: lambda p: p.push([]),
    pickle.EMPTY_DICT: lambda p: p.push({}),
    pickle.BININT: lambda p: p.push_number(4, signed=True),
    pickle.BININT1: lambda p: p.push_number(1),
    pickle.BININT2: lambda p: p.push_number(2),
    pickle.SHORT_BINUNICODE: lambda p: p.push_text(1),
    pickle.BINUNICODE: lambda p: p.push_text(4),
    pickle.SHORT_BINBYTES: lambda p: p.push_bytes(1),
    pickle.BINBYTES: lambda p: p.push_bytes(4),
    pickle.BINBYTES8: lambda p: p.push_bytes(8),
    pickle.GLOBAL: lambda p: p.push_named_global(),
    pickle.STACK_GLOBAL: lambda p: p.push_global(),
    pickle.MARK: lambda p: p.mark(),
    pickle.TUPLE: lambda p: p.make_tuple(),
    pickle.TUPLE1: lambda p: p.make_tuple(1),
    pickle.TUPLE2: lambda p: p.make_tuple(2),
    pickle.TUPLE3: lambda p: p.make_tuple(3),
    pickle.APPEND: lambda p: p.append(1),
    pickle.APPENDS: lambda p: p.append(),
    pickle.SETITEM: lambda p: p.set_items(2),
    pickle.SETITEMS: lambda p: p.set_items(),
    pickle.REDUCE: lambda p: p.call(),
    pickle.BUILD: lambda p: p.build(),
    pickle.MEMOIZE: lambda p: p.remember(),
    pickle.BINPUT: lambda p: p.remember(1),
    pickle.LONG_BINPUT: lambda p: p.remember(4),
    pickle.BINGET: lambda p: p.recall(1),
    pickle.LONG_BINGET: lambda p: p.recall(4),
}


def _masks_of(content: object) -> dict[int, Mask]:
    """Unwrap the 0-dimensional object array, then the masks."""
    values = _state(content)[-1]
    frames = values[0] if isinstance(values, list) and len(values) == 1 else None
    if not isinstance(frames, dict):
        raise ValueError("expected a dictionary of frames")
    return {_frame_number(frame): _mask_of(frame, objects) for frame, objects in frames.items()}


def _state(array: object) -> tuple[Any, ...]:
    """Version, shape, dtype, order and content of an array."""
    state = array.state if isinstance(array, _Array) else None
    if not isinstance(state, tuple) or len(state) != 5:
        raise ValueError("expected an array")
    return state


def _frame_number(key: int) -> int:
    if key < 0:
        raise ValueError(f"expected frame numbers as keys, got {key}")
    return key


def _mask_of(frame: int, objects: object) -> Mask:
    array = objects.get(0) if isinstance(objects, dict) else None
    if not isinstance(array, _Array):
        raise ValueError(f"frame {frame}: expected {{0: mask}}, got {type(objects).__name__}")
    _, shape, dtype, is_fortran, raw = _state(array)
    if not isinstance(dtype, _DType) or dtype.name not in ("b1", "u1", "?") or not isinstance(raw, bytes):
        raise ValueError(f"frame {frame}: expected a Boolean mask")
    if not (isinstance(shape, tuple) and len(shape) == 2 and all(type(side) is int for side in shape)):
        raise ValueError(f"frame {frame}: expected a mask of height and width, got the shape {brief(shape)}")
    height, width = shape
    check_size(width, height)
    if len(raw) != height * width:
        raise ValueError(f"frame {frame}: expected {height * width} bytes for a mask of {shape}, got {len(raw)}")
    values = np.frombuffer(raw, np.uint8)
    flat = values.view(np.bool_) if values.max() <= 1 else values > 0  # no copy if the values are 0 and 1 already
    return flat.reshape(width, height).T if is_fortran else flat.reshape(height, width)
