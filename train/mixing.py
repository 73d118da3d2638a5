"""`data.mix=[sav:1,mine:4]`: the data sets of a run and their weights, written into the node that is built."""

from __future__ import annotations

import math
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict

from i2v.config_files import ConfigError
from i2v.errors import brief


def read_mix(entries: Any, known: list[str]) -> dict[str, float]:
    """Weights by the names of data sets, from texts NAME:WEIGHT. ConfigError for any other."""
    form = f"data.mix: expected [NAME:WEIGHT,...] with names of {', '.join(known)}"
    if not isinstance(entries, list) or not entries:
        raise ConfigError(f"{form}, got {brief(entries)}")
    mix: dict[str, float] = {}
    for entry in entries:
        # Hydra reads {a: 1} and a:1 in a list as a mapping or a text, depending on quotes.
        parts = next(iter(entry.items())) if isinstance(entry, dict) and len(entry) == 1 else str(entry).split(":")
        if len(parts) != 2 or str(parts[0]).strip() not in known:
            raise ConfigError(f"{form}, got {brief(entry)}")
        name = str(parts[0]).strip()
        try:
            weight = float(parts[1])
        except (TypeError, ValueError):
            weight = math.nan
        if not (math.isfinite(weight) and weight > 0):
            raise ConfigError(f"data.mix: expected a weight above 0 for {name}, got {brief(parts[1])}")
        if name in mix:
            raise ConfigError(f"data.mix: {name} is named twice")
        mix[name] = weight
    return mix


def expand_mix(config: DictConfig) -> None:
    """Make `data.train.loaders` from `data.mix`, where a config has it. ConfigError for a mix that cannot be."""
    data = config.get("data")
    if data is None or "mix" not in data or OmegaConf.is_missing(data, "mix"):
        return
    mix = read_mix(OmegaConf.to_container(config.data)["mix"], sorted(config.data.sets))  # type: ignore[index,call-overload]
    for name in mix:
        key = f"{name}_root"
        if key in config.dataset and config.dataset[key] is None:
            raise ConfigError(f"data.mix names {name}: set dataset.{key} to its folder")
    loaders = [
        {
            "_target_": "train.dataset.mixed_loader.LoaderSpec",
            "batch_size": "${scratch.train_batch_size}",
            "weight": weight,
            "dataset": {
                "_target_": "train.dataset.vos_dataset.VOSDataset",
                "resolution": "${scratch.resolution}",
                "transforms": "${vos.train_transforms}",
                "sampler": f"${{data.sets.{name}.sampler}}",
                "video_dataset": f"${{data.sets.{name}.video_dataset}}",
            },
        }
        for name, weight in mix.items()
    ]
    with open_dict(config):
        config.data.train.loaders = loaders
