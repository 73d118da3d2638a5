"""The fast path steps back to the reference implementation where a module was hooked, replaced or is in training."""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil
import typing
from collections import Counter
from collections.abc import Callable

import pytest
import torch
from support import make_predictor, render_video
from torch import nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
from torch.nn.modules.module import register_module_forward_hook
from torch.nn.utils import parametrize

import i2v
from i2v.i2v_video_predictor import I2VVideoPredictor
from i2v.modeling import layers
from i2v.modeling.backbones.tiny_vit import ConvBN
from i2v.modeling.fast_path import Backend, set_backend
from i2v.modeling.memory.readout import MemoryReadout
from i2v.modeling.structures import TrackingStep

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


def _circular(conv: nn.Module) -> None:
    if isinstance(conv, nn.Conv2d) and conv.kernel_size == (3, 3):
        conv.padding_mode = "circular"
        conv._reversed_padding_repeated_twice = [1, 1, 1, 1]


def _dilated(conv: nn.Module) -> None:
    if isinstance(conv, nn.Conv2d) and conv.kernel_size == (3, 3) and conv.stride == (1, 1):
        conv.dilation = conv.padding = (2, 2)


def _wider(conv: nn.Module) -> None:
    if isinstance(conv, nn.Conv2d) and conv.kernel_size == (3, 3) and conv.groups > 1:
        conv.kernel_size, conv.padding = (5, 5), (2, 2)
        conv.weight = nn.Parameter(torch.linspace(-1, 1, len(conv.weight) * 25).view(-1, 1, 5, 5) / 5)


def _with_bias(unit: nn.Module) -> None:
    if isinstance(unit, ConvBN):
        unit.c.bias = nn.Parameter(torch.linspace(-1, 1, unit.c.out_channels))


def _without_norm(unit: nn.Module) -> None:
    if isinstance(unit, ConvBN):
        unit.bn = nn.Identity().eval()


def _statistics_of_the_batch(norm: nn.Module) -> None:
    if isinstance(norm, nn.BatchNorm2d):
        norm.track_running_stats, norm.running_mean, norm.running_var = False, None, None


def _not_affine(norm: nn.Module) -> None:
    if isinstance(norm, nn.BatchNorm2d):
        norm.affine, norm.weight, norm.bias = False, None, None


def _temporal(conv: nn.Module) -> None:
    if isinstance(conv, nn.Conv3d) and conv.kernel_size == (1, 3, 3):
        conv.padding_mode = "replicate"
        conv._reversed_padding_repeated_twice = [1, 1, 1, 1, 0, 0]


def _temporal_without_bias(conv: nn.Module) -> None:
    if isinstance(conv, nn.Conv3d) and conv.kernel_size == (3, 1, 1):
        conv.bias = None


@pytest.mark.parametrize(
    "change",
    [
        _circular,
        _dilated,
        _wider,
        _with_bias,
        _without_norm,
        _statistics_of_the_batch,
        _not_affine,
        _temporal,
        _temporal_without_bias,
    ],
)
def test_changed_settings_of_known_layers_count(change: Callable[[nn.Module], None], monkeypatch) -> None:
    monkeypatch.setattr(layers, "STRIP_BYTES", 1 << 12)  # so that every map is computed in strips
    found = []
    for backend in ("fast", "reference"):
        model = make_predictor(backend=backend).model
        frames = torch.rand(1, 3, model.window_length, 64, 64, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            before = model.encode(frames).vision
            model.image_encoder.apply(change)
            found.append(model.encode(frames).vision)
        assert not torch.allclose(found[-1], before, atol=1e-2)
    assert torch.allclose(*found, atol=1e-3)


def test_a_linear_layer_without_bias_counts() -> None:
    found = []
    for backend in ("fast", "reference"):
        predictor = make_predictor(backend=backend)
        for layer in predictor.model.memory_attention.layers:
            for projection in (layer.cross_attn_image.k_proj, layer.cross_attn_image.out_proj):
                projection.bias = None
        found.append(track(predictor))
    assert torch.allclose(*found, atol=1e-3)


@pytest.mark.parametrize("is_training", [False, True])
def test_objects_share_self_attention_only_in_eval_mode(is_training: bool) -> None:
    """In training its dropout differs by object."""
    predictor = make_predictor()
    batches = []
    first = predictor.model.memory_attention.layers[0]
    with predictor.init_state(render_video(2)) as state, torch.no_grad():
        for obj_id in (1, 2):
            predictor.add_new_points_or_box(state, 0, obj_id, **CLICK)
        predictor.propagate_in_video_preflight(state)
        features = predictor.tracker.features(state, 1)
        banks = [track.bank for track in state.tracks.values()]
        readouts = predictor.tracker.segmenter.read_memory(TrackingStep(1), features, banks, [None, None])
        first.train(is_training)
        first.self_attn.register_forward_hook(lambda _, args, __: batches.append(len(args[0])))
        predictor.model.memory_attention(features, [MemoryReadout.batch(readouts)])
    assert batches == ([2] if is_training else [1])


@pytest.mark.parametrize("backend", ["fast", "reference"])
def test_hooks_and_wrappers_of_the_stem_are_told_of(backend: Backend) -> None:
    """It is applied frame by frame, not called."""
    hooked, wrapped = make_predictor(backend=backend), make_predictor(backend=backend)
    hooked.model.image_encoder.trunk_video.temporal_stem.register_forward_hook(lambda *_: None)
    with pytest.warns(UserWarning, match="hooks of temporal_stem do not run"):
        track(hooked)
    video = wrapped.model.image_encoder.trunk_video
    video.temporal_stem = nn.Sequential(video.temporal_stem)
    with pytest.raises(TypeError, match="temporal_stem: expected a TemporalStem, got Sequential"):
        track(wrapped)


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
