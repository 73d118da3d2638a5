"""The settings of training that people change: what each may be, and what it does. Checked before anything starts."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from i2v.config_files import ConfigError
from i2v.errors import brief
from test_pvs.prompts import PROTOCOLS


@dataclass(frozen=True)
class Setting:
    """A key of training configs.

    ``kind``: ``whole`` number, ``number``, ``switch`` (true or false), ``text``, ``names`` (a list of texts) or
    ``labels`` (a list of whole numbers). ``least`` and ``most``: bounds of numbers, both allowed. ``step``: of which
    whole numbers are multiples. ``choices``: of texts and names. ``is_optional``: may be null.
    ``effect``: what it does, for people.
    """

    key: str
    kind: str
    effect: str
    least: float = -math.inf
    most: float = math.inf
    choices: tuple[str, ...] = ()
    is_optional: bool = False
    step: int = 1

    @property
    def range(self) -> str:
        """What the value may be, in words."""
        if self.choices:
            what = f"{'some' if self.kind == 'names' else 'one'} of {', '.join(self.choices)}"
        else:
            multiple = f", a multiple of {self.step}" if self.step > 1 else ""
            what = _KINDS[self.kind] + self._bounds() + multiple
        return f"{what}, or null" if self.is_optional else what

    def fits(self, value: Any) -> bool:
        """Whether a value is within the range."""
        if value is None:
            return self.is_optional
        if self.kind in ("names", "labels"):
            return isinstance(value, Sequence) and not isinstance(value, str) and all(map(self._fits_one, value))
        return self._fits_one(value)

    def _fits_one(self, value: Any) -> bool:
        if self.kind == "switch":
            return isinstance(value, bool)
        if self.kind in ("text", "names"):
            return isinstance(value, str) and (not self.choices or value in self.choices)
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        if self.kind != "number" and not isinstance(value, int):
            return False
        in_steps = self.kind == "number" or value % self.step == 0
        return math.isfinite(value) and self.least <= value <= self.most and in_steps

    def _bounds(self) -> str:
        if math.isfinite(self.least) and math.isfinite(self.most):
            return f" from {self.least:g} to {self.most:g}"
        return f" of at least {self.least:g}" if math.isfinite(self.least) else ""


_KINDS = {
    "whole": "a whole number",
    "number": "a number",
    "switch": "true or false",
    "text": "a text",
    "names": "a list of texts",
    "labels": "a list of whole numbers",
}
_MODES = ("train_only", "train", "val")
_SCHEDULES = ("cosine", "linear", "constant")

NUM_COMMON = 10
"""So many of the first settings are those that people change most."""

SETTINGS = (
    Setting("dataset.root", "text", "folder of the data, see docs/training.md for its layout"),
    Setting("launcher.experiment_log_dir", "text", "where results go; null: logs/CONFIG", is_optional=True),
    Setting("scratch.num_epochs", "whole", "passes over the data", least=1),
    Setting("scratch.base_lr", "number", "learning rate of all parts but the image trunk", least=0),
    Setting("scratch.vision_lr", "number", "learning rate of the image trunk", least=0),
    Setting("scratch.resolution", "whole", "side in pixels of the model's frames", least=16, step=16),
    Setting("scratch.num_frames", "whole", "frames of a clip; memory and time grow with it", least=1),
    Setting("scratch.train_batch_size", "whole", "clips of a batch on every process", least=1),
    Setting("trainer.accumulate_steps", "whole", "batches of a step, over the ends of epochs", least=1),
    Setting("trainer.mode", "text", "train validates as well, val does nothing else", choices=_MODES),
    Setting("scratch.max_num_objects", "whole", "objects of a clip", least=1),
    Setting("scratch.num_train_workers", "whole", "processes that load data; 0 loads between steps", least=0),
    Setting("scratch.phases_per_epoch", "whole", "epochs that one pass over the data takes", least=1),
    Setting("dataset.multiplier", "whole", "clips per video and epoch, for few videos", least=1),
    Setting("dataset.sample_rate", "whole", "take every n-th annotated frame", least=1),
    Setting("dataset.reverse_time_prob", "number", "how often a clip runs backwards", least=0, most=1),
    Setting(
        "dataset.ignored_labels",
        "labels",
        "void labels; null: 255 in videos with other labels, too",
        least=0,
        is_optional=True,
    ),
    Setting("validation.img_folder", "text", "folders of frames of the held-out videos", is_optional=True),
    Setting("validation.gt_folder", "text", "their annotations", is_optional=True),
    Setting("validation.max_videos", "whole", "only so many, the first by name", least=1, is_optional=True),
    Setting("validation.prompts", "names", "what held-out videos are prompted with", choices=tuple(PROTOCOLS)),
    Setting("trainer.seed_value", "whole", "what all that is random follows from", least=0),
    Setting("trainer.val_epoch_freq", "whole", "epochs from one validation to the next; 0: none", least=0),
    Setting("trainer.val_steps", "whole", "the same in steps; 0: none", least=0),
    Setting("trainer.val_at_start", "switch", "validate before the first step"),
    Setting("trainer.max_minutes", "number", "of training; schedules follow the clock then", least=0, is_optional=True),
    Setting("trainer.stop_after", "whole", "the step after which the run stops for now", least=0, is_optional=True),
    Setting("trainer.max_skipped", "whole", "steps in a row that may not be finite", least=0),
    Setting(
        "trainer.ema_decay", "number", "of the average of the weights; null: none", least=0, most=1, is_optional=True
    ),
    Setting("trainer.resume_changed", "switch", "go on though settings differ that change the run"),
    Setting("trainer.freeze", "names", "wildcards over parameters that are not trained"),
    Setting("trainer.only", "names", "wildcards over the parameters that are trained; null: all", is_optional=True),
    Setting("trainer.freeze_batch_norm", "switch", "batch norms keep their statistics"),
    Setting("trainer.optim.amp.enabled", "switch", "compute in trainer.optim.amp.amp_dtype"),
    Setting("trainer.optim.amp.amp_dtype", "text", "precision of the computation", choices=("bfloat16", "float32")),
    Setting("trainer.optim.gradient_clip.max_norm", "number", "longest gradient; null: any", least=0, is_optional=True),
    Setting("trainer.checkpoint.save_steps", "whole", "steps after which the last state is saved; 0: never", least=0),
    Setting("trainer.checkpoint.save_freq", "whole", "epochs between the states that are kept; 0: none", least=0),
    Setting("trainer.checkpoint.keep_steps", "whole", "steps between the states that are kept; 0: none", least=0),
    Setting("trainer.checkpoint.keep_last", "whole", "so many of them; null: all", least=1, is_optional=True),
    Setting("trainer.checkpoint.initial", "text", "the weights to start from"),
    Setting("trainer.checkpoint.resume_from", "text", "state of another run to go on from", is_optional=True),
    Setting("trainer.logging.log_freq", "whole", "steps from one line to the next; 0: none", least=0),
    Setting("trainer.logging.image_freq", "whole", "steps from one picture to the next; 0: none", least=0),
    Setting("trainer.logging.tensorboard", "switch", "curves and pictures for TensorBoard"),
    Setting("trainer.logging.loggers", "names", "further services for curves", choices=("wandb", "mlflow")),
    Setting("trainer.optim.lr.rest.schedule", "text", "course of the learning rate", choices=_SCHEDULES),
    Setting("trainer.optim.lr.rest.warm_up", "number", "part of the run in which it rises", least=0, most=1),
    Setting("trainer.optim.lr.trunk.schedule", "text", "the same for the image trunk", choices=_SCHEDULES),
    Setting("trainer.optim.lr.trunk.warm_up", "number", "the same for the image trunk", least=0, most=1),
    Setting("trainer.lora.rank", "whole", "of a low-rank change, with train=lora", least=1),
    Setting("trainer.lora.alpha", "number", "its strength", least=0),
    Setting("trainer.lora.modules", "names", "wildcards over the linear layers that get one"),
    Setting("launcher.gpus_per_node", "whole", "processes on each machine; null: all GPUs", least=1, is_optional=True),
    Setting("launcher.num_nodes", "whole", "machines", least=1),
)


def check_settings(config: DictConfig, settings: Iterable[Setting] = SETTINGS) -> None:
    """ConfigError with a clause for each setting that the config has and that is out of its range."""
    wrong = []
    for setting in settings:
        try:
            value = OmegaConf.select(config, setting.key, throw_on_missing=False, default=_ABSENT)
        except OmegaConfBaseException:
            continue  # what it refers to is missing, which is told elsewhere
        plain = OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
        if plain is not _ABSENT and not setting.fits(plain):
            wrong.append(f"{setting.key}: expected {setting.range}, got {brief(plain)}")
    if wrong:
        raise ConfigError("; ".join(wrong))


_ABSENT = object()
