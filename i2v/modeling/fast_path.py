"""Fast path of inference: computations that may stand in for calls of the modules they are made of.

Every part of the network has a reference implementation, which calls its submodules one by one. Some parts also have a
fast implementation, equal up to round-off: batch norms folded into convolutions, feature maps computed in strips that
fit a CPU's cache, attention to memory without projected keys.

A fast implementation reads weights and does not call the submodules. It is right only as long as none of them is
replaced, hooked, parametrized or in training. ``set_backend`` chooses the implementation once for a whole network;
each part still falls back to its reference implementation where it must.
"""

from __future__ import annotations

from typing import Literal, get_args

from torch import nn
from torch.nn.modules import module as torch_module

Backend = Literal["reference", "fast"]

# The output of these layers follows from their weights alone. A subclass, such as a parametrized layer or one with
# adapters, may compute anything.
_KNOWN_LAYERS = (  # no set: torch.compile of PyTorch 2.6 does not look classes up in one
    nn.Conv2d,
    nn.Conv3d,
    nn.Linear,
    nn.BatchNorm2d,
    nn.LayerNorm,
    nn.GELU,
    nn.ReLU,
    nn.Dropout,
    nn.Identity,
    nn.Sequential,
    nn.ModuleList,
)
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


class FastPathModule(nn.Module):
    """A module with a fast implementation beside its reference implementation.

    Attributes:
        backend: Which implementation to use in eval mode, ``"reference"`` until ``set_backend`` is called.
    """

    backend: Backend = "reference"

    def runs_fast(self) -> bool:
        """Whether the fast implementation may replace calls of all submodules."""
        if self.backend != "fast" or self.training:
            return False
        submodules = (module for child in self.children() for module in child.modules())
        return all(not module.training and is_unmodified(module) for module in submodules)


def set_backend(model: nn.Module, backend: Backend) -> None:
    """Choose the implementation of all parts of a network.

    Args:
        model: The network.
        backend: ``"reference"``, or ``"fast"`` to use fast implementations where they are valid.

    Raises:
        ValueError: If ``backend`` is neither.
    """
    if backend not in get_args(Backend):
        raise ValueError(f"backend: expected {' or '.join(get_args(Backend))}, got {backend!r}")
    for module in model.modules():
        if isinstance(module, FastPathModule):
            module.backend = backend


def is_unmodified(module: nn.Module) -> bool:
    """Whether a module computes what fast implementations take for granted.

    It is of a known class, has no hooks, its ``forward`` was not replaced, and no attribute was set that they do not
    read; see ``_is_ordinary``. Hooks on all modules of the process count, too. Submodules are not checked.
    """
    if _has_global_hooks():
        return False
    known = type(module) in _KNOWN_LAYERS or type(module).__module__.startswith("i2v.")
    is_itself = known and "forward" not in vars(module) and not has_hooks(module)
    return is_itself and _is_ordinary(module)


def has_hooks(module: nn.Module) -> bool:
    """Whether hooks are registered on a module itself."""
    return any(getattr(module, hooks) for hooks in _HOOKS)


def _is_ordinary(module: nn.Module) -> bool:
    """Whether a layer has the weights and the settings that this library's layers of its class have.

    Convolutions are not dilated and pad with zeros. Linear layers have a bias, batch norms weights and running
    statistics.
    """
    if isinstance(module, nn.Conv2d | nn.Conv3d):
        return module.padding_mode == "zeros" and set(module.dilation) == {1} and not isinstance(module.padding, str)
    if isinstance(module, nn.BatchNorm2d):
        return module.weight is not None and module.bias is not None and module.running_mean is not None
    return not isinstance(module, nn.Linear) or module.bias is not None


def _has_global_hooks() -> bool:
    """Whether the process has hooks on all modules (``torch.nn.modules.module.register_module_*_hook``)."""
    return any(getattr(torch_module, f"_global{hooks}") for hooks in _HOOKS)
