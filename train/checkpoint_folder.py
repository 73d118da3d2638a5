"""The checkpoints of a run as files: the last state, numbered ones, the best weights; each is replaced atomically."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from i2v.checkpoint import CheckpointError, read_checkpoint_info, save_atomically, save_checkpoint
from i2v.utils.files import DiskFullError, replacing
from i2v.utils.output_folder import own_folder, refuse_link
from i2v.utils.temporary import remove_leftovers
from train.lora import adapter_state, has_adapters, merged_state

log = logging.getLogger(__name__)

LAST, AVERAGE = "checkpoint.pt", "ema.pt"
_OF_EPOCH, _OF_STEP = r"checkpoint_(\d+)\.pt", r"checkpoint_step_(\d+)\.pt"


@dataclass(frozen=True)
class BestWeights:
    """How good ``best.pt`` is: its J&F in percent, and the step of that validation (older files: the epoch)."""

    score: float
    step: int


class CheckpointFolder:
    """The checkpoints of a run: ``checkpoint.pt`` (the last), ``checkpoint_N.pt`` (after N epochs), ``best.pt``."""

    def __init__(self, folder: Path, save_freq: int = 1, keep_last: int | None = None) -> None:
        """Create the folder if needed and remove temporary files of killed runs.

        Args:
            folder: Where the checkpoints go.
            save_freq: Epochs between numbered checkpoints; 0 writes none.
            keep_last: How many numbered checkpoints to keep; ``None`` keeps all.

        Raises:
            ValueError: If ``keep_last`` is below 1.
        """
        self.folder = folder
        self._last_step: int | None = None
        self.save_freq = save_freq
        self.keep_last = keep_last
        if keep_last is not None and keep_last < 1:
            raise ValueError(f"keep_last: expected at least 1, or null to keep all, got {keep_last}")
        own_folder(folder)
        remove_leftovers(folder)

    @property
    def last(self) -> Path:
        """The checkpoint to resume from."""
        return self.folder / LAST

    @property
    def best(self) -> Path:
        """The weights of the best validation."""
        return self.folder / "best.pt"

    @property
    def average(self) -> Path:
        """The averaged weights for inference, if the run keeps an average."""
        return self.folder / AVERAGE

    def save_last(self, state: Mapping[str, Any]) -> None:
        """Replace the last checkpoint.

        Raises:
            DiskFullError: If the disk is full; the previous checkpoint is then intact.
        """
        save_atomically(dict(state), self.last)
        self._last_step = state["steps"]["train"]

    @contextlib.contextmanager
    def telling_what_is_kept(self) -> Iterator[None]:
        """Make a DiskFullError raised in the block say which checkpoint is intact."""
        try:
            yield
        except DiskFullError as error:
            step = "" if self._last_step is None else f", of step {self._last_step},"
            intact = f"{self.last}{step} is intact: make room, and the same command resumes from there"
            error.kept = intact if self.last.exists() else "no checkpoint had been written yet"
            raise

    def save_epoch(self, epoch: int) -> None:
        """Copy the last checkpoint to ``checkpoint_<epoch>.pt`` if one is due, and delete the oldest numbered ones."""
        if self.save_freq <= 0 or epoch % self.save_freq:
            return
        self._keep(self.folder / f"checkpoint_{epoch}.pt", _numbered(self.folder, _OF_EPOCH))

    def _keep(self, path: Path, before: list[Path]) -> None:
        with replacing(path) as temporary:
            shutil.copyfile(self.last, temporary)
        if self.keep_last is not None:
            others = [other for other in before if other != path]
            for other in others[: len(others) + 1 - self.keep_last]:
                other.unlink(missing_ok=True)

    def save_best(self, model: nn.Module, epoch: int, step: int, score: float) -> None:
        """Write ``best.pt`` for inference: the weights only, with adapters merged; these get their own file, too."""
        save_checkpoint(merged_state(model), self.best, epoch=epoch, step=step, jf=score)
        if has_adapters(model):
            save_adapters(model, self.folder / "best_adapters.pt")

    def read_best(self) -> BestWeights | None:
        """What ``best.pt`` says of itself; ``None`` without one, and, with a warning, for one that cannot be read."""
        if not self.best.exists():
            return None
        try:
            said = read_checkpoint_info(self.best).metadata
            return BestWeights(float(said["jf"]), int(said.get("step", said["epoch"])))
        except (CheckpointError, LookupError, ValueError) as error:
            log.warning("%s does not say how good it is, and the next validation replaces it: %s", self.best, error)
            return None

    def check_start(self, resume_from: Path | None) -> None:
        """CheckpointError if a run that starts here would replace what an earlier one has left.

        That is so where ``checkpoint.pt`` is gone, and its numbered states or its best weights are not, unless the run
        goes on from one of these (``resume_from``).
        """
        if self.last.exists() or (resume_from is not None and resume_from.resolve().parent == self.folder.resolve()):
            return
        best = self.read_best()
        # A run that was killed before its first save has left the weights of its start at most.
        kept = kept_states(self.folder)
        left = kept + ([self.best] if best is not None and best.step > 0 else [])
        if left:
            go_on = f"go on with trainer.checkpoint.resume_from={kept[-1]}, " if kept else ""
            raise CheckpointError(
                f"{self.folder} has {', '.join(path.name for path in left)} of an earlier run but no {self.last.name}, "
                f"and a new run would replace them: {go_on}give another launcher.experiment_log_dir, or remove them"
            )

    def save_step(self, step: int) -> None:
        """Keep the last state as that after a step, and drop the oldest of its kind."""
        self._keep(self.folder / f"checkpoint_step_{step}.pt", _numbered(self.folder, _OF_STEP))


@contextlib.contextmanager
def one_run_in(folder: Path) -> Iterator[None]:
    """Keep other runs out of a folder while the block runs; RuntimeError if there is one already.

    The lock is of the kind that ends with the process, however it ends, and that its workers do not inherit, so that a
    run can go on right after it was killed. Where the file system has no locks, nothing is kept out.
    """
    path = own_folder(folder) / ".lock"
    refuse_link(path)
    with path.open("ab") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                raise RuntimeError(
                    f"{folder}: another run is under way in this folder: wait for its end, stop it, or give another "
                    "launcher.experiment_log_dir"
                ) from error
        yield


def kept_states(folder: Path) -> list[Path]:
    """The numbered states in a folder, the latest last."""
    return sorted(_numbered(folder, _OF_EPOCH) + _numbered(folder, _OF_STEP), key=lambda path: path.stat().st_mtime)


def earlier_state(path: Path) -> str:
    """What can be done about a last state that is damaged: a hint at the latest numbered one beside it, if any."""
    kept = kept_states(path.parent) if path.name == LAST else []
    if not kept:
        return ""
    return f"; to go on from {kept[-1].name}, remove {LAST} and give trainer.checkpoint.resume_from={kept[-1]}"


def _numbered(folder: Path, pattern: str) -> list[Path]:
    found = [(re.fullmatch(pattern, path.name), path) for path in folder.iterdir()]
    return [path for _, path in sorted((int(match[1]), path) for match, path in found if match)]


def save_adapters(model: nn.Module, path: Path) -> None:
    """Write the low-rank changes of a model alone, for ``train.lora.merge_adapters``."""
    save_atomically({"lora": adapter_state(model)}, path)
