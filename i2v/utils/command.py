"""How commands end on a signal or a full disk: with one line and an exit status."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import ParamSpec

from i2v.utils.files import DiskFullError
from i2v.utils.signals import Stopped, exit_status, stop_signals_raised
from i2v.utils.terminal import printable

_Arguments = ParamSpec("_Arguments")


def as_command(name: str, remark: str = "") -> Callable[[Callable[_Arguments, int]], Callable[_Arguments, int]]:
    """Decorate the main function of a command, which returns its exit status.

    SIGTERM and SIGHUP raise in it like Ctrl-C, so that it can clean up. Then one line says that the command was
    interrupted, and the status is 130 after Ctrl-C, or 128 plus the number of the signal. A DiskFullError prints one
    line, too, with status 1.

    Args:
        name: Name of the command.
        remark: What to tell the user after an interrupt.

    Returns:
        The decorator.
    """

    def decorate(main: Callable[_Arguments, int]) -> Callable[_Arguments, int]:
        @functools.wraps(main)
        def run(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> int:
            try:
                with stop_signals_raised():
                    return main(*args, **kwargs)
            except KeyboardInterrupt as stop:
                by = f" by {stop.name}" if isinstance(stop, Stopped) else ""
                sys.stderr.write(f"{name}: interrupted{by}{remark and f'; {remark}'}\n")
                return exit_status(stop)
            except DiskFullError as error:
                sys.stderr.write(f"{name}: error: {printable(error)}\n")
                return 1

        return run

    return decorate
