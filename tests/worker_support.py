"""What the worker processes of a test do; here, because they have to be able to import it."""

from __future__ import annotations

import os
from collections.abc import Iterator

from test_pvs.workers import Work


def start_counting() -> Work[str]:
    """Jobs: "ok" takes four steps, "bad" fails at its second, "die" ends the process."""

    def work(job: str) -> Iterator[float]:
        for step in range(1, 5):
            if job == "bad" and step == 2:
                raise ValueError("this one is bad")
            if job == "die":
                os._exit(7)
            yield step / 4

    return work


def fail_to_start() -> Work[str]:
    raise RuntimeError("no model here")
