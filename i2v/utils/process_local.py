"""Values that belong to one process: files, decoders, locks and threads survive no fork, and cannot be pickled."""

from __future__ import annotations

import ctypes
import functools
import os
import weakref
from collections.abc import Callable
from typing import Any, Generic, TypeVar

_Value = TypeVar("_Value")

_all_locals: weakref.WeakSet[ProcessLocal[Any]] = weakref.WeakSet()


class ProcessLocal(Generic[_Value]):
    """A value that is made when it is first asked for, and again in a process that was forked or unpickled it."""

    def __init__(self, make: Callable[[], _Value]) -> None:
        """Make nothing yet.

        Args:
            make: Makes the value. Picklable if this is to be.
        """
        self._make = make
        self._value: _Value | None = None
        _watch_forks()
        _all_locals.add(self)

    def get(self) -> _Value:
        """Return the value of this process. Raises what making it raises."""
        if self._value is None:
            self._value = self._make()
        return self._value

    def abandon(self) -> None:
        """Forget the value without ever freeing it.

        In a forked process, what a decoder waits for when it is freed are threads that the fork has left behind: it
        would wait for ever.
        """
        if self._value is not None:
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._value))
            self._value = None

    def __reduce__(self) -> tuple[Any, ...]:
        return ProcessLocal, (self._make,)


@functools.cache
def _watch_forks() -> None:
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_abandon_all)


def _abandon_all() -> None:
    for local in list(_all_locals):
        local.abandon()
