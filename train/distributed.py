"""Processes that train together. The only file that names torch.distributed; one process alone does without it."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

Value = TypeVar("Value")


@dataclass(frozen=True)
class World:
    """The processes of a run, seen from one of them. Methods with an exchange have to be called by all alike."""

    device: torch.device
    rank: int = 0
    size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes and reports."""
        return self.rank == 0

    def mean(self, values: Sequence[float]) -> list[float]:
        """Mean of each value over all processes."""
        return [total / self.size for total in self._reduce(values, distributed.ReduceOp.SUM)]

    def all(self, flag: bool) -> bool:
        """Whether something holds in every process."""
        return bool(self._reduce([float(flag)], distributed.ReduceOp.MIN)[0])

    def gather(self, value: Value) -> list[Value]:
        """What each process has, in the order of their ranks."""
        if self.size == 1:
            return [value]
        values = [value] * self.size
        distributed.all_gather_object(values, value)
        return values

    def barrier(self) -> None:
        """Wait for all processes."""
        if self.size > 1:
            distributed.barrier()

    def wrap(self, module: nn.Module, find_unused_parameters: bool) -> nn.Module:
        """A module whose gradients are averaged over all processes in the backward pass."""
        if self.size == 1:
            return module
        # Tables of positions are the same everywhere and need not travel at every step, as batch statistics do.
        fixed = {name for name, _ in module.named_buffers()} - set(module.state_dict())
        # Strides along axes of length one differ at times, which costs nothing.
        warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
        DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(module, sorted(fixed))
        return DistributedDataParallel(
            module,
            device_ids=[self.device] if self.device.type == "cuda" else None,
            find_unused_parameters=find_unused_parameters,
            gradient_as_bucket_view=True,
        )

    def _reduce(self, values: Sequence[float], operation: distributed.ReduceOp.RedOpType) -> list[float]:
        if self.size == 1:
            return list(values)
        tensor = torch.tensor(values, dtype=torch.float64, device=self.device)
        distributed.all_reduce(tensor, operation)
        return tensor.tolist()


def accumulating(module: nn.Module, last: bool) -> AbstractContextManager[None]:
    """Around forward and backward of a part of a step: gradients are exchanged with the ``last`` one only."""
    if last or not isinstance(module, DistributedDataParallel):
        return contextlib.nullcontext()
    return module.no_sync()


@contextlib.contextmanager
def joined(device: torch.device, backend: str | None = None, timeout_mins: float = 30) -> Iterator[World]:
    """Join the processes that the environment (RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT) tells of.

    ``device``: its type counts; of several GPUs each process takes the one of its place on the machine. ``backend``:
    nccl on CUDA and gloo elsewhere unless given.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if device.type == "cuda":
        # Where each process is shown a GPU of its own, that is number 0 to all of them.
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
        torch.cuda.set_device(device)
    if size == 1:
        yield World(device)
        return
    backend = backend or ("nccl" if device.type == "cuda" else "gloo")
    distributed.init_process_group(backend, timeout=timedelta(minutes=timeout_mins))
    try:
        yield World(device, distributed.get_rank(), size)
    finally:
        distributed.destroy_process_group()
