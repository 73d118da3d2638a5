"""Fine-tuning: what is trained, adapters apart and merged, mixes of data sets, schedules, and who gets the curves."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from data_support import Numbered, write_davis
from support import make_predictor
from torch import nn
from train_support import losses_of, tiny_run

from i2v.build_i2v import build_network
from i2v.checkpoint import CheckpointError, load_checkpoint
from i2v.config import ConfigError, load_config
from train.build import build, build_trainer, check, choose_trained, run
from train.checkpoint_folder import save_adapters
from train.checkpointing import initialize
from train.curve_loggers import open_loggers
from train.dataset.mixed_loader import LoaderSpec, MixedLoader
from train.distributed import World
from train.launch import StopRequest
from train.lora import LoraSettings, add_adapters, merge_adapters, merged_state
from train.metrics import MetricLog
from train.mixing import expand_mix, read_mix
from train.optimizer import Rule

CPU = World(torch.device("cpu"))
KNOWN = ["mine", "sav"]


def trained_with(name: str) -> tuple[set[str], set[str]]:
    """The first parts of the names of what is trained and what is frozen."""
    config = load_config("i2v-nano-finetune", ["dataset.root=x", f"train={name}"])
    model = build_network(config)
    choose_trained(model, config)
    parts: tuple[set[str], set[str]] = (set(), set())
    for key, parameter in model.named_parameters():
        parts[not parameter.requires_grad].add(key.split(".")[0])
    return parts


def test_what_is_trained_can_be_chosen() -> None:
    assert trained_with("all")[1] == set()
    assert trained_with("decoder")[0] == {"sam_mask_decoder"}
    trained, frozen = trained_with("memory")
    assert {"memory_attention", "memory_encoder", "memory_prompt_generator", "maskmem_tpos_enc"} <= trained
    assert {"image_encoder", "sam_mask_decoder", "sam_prompt_encoder"} <= frozen and not trained & frozen
    trained, frozen = trained_with("lora")
    assert {"memory_attention", "sam_mask_decoder"} == trained - {"memory_prompt_generator"}
    assert {"memory_encoder", "image_encoder"} <= frozen, "its trunk has convolutions only"


def test_adapters_change_nothing_at_first_and_are_merged_exactly(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4))
    x, before = torch.randn(3, 6), [p.clone() for p in model.parameters()]
    expected = model(x)
    assert add_adapters(model, LoraSettings(["*"], rank=2, alpha=4.0)) == ["0", "2"]
    assert torch.equal(model(x), expected)
    assert {name for name, p in model.named_parameters() if p.requires_grad} == {
        f"{layer}.parametrizations.weight.0.{part}" for layer in "02" for part in "ab"
    }
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        model(x).square().sum().backward()
        optimizer.step()
    found = model(x)
    assert not torch.allclose(found, expected)
    whole = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4))
    whole.load_state_dict(merged_state(model))
    assert torch.equal(whole(x), found) and torch.equal(model(x), found)
    # The adapters alone, worked into the weights that they were trained on, are the same.
    save_adapters(model, tmp_path / "adapters.pt")
    other = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4))
    with torch.no_grad():
        for parameter, value in zip(other.parameters(), before, strict=True):
            parameter.copy_(value)
    merge_adapters(other, tmp_path / "adapters.pt")
    assert torch.allclose(other(x), found, atol=1e-6)
    with pytest.raises(CheckpointError, match=r"adapter of '2' does not fit"):
        merge_adapters(nn.Sequential(nn.Linear(6, 5)), tmp_path / "adapters.pt")
    with pytest.raises(ValueError, match="no part of the model is called 'conv"):
        add_adapters(nn.Sequential(nn.Linear(1, 1)), LoraSettings(["conv*"]))


def test_a_run_with_adapters_goes_on_exactly_and_gives_files_for_inference(tmp_path: Path) -> None:
    lora = ("train=lora", "trainer.lora.rank=2", "scratch.num_epochs=2", "trainer.checkpoint.save_steps=1")
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    run(lora_run(whole, *lora))
    run(lora_run(parts, *lora, "trainer.stop_after=3"))
    run(lora_run(parts, *lora))
    assert losses_of(parts) == losses_of(whole) and len(losses_of(whole)) == 8
    model = make_predictor().model
    load_checkpoint(model, whole / "checkpoints" / "checkpoint.pt")
    content = torch.load(whole / "checkpoints" / "checkpoint.pt", weights_only=True)
    base = {name: value for name, value in content["trained"].items() if name.endswith("weight.original")}
    assert base
    changed = [name for name in base if not torch.equal(base[name], content["model"][plain_name(name)])]
    assert len(changed) > len(base) / 2
    kept = [name for name in content["model"] if name.startswith("memory_encoder")]
    assert kept and all(torch.equal(content["model"][name], content["trained"][name]) for name in kept)
    with pytest.raises(ConfigError, match="ema_decay: expected null"):
        build_trainer(lora_run(tmp_path / "ema", *lora, "trainer.ema_decay=0.9"), CPU, StopRequest())


def lora_run(folder: Path, *overrides: str) -> Any:
    """A tiny run; groups of a config can be chosen only where it is composed."""
    config = tiny_run(folder)
    chosen = load_config(
        "i2v-train", [override for override in overrides if override.startswith(("train=", "trainer.lora"))]
    )
    config.trainer.lora, config.trainer.only = chosen.trainer.lora, chosen.trainer.only
    rest = [override for override in overrides if not override.startswith(("train=", "trainer.lora"))]
    return load_config(config, rest)


def plain_name(name: str) -> str:
    return name.replace(".parametrizations.weight.original", ".weight")


def test_weights_of_the_small_model_start_a_run() -> None:
    config = load_config("i2v-nano-finetune", ["dataset.root=x"])
    check(config)
    model, nano = build_network(config), build_network(load_config("i2v-nano-infer"))
    initialize(model, config.trainer.checkpoint.initial)
    initialize(nano, "i2v-nano")
    expected = nano.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in model.state_dict().items())
    assert any(value.abs().sum() > 0 for value in expected.values())


def test_schedules_and_warm_up() -> None:
    line = Rule(1.0, end_fraction=0.2, schedule="linear")
    assert [line.at(p) for p in (0, 0.5, 1)] == pytest.approx([1, 0.6, 0.2])
    constant = Rule(1.0, end_fraction=0.2, warm_up=0.1, schedule="constant")
    assert [constant.at(p) for p in (0, 0.05, 0.1, 1)] == pytest.approx([0, 0.5, 1, 1])
    with pytest.raises(ValueError, match="expected one of cosine, linear, constant, got 'step'"):
        Rule(1.0, schedule="step")


def test_states_are_kept_by_step(tmp_path: Path) -> None:
    steps = ("trainer.checkpoint.keep_steps=2", "trainer.checkpoint.keep_last=2", "dataset.num_videos=7")
    run(tiny_run(tmp_path, *steps, "trainer.checkpoint.save_freq=0", "trainer.checkpoint.save_steps=0"))
    names = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert names == ["checkpoint.pt", "checkpoint_step_4.pt", "checkpoint_step_6.pt"]
    state = torch.load(tmp_path / "checkpoints" / "checkpoint_step_4.pt", weights_only=True)
    assert state["steps"] == {"train": 4}


def test_data_sets_are_mixed_by_weights() -> None:
    few, many = Numbered(3), Numbered(97, base=1000)
    loader = MixedLoader([LoaderSpec(few, 1, weight=4), LoaderSpec(many, 1, weight=1)], seed=0)
    assert len(loader) == 100
    names = [clip.names[0] for clip in loader.epoch(0)]
    numbers = [int(name.split()[1]) for name in names]
    assert sum(number < 1000 for number in numbers) == 80
    assert {number for number in numbers if number < 1000} == {0, 1, 2}
    # What an epoch has no place for comes in another one.
    seen = {clip.names[0] for epoch in range(40) for clip in loader.epoch(epoch)}
    assert len(seen) == 100
    assert [clip.names[0] for clip in loader.epoch(0)] == names
    with pytest.raises(ValueError, match="expected one above 0 for each"):
        MixedLoader([LoaderSpec(few, 1, weight=4), LoaderSpec(many, 1)], seed=0)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([], r"expected \[NAME:WEIGHT"),
        ("sav:1", r"expected \[NAME:WEIGHT"),
        (["sav"], "got 'sav'"),
        (["other:1"], "names of mine, sav"),
        (["sav:0"], "weight above 0 for sav"),
        (["sav:x"], "weight above 0 for sav"),
        (["sav:1", "sav:2"], "sav is named twice"),
    ],
)
def test_mixes_that_cannot_be(entries: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_mix(entries, KNOWN)


def test_a_mix_needs_no_file_of_its_own(tmp_path: Path) -> None:
    write_davis(tmp_path / "one", ["a", "b"])
    write_davis(tmp_path / "two", ["c", "d", "e"])
    roots = (f"dataset.mine_root={tmp_path / 'one'}", f"dataset.davis_root={tmp_path / 'two'}")
    small = ("scratch.resolution=32", "scratch.num_frames=2", "scratch.num_train_workers=0")
    config = load_config("i2v-finetune", ["data=mix", "data.mix=[mine:3,davis:2]", *roots, *small])
    check(config)
    expand_mix(config)
    loader = build(config, "data.train", seed=0, rank=0, world_size=1)
    names = [clip.names[0] for clip in loader.epoch(0)]
    assert len(names) == 5 and sum(name in "ab" for name in names) == 3
    config = load_config("i2v-finetune", ["data=mix", "data.mix=[mine:3,mose:2]", *roots, *small])
    with pytest.raises(ConfigError, match=r"data\.mix names mose: set dataset\.mose_root"):
        expand_mix(config)
    with pytest.raises(ConfigError, match=r"data\.mix"):
        check(load_config("i2v-finetune", ["data=mix", *roots]))


class Recorder:
    """Stands for the module of a service, and notes what it is told."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.id = "run7"
        self.info = SimpleNamespace(run_id="run7")

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any, **keywords: Any) -> Any:
            self.calls.append((name, arguments, keywords))
            return self

        return call


@pytest.mark.parametrize(("name", "sends"), [("wandb", "log"), ("mlflow", "log_metrics")])
def test_services_get_curves_and_pictures(
    name: str, sends: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = Recorder()
    monkeypatch.setitem(sys.modules, name, service)
    for _ in range(2):
        loggers = open_loggers([name], tmp_path, "mine", {"a": 1})
        metrics = MetricLog(tmp_path / "logs", tensorboard=False, loggers=loggers)
        metrics.begin()
        metrics.write("train", 3, {"loss": 0.5, "note": "text"})
        metrics.write("val", 3, {"J&F": 50.0})
        assert metrics.takes_pictures
        metrics.picture("val/masks", 3, torch.rand(3, 4, 5))
        metrics.close()
    calls = [call for call in service.calls if call[0] == sends]
    assert calls[0][1][0] == {"train/loss": 0.5} and calls[0][2] == {"step": 3}
    # MLflow refuses names with other characters.
    assert list(calls[1][1][0]) == ["val/J_and_F" if name == "mlflow" else "val/J&F"]
    begun = [keywords for called, _, keywords in service.calls if called in ("init", "start_run")]
    assert [keywords.get("id", keywords.get("run_id")) for keywords in begun] == [None, "run7"]


def test_a_service_that_fails_does_not_end_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Down(Recorder):
        def log_metrics(self, *_: Any, **__: Any) -> None:
            raise ArithmeticError("the server is gone\nfor good")

    monkeypatch.setitem(sys.modules, "mlflow", service := Down())
    (logger,) = open_loggers(["mlflow"], tmp_path, "mine", {})
    logger.curves(1, {"loss": 0.5})
    logger.curves(2, {"loss": 0.5})
    logger.close()
    assert caplog.messages == ["mlflow failed and gets nothing more of this run: the server is gone"]
    assert [call[0] for call in service.calls].count("end_run") == 1


def test_a_service_that_cannot_be_started_is_named_and_the_others_are_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Down(Recorder):
        def start_run(self, **_: Any) -> None:
            raise ArithmeticError("no server")

    monkeypatch.setitem(sys.modules, "wandb", first := Recorder())
    monkeypatch.setitem(sys.modules, "mlflow", Down())
    with pytest.raises(RuntimeError, match="mlflow cannot be started: no server"):
        open_loggers(["wandb", "mlflow"], tmp_path, "mine", {})
    assert first.calls[-1][0] == "finish"


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_service_that_is_not_installed_is_named(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(RuntimeError, match=f"names {name}, which is not installed: pip install"):
        open_loggers([name], tmp_path, "mine", {})
