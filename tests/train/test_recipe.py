"""The configs hold what the published run used, and what they name exists."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from i2v.build_i2v import build_network
from i2v.config import load_config
from i2v.modeling.memory.selectors import RecentSelector, SimilaritySelector
from train.build import build, check
from train.loss_fns import ClipLoss
from train.model.prompt_simulator import PromptSettings

PUBLISHED = {
    "scratch.resolution": 1024,
    "scratch.train_batch_size_sa1b": 8,
    "scratch.train_batch_size_sav": 1,
    "scratch.num_train_workers": 8,
    "scratch.num_frames": 8,
    "scratch.max_num_objects": 1,
    "scratch.token_num": 3,
    "scratch.base_lr": 3e-4,
    "scratch.vision_lr": 6e-5,
    "scratch.phases_per_epoch": 1,
    "scratch.num_epochs": 10,
    "dataset.reverse_time_prob": 0.5,
    "model.image_size": 1024,
    "model.num_maskmem": 7,
    "model.memory_prompt_generator.num_queries": 3,
    "model.memory_attention.layer.dropout": 0.1,
    "model.image_encoder.trunk_image.drop_path_rate": 0.0,
    "model.masks.dynamic_multimask_via_stability": False,
    "model.masks.binarize_mask_from_pts_for_mem_enc": False,
    "trainer.mode": "train_only",
    "trainer.seed_value": 2024,
    "trainer.accumulate_steps": 1,
    "trainer.freeze": [],
    "trainer.optim.amp.amp_dtype": "bfloat16",
    "trainer.optim.gradient_clip.max_norm": 0.1,
    "trainer.optim.layer_decay.value": 0.9,
    "trainer.optim.lr.rest.end_fraction": 0.01,
    "trainer.optim.lr.trunk.end_fraction": 0.01,
    "trainer.optim.weight_decay.rest.start_value": 0.1,
    "trainer.rollout.add_all_frames_to_correct_as_cond": True,
    "trainer.rollout.use_act_ckpt_iterative_pt_sampling": False,
    "trainer.checkpoint.initial": "tinysam",
    "trainer.checkpoint.save_freq": 1,
    "trainer.logging.log_freq": 200,
    "submitit.port_range": [10000, 65000],
    "submitit.timeout_hour": 24,
    "submitit.cpus_per_task": 10,
}


def test_the_published_run() -> None:
    config = load_config("i2v-train")
    assert {key: OmegaConf.select(config, key) for key in PUBLISHED} == PUBLISHED
    assert build(config, "trainer.prompts") == PromptSettings()
    assert PromptSettings() == PromptSettings(0.5, 0.5, 0.1, 2, True, 2, True, 7, 42)
    loss = build(config, "trainer.loss.all")
    assert isinstance(loss, ClipLoss) and loss.weights == {"loss_mask": 20, "loss_iou": 1, "loss_class": 1}
    assert (loss.supervise_all_iou, loss.iou_use_l1_loss, loss.pred_obj_scores) == (True, True, True)
    assert (loss.gamma, loss.alpha) == (0, -1)
    assert isinstance(build(config, "model.selector"), RecentSelector)
    assert isinstance(build(config, "validation.selector"), SimilaritySelector)


def test_its_size_follows_one_key() -> None:
    config = load_config("i2v-train", ["scratch.resolution=512", "data=synthetic"])
    assert config.model.image_size == 512
    assert config.model.memory_encoder.grid == 32


@pytest.mark.parametrize(
    ("name", "overrides"),
    [
        ("i2v-train", ["dataset.root=/data", "dataset.sa1b_file_list_txt=list.txt"]),
        ("i2v-train", ["data=synthetic"]),
        ("i2v-nano-train", ["data=synthetic_mix"]),
        ("i2v-finetune", ["dataset.root=/data"]),
        ("i2v-overfit", ["dataset.root=/data"]),
    ],
)
def test_configs_are_complete_once_their_paths_are_given(name: str, overrides: list[str]) -> None:
    folders = ["trainer.mode=train", "validation.img_folder=images", "validation.gt_folder=masks"]
    config = load_config(name, [*overrides, *folders, "launcher.experiment_log_dir=logs"])
    check(config)
    OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    model = build_network(config)
    assert model.image_size == config.scratch.resolution


def calls_of_script(script: str, tmp_path: Path, *arguments: str | Path) -> list[list[str]]:
    """What a training script tells Python, call by call."""
    calls, python = tmp_path / "calls", tmp_path / "python"
    # Stands for Python: writes down what it is told, an argument a line and an empty line after each call.
    python.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" "" >> {calls}\n')
    python.chmod(0o755)
    path = Path(__file__).parents[2] / "train" / script
    subprocess.run(["sh", path, *arguments], env={**os.environ, "PYTHON": str(python)}, check=True)
    return [call.splitlines() for call in calls.read_text().removesuffix("\n\n").split("\n\n")]


def test_every_stage_of_the_training_from_photos_goes_on_from_the_one_before(tmp_path: Path) -> None:
    *stages, export = calls_of_script("train_nano.sh", tmp_path, "photos.zip", tmp_path / "work")
    before, minutes = "efficientnet_lite", 0.0
    for module, overrides in ((call[:4], call[4:]) for call in stages):
        assert module == ["-m", "train.train", "-c", "i2v-nano-train"]
        config = load_config("i2v-nano-train", overrides)
        check(config)
        assert config.trainer.checkpoint.initial == before
        before = f"{config.launcher.experiment_log_dir}/checkpoints/ema.pt"
        assert config.data.train.pack == str(Path.cwd() / "photos.zip")
        minutes += config.trainer.max_minutes
    assert len(stages) == 2
    assert minutes == pytest.approx(9)
    assert export[:3] == ["-m", "train.scripts.export_checkpoint", before]
