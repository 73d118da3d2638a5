"""What the tests of training share: a run of the tiny model on rendered clips, and clips without files."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf
from PIL import Image
from support import TINY, disc_centres, render_video
from torch import nn

from i2v.config import load_config
from train.build import build_trainer, run
from train.checkpointing import RunFacts
from train.dataset.structures import BatchedClip
from train.distributed import World, joined
from train.launch import StopRequest
from train.trainer import Loader

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


FACTS = RunFacts(world_size=1, seed_value=0, batches_per_epoch=10, accumulate_steps=2)


def trained() -> tuple[nn.Linear, torch.optim.AdamW]:
    """A model that has taken a step."""
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    optimizer = torch.optim.AdamW([{"params": [model.weight], "name": "w"}, {"params": [model.bias], "name": "b"}])
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    return model, optimizer


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


def lines_of(folder: Path, kind: str = "train") -> list[dict[str, float]]:
    """What a run wrote as JSON lines."""
    return [json.loads(line) for line in (folder / "logs" / f"{kind}_stats.jsonl").read_text().splitlines()]


def losses_of(folder: Path) -> list[tuple[float, ...]]:
    """Step, losses and norm of the gradient of all steps of a run."""
    names = ("step", "loss", "loss_mask", "loss_iou", "loss_class", "grad_norm", "lr")
    return [tuple(line[name] for name in names) for line in lines_of(folder)]


def write_held_out(folder: Path, num_frames: int = 6) -> tuple[Path, Path]:
    """A video of two discs in the layout of DAVIS: folders of frames and of label images."""
    frames, labels = folder / "JPEGImages" / "discs", folder / "Annotations" / "discs"
    frames.mkdir(parents=True)
    labels.mkdir(parents=True)
    rows, columns = np.mgrid[:48, :64]
    for t, frame in enumerate(render_video(num_frames)):
        Image.fromarray(frame).save(frames / f"{t:05d}.png")
        label = np.zeros((48, 64), np.uint8)
        for value, ((x, y), _) in enumerate(disc_centres(t), start=1):
            label[(columns - x) ** 2 + (rows - y) ** 2 < 8**2] = value
        Image.fromarray(label).save(labels / f"{t:05d}.png")
    return frames.parent, labels.parent


class WithOneBadClip:
    """A loader whose batch number 1 is not finite on the last rank alone."""

    def __init__(self, loader: Loader, world: World) -> None:
        self.loader, self.is_hit = loader, world.rank == world.size - 1

    def epoch(self, epoch: int, start: int = 0) -> Iterator[BatchedClip]:
        for number, clip in enumerate(self.loader.epoch(epoch, start), start):
            if number == 1 and self.is_hit:
                clip.frames.fill_(float("nan"))
            yield clip

    def __len__(self) -> int:
        return len(self.loader)


def run_with_a_bad_clip(config: DictConfig) -> None:
    """Train in processes of which one meets a loss that is not finite."""
    with joined(torch.device("cpu")) as world:
        trainer = build_trainer(load_config(config), world, StopRequest())
        trainer.loader = WithOneBadClip(trainer.loader, world)
        trainer.fit()


def run_in_own_folder(config: DictConfig) -> None:
    """Train in processes that have a folder each, as machines without a shared disk have."""
    config.launcher.experiment_log_dir += os.environ["RANK"]
    run(config)
