"""Services that draw the curves of a run, beside TensorBoard: behind one interface, each optional."""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from i2v.utils.files import replacing
from i2v.utils.input_file import read_text

log = logging.getLogger(__name__)


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
        number = _RunNumber(folder / "wandb_run.txt")
        self._run = self._wandb.init(
            project="i2v", name=name, dir=str(folder), config=dict(settings), id=number.known, resume="allow"
        )
        number.keep(self._run.id)

    def curves(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step)

    def picture(self, name: str, step: int, image: Tensor) -> None:
        self._run.log({name: self._wandb.Image(_pixels(image))}, step=step)

    def close(self) -> None:
        self._run.finish()


class MlflowLogger:
    """MLflow, at MLFLOW_TRACKING_URI or in the run's folder. A run that is gone on with is the same run there."""

    def __init__(self, folder: Path, name: str, settings: Mapping[str, Any]) -> None:
        """As :class:`WandbLogger`; RuntimeError without mlflow."""
        self._mlflow = _import("mlflow", "mlflow-skinny")
        number = _RunNumber(folder / "mlflow_run.txt")
        if "MLFLOW_TRACKING_URI" not in os.environ:
            # From 3.13 on, MLflow takes folders only where it is told to; its data bases need more than mlflow-skinny.
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
            self._mlflow.set_tracking_uri((folder / "mlruns").absolute().as_uri())
        run = self._mlflow.start_run(run_id=number.known, run_name=name)
        if number.known is None:
            self._mlflow.log_dict(dict(settings), "config.json")
        number.keep(run.info.run_id)

    def curves(self, step: int, values: Mapping[str, float]) -> None:
        self._mlflow.log_metrics({_mlflow_name(key): float(value) for key, value in values.items()}, step=step)

    def picture(self, name: str, step: int, image: Tensor) -> None:
        self._mlflow.log_image(_pixels(image), f"{name.replace('/', '_')}_{step}.png")

    def close(self) -> None:
        self._mlflow.end_run()


LOGGERS: Mapping[str, Callable[[Path, str, Mapping[str, Any]], CurveLogger]] = {
    "wandb": WandbLogger,
    "mlflow": MlflowLogger,
}
"""The services, by the names that `trainer.logging.loggers` takes."""


def open_loggers(names: Sequence[str], folder: Path, run_name: str, settings: Mapping[str, Any]) -> list[CurveLogger]:
    """The services of these names. RuntimeError if what one needs is not installed, or one cannot be started.

    One that fails later on is left out from then on, with a warning: a run does not end because a server does.
    """
    opened: list[CurveLogger] = []
    for name in names:
        try:
            opened.append(_OptionalLogger(name, LOGGERS[name](folder, run_name, settings)))
        except Exception as error:  # services raise classes of their own, which are not known without them
            for logger in opened:
                logger.close()
            if isinstance(error, RuntimeError):
                raise
            raise RuntimeError(f"trainer.logging.loggers: {name} cannot be started: {_first_line(error)}") from error
    return opened


class _OptionalLogger:
    """A service that may fail while the run goes on."""

    def __init__(self, name: str, logger: CurveLogger) -> None:
        self._name = name
        self._logger: CurveLogger | None = logger

    def curves(self, step: int, values: Mapping[str, float]) -> None:
        self._tell(lambda logger: logger.curves(step, values))

    def picture(self, name: str, step: int, image: Tensor) -> None:
        self._tell(lambda logger: logger.picture(name, step, image))

    def close(self) -> None:
        self._tell(lambda logger: logger.close())

    def _tell(self, what: Callable[[CurveLogger], None]) -> None:
        if self._logger is None:
            return
        try:
            what(self._logger)
        except Exception as error:  # noqa: BLE001 - of the service's own class, or of the network's
            logger, self._logger = self._logger, None
            with contextlib.suppress(Exception):
                logger.close()
            log.warning("%s failed and gets nothing more of this run: %s", self._name, _first_line(error))


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


class _RunNumber:
    """The number that a service gave a run, in a file beside it: so a run that is gone on with is the same one there.

    Attributes:
        known: The number from before, ``None`` at the first start.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.known = read_text(path).strip() if path.exists() else None

    def keep(self, number: str) -> None:
        """Write the number down, unless it is known."""
        if self.known is None:
            with replacing(self._path) as temporary:
                temporary.write_text(f"{number}\n")


def _mlflow_name(name: str) -> str:
    """A name of the characters that MLflow takes: `val/J&F` becomes `val/J_and_F`."""
    return re.sub(r"[^\w\-. :/]", "_", name.replace("&", "_and_"), flags=re.ASCII)


def _pixels(image: Tensor) -> NDArray[np.uint8]:
    """A picture (3,H,W) in 0..1 as (H,W,3) uint8."""
    return (image.clamp(0, 1) * 255).byte().movedim(0, -1).numpy()


def _import(module: str, package: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise RuntimeError(
            f"trainer.logging.loggers names {module}, which is not installed: pip install {package}"
        ) from error
