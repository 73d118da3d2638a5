"""Splits a run into shards of similar length, for SLURM, torchrun or by hand."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

MAX_CPU_WORKERS = 8


@dataclass(frozen=True)
class Shard:
    """A part of a run.

    Attributes:
        index: Number of the part, from 0.
        count: Number of parts.
        local_index: Number of the part on its machine, from 0.
        local_count: Number of parts on its machine.
    """

    index: int = 0
    count: int = 1
    local_index: int = 0
    local_count: int = 1

    def __post_init__(self) -> None:
        for index, count in ((self.index, self.count), (self.local_index, self.local_count)):
            if not 0 <= index < count:
                raise ValueError(f"shard: expected a part from 0 to {count - 1}, got {index} of {count}")


def read_shard(environment: Mapping[str, str], explicit: str | None = None) -> Shard:
    """Determine the part of this process.

    Args:
        environment: Environment variables, of which those of torchrun, then those of SLURM's srun are used.
        explicit: INDEX/COUNT such as "2/8", which takes precedence; ``None`` uses the environment.

    Returns:
        The part; everything if nothing says otherwise.

    Raises:
        ValueError: If ``explicit`` or a variable is malformed.
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
            return Shard(index, count)  # each task sees only its own GPUs
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
    """Distribute names so that the total lengths are similar: greedily, longest first.

    The result is the same on every machine.

    Args:
        lengths: Length by name.
        count: Number of parts.

    Returns:
        Names of each part, longest first.
    """
    shares: list[list[str]] = [[] for _ in range(count)]
    sums = [0] * count
    for name in sorted(lengths, key=lambda name: (-lengths[name], name)):
        least = sums.index(min(sums))
        shares[least].append(name)
        sums[least] += lengths[name]
    return shares


def choose_devices(kind: str, num_gpus: int, shard: Shard, workers: int | None = None, num_cores: int = 1) -> list[str]:
    """Choose the device of every worker of this process.

    Args:
        kind: "cuda", or another device that all workers share.
        num_gpus: Visible GPUs, which several parts on one machine divide.
        shard: The part of this process.
        workers: Number of workers; ``None`` for one per GPU or, on the CPU, one per core, but at most 8, as each holds
            a model. Several parts on one machine divide its cores.
        num_cores: CPU cores of the machine.

    Raises:
        ValueError: If ``workers`` is below 1, or there is no GPU for "cuda".
    """
    if workers is not None and workers < 1:
        raise ValueError(f"workers: expected at least 1, got {workers}")
    if kind == "cpu":
        return [kind] * (workers or max(1, min(num_cores // shard.local_count, MAX_CPU_WORKERS)))
    if kind != "cuda":
        return [kind] * (workers or 1)
    if num_gpus < 1:
        raise ValueError("device 'cuda': PyTorch finds no GPU")
    gpus = list(range(num_gpus))[shard.local_index :: shard.local_count] or [shard.local_index % num_gpus]
    return [f"cuda:{gpus[i % len(gpus)]}" for i in range(workers or len(gpus))]
