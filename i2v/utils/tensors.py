"""Tensors of PyTorch among users' values, without importing PyTorch."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor
    from typing_extensions import TypeIs


def is_tensor(value: Any) -> TypeIs[Tensor]:
    """Whether a value is a tensor. There are none before something imports PyTorch."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def tensor_to_array(tensor: Tensor, where: str) -> np.ndarray:
    """Copy the values of a tensor, whatever its device and layout.

    Args:
        tensor: The tensor; sparse and quantized ones are expanded.
        where: Prefix of error messages.

    Returns:
        An array of its shape, float32 for floats of any size, as NumPy lacks some of them.

    Raises:
        ValueError: If its values cannot be read, as on the device "meta", where there are none.
    """
    strided = sys.modules["torch"].strided
    try:
        plain = tensor.detach()
        plain = plain.dequantize() if getattr(plain, "is_quantized", False) else plain
        plain = plain.to_dense() if plain.layout is not strided else plain
        plain = plain.cpu().resolve_conj().resolve_neg()
        return (plain.float() if plain.is_floating_point() else plain).numpy()
    except (RuntimeError, TypeError, ValueError) as error:
        kind = f"{tensor.dtype} of layout {tensor.layout} on the device {str(tensor.device)!r}"
        raise ValueError(f"{where}: expected a tensor with values that can be read, got {kind}") from error


def without_tensors(values: Any, where: str) -> Any:
    """The same values with every tensor, also in lists and tuples, as an array; ValueError as `tensor_to_array`."""
    if is_tensor(values):
        if values.is_nested:  # of parts that may differ in size, as the elements of a list
            return [tensor_to_array(part, where) for part in values.unbind()]
        return tensor_to_array(values, where)
    if isinstance(values, list | tuple):
        return [without_tensors(value, where) for value in values]
    return values
