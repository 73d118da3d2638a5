"""Settings of a run, stored with its masks so that it cannot be continued with other settings."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from i2v.utils.files import replacing, sha256_of
from i2v.utils.json_file import read_json
from i2v.utils.output_folder import own_folder

FILE_NAME = "settings.json"


class Settings(Protocol):
    """What the contents of a folder depend on."""

    def describe(self) -> dict[str, Any]:
        """Return the settings as JSON values."""
        ...


@dataclass(frozen=True)
class RunSettings:
    """Model, prompts and benchmark of a run.

    Attributes:
        prompt: Name of the prompt protocol.
        config: Name or path of the config.
        checkpoint: Path of the checkpoint; ``None`` for random weights.
        dataset: Name of the benchmark.
        overrides: Config overrides.
        dtype: Precision; ``None`` for the default of the device.
        postprocessing: Whether masks are post-processed.
        replay_best: As in ``give_clicks``.
        threads: CPU threads of a worker, which affect the rounding of sums.
        ignore_labels: Labels that are void; ``None`` for the rule of ``sav_dataset.utils.void_labels``.
    """

    prompt: str
    config: str
    checkpoint: str | None
    dataset: str
    overrides: tuple[str, ...] = ()
    dtype: str | None = None
    postprocessing: bool = True
    replay_best: bool = False
    threads: int = 1
    ignore_labels: tuple[int, ...] | None = None

    def describe(self) -> dict[str, Any]:
        """Return the settings as JSON values; the checkpoint is identified by its content, not by its path."""
        values: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        if self.checkpoint is not None:
            values["checkpoint"] = {"name": Path(self.checkpoint).name, "sha256": sha256_of(self.checkpoint)}
        return values


def claim_folder(
    folder: Path,
    settings: Settings,
    overwrite: bool = False,
    remedy: str = "give another --save_dir_name, or --overwrite to make all masks again",
) -> None:
    """Create a folder for a run, or continue one with the same settings.

    Args:
        folder: The folder.
        settings: Settings of the run.
        overwrite: Whether to replace the settings of an earlier run.
        remedy: What the error message suggests to the user.

    Raises:
        ValueError: If the folder contains a run with other settings, or is a symbolic link.
    """
    path = folder / FILE_NAME
    ours = settings.describe()
    if path.exists() and not overwrite:
        theirs = dict(read_json(path).members())
        there = {key: theirs[key].value if key in theirs else None for key in ours}
        different = [f"{key}: {there[key]} there, {ours[key]} now" for key in ours if there[key] != ours[key]]
        if different:
            raise ValueError(f"{folder} holds a run with other settings ({'; '.join(different)}): {remedy}")
    own_folder(folder)
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(ours, indent=1) + "\n", encoding="utf-8")
