"""What the tests of training share: a run of the tiny model on rendered clips, and clips without files."""

from __future__ import annotations

from pathlib import Path

import torch
from omegaconf import DictConfig, OmegaConf
from support import TINY

from i2v.config import load_config
from train.dataset.structures import BatchedClip

SIZE = 64  # pixels, of the tiny model's frames

SETTINGS = (
    "data=synthetic",
    "launcher.gpus_per_node=1",
    "scratch.num_train_workers=0",
    "scratch.num_frames=3",
    "scratch.num_epochs=1",
    "dataset.num_videos=4",
    "trainer.accelerator=cpu",
    "trainer.optim.amp.enabled=false",
    "trainer.prompts.num_correction_pt_per_frame=1",
    "trainer.checkpoint.initial=none",
    "trainer.logging.log_freq=1",
    "trainer.logging.tensorboard=false",
)


def tiny_run(folder: Path, *overrides: str) -> DictConfig:
    """A config for a run of a few seconds on one core, with its results in a folder."""
    config = load_config("i2v-train", [*SETTINGS, f"launcher.experiment_log_dir={folder}"])
    config.model.merge_with(OmegaConf.load(TINY).model)
    config.scratch.resolution = SIZE
    config.model.image_size = "${scratch.resolution}"
    return load_config(config, overrides)


def make_clip(num_frames: int, num_clips: int = 1, seed: int = 0) -> BatchedClip:
    """Noise with one moving box as the object of each clip."""
    generator = torch.Generator().manual_seed(seed)
    frames = torch.randn(num_frames, num_clips, 3, SIZE, SIZE, generator=generator)
    masks = torch.zeros(num_frames, num_clips, SIZE, SIZE, dtype=torch.bool)
    for t in range(num_frames):
        for n in range(num_clips):
            masks[t, n, 8 + 2 * t : 28 + 2 * t, 10 + 8 * n : 36 + 8 * n] = True
    return BatchedClip(frames, masks, torch.arange(num_clips), tuple(f"clip{n}" for n in range(num_clips)))
