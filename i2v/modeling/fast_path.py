"""The fast path of inference: where a computation may replace the calls of the modules that it is made of.

Every part of the network has a reference implementation, which calls its submodules one by one. Some have a faster one
as well, equal up to round-off: batch norms folded into convolutions, maps computed in strips that fit a CPU's cache,
attention to memory without projected keys. These read weights and do not call the submodules, so they are right only
where nobody has replaced, hooked or parametrized one of them or is training it. :func:`set_backend` chooses for a whole
network, once; each part still steps back to its reference implementation where it must.
"""

from __future__ import annotations

from typing import Literal, get_args

from torch import nn
from torch.nn.modules import module as torch_module

Backend = Literal["reference", "fast"]

# What these compute is decided by their weights. A subclass, such as a parametrized layer or one with adapters, may
# compute anything.
_KNOWN_LAYERS = frozenset(
    {
        nn.Conv2d,
        nn.Linear,
        nn.BatchNorm2d,
        nn.LayerNorm,
        nn.GELU,
        nn.ReLU,
        nn.Dropout,
        nn.Identity,
        nn.Sequential,
        nn.ModuleList,
    }
)
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


class FastPathModule(nn.Module):
    """A module with a fast implementation beside its reference implementation, which is what it starts with."""

    backend: Backend = "reference"

    def runs_fast(self, *parts: nn.Module) -> bool:
        """Whether the fast implementation may stand in for calls of ``parts``, by default of all submodules."""
        if self.backend != "fast" or self.training:
            return False
        below = (module for part in parts or (*self.children(),) for module in part.modules())
        return not _has_global_hooks() and all(not module.training and is_plain(module) for module in below)


def set_backend(model: nn.Module, backend: Backend) -> None:
    """Let all parts of a network run by their reference implementation, or by the fast one where they can.

    Raises ValueError for another name.
    """
    if backend not in get_args(Backend):
        raise ValueError(f"backend: expected {' or '.join(get_args(Backend))}, got {backend!r}")
    for module in model.modules():
        if isinstance(module, FastPathModule):
            module.backend = backend


def is_plain(module: nn.Module) -> bool:
    """Whether calling a module does what its class says: a class known here, without hooks or a replaced ``forward``.

    Submodules are not looked at.
    """
    known = type(module) in _KNOWN_LAYERS or type(module).__module__.startswith("i2v.")
    return known and "forward" not in vars(module) and not any(getattr(module, hooks) for hooks in _HOOKS)


def _has_global_hooks() -> bool:
    """Whether hooks on every module of the process are set (``torch.nn.modules.module.register_module_*_hook``)."""
    return any(getattr(torch_module, f"_global{hooks}") for hooks in _HOOKS)
