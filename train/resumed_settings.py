"""Settings of a run that is gone on with: which of them differ, and whether that changes its course."""

from __future__ import annotations

import fnmatch
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from i2v.config_files import ConfigError, read_config_text
from i2v.errors import brief
from i2v.utils.files import replacing

CONFIG_NAME = "config.yaml"
"""The settings of a run, written in its folder when it begins."""

# Wildcards over keys that may change at any time: where a run computes and writes, what it tells, and when it stops.
FREE_KEYS = (
    "launcher.*",
    "submitit.*",
    "validation.*",
    "predictor.*",
    "scratch.num_train_workers",
    "dataset.root",
    "dataset.*_root",
    "dataset.*_folder",
    "dataset.pack",
    "data.train.num_workers",
    "data.train.prefetch_factor",
    "data.train.pin_memory",
    "data.train.device",
    "data.train.max_consecutive_failures",
    "trainer.mode",
    "trainer.accelerator",
    "trainer.stop_after",
    "trainer.max_skipped",
    "trainer.val_*",
    "trainer.resume_changed",
    "trainer.logging.*",
    "trainer.distributed.*",
    "trainer.cuda.cudnn_benchmark",
    "trainer.rollout.use_act_ckpt_iterative_pt_sampling",
    "trainer.checkpoint.*",
    "model.*use_checkpoint",
)


@dataclass(frozen=True)
class Difference:
    """A setting that a run began with, and what it is now; None where there was or is none."""

    key: str
    before: Any
    now: Any

    @property
    def changes_the_run(self) -> bool:
        """Whether the run would be another one from here on than it would have been."""
        return not any(fnmatch.fnmatchcase(self.key, pattern) for pattern in FREE_KEYS)

    def __str__(self) -> str:
        return f"{self.key}: {brief(self.before)} before, {brief(self.now)} now"


def differences(before: DictConfig, now: DictConfig) -> list[Difference]:
    """The settings that two configs do not have in common, in the order of their keys.

    They are compared as written, so a key that others refer to differs once. A key without a value is like no key.
    """
    old, new = (dict(_leaves(OmegaConf.to_container(config, resolve=False))) for config in (before, now))
    keys = sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key))
    return [Difference(key, old.get(key), new.get(key)) for key in keys]


def read_settings(path: Path) -> DictConfig:
    """The settings that a run has written down. ConfigError, with the path, for a file that is no config."""
    try:
        config = OmegaConf.load(io.StringIO(read_config_text(path)))
    except (yaml.YAMLError, OmegaConfBaseException) as error:
        raise ConfigError(f"{path}: the settings of the run cannot be read: {error}") from error
    if not isinstance(config, DictConfig) or not config:
        raise ConfigError(f"{path}: expected the settings of a run, got {brief(config)}")
    return config


def changes_since_start(folder: Path, now: DictConfig) -> list[Difference] | None:
    """How settings differ from those that the run in a folder began with; ``None`` if it has not written them down.

    ConfigError for a file that is no config.
    """
    written = folder / CONFIG_NAME
    return differences(read_settings(written), now) if written.exists() else None


def check_unchanged(found: list[Difference], folder: Path) -> None:
    """ConfigError, which names them, if settings differ that change the course of the run in a folder."""
    changing = [str(difference) for difference in found if difference.changes_the_run]
    if changing:
        raise ConfigError(
            f"the run in {folder} began with other settings ({'; '.join(changing)}), which change its course: go on "
            "all the same with trainer.resume_changed=true, or give another launcher.experiment_log_dir"
        )


def write_keeping_old(path: Path, text: str) -> Path | None:
    """Write a file; one of another content that was there is kept beside it with a number, NAME_1.yaml first.

    Returns where the old one is, None if there was none or it is the same.
    """
    kept = None
    if path.exists():
        if path.read_text(encoding="utf-8") == text:
            return None
        pattern = re.compile(rf"{re.escape(path.stem)}_(\d+){re.escape(path.suffix)}")
        numbers = [int(match[1]) for other in path.parent.iterdir() if (match := pattern.fullmatch(other.name))]
        kept = path.with_name(f"{path.stem}_{max(numbers, default=0) + 1}{path.suffix}")
        with replacing(kept) as temporary:
            temporary.write_bytes(path.read_bytes())
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return kept


def _leaves(node: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(node, dict) and node:
        for key, value in node.items():
            yield from _leaves(value, f"{prefix}{key}.")
    elif node != {}:
        yield prefix.removesuffix("."), node
