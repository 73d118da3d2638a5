"""From the name of a config to a model with weights, on its device and ready for use."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from omegaconf import DictConfig

from i2v.checkpoint import StrPath, load_checkpoint
from i2v.config import ConfigLike, instantiate, load_config
from i2v.host_memory import keep_freed_memory
from i2v.i2v_video_predictor import I2VVideoPredictor
from i2v.inference.compiling import compile_model

if TYPE_CHECKING:
    from i2v.modeling.i2v_model import I2VModel

log = logging.getLogger(__name__)

# The published post-processing: fall back to the best candidate where a single mask is unstable, memorize
# prompted frames from the thresholded mask, and fill small holes.
MODEL_POSTPROCESSING = (
    "++model.masks.dynamic_multimask_via_stability=true",
    "++model.masks.dynamic_multimask_stability_delta=0.05",
    "++model.masks.dynamic_multimask_stability_thresh=0.98",
    "++model.masks.binarize_mask_from_pts_for_mem_enc=true",
)
PREDICTOR_POSTPROCESSING = (*MODEL_POSTPROCESSING, "++predictor.fill_hole_area=8")

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def build_i2v(
    config: ConfigLike | None = None,
    ckpt_path: StrPath | None = None,
    device: str | torch.device | None = None,
    mode: str = "eval",
    hydra_overrides_extra: Sequence[str] = (),
    apply_postprocessing: bool = True,
    *,
    config_file: ConfigLike | None = None,
    trust_config: bool = False,
) -> I2VModel:
    """Build the model that a config describes.

    `config`, `hydra_overrides_extra` and `trust_config` are what `i2v.config.load_config` takes; `config_file` is
    the published name of `config`. Without `ckpt_path` the weights are random. `device` is CUDA, else MPS, else
    the CPU unless given. `mode` is "eval" or "train". `apply_postprocessing` sets the published
    post-processing of masks, over the config's values and under `hydra_overrides_extra`.

    Raises FileNotFoundError for a missing config or checkpoint, ConfigError (a ValueError) for a config that
    cannot be built, CheckpointError (a ValueError) for weights that do not fit and ValueError for an
    unavailable device.
    """
    built_in = MODEL_POSTPROCESSING if apply_postprocessing else ()
    composed = _compose(config, config_file, built_in, hydra_overrides_extra, trust_config)
    return _build_model(composed, ckpt_path, resolve_device(device), mode)


def build_i2v_video_predictor(
    config: ConfigLike | None = None,
    ckpt_path: StrPath | None = None,
    device: str | torch.device | None = None,
    mode: str = "eval",
    hydra_overrides_extra: Sequence[str] = (),
    apply_postprocessing: bool = True,
    dtype: torch.dtype | str | None = None,
    *,
    compile: bool = False,
    tf32: bool = False,
    config_file: ConfigLike | None = None,
    trust_config: bool = False,
) -> I2VVideoPredictor:
    """Build a predictor: the model of `build_i2v`, which see for the arguments, and sessions over videos.

    `dtype` is what the model computes in: float32, bfloat16 or float16, by default bfloat16 on CUDA and
    float32 elsewhere. `compile` puts the parts of a frame through torch.compile when they are first used,
    which takes a minute or more and needs a compiler (g++ on a CPU, Triton on a GPU); masks then differ by
    round-off. `tf32` lets an NVIDIA GPU round the inputs of its float32 products to 10 bits; elsewhere it
    changes nothing. The published post-processing includes filling holes of up to 8 low-resolution pixels.
    On a CPU the process keeps up to a gigabyte of freed memory, see `i2v.host_memory`.
    """
    built_in = PREDICTOR_POSTPROCESSING if apply_postprocessing else ()
    composed = _compose(config, config_file, built_in, hydra_overrides_extra, trust_config)
    where = resolve_device(device)
    compute_dtype = resolve_dtype(dtype, where)
    settings = instantiate(composed, "predictor")
    model = _build_model(composed, ckpt_path, where, mode)
    if compile:
        compile_model(model)
    if where.type == "cpu":
        keep_freed_memory()
    return I2VVideoPredictor(model, settings, compute_dtype, tf32)


def resolve_device(device: str | torch.device | None = None) -> torch.device:
    """The device asked for, or the best one of this machine; ValueError if PyTorch cannot use it here."""
    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if device is None:
        return torch.device("cuda" if cuda else "mps" if mps else "cpu")
    try:
        wanted = torch.device(device)
    except RuntimeError as error:
        raise ValueError(f"device {device!r}: {str(error).splitlines()[0]}") from error
    count = {"cuda": torch.cuda.device_count() if cuda else 0, "mps": int(mps)}.get(wanted.type)
    if count is not None and (wanted.index or 0) >= count:
        raise ValueError(f"device {str(device)!r}: PyTorch finds {count} {wanted.type} devices on this machine")
    return wanted


def resolve_dtype(dtype: torch.dtype | str | None, device: torch.device) -> torch.dtype:
    """The dtype asked for, itself or by name, or a device's default: bfloat16 on CUDA, else float32."""
    if dtype is None:
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    wanted = _DTYPES.get(dtype) if isinstance(dtype, str) else dtype
    if wanted is None or wanted not in _DTYPES.values():
        raise ValueError(f"dtype: expected {', '.join(_DTYPES)}, got {dtype!r}")
    return wanted


def _compose(
    config: ConfigLike | None,
    config_file: ConfigLike | None,
    built_in: Sequence[str],
    extra: Sequence[str],
    trust_config: bool,
) -> DictConfig:
    given = config_file if config is None else config
    if given is None or (config is not None and config_file is not None):
        raise TypeError("expected one config, as `config` or by its published name `config_file`")
    if isinstance(extra, str):
        raise TypeError(f"hydra_overrides_extra: expected a list of strings, got the string {extra!r}")
    return load_config(given, [*built_in, *extra], trust_config)


def _build_model(config: DictConfig, ckpt_path: StrPath | None, device: torch.device, mode: str) -> I2VModel:
    if mode not in ("eval", "train"):
        raise ValueError(f"mode: expected 'eval' or 'train', got {mode!r}")
    model: I2VModel = instantiate(config, "model")
    # Weights come first: entering eval mode and moving may keep tables that are made from them.
    if ckpt_path is None:
        log.warning("no checkpoint was given: the weights of the model are random")
    else:
        load_checkpoint(model, ckpt_path)
    return model.train(mode == "train").to(device)
