"""Worker processes that take one job after another and report their progress."""

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
"""Does a job and yields its progress in 0..1. One of USER_ERRORS marks the job as failed; any other exception ends the
process."""

PATIENCE = 10.0  # seconds that a process has for cleaning up


@dataclass(frozen=True)
class Failure(Generic[Job]):
    """A job that failed.

    Attributes:
        job: The job.
        reason: Why it failed, as a sentence.
    """

    job: Job
    reason: str


def run_jobs(
    jobs: Sequence[Job], starters: Sequence[Callable[[], Work[Job]]], report: Callable[[Job, float], None]
) -> list[Failure[Job]]:
    """Run jobs in order in worker processes; a free worker takes the next job.

    If a process dies, its job fails and the other processes continue.

    Args:
        jobs: The jobs, picklable.
        starters: One per process, picklable; each is called once in its process, and returns what does the work.
        report: Called with a job and its progress in 0..1.

    Returns:
        The jobs that failed.
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
    return failures + [Failure(job, "all worker processes died") for job in waiting]


@dataclass(frozen=True)
class _Message:
    """Report of a process: progress of its job, whether it is over, and why if it failed."""

    done: float
    is_last: bool = False
    failure: str | None = None


class _Worker(Generic[Job]):
    """A worker process, seen from the parent."""

    def __init__(self, starter: Callable[[], Work[Job]]) -> None:
        # Spawned, because CUDA cannot be used in a forked process.
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process: BaseProcess = context.Process(target=_serve, args=(theirs, starter), daemon=True)
        self.process.start()
        theirs.close()  # with our copy closed, the process's end closes the connection
        self.job: Job | None = None
        self.is_alive = True

    def take(self, job: Job) -> None:
        self.job = job
        # If it died while idle, listen reports it.
        with contextlib.suppress(BrokenPipeError):
            self.connection.send(job)

    def listen(self, report: Callable[[Job, float], None]) -> list[Failure[Job]]:
        """Receive one message. Returns the job if it failed."""
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
        """End the process: an idle one ends by itself, a busy one gets SIGTERM, then SIGKILL."""
        self.connection.close()
        if self.job is not None:
            self.process.terminate()
            self.process.join(PATIENCE)
            self.process.kill()
        self.process.join()


def _serve(connection: Connection, starter: Callable[[], Work[Job]]) -> None:
    """Run jobs in the worker process until the parent closes the connection."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the parent decides
    try:
        with stop_signals_raised():
            _serve_until_closed(connection, starter)
    except Stopped as stop:
        sys.exit(exit_status(stop))  # incomplete results have been cleaned up


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
            return  # the parent closed the connection
        except USER_ERRORS as error:
            failure = describe_error(error)
        with contextlib.suppress(BrokenPipeError):
            connection.send(_Message(done, is_last=True, failure=failure))
