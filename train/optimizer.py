"""Parameter groups, layer-wise learning rate decay, schedules and freezing."""

from __future__ import annotations

import fnmatch
import math
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from torch import nn

SCHEDULES: dict[str, Callable[[float], float]] = {
    "cosine": lambda progress: (1 + math.cos(math.pi * progress)) / 2,
    "linear": lambda progress: 1 - progress,
    "constant": lambda progress: 1.0,
}
"""What is left of the way from the start to the end of a value, after a part (0..1) of the run."""


@dataclass(frozen=True)
class Rule:
    """Schedule of one optimizer option, and the parameters to which it applies.

    A rule with neither ``param_names`` nor ``module_cls_names`` applies to all remaining parameters.

    Attributes:
        start_value: Value at the start of the schedule.
        end_fraction: Value at its end, as a fraction of ``start_value``; 1 keeps it constant.
        param_names: Unix wildcards over parameter names.
        module_cls_names: Full names of classes whose own parameters are meant, not those of submodules.
        schedule: Its course from start to end: ``cosine`` (half a wave), ``linear`` or ``constant``.
        warm_up: Fraction of the run (0..1) during which the schedule is scaled up linearly from 0.
    """

    start_value: float
    end_fraction: float = 1.0
    param_names: Sequence[str] = ()
    module_cls_names: Sequence[str] = ()
    warm_up: float = 0.0
    schedule: str = "cosine"

    def __post_init__(self) -> None:
        if self.schedule not in SCHEDULES:
            raise ValueError(f"schedule: expected one of {', '.join(SCHEDULES)}, got {self.schedule!r}")

    def at(self, progress: float) -> float:
        """Value at ``progress``, the fraction of the run (0..1) that is done."""
        end = self.start_value * self.end_fraction
        value = end + (self.start_value - end) * SCHEDULES[self.schedule](progress)
        return value if progress >= self.warm_up else value * progress / self.warm_up

    @property
    def is_for_the_rest(self) -> bool:
        return not (self.param_names or self.module_cls_names)


@dataclass(frozen=True)
class LayerDecay:
    """Layer-wise learning rate decay of a trunk.

    Attributes:
        module: Path of the trunk in the model.
        value: Learning rate of a layer as a fraction of that of the layer above it.
    """

    module: str
    value: float


@dataclass(frozen=True)
class OptimSettings:
    """Settings of a :class:`ScheduledOptimizer`.

    Attributes:
        optimizer: Builds the optimizer from parameter groups.
        lr: Rules of the learning rate, under arbitrary names.
        weight_decay: Rules of the weight decay, under arbitrary names.
        layer_decay: Layer-wise decay of the learning rate, or ``None``.
        max_norm: Gradient norm over all parameters above which gradients are clipped; ``None`` does not clip.
        norm_type: Order of that norm.
    """

    optimizer: Callable[[list[dict[str, Any]]], torch.optim.Optimizer]
    lr: Mapping[str, Rule]
    weight_decay: Mapping[str, Rule]
    layer_decay: LayerDecay | None = None
    max_norm: float | None = None
    norm_type: float = 2.0


@dataclass(frozen=True)
class _Group:
    lr: str
    weight_decay: str
    layer: int
    scale: float

    @property
    def name(self) -> str:
        return f"lr_{self.lr}.wd_{self.weight_decay}.layer_{self.layer}"


class ScheduledOptimizer:
    """An optimizer over the trainable parameters of a model, with its schedules and clipping."""

    def __init__(self, model: nn.Module, settings: OptimSettings) -> None:
        """Build the optimizer, at the start of its schedules.

        Args:
            model: The model, with frozen parameters marked by :func:`freeze`.
            settings: Optimizer, schedules and clipping.

        Raises:
            ValueError: If rules overlap, match no parameter or leave parameters out, or if every parameter is frozen.
        """
        self.settings = settings
        members = group_parameters(model, settings)
        if not members:
            raise ValueError("nothing to train: every parameter is frozen")
        self._groups = list(members)
        parameters = dict(model.named_parameters())
        self.optimizer = settings.optimizer(
            [
                {"params": [parameters[n] for n in names], "name": group.name, "names": names}
                for group, names in members.items()
            ]
        )
        self.set_progress(0.0)

    @property
    def parameters(self) -> list[nn.Parameter]:
        """The trainable parameters."""
        return [p for group in self.optimizer.param_groups for p in group["params"]]

    def zero_grad(self) -> None:
        """Set all gradients to ``None``."""
        self.optimizer.zero_grad(set_to_none=True)

    def step(self) -> None:
        """Update all parameters."""
        self.optimizer.step()

    def set_progress(self, progress: float) -> None:
        """Set learning rates and weight decay for the fraction of the run (0..1) that is done."""
        for options, group in zip(self.optimizer.param_groups, self._groups, strict=True):
            options["lr"] = self.settings.lr[group.lr].at(progress) * group.scale
            options["weight_decay"] = self.settings.weight_decay[group.weight_decay].at(progress)

    def clip(self) -> torch.Tensor:
        """Clip the gradient norm. Returns the norm before clipping."""
        limit = math.inf if self.settings.max_norm is None else self.settings.max_norm
        return nn.utils.clip_grad_norm_(self.parameters, limit, self.settings.norm_type)

    def values(self) -> dict[str, float]:
        """Learning rate of every parameter group, by name."""
        return {f"lr/{options['name']}": float(options["lr"]) for options in self.optimizer.param_groups}

    def rates(self) -> dict[str, float]:
        """Learning rate of every rule, by name; with layer-wise decay that of the uppermost layer."""
        rates: dict[str, float] = {}
        for options, group in zip(self.optimizer.param_groups, self._groups, strict=True):
            rates[group.lr] = max(float(options["lr"]), rates.get(group.lr, 0.0))
        return rates


def group_parameters(model: nn.Module, settings: OptimSettings) -> dict[_Group, list[str]]:
    """Group trainable parameters that share both rules and the layer.

    Returns:
        Names of the parameters by group, groups in the order of the model.

    Raises:
        ValueError: As :func:`assign_rules` and :func:`trunk_layers`.
    """
    lr = assign_rules("lr", settings.lr, model)
    weight_decay = assign_rules("weight_decay", settings.weight_decay, model)
    decay = settings.layer_decay
    layers, top = trunk_layers(model, decay.module) if decay else ({}, 0)
    groups: dict[_Group, list[str]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            layer = layers.get(name, top)
            scale = decay.value ** (top - layer) if decay else 1.0
            groups.setdefault(_Group(lr[name], weight_decay[name], layer, scale), []).append(name)
    return groups


def assign_rules(option: str, rules: Mapping[str, Rule], model: nn.Module) -> dict[str, str]:
    """Find the rule of every parameter.

    Args:
        option: Name of the option, for messages.
        rules: Rules by name.
        model: The model.

    Returns:
        Name of the rule by name of the parameter.

    Raises:
        ValueError: If two rules match one parameter, a rule matches none, or there is not exactly one rule for the
            rest.
    """
    assigned: dict[str, str] = {}
    for rule_name, rule in rules.items():
        for name in _members(option, rule, model):
            if name in assigned:
                raise ValueError(f"{option}: both {assigned[name]} and {rule_name} name {name}")
            assigned[name] = rule_name
    rest = [name for name, rule in rules.items() if rule.is_for_the_rest]
    if len(rest) != 1:
        raise ValueError(f"{option}: expected one rule without names or classes, for the rest, got {rest}")
    return {name: assigned.get(name, rest[0]) for name, _ in model.named_parameters()}


def trunk_layers(model: nn.Module, path: str) -> tuple[dict[str, int], int]:
    """Number the layers of a trunk.

    The patch embedding is layer 0 and blocks count from 1 through all stages. The transition at the end of a stage
    belongs to its last block, and everything after the stages to the top layer.

    Args:
        model: The model.
        path: Path of the trunk in it.

    Returns:
        Layer number by name of the parameter in the model, and the number of the top layer.

    Raises:
        ValueError: If there is no such module, or it has no stages in ``layers``.
    """
    try:
        trunk = model.get_submodule(path)
    except AttributeError as error:
        raise ValueError(f"layer_decay.module: the model has no {path!r}") from error
    stages = getattr(trunk, "layers", None)
    if not isinstance(stages, nn.ModuleList):
        raise ValueError(f"layer_decay.module: expected a trunk with stages in `layers`, got {type(trunk).__name__}")
    starts = [0, *accumulate(len(list(stage.get_submodule("blocks").children())) for stage in stages)]
    top = starts[-1] + 1
    numbers = {}
    for name, _ in trunk.named_parameters():
        part, *rest = name.split(".")
        if part == "layers":
            stage = int(rest[0])
            number = 1 + starts[stage] + int(rest[2]) if rest[1] == "blocks" else starts[stage + 1]
        else:
            number = 0 if part == "patch_embed" else top
        numbers[f"{path}.{name}"] = number
    return numbers, top


def freeze(model: nn.Module, patterns: Iterable[str], only: Iterable[str] | None = None) -> list[str]:
    """Freeze parameters.

    Args:
        model: The model.
        patterns: Unix wildcards over parameter names.
        only: Wildcards over the parameters that are trained at all; ``None`` for all.

    Returns:
        Names of the frozen parameters.

    Raises:
        ValueError: If a pattern matches no parameter.
    """
    frozen = [name for pattern in patterns for name in _matching("freeze", pattern, model)]
    if only is not None:
        kept = {name for pattern in only for name in _matching("only", pattern, model)}
        frozen += [name for name, _ in model.named_parameters() if name not in kept]
    for name in frozen:
        model.get_parameter(name).requires_grad_(False)
    return frozen


def set_training(model: nn.Module, freeze_batch_norm: bool) -> None:
    """Put a model into training mode; frozen batch norms stay in evaluation mode and keep their statistics.

    Args:
        model: The model.
        freeze_batch_norm: Whether to treat all batch norms as frozen, not only those without trainable parameters.
    """
    model.train()
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            frozen = not any(p.requires_grad for p in module.parameters())
            module.train(not (freeze_batch_norm or frozen))


def _members(option: str, rule: Rule, model: nn.Module) -> list[str]:
    by_name = [name for pattern in rule.param_names for name in _matching(option, pattern, model)]
    by_class = [name for cls in rule.module_cls_names for name in _owned(option, cls, model)]
    return list(dict.fromkeys([*by_name, *by_class]))


def _matching(option: str, pattern: str, model: nn.Module) -> list[str]:
    names = [name for name, _ in model.named_parameters() if fnmatch.fnmatchcase(name, pattern)]
    if not names:
        raise ValueError(f"{option}: no parameter matches {pattern!r}")
    return names


def _owned(option: str, class_name: str, model: nn.Module) -> list[str]:
    # Every class that the model uses is imported already: look the name up and never import what a config names.
    module_name, _, attribute = class_name.rpartition(".")
    wanted = vars(sys.modules[module_name]).get(attribute) if module_name in sys.modules else None
    if not (isinstance(wanted, type) and issubclass(wanted, nn.Module)):
        raise ValueError(f"{option}: the model uses no class {class_name!r}")
    names = [
        f"{path}.{name}" if path else name
        for path, module in model.named_modules()
        if isinstance(module, wanted)
        for name, _ in module.named_parameters(recurse=False)
    ]
    if not names:
        raise ValueError(f"{option}: no module of the model is a {class_name}")
    return names
