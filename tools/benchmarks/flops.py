"""Counts floating-point operations of matrix products and convolutions, as PyTorch executes them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry


class FlopCounter(TorchDispatchMode):
    """Counts operations in its block. PyTorch's own counter needs gradients, which inference does not have."""

    def __init__(self) -> None:
        super().__init__()
        self.gflop = 0.0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        operation = func._overloadpacket
        if operation not in _OWN and operation not in flop_registry:
            with self:  # its parts may have a formula
                out = func.decompose(*args, **kwargs)
            if out is not NotImplemented:
                return out
        out = func(*args, **kwargs)
        if operation in _OWN:
            self.gflop += _OWN[operation](*args) / 1e9
        elif operation in flop_registry:
            self.gflop += flop_registry[operation](*args, **kwargs, out_val=out) / 1e9
        return out


def _attention(query: Tensor, key: Tensor, value: Tensor, *_: Any) -> int:
    return 2 * query[..., 0].numel() * key.shape[-2] * (query.shape[-1] + value.shape[-1])


def _product(_: Tensor, left: Tensor, right: Tensor, *__: Any) -> int:
    return 2 * left.numel() * right.shape[-1]


_aten = torch.ops.aten
_OWN: dict[Any, Callable[..., int]] = {
    _aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    _aten.addmm_: _product,
    _aten.baddbmm_: _product,
}
