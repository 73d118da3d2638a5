"""The data configs compose into a node that makes a MixedLoader, with the published values."""

from __future__ import annotations

from pathlib import Path

import hydra
import pytest
import torch
from data_support import write_davis, write_jpegs, write_sa1b, write_sav
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from i2v.config import ConfigError, load_config
from train.dataset.mixed_loader import MixedLoader
from train.dataset.structures import BatchedClip

TOP = """
defaults: [{{data: {data}}}, _self_]
scratch: {{resolution: 32, num_frames: 3, max_num_objects: 1, num_train_workers: 0, phases_per_epoch: 1}}
"""


def compose(folder: Path, data: str, *overrides: str) -> DictConfig:
    path = folder / "top.yaml"
    path.write_text(TOP.format(data=data))
    return load_config(path, overrides)


def batches(config: DictConfig) -> list[BatchedClip]:
    loader = hydra.utils.instantiate(config.data.train, seed=1, rank=0, world_size=1)
    assert isinstance(loader, MixedLoader)
    found = list(loader.epoch(0))
    assert len(found) == len(loader)
    return found


def test_the_published_mix(tmp_path: Path) -> None:
    data = tmp_path / "data"
    write_sav(data, ["sav_000001", "sav_000002"])
    (data / "jpg").rename(data / "sav_train_jpg")
    (data / "json").rename(data / "sav_train_json")
    write_sa1b(data, [f"sa_{i}" for i in range(16)])
    (data / "jpg").rename(data / "sa1b_train_jpg")
    (data / "json").rename(data / "sa1b_train_json")
    config = compose(tmp_path, "sav_sa1b", f"dataset.root={tmp_path}", "dataset.sa1b_file_list_txt=null")
    found = batches(config)
    assert sorted(tuple(batch.frames.shape) for batch in found) == [(1, 8, 3, 32, 32)] * 2 + [(3, 1, 3, 32, 32)] * 2
    assert all(batch.masks.shape[1] == batch.frames.shape[1] for batch in found)
    assert (config.dataset.reverse_time_prob, config.scratch.train_batch_size_sa1b) == (0.5, 8)


def test_one_s_own_videos(tmp_path: Path) -> None:
    write_davis(tmp_path, ["a", "b"])
    settings = [f"dataset.root={tmp_path}", "dataset.multiplier=2", "scratch.train_batch_size=2"]
    found = batches(compose(tmp_path, "folder", *settings))
    assert [batch.frames.shape for batch in found] == [torch.Size((3, 2, 3, 32, 32))] * 2
    assert sorted(found[0].names + found[1].names) == ["a", "a", "b", "b"]


def test_rendered_clips(tmp_path: Path) -> None:
    write_jpegs(tmp_path / "real", range(8))
    settings = ["dataset.num_videos=2", "dataset.settings.max_objects=1", f"dataset.backgrounds=[{tmp_path}/real]"]
    found = batches(compose(tmp_path, "synthetic", *settings))
    assert [batch.frames.shape for batch in found] == [torch.Size((3, 1, 3, 32, 32))] * 2
    assert all(batch.masks[0].any() for batch in found)
    with pytest.raises(ConfigError, match=r"unknown key .*max_object.*dataset\.settings\.max_objects"):
        compose(tmp_path, "synthetic", "dataset.settings.max_object=1")


def test_rendered_clips_with_single_images_between(tmp_path: Path) -> None:
    settings = ["dataset.num_videos=2", "dataset.num_images=4", "scratch.image_batch_size=2"]
    shapes = [tuple(batch.frames.shape) for batch in batches(compose(tmp_path, "synthetic_mix", *settings))]
    assert sorted(shapes) == [(1, 2, 3, 32, 32)] * 2 + [(3, 1, 3, 32, 32)] * 2


def test_augmentations_have_the_published_values_and_can_be_left_out(tmp_path: Path) -> None:
    config = compose(tmp_path, "folder", "dataset.root=x")
    transforms = hydra.utils.instantiate(config.vos.train_transforms, _convert_="all")
    assert [repr(transform) for transform in transforms] == [
        "RandomHorizontalFlip(p=0.5)",
        "RandomAffine(degrees=25.0, shear=20.0, fill=[123, 116, 103])",
        "ColorJitter(brightness=0.1, contrast=0.03, saturation=0.03, consistent_transform=True)",
        "RandomGrayscale(p=0.05)",
        "ColorJitter(brightness=0.1, contrast=0.05, saturation=0.05, consistent_transform=False)",
    ]
    assert list(compose(tmp_path, "folder", "augmentation@vos=none").vos.train_transforms) == []
    assert list(compose(tmp_path, "synthetic").vos.train_transforms) == []


@pytest.mark.parametrize(("data", "key"), [("folder", "dataset.root"), ("sav_sa1b", "dataset.root")])
def test_a_missing_path_is_told_by_its_key(tmp_path: Path, data: str, key: str) -> None:
    config = compose(tmp_path, data)
    with pytest.raises(OmegaConfBaseException, match=key):
        OmegaConf.to_container(config.data.train, resolve=True, throw_on_missing=True)


def test_a_setting_of_the_loader_can_be_overridden(tmp_path: Path) -> None:
    write_davis(tmp_path, ["a"])
    for file in (tmp_path / "JPEGImages" / "a").iterdir():
        file.write_bytes(file.read_bytes()[:-100])  # its size can still be read
    config = compose(tmp_path, "folder", f"dataset.root={tmp_path}", "data.train.max_consecutive_failures=2")
    with pytest.raises(RuntimeError, match=r"2 samples in a row could not be read.*JPEGImages/a/0000\d\.jpg"):
        batches(config)
