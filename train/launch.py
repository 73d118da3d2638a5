"""Starts the processes of a run: a single one, one per GPU, under torchrun, or as a cluster job."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import submitit
import torch
from omegaconf import DictConfig, OmegaConf
from torch import multiprocessing

from i2v.config import ConfigError
from i2v.errors import USER_ERRORS, describe_error
from i2v.utils.signals import REPEAT_SECONDS, STOP_SIGNALS

log = logging.getLogger(__name__)

Work = Callable[[DictConfig], None]


class StopRequest:
    """Turns the first SIGTERM, SIGHUP or Ctrl-C into a request to stop after the step; a second one stops at once.

    A repetition within a second is ignored: launchers, and the parent of several processes, forward the first signal
    to processes that already got it.
    """

    def __init__(self) -> None:
        self._asked = False
        self._since = 0.0
        self._previous: dict[int, Any] = {}

    def __call__(self) -> bool:
        """Whether a stop was requested."""
        return self._asked

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Handle the signals while the block runs, except those that are ignored, as under nohup."""
        wanted = [number for number in STOP_SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
        self._previous = {number: signal.signal(number, self._receive) for number in wanted}
        try:
            yield
        finally:
            for number, handler in self._previous.items():
                signal.signal(number, handler)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if not self._asked:
            log.warning("%s: stopping after this step; send it again to stop at once", signal.Signals(number).name)
            self._asked, self._since = True, time.monotonic()
        elif time.monotonic() - self._since >= REPEAT_SECONDS:
            signal.signal(number, self._previous[number])
            signal.raise_signal(number)


def under_launcher() -> bool:
    """Whether torchrun or a similar launcher started this process."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


def run_on_this_node(work: Work, config: DictConfig, num_processes: int) -> None:
    """Run the work in this process, or in several spawned ones that rendezvous at a free local port.

    SIGTERM is forwarded to spawned processes. If one of them fails, the others are terminated.

    Args:
        work: What every process runs.
        config: Its argument.
        num_processes: Number of processes; 1 runs in this one.

    Raises:
        ProcessExitedException: If a spawned process failed with one of USER_ERRORS, which it has printed itself.
        ProcessRaisedException: If a spawned process failed otherwise, with its traceback.
    """
    if num_processes == 1:
        work(config)
        return
    rendezvous = {"MASTER_ADDR": "localhost", "MASTER_PORT": str(free_port()), "WORLD_SIZE": str(num_processes)}
    context = multiprocessing.spawn(
        _spawned, (work, config, rendezvous), nprocs=num_processes, join=False, start_method="spawn"
    )
    assert context is not None

    def forward(number: int, frame: FrameType | None) -> None:
        for process in context.processes:
            if process.pid is not None and process.is_alive():
                os.kill(process.pid, signal.SIGTERM)

    previous = {signal.SIGTERM: signal.signal(signal.SIGTERM, forward)}
    # The processes share this terminal, so Ctrl-C and SIGHUP reach them without being forwarded.
    previous |= {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGHUP)}
    try:
        while not context.join():
            pass
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def free_port() -> int:
    """Find a free port of this machine."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return int(probe.getsockname()[1])


@dataclass(frozen=True)
class ClusterJob:
    """A run as a cluster job: submitit calls it in every task, and resubmits it after a timeout or preemption.

    Attributes:
        work: What every task runs.
        config: Its argument.
        port_range: Lowest and highest port for the rendezvous, inclusive.
    """

    work: Work
    config: DictConfig
    port_range: tuple[int, int]

    def __call__(self) -> None:
        task = submitit.JobEnvironment()
        low, high = self.port_range
        address = "localhost" if task.num_nodes == 1 else task.hostnames[0]
        os.environ |= {
            "RANK": str(task.global_rank),
            "LOCAL_RANK": str(task.local_rank),
            "WORLD_SIZE": str(task.num_tasks),
            "MASTER_ADDR": address,
            # Derived from the job id, which all its tasks share and which no other job has.
            "MASTER_PORT": str(low + zlib.crc32(task.job_id.encode()) % (high - low + 1)),
        }
        self.work(self.config)

    def checkpoint(self) -> submitit.helpers.DelayedSubmission:
        """Resubmit the same job after preemption or a timeout; it resumes from the last checkpoint."""
        return submitit.helpers.DelayedSubmission(self)


def submit(work: Work, config: DictConfig, folder: Path, num_nodes: int, num_processes: int, on_gpus: bool) -> Any:
    """Submit a job with one task per process.

    Args:
        work: What every task runs.
        config: Its argument; the job's settings are those under ``submitit``.
        folder: Where submitit writes the job's output.
        num_nodes: Number of nodes.
        num_processes: Tasks per node.
        on_gpus: Whether to request a GPU per task.

    Returns:
        submitit's job.

    Raises:
        ConfigError: If a setting is not one line of printable text.
    """
    settings: dict[str, Any] = OmegaConf.to_container(config.submitit, resolve=True)  # type: ignore[assignment]
    executor = submitit.AutoExecutor(folder=folder, cluster=settings["cluster"])
    shared = {
        "name": settings["name"],
        "nodes": num_nodes,
        "tasks_per_node": num_processes,
        "gpus_per_node": num_processes if on_gpus else 0,
        "cpus_per_task": settings["cpus_per_task"],
        "timeout_min": int(60 * settings["timeout_hour"]),
        "mem_gb": settings["mem_gb"],
    }
    slurm = {
        "partition": settings["partition"],
        "account": settings["account"],
        "qos": settings["qos"],
        "constraint": settings["constraints"],
        "comment": settings["comment"],
        "exclude": settings["exclude_nodes"],
        "nodelist": settings["include_nodes"],
    }
    cpu_bind = settings["srun_args"]["cpu_bind"]
    given = {key: value for key, value in shared.items() if value is not None}
    given |= {f"slurm_{key}": value for key, value in slurm.items() if value is not None}
    for key, value in {**given, "cpu_bind": cpu_bind, "folder": folder}.items():
        # submitit writes these into a shell script, where text after a line break would run as a command.
        if not str(value).isprintable():
            raise ConfigError(f"submitit.{key.removeprefix('slurm_')}: expected one line of plain text, got {value!r}")
    if cpu_bind is not None:
        given["slurm_srun_args"] = [f"--cpu-bind={cpu_bind}"]
    executor.update_parameters(**given)
    low, high = settings["port_range"]
    with _importable():
        return executor.submit(ClusterJob(work, config, (int(low), int(high))))


@contextlib.contextmanager
def _importable() -> Iterator[None]:
    """Put this checkout on PYTHONPATH, which jobs inherit, so that they find its modules from any folder."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parents[1]), *([before] if before else [])])
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before


def _spawned(rank: int, work: Work, config: DictConfig, rendezvous: dict[str, str]) -> None:
    os.environ |= {**rendezvous, "RANK": str(rank), "LOCAL_RANK": str(rank)}
    if not torch.cuda.is_available() and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // int(rendezvous["WORLD_SIZE"])))
    try:
        work(config)
    except USER_ERRORS as error:
        sys.exit(f"error: {describe_error(error)}")  # if raised, the parent would print the whole traceback
