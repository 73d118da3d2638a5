"""The log of a run: on stderr and in a file of each process."""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

from i2v.errors import USER_ERRORS
from i2v.utils.files import NO_ROOM
from i2v.utils.output_folder import own_folder, refuse_link
from i2v.utils.terminal import PrintableFormatter
from train.distributed import World

log = logging.getLogger(__name__)


@contextlib.contextmanager
def logging_to(folder: Path, world: World) -> Iterator[None]:
    """Log to stderr and to one file per process: INFO on rank 0, WARNING on the others.

    An error that ends the block is logged with its traceback to the file only.

    Raises:
        ValueError: If the log file is a symbolic link.
    """
    path = own_folder(folder / "logs") / ("log.txt" if world.is_main else f"log_rank{world.rank}.txt")
    refuse_link(path)
    form = PrintableFormatter(f"%(asctime)s rank {world.rank} %(levelname)s %(name)s: %(message)s")
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    root.handlers = [logging.StreamHandler(sys.stderr), _LogFile(path)]
    for handler in root.handlers:
        handler.setFormatter(form)
    root.setLevel(logging.INFO if world.is_main else logging.WARNING)
    try:
        yield
    except USER_ERRORS:
        # The user sees one sentence on stderr; the traceback goes to the file.
        record = log.makeRecord(log.name, logging.ERROR, __file__, 0, "the run failed", (), sys.exc_info())
        root.handlers[-1].handle(record)
        raise
    finally:
        for handler in root.handlers:
            handler.close()
        root.handlers = before
        root.setLevel(level)


@contextlib.contextmanager
def full_disks_told_once() -> Iterator[None]:
    """Silence the traceback of TensorBoard's thread on a full disk: the main thread raises the same error."""

    def tell(failed: threading.ExceptHookArgs) -> None:
        if not (isinstance(failed.exc_value, OSError) and failed.exc_value.errno in NO_ROOM):
            before(failed)

    before, threading.excepthook = threading.excepthook, tell
    try:
        yield
    finally:
        threading.excepthook = before


class _LogFile(logging.FileHandler):
    """A log file whose own write errors, as on a full disk, neither end the run nor hide why it ended."""

    _is_told = False

    def handleError(self, record: logging.LogRecord) -> None:
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            super().handleError(record)
        elif not self._is_told:
            self._is_told = True
            sys.stderr.write(f"the log is incomplete: {self.baseFilename}: {error.strerror}\n")

    def close(self) -> None:
        with contextlib.suppress(OSError):  # already reported by handleError
            super().close()
