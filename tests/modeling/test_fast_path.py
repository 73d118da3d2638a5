"""The fast path steps back to the reference implementation where a module was hooked, replaced or is in training."""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil
import typing
from collections import Counter

import pytest
import torch
from support import make_predictor, render_video
from torch import nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
from torch.nn.modules.module import register_module_forward_hook
from torch.nn.utils import parametrize

import i2v
from i2v.i2v_video_predictor import I2VVideoPredictor
from i2v.modeling.fast_path import set_backend

CLICK = {"points": [[16, 19]], "labels": [1]}


def track(predictor: I2VVideoPredictor) -> torch.Tensor:
    with predictor.init_state(render_video(6)) as state:
        predictor.add_new_points_or_box(state, 0, 1, **CLICK)
        return torch.cat([logits for _, _, logits in predictor.propagate_in_video(state)])


class Adapter(nn.Module):
    """A projection with something added, as by LoRA."""

    def __init__(self, linear: nn.Linear, scale: float) -> None:
        super().__init__()
        self.linear, self.scale = linear, scale

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.linear(x)
        return out + self.scale * x.mean(-1, keepdim=True) * torch.linspace(-1, 1, out.shape[-1])


def test_both_backends_give_the_same_masks() -> None:
    fast, reference = make_predictor(), make_predictor(backend="reference")
    assert torch.allclose(track(fast), track(reference), atol=1e-3)
    with pytest.raises(ValueError, match="backend: expected reference or fast, got 'quick'"):
        set_backend(fast.model, "quick")  # type: ignore[arg-type]


@pytest.mark.parametrize("backend", ["fast", "reference"])
@pytest.mark.parametrize("projection", ["q_proj", "k_proj", "v_proj", "out_proj"])
def test_an_adapter_on_any_projection_counts(backend, projection) -> None:
    found = []
    for scale in (0.0, 2.0):
        predictor = make_predictor(backend=backend)
        for layer in predictor.model.memory_attention.layers:
            attention = layer.cross_attn_image
            setattr(attention, projection, Adapter(getattr(attention, projection), scale))
        predictor.model.eval()
        found.append(track(predictor))
    assert torch.allclose(found[0], track(make_predictor()), atol=1e-3)
    assert not torch.allclose(*found, atol=1e-3)


def test_a_parametrized_projection_counts() -> None:
    class Double(nn.Module):
        def forward(self, weight: torch.Tensor) -> torch.Tensor:
            return 2 * weight

    fast, reference = make_predictor(), make_predictor(backend="reference")
    for predictor in (fast, reference):
        parametrize.register_parametrization(
            predictor.model.memory_attention.layers[0].cross_attn_image.v_proj, "weight", Double()
        )
        predictor.model.eval()
    changed = track(fast)
    assert torch.allclose(changed, track(reference), atol=1e-3)
    assert not torch.allclose(changed, track(make_predictor()), atol=1e-2)


@pytest.mark.parametrize("kind", ["register_forward_hook", "register_forward_pre_hook"])
def test_hooks_on_every_part_fire_and_see_what_the_reference_computes(kind: str) -> None:
    def hooked(predictor: I2VVideoPredictor) -> dict[str, torch.Tensor]:
        seen: dict[str, torch.Tensor] = {}
        for name, module in predictor.model.named_modules():
            if type(module) in (nn.Conv2d, nn.Conv3d, nn.Linear, nn.BatchNorm2d, nn.GELU):
                if kind == "register_forward_hook":
                    module.register_forward_hook(lambda _, args, out, name=name: seen.__setitem__(name, out))
                else:
                    module.register_forward_pre_hook(lambda _, args, name=name: seen.__setitem__(name, args[0]))
        track(predictor)
        return seen

    ours, expected = hooked(make_predictor()), hooked(make_predictor(backend="reference"))
    assert ours.keys() == expected.keys() and len(ours) > 60
    # What was captured is not overwritten afterwards.
    assert all(torch.allclose(ours[name], expected[name], atol=1e-3) for name in ours)


def test_hooks_on_all_modules_of_the_process_fire() -> None:
    counts = []
    for backend in ("fast", "reference"):
        predictor, calls = make_predictor(backend=backend), []
        handle = register_module_forward_hook(lambda module, *_, calls=calls: calls.append(type(module).__name__))
        try:
            track(predictor)
        finally:
            handle.remove()
        counts.append(Counter(calls))
    assert counts[0] == counts[1] and counts[0]["BatchNorm2d"] > 0 and counts[0]["Conv3d"] > 0


def test_a_hook_that_was_removed_opens_the_fast_path_again() -> None:
    unit = make_predictor().model.image_encoder.trunk_image.patch_embed.seq[0]
    assert unit.folds()
    handle = unit.bn.register_forward_hook(lambda *_: None)
    assert not unit.folds()
    handle.remove()
    assert unit.folds()


def test_batch_norms_in_training_see_each_frame_once() -> None:
    trunk = make_predictor("model.image_size=256", "model.image_encoder.trunk_image.window_sizes=[8,8,8,8]").model
    trunk = trunk.image_encoder.trunk_image.train()
    with torch.no_grad():  # as torch.optim.swa_utils.update_bn does
        trunk(torch.rand(1, 3, 256, 256))
    norms = [m for m in trunk.modules() if isinstance(m, nn.BatchNorm2d)]
    assert {int(norm.num_batches_tracked) for norm in norms} == {1}


def test_wrapped_layers_are_run() -> None:
    expected = track(make_predictor())
    predictor = make_predictor()
    layers = predictor.model.memory_attention.layers
    for i in range(len(layers)):
        layers[i] = checkpoint_wrapper(layers[i])
    predictor.model.eval()
    assert torch.allclose(track(predictor), expected, atol=1e-4)

    class Nothing(nn.Module):
        def forward(self, x: torch.Tensor, *_: object) -> torch.Tensor:
            return torch.zeros_like(x)

    for i in range(len(layers)):
        changed = make_predictor()
        changed.model.memory_attention.layers[i] = Nothing()
        assert not torch.allclose(track(changed), expected, atol=1e-2), f"layer {i} is left out"


def test_values_with_tensors_compare_by_identity() -> None:
    """A generated ``__eq__`` would ask a tensor for its truth."""

    def holds_tensors(kind: object) -> bool:
        if isinstance(kind, type) and issubclass(kind, torch.Tensor | torch.Generator):
            return True
        if dataclasses.is_dataclass(kind) and isinstance(kind, type):
            return any(holds_tensors(hint) for hint in hints_of(kind))
        return any(holds_tensors(argument) for argument in typing.get_args(kind))

    def hints_of(kind: type) -> list[object]:
        try:
            return list(typing.get_type_hints(kind).values())
        except NameError:  # names that are imported for the type checker only
            return [torch.Tensor] if any("Tensor" in str(hint) for hint in kind.__annotations__.values()) else []

    checked = 0
    for module in pkgutil.walk_packages(i2v.__path__, "i2v."):
        if module.name.endswith("__main__"):
            continue
        for value in vars(importlib.import_module(module.name)).values():
            if dataclasses.is_dataclass(value) and isinstance(value, type) and holds_tensors(value):
                checked += 1
                assert value.__eq__ is object.__eq__, value
    assert checked > 15
