"""i2v-nano, the small model that comes with i2v, and the defaults for config and checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from i2v.errors import brief

NANO = "i2v-nano-infer"
PUBLISHED = "i2v-infer"

_PACKAGE = Path(__file__).parent
# In a checkout it is among the downloaded checkpoints; an installed package contains it.
_PLACES = (_PACKAGE.parent / "checkpoints", _PACKAGE / "checkpoints")


@dataclass(frozen=True)
class ModelChoice:
    """A config and the weights for it.

    Attributes:
        config: Name or path of the config.
        checkpoint: Path or address of the weights; ``None`` for random ones.
    """

    config: str
    checkpoint: str | None

    @property
    def is_nano(self) -> bool:
        """Whether it is the small model with the weights that come with it."""
        return self.config == NANO and self.checkpoint == str(nano_checkpoint())


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
    otherwise it is for the published model. A config alone has random weights, except i2v-nano's.

    Args:
        config: Name or path of a config.
        checkpoint: Path or address of a checkpoint.

    Raises:
        FileNotFoundError: If a file does not exist.
        CheckpointError: If the checkpoint cannot be read, or its config is not one of the package's.
    """
    if checkpoint is not None:
        return ModelChoice(config or _config_of_file(checkpoint), checkpoint)
    if config in (None, NANO):
        return ModelChoice(NANO, str(nano_checkpoint()))
    assert config is not None
    return ModelChoice(config, None)


def config_of(checkpoint: str | Path, metadata: Mapping[str, str | int | float]) -> str:
    """Return the config that a checkpoint is for, by default the published model's.

    A file must not choose what else is read, so only names of the package's configs are accepted, not paths.

    Args:
        checkpoint: Path or address of the checkpoint, for messages.
        metadata: Metadata of the checkpoint.

    Raises:
        CheckpointError: If the checkpoint names anything else.
    """
    # Imported here because torch and Hydra take long to import.
    from i2v.checkpoint import CheckpointError
    from i2v.config import available_configs

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
