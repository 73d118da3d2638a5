"""Distributed training. The only file that uses torch.distributed; a single process does not need it."""

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
    """The processes of a run, seen from one of them. Collective methods must be called by all processes.

    Attributes:
        device: Device of this process.
        rank: Number of this process, from 0.
        size: Number of processes.
    """

    device: torch.device
    rank: int = 0
    size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this is rank 0, which writes files and reports."""
        return self.rank == 0

    def mean(self, values: Sequence[float]) -> list[float]:
        """Average each value over all processes."""
        return [total / self.size for total in self._reduce(values, distributed.ReduceOp.SUM)]

    def all(self, flag: bool) -> bool:
        """Whether ``flag`` is true in every process."""
        return bool(self._reduce([float(flag)], distributed.ReduceOp.MIN)[0])

    def gather(self, value: Value) -> list[Value]:
        """Collect the values of all processes, ordered by rank."""
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
        """Wrap a module in DistributedDataParallel; a single process gets it back unchanged.

        Args:
            module: The module to train.
            find_unused_parameters: Whether some parameters may get no gradient in a step.

        Returns:
            A module whose gradients are averaged over all processes in the backward pass.
        """
        if self.size == 1:
            return module
        # Non-persistent buffers such as position tables are equal on all ranks: unlike batch statistics, they need no
        # broadcast in every step.
        fixed = {name for name, _ in module.named_buffers()} - set(module.state_dict())
        # The strides of axes of length 1 may differ, which is harmless.
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
    """Context for forward and backward of one batch of an accumulated step.

    Args:
        module: What :meth:`World.wrap` returned.
        last: Whether this is the last batch of the step, the only one that synchronizes gradients.
    """
    if last or not isinstance(module, DistributedDataParallel):
        return contextlib.nullcontext()
    return module.no_sync()


@contextlib.contextmanager
def joined(device: torch.device, backend: str | None = None, timeout_mins: float = 30) -> Iterator[World]:
    """Join the process group given by RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT in the environment.

    Args:
        device: Only its type is used; with several GPUs each process takes the one of its LOCAL_RANK.
        backend: Backend of torch.distributed; ``None`` for nccl on CUDA and gloo elsewhere.
        timeout_mins: Timeout of collective operations in minutes.

    Yields:
        The processes, seen from this one.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if device.type == "cuda":
        # If the launcher shows each process only its own GPU, that GPU is cuda:0 in all of them.
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
