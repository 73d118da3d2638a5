"""Worker processes that take one job after the other, and say how far they are."""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Generic, TypeVar

from i2v.errors import USER_ERRORS, describe_error
from i2v.utils.signals import Stopped, exit_status, stop_signals_raised

Job = TypeVar("Job")

Work = Callable[[Job], Iterator[float]]
"""Does a job, yielding how much of it is done, 0 to 1. It tells by one of USER_ERRORS that the job could not be done;
anything else ends its process."""

PATIENCE = 10.0  # seconds that a process has for clearing away what it has begun


@dataclass(frozen=True)
class Failure(Generic[Job]):
    """A job that was not done, and why."""

    job: Job
    reason: str


def run_jobs(
    jobs: Sequence[Job], starters: Sequence[Callable[[], Work[Job]]], report: Callable[[Job, float], None]
) -> list[Failure[Job]]:
    """Do jobs in the order of the list, with a process for each starter; one that is free takes the next job.

    A starter is called once in its process, to make what does the work there. Jobs and starters must be picklable.
    ``report`` is told how much of a job is done, 0 to 1. A process that dies loses its job, the others carry on.
    Returns the jobs that were not done.
    """
    waiting, failures = deque(jobs), list[Failure[Job]]()
    workers = [_Worker(starter) for starter in starters[: len(jobs)]]
    try:
        while workers:
            for worker in workers:
                if worker.job is None and waiting:
                    worker.take(waiting.popleft())
            busy = [worker for worker in workers if worker.job is not None]
            if not busy:
                break
            ready = wait([worker.connection for worker in busy])
            for worker in busy:
                if worker.connection in ready:
                    failures += worker.listen(report)
            workers = [worker for worker in workers if worker.is_alive]
    finally:
        for worker in workers:
            worker.stop()
    return failures + [Failure(job, "all processes had died") for job in waiting]


@dataclass(frozen=True)
class _Message:
    """What a process says of its job: how much is done, whether that is all, and why if the rest could not be."""

    done: float
    is_last: bool = False
    failure: str | None = None


class _Worker(Generic[Job]):
    """A process, seen from the one that hands out the jobs."""

    def __init__(self, starter: Callable[[], Work[Job]]) -> None:
        # Spawned, not forked: CUDA does not survive a fork.
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process: BaseProcess = context.Process(target=_serve, args=(theirs, starter), daemon=True)
        self.process.start()
        theirs.close()  # only so is the end of the process the end of the line
        self.job: Job | None = None
        self.is_alive = True

    def take(self, job: Job) -> None:
        self.job = job
        # It may have died while it had nothing to do: listening will tell.
        with contextlib.suppress(BrokenPipeError):
            self.connection.send(job)

    def listen(self, report: Callable[[Job, float], None]) -> list[Failure[Job]]:
        """Take one message. Returns the job if it has failed."""
        assert self.job is not None
        job = self.job
        try:
            message: _Message = self.connection.recv()
        except (EOFError, ConnectionResetError):
            self.process.join()
            self.is_alive = False
            self.job = None
            return [Failure(job, f"its process ended with exit code {self.process.exitcode}")]
        report(job, message.done)
        if message.is_last:
            self.job = None
        return [] if message.failure is None else [Failure(job, message.failure)]

    def stop(self) -> None:
        """End the process: between jobs by itself, during one by SIGTERM, and by force if that does not help."""
        self.connection.close()
        if self.job is not None:
            self.process.terminate()
            self.process.join(PATIENCE)
            self.process.kill()
        self.process.join()


def _serve(connection: Connection, starter: Callable[[], Work[Job]]) -> None:
    """Do the jobs that come in until the other end closes. Runs in the worker process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; the one who hands out jobs decides
    try:
        with stop_signals_raised():
            _serve_until_closed(connection, starter)
    except Stopped as stop:
        sys.exit(exit_status(stop))  # what was begun has been cleared away


def _serve_until_closed(connection: Connection, starter: Callable[[], Work[Job]]) -> None:
    work = starter()
    while True:
        try:
            job = connection.recv()
        except EOFError:
            return
        done, failure = 0.0, None
        try:
            for done in work(job):
                connection.send(_Message(done))
            done = 1.0
        except BrokenPipeError:
            return  # nobody listens any more
        except USER_ERRORS as error:
            failure = describe_error(error)
        with contextlib.suppress(BrokenPipeError):
            connection.send(_Message(done, is_last=True, failure=failure))
