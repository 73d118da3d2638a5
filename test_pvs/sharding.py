"""Which part of a run is this process's: shares of equal length, told apart by what SLURM or torchrun set."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

MAX_CPU_WORKERS = 8


@dataclass(frozen=True)
class Shard:
    """Part ``index`` of ``count``; on its machine it is number ``local_index`` of ``local_count``."""

    index: int = 0
    count: int = 1
    local_index: int = 0
    local_count: int = 1

    def __post_init__(self) -> None:
        for index, count in ((self.index, self.count), (self.local_index, self.local_count)):
            if not 0 <= index < count:
                raise ValueError(f"shard: expected a part from 0 to one less than their number, got {index} of {count}")


def read_shard(environment: Mapping[str, str], explicit: str | None = None) -> Shard:
    """The part that ``explicit`` ("2/8") names, else the environment of torchrun, of SLURM's srun, or all.

    Raises ValueError for variables or a text that do not say which.
    """
    if explicit is not None:
        part = re.fullmatch(r"(\d+)/(\d+)", explicit)
        if part is None:
            raise ValueError(f"shard: expected INDEX/COUNT, as 0/4, got {explicit!r}")
        return Shard(int(part[1]), int(part[2]))
    if "RANK" in environment and "WORLD_SIZE" in environment:
        index, count, local_index, local_count = _numbers(
            environment, RANK="", WORLD_SIZE="", LOCAL_RANK="0", LOCAL_WORLD_SIZE="1"
        )
        return Shard(index, count, local_index, local_count)
    if "SLURM_PROCID" in environment and "SLURM_NTASKS" in environment:
        index, count, local_index, nodes, own_gpus = _numbers(
            environment, SLURM_PROCID="", SLURM_NTASKS="", SLURM_LOCALID="0", SLURM_NNODES="1", SLURM_GPUS_PER_TASK="0"
        )
        if own_gpus:
            return Shard(index, count)  # each task sees GPUs of its own only
        return Shard(index, count, local_index, max(-(-count // nodes), local_index + 1))
    return Shard()


def _numbers(environment: Mapping[str, str], **defaults: str) -> list[int]:
    values = {name: environment.get(name, default) for name, default in defaults.items()}
    try:
        return [int(value) for value in values.values()]
    except ValueError as error:
        got = ", ".join(f"{name}={value}" for name, value in values.items())
        raise ValueError(f"environment: expected whole numbers, got {got}") from error


def balance(lengths: Mapping[str, int], count: int) -> list[list[str]]:
    """Share names out so that the sums of their lengths are nearly equal: the longest first, to whom has least.

    The same on every machine. Each share begins with its longest.
    """
    shares: list[list[str]] = [[] for _ in range(count)]
    sums = [0] * count
    for name in sorted(lengths, key=lambda name: (-lengths[name], name)):
        least = sums.index(min(sums))
        shares[least].append(name)
        sums[least] += lengths[name]
    return shares


def choose_devices(kind: str, num_gpus: int, shard: Shard, workers: int | None = None, num_cores: int = 1) -> list[str]:
    """The device of every worker of this process.

    ``kind``: "cuda", or another device that all workers share. Several parts on one machine divide its ``num_gpus``
    visible GPUs among themselves. Without ``workers`` there is one per GPU; on the CPU one per core, divided likewise,
    but no more than 8, as each holds a model. Raises ValueError for CUDA without GPUs.
    """
    if workers is not None and workers < 1:
        raise ValueError(f"workers: expected at least 1, got {workers}")
    if kind == "cpu":
        return [kind] * (workers or max(1, min(num_cores // shard.local_count, MAX_CPU_WORKERS)))
    if kind != "cuda":
        return [kind] * (workers or 1)
    if num_gpus < 1:
        raise ValueError("device 'cuda': PyTorch finds no GPU here")
    gpus = list(range(num_gpus))[shard.local_index :: shard.local_count] or [shard.local_index % num_gpus]
    return [f"cuda:{gpus[i % len(gpus)]}" for i in range(workers or len(gpus))]
