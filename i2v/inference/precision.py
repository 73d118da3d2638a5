"""In which precision a model computes, while it does."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Precision:
    """``dtype`` of products and convolutions.

    ``tf32``: an NVIDIA GPU may round the inputs of products left in float32 to 10 bits, which is several times as fast.
    """

    dtype: torch.dtype = torch.float32
    tf32: bool = False

    @contextmanager
    def on(self, device: torch.device) -> Iterator[None]:
        """Compute in this precision inside the block."""
        autocast = torch.autocast(device.type, dtype=self.dtype, enabled=self.dtype != torch.float32)
        with autocast, _tf32_switch.on() if self.tf32 else nullcontext():
            yield


class _Tf32Switch:
    """PyTorch's switch for TF32, which belongs to the whole process: on while at least one block wants it to be.

    It is that of products. Convolutions have one of their own, which is on from the start.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._depth = 0
        self._before = "highest"

    @contextmanager
    def on(self) -> Iterator[None]:
        with self._lock:
            if self._depth == 0:
                self._before = torch.get_float32_matmul_precision()
                torch.set_float32_matmul_precision("high")
            self._depth += 1
        try:
            yield
        finally:
            with self._lock:
                self._depth -= 1
                if self._depth == 0:
                    torch.set_float32_matmul_precision(self._before)


_tf32_switch = _Tf32Switch()
