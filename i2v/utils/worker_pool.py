"""Processes for pieces of work, which outlive neither a Ctrl-C nor their parent."""

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
    """A pool of new processes, which are ended at once if the block raises, as it does at Ctrl-C or SIGTERM.

    `outputs`: the folders to which they write; what killed processes have left in them is removed, before and after.
    """
    # Spawned, not forked: the caller may hold threads and devices that do not survive a fork.
    context = multiprocessing.get_context("spawn")
    _clear(outputs)
    others = set(multiprocessing.active_children())
    with ProcessPoolExecutor(num_workers, mp_context=context, initializer=_begin) as pool:
        try:
            yield pool
        except BaseException:
            # The executor itself would wait until what has begun is done, which may take minutes.
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
    """Let this process, which multiprocessing has started, end at once when its parent does, killed or not.

    Also if that is dead already: PyTorch's own watch over workers then takes whoever has adopted them for the parent.
    """
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def wait() -> None:
        parent.join()
        os._exit(1)  # exiting could wait for ever for somebody to take the results

    threading.Thread(target=wait, name="end with parent", daemon=True).start()


def _begin() -> None:
    end_with_parent()
    # A terminal sends it to all processes.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
