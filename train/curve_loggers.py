"""Services that draw the curves of a run, beside TensorBoard: behind one interface, each optional."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from i2v.utils.files import replacing
from i2v.utils.input_file import read_text


class CurveLogger(Protocol):
    """Takes curves and pictures of a run."""

    def curves(self, step: int, values: Mapping[str, float]) -> None:
        """Numbers of a step, by names with strokes."""

    def picture(self, name: str, step: int, image: Tensor) -> None:
        """A picture (3,H,W) in 0..1."""

    def close(self) -> None:
        """Send what is still held back."""


class WandbLogger:
    """Weights & Biases. A run that is gone on with is the same run there; WANDB_MODE=offline keeps it here."""

    def __init__(self, folder: Path, name: str, settings: Mapping[str, Any]) -> None:
        """``folder``: of the files of the run, ``name`` and ``settings``: its own. RuntimeError without wandb."""
        self._wandb = _import("wandb", "wandb")
        number = folder / "wandb_run.txt"
        known = read_text(number).strip() if number.exists() else None
        self._run = self._wandb.init(
            project="i2v", name=name, dir=str(folder), config=dict(settings), id=known, resume="allow"
        )
        if known is None:
            with replacing(number) as temporary:
                temporary.write_text(f"{self._run.id}\n")

    def curves(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step)

    def picture(self, name: str, step: int, image: Tensor) -> None:
        pixels = (image.clamp(0, 1) * 255).byte().movedim(0, -1).numpy()
        self._run.log({name: self._wandb.Image(pixels)}, step=step)

    def close(self) -> None:
        self._run.finish()


class MlflowLogger:
    """MLflow, at MLFLOW_TRACKING_URI or in the run's folder. A run that is gone on with is the same run there."""

    def __init__(self, folder: Path, name: str, settings: Mapping[str, Any]) -> None:
        """As :class:`WandbLogger`; RuntimeError without mlflow."""
        self._mlflow = _import("mlflow", "mlflow-skinny")
        number = folder / "mlflow_run.txt"
        known = read_text(number).strip() if number.exists() else None
        if "MLFLOW_TRACKING_URI" not in os.environ:
            self._mlflow.set_tracking_uri((folder / "mlruns").absolute().as_uri())
        run = self._mlflow.start_run(run_id=known, run_name=name)
        if known is None:
            self._mlflow.log_dict(dict(settings), "config.json")
            with replacing(number) as temporary:
                temporary.write_text(f"{run.info.run_id}\n")

    def curves(self, step: int, values: Mapping[str, float]) -> None:
        self._mlflow.log_metrics({key: float(value) for key, value in values.items()}, step=step)

    def picture(self, name: str, step: int, image: Tensor) -> None:
        pixels = (image.clamp(0, 1) * 255).byte().movedim(0, -1).numpy()
        self._mlflow.log_image(pixels, f"{name.replace('/', '_')}_{step}.png")

    def close(self) -> None:
        self._mlflow.end_run()


LOGGERS: Mapping[str, Callable[[Path, str, Mapping[str, Any]], CurveLogger]] = {
    "wandb": WandbLogger,
    "mlflow": MlflowLogger,
}
"""The services, by the names that `trainer.logging.loggers` takes."""


def open_loggers(names: Sequence[str], folder: Path, run_name: str, settings: Mapping[str, Any]) -> list[CurveLogger]:
    """The services of these names. RuntimeError if what one needs is not installed."""
    return [LOGGERS[name](folder, run_name, settings) for name in names]


def _import(module: str, package: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise RuntimeError(
            f"trainer.logging.loggers names {module}, which is not installed: pip install {package}"
        ) from error
