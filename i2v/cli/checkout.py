"""`i2v train`, `i2v test` and `i2v eval`: commands that a checkout has beside the package, run as modules of it."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import i2v

MODULES = {"train": "train.train", "test": "test_pvs.semi_infer", "eval": "sav_dataset.sav_evaluator"}
"""The module of each command."""

NAME_VARIABLE = "I2V_COMMAND"
"""The environment variable by which a module knows under which name it was called, for its help."""


def find_checkout(module: str) -> Path:
    """The folder with a module: that of this package or, where it was installed without, the working directory.

    FileNotFoundError if neither has it.
    """
    path = Path(*module.split(".")).with_suffix(".py")
    folders = (Path(i2v.__file__).resolve().parents[1], Path.cwd())
    for folder in folders:
        if (folder / path).is_file():
            return folder
    raise FileNotFoundError(
        f"training and evaluation run from a checkout: {path} is neither in {folders[0]} nor in {folders[1]}; clone "
        "the repository, and run the command in its folder"
    )


def become(command: str, arguments: Sequence[str]) -> NoReturn:
    """Go on as the module of a command, with these arguments; signals and the exit status are then its own."""
    module = MODULES[command]
    folder = str(find_checkout(module))
    path = os.pathsep.join([folder, *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = os.environ | {"PYTHONPATH": path, NAME_VARIABLE: f"i2v {command}"}
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(sys.executable, [sys.executable, "-m", module, *arguments], environment)
