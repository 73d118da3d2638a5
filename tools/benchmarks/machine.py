"""Describes the machine that figures were measured on."""

from __future__ import annotations

import os
import platform
import time
from pathlib import Path
from typing import Any

import torch


def describe(device: torch.device) -> dict[str, Any]:
    """Describe machine and versions, and measure the machine's matmul rate now, to make figures comparable."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else _cpu_name()
    return {
        "device": name,
        "threads": torch.get_num_threads(),
        "cpus": os.cpu_count(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "matmul_gflops": {
            str(t).removeprefix("torch."): matmul_rate(device, t) for t in (torch.float32, torch.bfloat16)
        },
    }


def matmul_rate(device: torch.device, dtype: torch.dtype, seconds: float = 0.5) -> float:
    """Measure GFLOP/s of square matrix products, the best of several.

    Their side grows from 256 to 2048 while products take a small part of ``seconds``: a CPU without instructions for
    bfloat16 would compute at the largest for a minute.
    """
    best, side, end = 0.0, 256, time.perf_counter() + seconds
    while best == 0.0 or time.perf_counter() < end:
        a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
        synchronize(device)
        start = time.perf_counter()
        a @ b
        synchronize(device)
        taken = time.perf_counter() - start
        best = max(best, 2 * side**3 / taken / 1e9)
        if taken < seconds / 50 and side < 2048:
            side *= 2
    return round(best, 1)


def synchronize(device: torch.device) -> None:
    """Wait for a GPU before a clock is read."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def resident_megabytes(process: int | str = "self") -> float:
    """Resident memory of a process in MiB; Linux only.

    Raises:
        RuntimeError: On other systems.
    """
    status = Path(f"/proc/{process}/status")
    if not status.exists():
        raise RuntimeError("resident memory is read from /proc/self/status, which this system does not have")
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmRSS:"))
    return int(line.split()[1]) / 1024


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
