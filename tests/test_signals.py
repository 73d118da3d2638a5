"""Ctrl-C, SIGTERM and SIGHUP: what they raise, when, and how commands end."""

from __future__ import annotations

import errno
import os
import signal
import threading
from typing import Any

import pytest

from i2v.utils import signals
from i2v.utils.command import as_command
from i2v.utils.files import DiskFullError
from i2v.utils.signals import STOP_SIGNALS, Stopped, exit_status, interrupts_deferred, stop_signals_raised

STATUS = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}


def handlers() -> list[Any]:
    return [signal.getsignal(number) for number in STOP_SIGNALS]


@pytest.mark.parametrize("number", STOP_SIGNALS, ids=lambda number: number.name)
def test_signals_raise_within_the_block_alone(number: signal.Signals) -> None:
    before = handlers()
    with pytest.raises(KeyboardInterrupt) as caught, stop_signals_raised():
        signal.raise_signal(number)
    assert exit_status(caught.value) == STATUS[number]
    assert isinstance(caught.value, Stopped) == (number != signal.SIGINT)
    assert handlers() == before


def test_a_signal_told_twice_is_one_request_until_a_second_has_passed(monkeypatch: pytest.MonkeyPatch) -> None:
    with stop_signals_raised():
        with pytest.raises(Stopped):
            signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)
        monkeypatch.setattr(signals, "REPEAT_SECONDS", 0.0)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_what_is_ignored_or_handled_stays_so(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    before = [signal.signal(signal.SIGHUP, signal.SIG_IGN), signal.signal(signal.SIGTERM, lambda n, _: seen.append(n))]
    try:
        with stop_signals_raised():
            signal.raise_signal(signal.SIGHUP)  # as under nohup
            signal.raise_signal(signal.SIGTERM)
            with interrupts_deferred():
                signal.raise_signal(signal.SIGHUP)
                signal.raise_signal(signal.SIGTERM)
                assert seen == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGHUP, before[0])
        signal.signal(signal.SIGTERM, before[1])
    assert seen == [signal.SIGTERM] * 2


@pytest.mark.parametrize("number", STOP_SIGNALS, ids=lambda number: number.name)
def test_they_wait_for_the_end_of_a_deferring_block(number: signal.Signals) -> None:
    before, steps = handlers(), []
    with pytest.raises(KeyboardInterrupt), stop_signals_raised(), interrupts_deferred():
        with interrupts_deferred():
            signal.raise_signal(number)
            steps.append("inner")
        steps.append("outer")
    assert steps == ["inner", "outer"]
    assert handlers() == before


def test_other_threads_leave_signals_alone() -> None:
    before, inside = handlers(), []

    def work() -> None:
        with stop_signals_raised(), interrupts_deferred():
            inside.extend(handlers())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert inside == before


@pytest.mark.parametrize("number", STOP_SIGNALS, ids=lambda number: number.name)
def test_a_command_ends_with_a_sentence_and_a_status(number: signal.Signals, capsys: Any) -> None:
    @as_command("tool", "the same command goes on")
    def main(word: str) -> int:
        """Does it."""
        signal.raise_signal(number)
        raise AssertionError(word)

    assert main("a") == STATUS[number]
    how = "" if number == signal.SIGINT else f" by {number.name}"
    assert capsys.readouterr().err == f"tool: interrupted{how}; the same command goes on\n"
    assert (main.__name__, main.__doc__) == ("main", "Does it.")


def test_a_command_says_that_the_disk_is_full(capsys: Any) -> None:
    @as_command("tool")
    def main() -> int:
        error = DiskFullError(errno.ENOSPC, os.strerror(errno.ENOSPC), "a.json")
        error.kept = "b.json is whole"
        raise error

    assert main() == 1
    text = "tool: error: the disk is full: [Errno 28] No space left on device: 'a.json'; b.json is whole\n"
    assert capsys.readouterr().err == text


def test_a_command_returns_what_its_function_does() -> None:
    assert as_command("tool")(lambda value: value + 1)(2) == 3
