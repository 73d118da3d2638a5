"""i2v-nano, the small model that comes with i2v, and the defaults for config and checkpoint."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from i2v.errors import brief
from i2v.hub import CONFIG_NAME, WEIGHTS_NAME, WEIGHTS_SUFFIXES, HubOptions, fetch_from_hub, is_hub_id

if TYPE_CHECKING:
    from i2v.checkpoint import StrPath
    from i2v.config import ConfigLike

NANO = "i2v-nano-infer"
PUBLISHED = "i2v-infer"
SHIPPED = {"i2v-nano": NANO}
"""Names of the models that come with i2v, and their configs."""

RUN_CONFIG_NAME, CHECKPOINTS_NAME = "inference.yaml", "checkpoints"
"""Of a training run: the config for its checkpoints, and their folder beside it."""

_PACKAGE = Path(__file__).parent
# In a checkout it is among the downloaded checkpoints; an installed package contains it.
_PLACES = (_PACKAGE.parent / "checkpoints", _PACKAGE / "checkpoints")


@dataclass(frozen=True)
class ModelChoice:
    """A config and the weights for it.

    Attributes:
        config: Name or path of the config.
        checkpoint: Path or address of the weights; ``None`` if there are none.
    """

    config: str
    checkpoint: str | None

    @property
    def is_nano(self) -> bool:
        """Whether it is the small model with the weights that come with it."""
        return is_nano_config(self.config) and self.checkpoint == str(nano_checkpoint())


def nano_checkpoint() -> Path:
    """Return the path of i2v-nano's weights.

    Raises:
        FileNotFoundError: If they are not installed.
    """
    for folder in _PLACES:
        if (folder / "i2v-nano.pt").is_file():
            return folder / "i2v-nano.pt"
    looked = " and ".join(str(folder) for folder in _PLACES)
    raise FileNotFoundError(f"i2v-nano.pt, the small model that comes with i2v, is not in {looked}")


def is_nano_config(config: str | Path) -> bool:
    """Whether a config, given by name or path, is that of i2v-nano as it comes with i2v."""
    if str(config) in (NANO, f"{NANO}.yaml"):
        return True
    path, own = Path(config), _PACKAGE / "configs" / f"{NANO}.yaml"
    return path.name == own.name and path.is_file() and own.is_file() and path.samefile(own)


def choose_model(config: str | None = None, checkpoint: str | None = None) -> ModelChoice:
    """Complete a config and a checkpoint, either of which can be missing.

    Without both, the model is i2v-nano. A checkpoint names its config if that was stored with ``save_checkpoint``;
    otherwise it is for the published model. A config alone has no weights, except i2v-nano's.

    Args:
        config: Name or path of a config.
        checkpoint: Path or address of a checkpoint.

    Raises:
        FileNotFoundError: If a file does not exist.
        CheckpointError: If the checkpoint cannot be read, or its config is not one of the package's.
    """
    if checkpoint is not None:
        return ModelChoice(config or _config_of_file(checkpoint), checkpoint)
    if config is None or is_nano_config(config):
        return ModelChoice(config or NANO, str(nano_checkpoint()))
    return ModelChoice(config, None)


@dataclass(frozen=True, eq=False)
class ModelRequest:
    """Which model a builder was asked for, in the words of ``i2v.build_i2v.build_i2v_video_predictor``.

    Attributes:
        config: Name or path of a config, or a composed one.
        config_file: The published name of ``config``.
        ckpt_path: Path or address of the weights.
        random_weights: Whether the weights are to be random.
    """

    config: ConfigLike | None = None
    config_file: ConfigLike | None = None
    ckpt_path: StrPath | None = None
    random_weights: bool = False

    def completed(self) -> ModelRequest:
        """The same with the config and the weights that are meant where they are not given.

        Raises:
            ValueError: If there are weights, and they are to be random.
        """
        if self.random_weights and self.ckpt_path is not None:
            raise ValueError(f"expected a checkpoint or random_weights=True, got both: {self.ckpt_path}")
        if self.name is None:
            choice = choose_model(checkpoint=None if self.ckpt_path is None else os.fspath(self.ckpt_path))
            completed = replace(self, config=choice.config, ckpt_path=choice.checkpoint)
        elif isinstance(self.name, str | Path) and is_nano_config(self.name):
            completed = replace(self, ckpt_path=self.ckpt_path or nano_checkpoint())
        else:
            completed = self
        return replace(completed, ckpt_path=None) if self.random_weights else completed

    @property
    def name(self) -> ConfigLike | None:
        """The config that is given, under either name."""
        return self.config if self.config is not None else self.config_file

    def check_weights(self) -> None:
        """ValueError if there are no weights, and they are not to be random."""
        if self.ckpt_path is None and not self.random_weights:
            name = self.name if isinstance(self.name, str | Path) else "this config"
            raise ValueError(
                f"{name} has no weights of its own: give ckpt_path, or random_weights=True for an untrained model"
            )


def find_pretrained(model_id: str | os.PathLike[str], hub: HubOptions | None = None) -> ModelChoice:
    """Find a model by its name, or where it is.

    Args:
        model_id: The name of a model that comes with i2v (``"i2v-nano"``), a checkpoint file, a folder as
            ``save_pretrained`` writes it, or a model of the Hugging Face hub, ``OWNER/NAME``. What is on this machine
            goes before what is on the hub.
        hub: Where a model of the hub is looked for.

    Raises:
        TypeError: If it is neither a name nor a path.
        FileNotFoundError: If there is no such model.
        ValueError: If a folder does not hold one model, or a checkpoint cannot be read.
        RuntimeError: If the model is on the hub, and ``huggingface_hub`` is not installed.
    """
    if not isinstance(model_id, str | os.PathLike):
        raise TypeError(f"model_id: expected the name of a model, a path or OWNER/NAME, got {brief(model_id)}")
    name = os.fspath(model_id)
    if name in SHIPPED:
        return choose_model(SHIPPED[name])
    path = Path(name).expanduser()
    if name and path.is_dir():  # an empty name, such as that of a variable that is not set, is not this folder
        return _model_in(path)
    if path.name == WEIGHTS_NAME and path.is_file() and (path.parent / CONFIG_NAME).is_file():
        return _model_in(path.parent)  # the weights alone do not say their config
    if name and (path.exists() or path.suffix in WEIGHTS_SUFFIXES):
        return choose_model(checkpoint=str(path))
    if is_hub_id(name):
        return _model_in(fetch_from_hub(name, hub or HubOptions()))
    raise FileNotFoundError(
        f"model {brief(name)}: expected {' or '.join(SHIPPED)}, a checkpoint file, a folder with {WEIGHTS_NAME}, or "
        f"OWNER/NAME of the Hugging Face hub (looked in {Path.cwd()})"
    )


def _model_in(folder: Path) -> ModelChoice:
    """The model in a folder: its weights, and its config or the one that the weights name."""
    files = sorted(path for path in folder.iterdir() if path.suffix in WEIGHTS_SUFFIXES and path.is_file())
    weights = [path for path in files if path.name == WEIGHTS_NAME] or files
    if len(weights) != 1:
        found = f"{len(weights)}: {', '.join(path.name for path in weights)}" if weights else "none"
        raise ValueError(f"{folder}: expected {WEIGHTS_NAME} or one other checkpoint in this folder, got {found}")
    config = folder / CONFIG_NAME
    return choose_model(str(config.absolute()) if config.is_file() else None, str(weights[0]))


def config_of(checkpoint: str | Path, metadata: Mapping[str, str | int | float]) -> str:
    """Return the config that a checkpoint is for: the one that it names, or that its run wrote; else the published one.

    A training run writes ``inference.yaml`` beside its folder ``checkpoints``. A file must not choose what else is
    read, so checkpoints can only name configs of the package, not paths.

    Args:
        checkpoint: Path or address of the checkpoint, for messages.
        metadata: Metadata of the checkpoint.

    Raises:
        CheckpointError: If the checkpoint names anything else.
    """
    # Imported here because torch and Hydra take long to import.
    from i2v.checkpoint import CheckpointError
    from i2v.config import available_configs

    beside = Path(checkpoint).parent.parent / RUN_CONFIG_NAME
    if "config" not in metadata and Path(checkpoint).parent.name == CHECKPOINTS_NAME and beside.is_file():
        return str(beside)
    named = metadata.get("config", PUBLISHED)
    if named not in available_configs():
        raise CheckpointError(
            f"{checkpoint} says that it is for the config {brief(named)}, expected one of this package "
            f"({', '.join(available_configs())}): say with --config which one to use"
        )
    return str(named)


def _config_of_file(checkpoint: str) -> str:
    from i2v.checkpoint import read_checkpoint_info

    return config_of(checkpoint, read_checkpoint_info(checkpoint).metadata)
