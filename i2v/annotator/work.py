"""Background jobs of a session, tracking or exporting: one at a time, with progress."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Generator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from typing import Any, TypeAlias, TypeVar

from i2v.annotator.events import EventHub
from i2v.annotator.wording import for_page
from i2v.errors import USER_ERRORS

log = logging.getLogger(__name__)

Step = TypeVar("Step")


@dataclass(frozen=True)
class Outcome:
    """What a job has achieved. Published once the job has ended, so that a page may start the next one at once.

    Attributes:
        event: Name of the event.
        facts: Its values.
    """

    event: str
    facts: Mapping[str, Any]


Job: TypeAlias = Callable[[], Coroutine[Any, Any, Outcome | None]]


@dataclass(frozen=True)
class Progress:
    """Progress of a job.

    Attributes:
        task: Name of the job.
        done: Frames done.
        total: Frames in total; ``None`` if unlimited or not known.
        rate: Frames per second.
        detail: What is being done, such as the name of a file.
    """

    task: str
    done: int = 0
    total: int | None = None
    rate: float | None = None
    detail: str = ""


class Work:
    """Runs one job at a time. Progress and errors are published as events, so an error only ends the job.

    Attributes:
        progress: Progress of the running job, if any.
        stopping: Whether the job was cancelled but has not ended yet.
    """

    def __init__(self, events: EventHub) -> None:
        """Create without a job. Progress and errors are published to ``events``."""
        self.progress: Progress | None = None
        self._events = events
        self._task: asyncio.Task[Outcome | None] | None = None
        self.stopping = False
        self._started = 0.0

    @property
    def busy(self) -> bool:
        return self._task is not None and not self._task.done()

    def start(self, task: str, job: Job, total: int | None = None) -> None:
        """Start a job.

        Args:
            task: Name of the job.
            job: Returns the coroutine to run.
            total: Frames in total; ``None`` if unlimited.

        Raises:
            RuntimeError: If another job is running.
        """
        if self.busy:
            raise RuntimeError("another job is running: wait for it, or cancel it")
        self.progress, self._started = Progress(task, total=total), time.perf_counter()
        self._announce()
        self.stopping = False
        self._task = asyncio.create_task(job())
        self._task.add_done_callback(self._end)

    def advance(self, done: int) -> None:
        """Update the number of frames done."""
        if self.progress is not None:
            rate = done / max(time.perf_counter() - self._started, 1e-6)
            self.progress = replace(self.progress, done=done, rate=round(rate, 2))
            self._announce()

    def describe(self, detail: str, done: int, total: int | None) -> None:
        """Say what is being done, and how far it is."""
        if self.progress is not None:
            self.progress = replace(self.progress, detail=detail, done=done, total=total)
            self._announce()

    @staticmethod
    async def each(steps: Generator[Step, None, Any], told: Callable[[Step], None]) -> None:
        """Run the steps of a generator in a thread, passing each value to ``told`` in the event loop.

        If the job is cancelled, the generator is closed after its current step.
        """
        loop = asyncio.get_running_loop()
        # A single thread, so that closing waits for the step that is running.
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="i2v-job") as thread:
            try:
                while (value := await loop.run_in_executor(thread, next, steps, None)) is not None:
                    told(value)
            finally:
                await asyncio.shield(loop.run_in_executor(thread, steps.close))

    async def cancel(self) -> None:
        """Cancel the job and wait for its end. What it has done is kept."""
        if self._task is not None and not self._task.done():
            if not self.stopping:  # cancelling twice would interrupt the clean-up
                self.stopping = True
                self._task.cancel()
            await asyncio.wait({self._task})

    def _end(self, task: asyncio.Task[Outcome | None]) -> None:
        if task is self._task:
            self.progress, self.stopping = None, False
            self._announce()
        if task.cancelled():
            return
        error = task.exception()
        if isinstance(error, USER_ERRORS):
            self._events.publish("error", message=for_page(error))
        elif error is not None:
            log.error("a job failed", exc_info=error)
            self._events.publish("error", message="this failed unexpectedly: see the terminal")
        elif (outcome := task.result()) is not None:
            self._events.publish(outcome.event, **outcome.facts)

    def _announce(self) -> None:
        self._events.publish("progress", progress=None if self.progress is None else asdict(self.progress))
