"""Worker processes that end on Ctrl-C and with their parent."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Collection, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from i2v.utils.temporary import remove_leftovers


@contextlib.contextmanager
def worker_pool(num_workers: int, outputs: Collection[Path] = ()) -> Iterator[ProcessPoolExecutor]:
    """A pool of new processes, terminated at once if the block raises, for example on Ctrl-C or SIGTERM.

    Args:
        num_workers: Number of processes.
        outputs: Folders that they write to. Leftovers of killed processes are removed from them before and after.

    Yields:
        The pool.
    """
    # Spawn rather than fork: the caller's threads and devices may not survive a fork.
    context = multiprocessing.get_context("spawn")
    _clear(outputs)
    others = set(multiprocessing.active_children())
    with ProcessPoolExecutor(num_workers, mp_context=context, initializer=_begin) as pool:
        try:
            yield pool
        except BaseException:
            # The executor would wait for running calls, which may take minutes.
            pool.shutdown(wait=False, cancel_futures=True)
            for process in set(multiprocessing.active_children()) - others:
                process.terminate()
                process.join()
            _clear(outputs)
            raise


def _clear(folders: Collection[Path]) -> None:
    for folder in folders:
        remove_leftovers(folder)


def end_with_parent() -> None:
    """Make this multiprocessing worker exit as soon as its parent ends, even if the parent was killed.

    Also if the parent is already dead: PyTorch's own watchdog then mistakes the adopting process for the parent.
    """
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def wait() -> None:
        parent.join()
        os._exit(1)  # a normal exit could wait forever for someone to fetch the results

    threading.Thread(target=wait, name="end with parent", daemon=True).start()


def _begin() -> None:
    end_with_parent()
    # On Ctrl-C a terminal signals all processes; the parent terminates the workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
