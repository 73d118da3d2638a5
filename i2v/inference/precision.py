"""Precision: the dtype in which a model computes."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

import torch

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def default_dtype(device: torch.device) -> torch.dtype:
    """The precision of a model on a device where none is requested: bfloat16 on CUDA, float32 elsewhere."""
    return torch.bfloat16 if device.type == "cuda" else torch.float32


def parse_dtype(dtype: torch.dtype | str) -> torch.dtype:
    """Return a dtype that weights may have, given as such or by its name.

    Raises:
        ValueError: If it is not float32, bfloat16 or float16.
    """
    named = _DTYPES.get(dtype) if isinstance(dtype, str) else dtype
    if named is None or named not in _DTYPES.values():
        raise ValueError(f"dtype: expected {', '.join(_DTYPES)}, got {dtype!r}")
    return named


def cpu_as_default_device() -> AbstractContextManager[object]:
    """Context manager in which tensors without a device of their own are on the CPU, as they are in a fresh program."""
    # The context costs time in every call of PyTorch, so there is none where nothing was changed.
    return nullcontext() if torch.get_default_device().type == "cpu" else torch.device("cpu")


@contextmanager
def fresh_defaults() -> Iterator[None]:
    """Default device and dtype as in a fresh program, inside a ``with`` block. The dtype is the whole process's."""
    dtype = torch.get_default_dtype()
    with cpu_as_default_device():
        try:
            torch.set_default_dtype(torch.float32)
            yield
        finally:
            torch.set_default_dtype(dtype)


@dataclass(frozen=True)
class Precision:
    """Precision of a computation.

    Attributes:
        dtype: Autocast dtype of matrix products and convolutions.
        tf32: Whether an NVIDIA GPU may use TF32 for products in float32: it rounds their inputs to 10 bits of
            mantissa, which is several times faster.
    """

    dtype: torch.dtype = torch.float32
    tf32: bool = False

    @contextmanager
    def on(self, device: torch.device) -> Iterator[None]:
        """Compute on ``device`` in this precision inside a ``with`` block, whatever the program's default device is."""
        # Disabled rather than absent for float32: an autocast of the caller's must not change the precision.
        autocast = torch.autocast(device.type, dtype=self.dtype, enabled=self.dtype != torch.float32)
        with cpu_as_default_device(), autocast, _tf32_switch.enabled() if self.tf32 else nullcontext():
            yield


class _Tf32Switch:
    """PyTorch's process-wide TF32 setting for matrix products, enabled while at least one block needs it.

    Convolutions have a setting of their own, which PyTorch enables by default.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._depth = 0
        self._saved_precision = "highest"

    @contextmanager
    def enabled(self) -> Iterator[None]:
        """Enable TF32 inside a ``with`` block. Blocks may nest and may run in several threads."""
        with self._lock:
            # Only the first block saves the setting: a nested one would save "high" and never restore the original.
            if self._depth == 0:
                self._saved_precision = torch.get_float32_matmul_precision()
                torch.set_float32_matmul_precision("high")
            self._depth += 1
        try:
            yield
        finally:
            with self._lock:
                self._depth -= 1
                if self._depth == 0:
                    torch.set_float32_matmul_precision(self._saved_precision)


_tf32_switch = _Tf32Switch()
