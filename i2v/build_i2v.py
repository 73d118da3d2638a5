"""From the name of a config to a model with weights, on its device and ready for use."""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from omegaconf import DictConfig, open_dict

from i2v import host_memory
from i2v.checkpoint import StrPath, load_checkpoint
from i2v.config import ConfigLike, instantiate, load_config
from i2v.i2v_video_predictor import I2VVideoPredictor
from i2v.inference.compiling import compile_model
from i2v.inference.policy import InferencePolicy
from i2v.modeling.fast_path import Backend, set_backend

if TYPE_CHECKING:
    from i2v.modeling.i2v_model import I2VModel

log = logging.getLogger(__name__)

# The published post-processing, which is on by default: the best candidate replaces a single mask that is unstable,
# prompted frames are memorized from the thresholded mask, and small holes are filled.
_NO_POSTPROCESSING = (
    "++model.masks.dynamic_multimask_via_stability=false",
    "++model.masks.binarize_mask_from_pts_for_mem_enc=false",
    "++predictor.fill_hole_area=0",
)
_POLICY_NODES = ("selector", "masks")  # of the config's model: what InferencePolicy has, and not the network

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def build_i2v(
    config: ConfigLike | None = None,
    ckpt_path: StrPath | None = None,
    device: str | torch.device | None = None,
    mode: str = "eval",
    hydra_overrides_extra: Sequence[str] = (),
    apply_postprocessing: bool = True,
    *,
    backend: Backend = "fast",
    config_file: ConfigLike | None = None,
    trust_config: bool = False,
) -> I2VModel:
    """Build the network that a config describes.

    `config`, `hydra_overrides_extra` and `trust_config` are what `i2v.config.load_config` takes; `config_file` is
    the published name of `config`. Without `ckpt_path` the weights are random. `device` is CUDA, else MPS, else
    the CPU unless given. `mode` is "eval" or "train". `backend` is "fast" or "reference", see
    `i2v.modeling.fast_path`: which implementation runs in evaluation mode; they are equal up to round-off.
    `apply_postprocessing` is accepted for SAM 2's sake: post-processing is no part of a network but of a predictor.

    Raises FileNotFoundError for a missing config or checkpoint, ConfigError (a ValueError) for a config that
    cannot be built, CheckpointError (a ValueError) for weights that do not fit and ValueError for an
    unavailable device.
    """
    del apply_postprocessing
    composed = _compose(config, config_file, (), hydra_overrides_extra, trust_config)
    return _build_model(composed, ckpt_path, resolve_device(device), mode, backend)


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
    backend: Backend = "fast",
    keep_freed_memory: bool = True,
    config_file: ConfigLike | None = None,
    trust_config: bool = False,
) -> I2VVideoPredictor:
    """Build a predictor: the model of `build_i2v`, which see for the arguments, and sessions over videos.

    `apply_postprocessing=False` turns the published post-processing of masks off, over the config's values and under
    `hydra_overrides_extra`. `dtype` is what the model computes in: float32, bfloat16 or float16, by default bfloat16 on
    CUDA and float32 elsewhere. `compile` puts the parts of a frame through torch.compile when they are first used,
    which takes a minute or more and needs a compiler (g++ on a CPU, Triton on a GPU); masks then differ by
    round-off. `tf32` lets an NVIDIA GPU round the inputs of its float32 products to 10 bits; elsewhere it
    changes nothing. On a CPU the whole process keeps up to a gigabyte of freed memory, which is faster, unless
    `keep_freed_memory` is False or the environment has I2V_KEEP_FREED_MEMORY=0, see `i2v.host_memory`.
    """
    built_in = () if apply_postprocessing else _NO_POSTPROCESSING
    composed = _compose(config, config_file, built_in, hydra_overrides_extra, trust_config)
    where = resolve_device(device)
    compute_dtype = resolve_dtype(dtype, where)
    policy = build_policy(composed, static_shapes=compile)
    model = _build_model(composed, ckpt_path, where, mode, backend)
    if compile:
        compile_model(model)
    if where.type == "cpu" and keep_freed_memory:
        host_memory.keep_freed_memory()
    return I2VVideoPredictor(model, policy, compute_dtype, tf32)


def build_network(config: DictConfig) -> I2VModel:
    """The network of a composed config, with random weights, on the CPU, in training mode."""
    network = copy.deepcopy(config)
    with open_dict(network.model):
        for name in _POLICY_NODES:
            network.model.pop(name, None)
    model: I2VModel = instantiate(network, "model")
    return model


def build_policy(config: DictConfig, static_shapes: bool = False) -> InferencePolicy:
    """The policy of a composed config: its `model.selector`, `model.masks` and `predictor`."""
    return InferencePolicy(
        selector=instantiate(config, "model.selector"),
        masks=instantiate(config, "model.masks"),
        settings=instantiate(config, "predictor"),
        static_shapes=static_shapes,
    )


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
    if device.type == "cpu" and wanted is not torch.float32 and not _cpu_multiplies(wanted):
        log.warning(
            "dtype=%s: this CPU has no instructions for it, so the model will be many times slower than in float32",
            str(wanted).removeprefix("torch."),
        )
    return wanted


def _cpu_multiplies(dtype: torch.dtype) -> bool:
    """Whether the CPU has instructions for products of a half-precision type."""
    names = {torch.bfloat16: ("avx512_bf16", "amx_bf16", "bf16"), torch.float16: ("avx512_fp16", "amx_fp16", "asimdhp")}
    try:
        words = set(Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").lower().split())
    except OSError:
        return True  # not Linux: nothing is known
    return words.isdisjoint({"flags", "features"}) or not words.isdisjoint(names[dtype])


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


def _build_model(
    config: DictConfig, ckpt_path: StrPath | None, device: torch.device, mode: str, backend: Backend
) -> I2VModel:
    if mode not in ("eval", "train"):
        raise ValueError(f"mode: expected 'eval' or 'train', got {mode!r}")
    model = build_network(config)
    set_backend(model, backend)
    # Weights come first: entering eval mode and moving may keep tables that are made from them.
    if ckpt_path is None:
        log.warning("no checkpoint was given: the weights of the model are random")
    else:
        load_checkpoint(model, ckpt_path)
    return model.train(mode == "train").to(device)
