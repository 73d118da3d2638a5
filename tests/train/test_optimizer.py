"""Parameter groups are the published ones, and follow their schedules."""

from __future__ import annotations

import functools
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from support import TINY
from torch import nn

from i2v.build_i2v import build_i2v, build_network
from i2v.config import load_config
from i2v.modeling.i2v_model import I2VModel
from train.build import build
from train.optimizer import (
    LayerDecay,
    OptimSettings,
    Rule,
    ScheduledOptimizer,
    freeze,
    group_parameters,
    set_training,
    trunk_layers,
)


def recipe(name: str = "i2v-train", *overrides: str) -> OptimSettings:
    """The optimizer of a config, by default that of the published run."""
    node = build(load_config(name, overrides), "trainer.optim")
    clip = node["gradient_clip"]
    return OptimSettings(node["optimizer"], node["lr"], node["weight_decay"], node["layer_decay"], **clip)


def simple(**changes: object) -> OptimSettings:
    settings = OptimSettings(
        functools.partial(torch.optim.SGD, lr=0.0), {"rest": Rule(1.0)}, {"rest": Rule(0.1)}, max_norm=1.0
    )
    return replace(settings, **changes)  # type: ignore[arg-type]


@pytest.fixture
def tiny() -> I2VModel:
    return build_i2v(TINY, device="cpu", mode="train")


def test_the_published_groups() -> None:
    model = build_network(load_config("i2v-train"))
    groups = group_parameters(model, recipe())
    sizes = dict(model.named_parameters())
    assert len(groups) == 30
    outside = {g.weight_decay: names for g, names in groups.items() if g.lr == "rest"}
    assert {k: (len(v), sum(sizes[n].numel() for n in v)) for k, v in outside.items()} == {
        "rest": (190, 12_778_572),
        "none": (240, 53_782),
    }
    by_layer = {g.layer: 6e-5 * g.scale for g in groups if g.lr == "trunk"}
    assert set(by_layer) == set(range(14))
    assert [by_layer[i] for i in (0, 1, 12, 13)] == pytest.approx([1.5251e-5, 1.6946e-5, 5.4e-5, 6e-5], rel=1e-4)
    assert sum(len(names) for names in groups.values()) == len(sizes)
    biases = [n for g, names in groups.items() if g.weight_decay == "none" for n in names]
    assert "image_encoder.trunk_image.layers.1.blocks.0.attn.attention_biases" in biases
    assert "memory_encoder.fuser.layers.0.norm.weight" not in biases  # a channel norm of another class


def test_layers_of_the_trunk() -> None:
    model = build_network(load_config("i2v-train"))
    numbers, top = trunk_layers(model, "image_encoder.trunk_image")
    assert top == 13
    expected = {
        "patch_embed.seq.0.c.weight": 0,
        "layers.0.blocks.1.conv1.c.weight": 2,
        "layers.0.downsample.conv1.c.weight": 2,
        "layers.2.blocks.5.attn.qkv.weight": 10,
        "layers.2.downsample.conv3.bn.bias": 10,
        "layers.3.blocks.1.mlp.fc1.bias": 12,
        "head.weight": 13,
        "neck.0.weight": 13,
    }
    assert {name: numbers[f"image_encoder.trunk_image.{name}"] for name in expected} == expected


def test_cosine_goes_from_the_start_to_a_hundredth() -> None:
    rule = Rule(3e-4, end_fraction=0.01)
    assert [rule.at(p) for p in (0, 0.5, 1)] == pytest.approx([3e-4, (3e-4 + 3e-6) / 2, 3e-6])
    assert Rule(0.1).at(0.7) == 0.1


def test_schedules_reach_the_optimizer(tiny: I2VModel) -> None:
    optimizer = ScheduledOptimizer(tiny, recipe())
    start = optimizer.rates()
    assert set(start) == set(optimizer.settings.lr)
    optimizer.set_progress(1.0)
    assert optimizer.rates() == pytest.approx({name: value / 100 for name, value in start.items()})
    assert {group["weight_decay"] for group in optimizer.optimizer.param_groups} == {0.0, 0.1}
    assert {tuple(group["betas"]) for group in optimizer.optimizer.param_groups} == {(0.9, 0.999)}


def test_gradients_are_clipped_by_their_common_norm() -> None:
    model = nn.Linear(2, 2)
    optimizer = ScheduledOptimizer(model, simple())
    model.weight.grad, model.bias.grad = torch.full((2, 2), 1.5), torch.full((2,), 2.0)
    norm = (4 * 1.5**2 + 2 * 2.0**2) ** 0.5
    assert optimizer.clip().item() == pytest.approx(norm)
    assert model.weight.grad.flatten().tolist() == pytest.approx([1.5 / norm] * 4, rel=1e-4)
    free = ScheduledOptimizer(model, simple(max_norm=None))
    model.bias.grad.fill_(1e6)
    free.clip()
    assert model.bias.grad.tolist() == [1e6, 1e6]


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"a": Rule(1.0, param_names=["nothing.*"]), "rest": Rule(1.0)}, "no parameter matches 'nothing"),
        ({"a": Rule(1.0, module_cls_names=["torch.nn.Conv2d"]), "rest": Rule(1.0)}, "no module of the model is a"),
        ({"a": Rule(1.0, module_cls_names=["torch.nn.Nothing"]), "rest": Rule(1.0)}, "uses no class"),
        ({"a": Rule(1.0, param_names=["weight"])}, "one rule without names or classes"),
        (
            {"a": Rule(1.0, param_names=["weight"]), "b": Rule(1.0, param_names=["w*"]), "rest": Rule(1.0)},
            "both a and b name weight",
        ),
    ],
)
def test_rules_have_to_make_sense(rules: dict[str, Rule], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ScheduledOptimizer(nn.Linear(2, 2), simple(lr=rules))


@pytest.mark.parametrize(
    ("name", "override"),
    [("i2v-nano-finetune", "dataset.root=x"), ("i2v-nano-train", "dataset.pack=x"), ("i2v-overfit", "train=all")],
)
def test_the_optimizers_of_small_models_take_all_their_parameters(name: str, override: str) -> None:
    model = build_network(load_config(name, [override]))
    assert len(ScheduledOptimizer(model, recipe(name, override)).parameters) == len(list(model.parameters()))


def test_layer_decay_needs_a_trunk() -> None:
    with pytest.raises(ValueError, match="has no 'trunk'"):
        ScheduledOptimizer(nn.Linear(2, 2), simple(layer_decay=LayerDecay("trunk", 0.9)))
    with pytest.raises(ValueError, match="stages in `layers`, got Linear"):
        ScheduledOptimizer(nn.Sequential(nn.Linear(2, 2)), simple(layer_decay=LayerDecay("0", 0.9)))


def test_what_is_frozen_is_not_in_any_group(tiny: I2VModel) -> None:
    frozen = freeze(tiny, ["image_encoder.*", "no_mem_pos_enc"])
    assert all(name.startswith("image_encoder.") or name == "no_mem_pos_enc" for name in frozen)
    names = [n for members in group_parameters(tiny, recipe()).values() for n in members]
    assert set(names) == {n for n, _ in tiny.named_parameters()} - set(frozen)
    with pytest.raises(ValueError, match="no parameter matches 'image_encodr"):
        freeze(tiny, ["image_encodr.*"])
    freeze(tiny, ["*"])
    with pytest.raises(ValueError, match="every parameter is frozen"):
        ScheduledOptimizer(tiny, recipe())


def test_frozen_batch_norms_keep_their_statistics(tiny: I2VModel) -> None:
    def training_norms() -> int:
        return sum(m.training for m in tiny.modules() if isinstance(m, nn.BatchNorm2d))

    set_training(tiny, freeze_batch_norm=False)
    everything = training_norms()
    assert everything > 0 and tiny.training
    freeze(tiny, ["image_encoder.trunk_image.patch_embed.*"])
    set_training(tiny, freeze_batch_norm=False)
    assert training_norms() == everything - 2
    set_training(tiny, freeze_batch_norm=True)
    assert training_norms() == 0


def test_a_rule_imports_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "module_of_a_rule.py").write_text("from torch.nn import Linear")
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in (
        "module_of_a_rule.Linear",
        "module_of_a_rule:Linear",
        "torch.nn.functional.linear",
        "torch.load",
        "Linear",
    ):
        rules = {"a": Rule(1.0, module_cls_names=[name]), "rest": Rule(1.0)}
        with pytest.raises(ValueError, match="uses no class"):
            ScheduledOptimizer(nn.Linear(2, 2), simple(lr=rules))
    assert "module_of_a_rule" not in sys.modules
