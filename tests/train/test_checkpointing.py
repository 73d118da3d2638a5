"""The files of a run: whole or not at all, only as many as wanted, and readable without running code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from support import TINY, make_predictor
from torch import nn
from train_support import FACTS, trained

import train.checkpointing
from i2v.checkpoint import CheckpointError
from i2v.pretrained import nano_checkpoint
from train.checkpoint_folder import CheckpointFolder
from train.checkpointing import (
    RunFacts,
    RunProgress,
    attend_by_similarity,
    initialize,
    resume,
    training_state,
)
from train.scripts import export_checkpoint
from train.weight_average import WeightAverage


def test_a_state_comes_back_as_it_was(tmp_path: Path) -> None:
    model, optimizer = trained()
    folder = CheckpointFolder(tmp_path / "checkpoints")
    progress = RunProgress(epoch=1, batch=4, step=7, skipped=1, loss=0.1, time_elapsed=3.5, best=88.0)
    means = [{"loss": (0.1, 3)}]
    folder.save_last(training_state(model, optimizer, progress, FACTS, means))
    content = torch.load(folder.last, weights_only=True)
    assert content["epoch"] == 1 and content["steps"] == {"train": 7} and content["best_meter_values"] == {"J&F": 88.0}

    other, fresh = trained()
    with torch.no_grad():
        other.weight.fill_(0)
    assert resume(folder.last, other, fresh, FACTS) == (progress, means)
    assert torch.equal(other.weight, model.weight)
    before, after = optimizer.state_dict()["state"], fresh.state_dict()["state"]
    assert all(torch.equal(before[i][key], after[i][key]) for i in before for key in ("step", "exp_avg", "exp_avg_sq"))


@pytest.mark.parametrize("in_its_own_file", [False, True])
def test_nothing_is_loaded_beside_an_average_that_does_not_fit(tmp_path: Path, in_its_own_file: bool) -> None:
    folder, (model, optimizer) = CheckpointFolder(tmp_path), trained()
    other_average = WeightAverage(nn.Linear(3, 4))
    folder.save_last(
        training_state(model, optimizer, RunProgress(), FACTS, average=None if in_its_own_file else other_average)
    )
    other_average.save(folder.average)
    if not in_its_own_file:
        folder.average.unlink()
    fresh = nn.Linear(3, 2)
    fresh_optimizer = torch.optim.AdamW(
        [{"params": [fresh.weight], "name": "w"}, {"params": [fresh.bias], "name": "b"}]
    )
    before = fresh.weight.detach().clone()
    with pytest.raises(CheckpointError, match="fit"):
        resume(folder.last, fresh, fresh_optimizer, FACTS, WeightAverage(fresh))
    assert torch.equal(fresh.weight, before) and not fresh_optimizer.state


def test_a_place_in_an_epoch_of_another_length_means_nothing(tmp_path: Path) -> None:
    model, optimizer = trained()
    folder = CheckpointFolder(tmp_path)
    folder.save_last(training_state(model, optimizer, RunProgress(epoch=2, batch=4, step=7), FACTS))
    longer = RunFacts(world_size=1, seed_value=0, batches_per_epoch=20, accumulate_steps=2)
    with pytest.raises(CheckpointError, match=r"batches_per_epoch: 10 before, 20 now.*trainer.resume_changed=true"):
        resume(folder.last, model, optimizer, longer)
    progress, _ = resume(folder.last, model, optimizer, longer, allow_changed=True)
    assert progress == RunProgress(epoch=2, batch=0, step=7)


def test_weights_alone_are_no_state(tmp_path: Path) -> None:
    model, optimizer = trained()
    folder = CheckpointFolder(tmp_path)
    folder.save_best(model, epoch=1, step=5, score=50.0)
    with pytest.raises(CheckpointError, match=r"no training state.*trainer.checkpoint.initial="):
        resume(tmp_path / "best.pt", model, optimizer, FACTS)


def test_groups_of_other_parameters_are_refused(tmp_path: Path) -> None:
    model, optimizer = trained()
    folder = CheckpointFolder(tmp_path)
    folder.save_last(training_state(model, optimizer, RunProgress(), FACTS))
    other = torch.optim.AdamW([{"params": list(model.parameters()), "name": "all"}])
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    with pytest.raises(CheckpointError, match="2 groups were saved, 1 are expected"):
        resume(folder.last, model, other, FACTS)
    assert not any(parameter.any() for parameter in model.parameters()), "the model is as it was"


@pytest.mark.parametrize(
    "damage",
    [
        {"run": []},
        {"run": {"world_size": 1, "__class__": 1}},
        {"run": {"world_size": "1", "seed_value": 0, "batches_per_epoch": 10, "accumulate_steps": 2}},
        {"progress": {"epoch": [1]}},
        {"progress": {"nowhere": 1}},
        {"optimizer": {}},
        {"optimizer": {"param_groups": [1], "state": 3}},
        {"optimizer": None},
    ],
    ids=str,
)
def test_a_damaged_state_is_refused_by_name(tmp_path: Path, damage: dict[str, Any]) -> None:
    model, optimizer = trained()
    torch.save({**training_state(model, optimizer, RunProgress(), FACTS), **damage}, tmp_path / "checkpoint.pt")
    with pytest.raises(CheckpointError, match=r"checkpoint\.pt: (the training state is damaged|the parameter groups)"):
        resume(tmp_path / "checkpoint.pt", model, optimizer, FACTS)


def test_only_the_latest_numbered_files_are_kept(tmp_path: Path) -> None:
    model, optimizer = trained()
    folder = CheckpointFolder(tmp_path, save_freq=2, keep_last=2)
    for epoch in range(1, 13):
        folder.save_last(training_state(model, optimizer, RunProgress(epoch=epoch), FACTS))
        folder.save_epoch(epoch)
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoint.pt", "checkpoint_10.pt", "checkpoint_12.pt"}
    assert torch.load(tmp_path / "checkpoint_10.pt", weights_only=True)["epoch"] == 10
    with pytest.raises(ValueError, match="at least 1, or null"):
        CheckpointFolder(tmp_path, keep_last=0)


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, optimizer = trained()
    folder = CheckpointFolder(tmp_path)
    folder.save_last(training_state(model, optimizer, RunProgress(step=1), FACTS))

    def full_disk(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full_disk)
    with pytest.raises(OSError, match="No space left"):
        folder.save_last(training_state(model, optimizer, RunProgress(step=2), FACTS))
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.pt"]
    assert torch.load(folder.last, weights_only=True)["steps"] == {"train": 1}


def test_steps_take_batches_over_the_ends_of_epochs() -> None:
    facts = RunFacts(world_size=1, seed_value=0, batches_per_epoch=3, accumulate_steps=4)
    assert facts.steps_left(RunProgress(), num_epochs=20) == 15
    assert facts.steps_left(RunProgress(epoch=1, batch=1), num_epochs=2) == 1
    assert facts.steps_left(RunProgress(epoch=2), num_epochs=2) == 0
    after = facts.after(RunProgress(epoch=1, batch=2, step=5, time_elapsed=2.0), 4, 1.5)
    assert after == RunProgress(epoch=3, batch=0, step=6, time_elapsed=3.5)
    assert facts.part_done(RunProgress(epoch=3, batch=2)) == pytest.approx(3 + 2 / 3)
    with pytest.raises(ValueError, match="accumulate_steps: expected at least 1, got 0"):
        RunFacts(world_size=1, seed_value=0, batches_per_epoch=11, accumulate_steps=0)


def test_states_of_earlier_versions_have_been_closed(tmp_path: Path) -> None:
    model, optimizer = trained()
    folder = CheckpointFolder(tmp_path)
    for batch, expected in (
        (4, RunProgress(epoch=2, batch=4, step=7, closed=2, validated=7)),
        (10, RunProgress(epoch=3, batch=0, step=7, closed=2, validated=-1)),
    ):
        state = training_state(model, optimizer, RunProgress(epoch=2, batch=batch, step=7), FACTS)
        for name in ("closed", "validated", "best_step"):
            del state["progress"][name]
        folder.save_last(state)
        assert resume(folder.last, model, optimizer, FACTS)[0] == expected


def test_tinysam_is_asked_for_where_it_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = nn.Linear(1, 1)
    monkeypatch.setattr(train.checkpointing, "TINYSAM", tmp_path / "tinysam.pth")
    for name in ("tinysam", f"tinysam:{tmp_path / 'tinysam.pth'}"):
        with pytest.raises(FileNotFoundError, match=r"tinysam.pth does not exist.*huggingface.*initial=none"):
            initialize(model, name)


def test_tinysam_starts_the_parts_that_it_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = nn.ModuleDict({"sam_prompt_encoder": nn.ModuleDict({"no_mask_embed": nn.Embedding(1, 4)})})
    torch.save({"prompt_encoder.no_mask_embed.weight": torch.ones(1, 4)}, tmp_path / "tinysam.pth")
    monkeypatch.setattr(train.checkpointing, "TINYSAM", tmp_path / "tinysam.pth")
    initialize(model, "tinysam")
    assert model.state_dict()["sam_prompt_encoder.no_mask_embed.weight"].tolist() == [[1.0] * 4]


def test_a_local_start_looks_at_the_same_place_of_a_memory() -> None:
    model = make_predictor().model
    initialize(model, "local")
    attention = model.memory_attention.layers[0].cross_attn_image
    columns, rows = attention.rotate_keys.grid
    with torch.no_grad():
        # Without content, only places are left: of queries, and of keys of one memory.
        places = torch.zeros(1, 1, columns * rows, attention.q_proj.out_features)
        queries = attention.rotate_queries(places + attention.q_proj.bias)
        keys = attention.rotate_keys(places + attention.k_proj.bias)
        shares = (queries @ keys.transpose(-1, -2) / queries.shape[-1] ** 0.5).softmax(-1)[0, 0]
    assert torch.equal(shares.argmax(-1), torch.arange(columns * rows))
    assert shares.diagonal().min() > 1.5 / (columns * rows)


def test_a_state_becomes_a_checkpoint_for_inference(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = make_predictor().model
    state, output = tmp_path / "checkpoint.pt", tmp_path / "small.pt"
    torch.save({"model": model.state_dict(), "optimizer": {}, "steps": {"train": 3}}, state)
    assert export_checkpoint.main([str(state), str(output), "--config", str(TINY)]) == 0
    assert f"bytes, to be used with --config {TINY}" in capsys.readouterr().out
    content = torch.load(output, weights_only=True)
    assert list(content) == ["model"]  # a file cannot name a config of the user's
    assert content["model"]["no_mem_embed"].dtype == torch.float16
    assert torch.equal(content["model"]["no_mem_embed"], model.no_mem_embed.detach().half())
    assert export_checkpoint.main([str(state), str(output), "--config", "i2v-infer"]) == 1
    assert "checkpoint.pt" in capsys.readouterr().err


@pytest.mark.parametrize("given", ["i2v-nano-infer", "i2v/configs/i2v-nano-infer.yaml"])
def test_a_checkpoint_for_inference_says_which_config_of_the_package_it_is_for(tmp_path: Path, given: str) -> None:
    output = tmp_path / "small.pt"
    assert export_checkpoint.main([str(nano_checkpoint()), str(output), "--config", given]) == 0
    assert torch.load(output, weights_only=True)["config"] == "i2v-nano-infer"


def test_a_start_by_similarity_finds_the_token_that_a_memory_was_made_of() -> None:
    model = make_predictor().model
    attend_by_similarity(model, 1.0)
    attention, encoder = model.memory_attention.layers[1].cross_attn_image, model.memory_encoder
    tokens = torch.randn(32, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        memories = tokens @ (encoder.out_proj.weight.flatten(1) @ encoder.pix_feat_proj.weight.flatten(1)).t()
        # Of each half of the channels, those from pair 12 on.
        slow = torch.tensor([*range(24, 32), *range(56, 64)])
        scores = attention.q_proj(tokens)[:, slow] @ attention.k_proj(memories)[:, slow].t()
    # A projection to 16 of 64 directions, and to another 16: 16 * 16 / 64 is left of a token's product with itself.
    own, others = scores.diagonal().mean(), scores[~torch.eye(32, dtype=torch.bool)].mean()
    assert own.item() == pytest.approx(4, abs=1.5) and others.abs() < 0.5
    assert attention.q_proj.bias[slow].abs().max() == 0 and attention.q_proj.bias[:24].abs().min() > 0
