"""i2v-nano, the small model that comes with i2v, and which model is meant where not all is said."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from i2v.errors import brief

NANO = "i2v-nano-infer"
PUBLISHED = "i2v-infer"

_PACKAGE = Path(__file__).parent
# In a checkout it lies beside the checkpoints that users fetch; an installed package brings it along.
_PLACES = (_PACKAGE.parent / "checkpoints", _PACKAGE / "checkpoints")


@dataclass(frozen=True)
class ModelChoice:
    """A config by name or path, and the file of its weights; ``None`` leaves them random."""

    config: str
    checkpoint: str | None

    @property
    def is_nano(self) -> bool:
        """Whether it is the small model with the weights that come with it."""
        return self.config == NANO and self.checkpoint == str(nano_checkpoint())


def nano_checkpoint() -> Path:
    """The weights of i2v-nano. FileNotFoundError where they did not come along."""
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
    """What is meant by a config and a checkpoint, of which either may be missing.

    Without both it is i2v-nano. A checkpoint says for which config it is, if :func:`i2v.checkpoint.save_checkpoint` was
    told; else it is for the published model. A config alone has random weights, but for i2v-nano's. Raises
    CheckpointError where a checkpoint names what is no config of this package.
    """
    if checkpoint is not None:
        return ModelChoice(config or _config_of_file(checkpoint), checkpoint)
    if config in (None, NANO):
        return ModelChoice(NANO, str(nano_checkpoint()))
    assert config is not None
    return ModelChoice(config, None)


def config_of(checkpoint: str | Path, metadata: Mapping[str, str | int | float]) -> str:
    """The config that a checkpoint with such metadata is for: the published model's where it does not say.

    A file must not choose what else is read, so anything but the name of a config of this package, such as a path, is
    refused with CheckpointError.
    """
    # Imported late: torch and Hydra take a while to load.
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
