"""Work in the background: in order, bounded, and no error lost."""

from __future__ import annotations

import threading
import time
from functools import partial

import pytest

from i2v.utils.background import Background


def fail(message: str) -> None:
    raise OSError(message)


def test_calls_run_in_order_in_one_other_thread_and_are_done_at_the_end() -> None:
    done: list[tuple[int, int]] = []

    def work(number: int) -> None:
        time.sleep(0.001)
        done.append((number, threading.get_ident()))

    with Background() as background:
        for number in range(20):
            background.put(partial(work, number))
    assert [number for number, _ in done] == list(range(20))
    threads = {thread for _, thread in done}
    assert len(threads) == 1 and threading.get_ident() not in threads


def test_only_so_many_calls_wait() -> None:
    gate, last = threading.Event(), threading.Event()

    def fill(background: Background) -> None:
        for _ in range(3):
            background.put(gate.wait)
        last.set()

    with Background(capacity=2) as background:
        thread = threading.Thread(target=fill, args=(background,))
        thread.start()
        assert not last.wait(0.1), "the third call has to wait"
        gate.set()
        assert last.wait(10)
        thread.join()
    with pytest.raises(ValueError, match="capacity: expected at least 1, got 0"):
        Background(0)


def test_an_error_comes_out_of_the_next_put_and_drops_what_is_behind() -> None:
    done: list[str] = []
    with pytest.raises(OSError, match="disk"), Background(capacity=3) as background:
        background.put(partial(done.append, "before"))
        background.put(partial(fail, "disk"))
        for _ in range(10):
            background.put(partial(done.append, "behind"))
            time.sleep(0.01)
    assert done == ["before"]


def test_an_error_at_the_end_comes_out_of_the_block() -> None:
    with pytest.raises(OSError, match="disk"), Background() as background:
        background.put(partial(fail, "disk"))


def test_the_block_s_own_error_goes_first_and_the_work_is_still_done() -> None:
    done: list[int] = []
    with pytest.raises(KeyboardInterrupt), Background() as background:
        background.put(partial(time.sleep, 0.05))
        background.put(partial(done.append, 1))
        raise KeyboardInterrupt
    assert done == [1]
    with pytest.raises(RuntimeError, match="own"), Background() as background:
        background.put(partial(fail, "disk"))
        raise RuntimeError("own")
