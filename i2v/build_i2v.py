"""Build models and predictors from a config, with weights, on a device and ready for use."""

from __future__ import annotations

import copy
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from omegaconf import DictConfig, open_dict

from i2v import host_memory
from i2v.checkpoint import StrPath, load_checkpoint
from i2v.config import ConfigLike, instantiate, load_config
from i2v.hub import HubOptions
from i2v.i2v_image_predictor import I2VImagePredictor
from i2v.i2v_video_predictor import I2VVideoPredictor
from i2v.inference.compiling import compile_model
from i2v.inference.policy import InferencePolicy
from i2v.inference.precision import default_dtype, fresh_defaults, parse_dtype
from i2v.modeling.fast_path import Backend, set_backend
from i2v.pretrained import ModelChoice, ModelRequest, find_pretrained

if TYPE_CHECKING:
    from i2v.modeling.i2v_model import I2VModel

log = logging.getLogger(__name__)

# Overrides that turn off the published post-processing: replacing unstable single masks by the best multimask output,
# thresholding prompted masks before the memory encoder, filling small holes.
_NO_POSTPROCESSING = (
    "++model.masks.dynamic_multimask_via_stability=false",
    "++model.masks.binarize_mask_from_pts_for_mem_enc=false",
    "++predictor.fill_hole_area=0",
)
_POLICY_NODES = ("selector", "masks")  # nodes of the config's model that belong to InferencePolicy, not the network


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

    Args:
        config: Name or path of a config, or a composed one; see ``i2v.config.load_config``.
        ckpt_path: Checkpoint with the weights. Without one the weights are random, which is logged as a warning: a
            network alone tracks nothing.
        device: Device of the model; by default CUDA, else MPS, else the CPU.
        mode: ``"eval"`` or ``"train"``.
        hydra_overrides_extra: Hydra overrides, such as ``"model.image_size=512"``.
        apply_postprocessing: Accepted for SAM 2's sake; post-processing belongs to a predictor, not to a network.
        backend: Implementation in eval mode, ``"fast"`` or ``"reference"``; see ``i2v.modeling.fast_path``. The two are
            equal up to round-off.
        config_file: The published name of ``config``.
        trust_config: Whether config and overrides are trusted like code, so that any ``_target_`` is instantiated.

    Raises:
        TypeError: If there is not exactly one config, or the overrides are a string.
        FileNotFoundError: If the config or the checkpoint does not exist.
        ConfigError: If the config cannot be built (a ``ValueError``).
        CheckpointError: If the weights do not fit (a ``ValueError``).
        ValueError: If the device is not available, or ``mode`` or ``backend`` is unknown.
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
    vos_optimized: bool = False,
    tf32: bool = False,
    backend: Backend = "fast",
    keep_freed_memory: bool = True,
    config_file: ConfigLike | None = None,
    trust_config: bool = False,
    random_weights: bool = False,
) -> I2VVideoPredictor:
    """Build a predictor for sessions over videos.

    Args:
        config: See ``build_i2v``. Without config and checkpoint it is i2v-nano, the small model that comes with i2v;
            a checkpoint alone says which config it is for.
        ckpt_path: Checkpoint with the weights. The config of i2v-nano has its own where none is given.
        device: See ``build_i2v``.
        mode: See ``build_i2v``.
        hydra_overrides_extra: Hydra overrides; they win over ``apply_postprocessing``.
        apply_postprocessing: Whether to use the published post-processing of masks. ``False`` overrides the config.
        dtype: Precision of the computation: float32, bfloat16 or float16, by default bfloat16 on CUDA and float32
            elsewhere.
        compile: Whether to compile the model with ``torch.compile`` when it is first used. That takes a minute or more
            and needs a compiler (g++ on a CPU, Triton on a GPU). Masks differ by round-off.
        vos_optimized: SAM 2's name of ``compile``; either turns it on.
        tf32: Whether an NVIDIA GPU may use TF32 for products in float32. No effect elsewhere.
        backend: See ``build_i2v``.
        keep_freed_memory: Whether, on a CPU, the whole process keeps up to a gigabyte of freed memory, which is faster.
            The environment variable ``I2V_KEEP_FREED_MEMORY=0`` turns it off, too; see ``i2v.host_memory``.
        config_file: See ``build_i2v``.
        trust_config: See ``build_i2v``.
        random_weights: Whether the weights are to be random: for tests, measurements, and weights loaded later.

    Raises:
        ValueError: If ``dtype`` is unknown, or there are no weights, and they are not to be random; other errors are
            those of ``build_i2v``.
    """
    is_compiled = compile or vos_optimized
    parts = _build_parts(
        ModelRequest(config, config_file, ckpt_path, random_weights),
        device,
        () if apply_postprocessing else _NO_POSTPROCESSING,
        hydra_overrides_extra,
        dtype,
        mode,
        backend,
        trust_config,
        static_shapes=is_compiled,
    )
    predictor = I2VVideoPredictor(parts.model, parts.policy, parts.dtype, tf32)
    predictor.config = parts.config
    if is_compiled:
        compile_model(parts.model)
    if parts.model.device.type == "cpu" and keep_freed_memory:
        host_memory.keep_freed_memory()
    return predictor


def build_i2v_image_predictor(
    config: ConfigLike | None = None,
    ckpt_path: StrPath | None = None,
    device: str | torch.device | None = None,
    mode: str = "eval",
    hydra_overrides_extra: Sequence[str] = (),
    apply_postprocessing: bool = True,
    dtype: torch.dtype | str | None = None,
    *,
    backend: Backend = "fast",
    config_file: ConfigLike | None = None,
    trust_config: bool = False,
    random_weights: bool = False,
    **options: float,
) -> I2VImagePredictor:
    """Build a predictor for single images, whose masks are those of a video predictor on a first frame.

    Args:
        config: See ``build_i2v_video_predictor``.
        ckpt_path: See ``build_i2v_video_predictor``.
        device: See ``build_i2v``.
        mode: See ``build_i2v``.
        hydra_overrides_extra: Hydra overrides.
        apply_postprocessing: See ``build_i2v_video_predictor``.
        dtype: See ``build_i2v_video_predictor``.
        backend: See ``build_i2v``.
        config_file: See ``build_i2v``.
        trust_config: See ``build_i2v``.
        random_weights: See ``build_i2v_video_predictor``.
        **options: ``mask_threshold``, ``max_hole_area`` and ``max_sprinkle_area`` of ``I2VImagePredictor``.

    Raises:
        ValueError: See ``build_i2v_video_predictor``.
        TypeError: If there is no such option.
    """
    if unknown := sorted(set(options) - {"mask_threshold", "max_hole_area", "max_sprinkle_area"}):
        raise TypeError(
            f"expected the options mask_threshold, max_hole_area and max_sprinkle_area, got {', '.join(unknown)}"
        )
    parts = _build_parts(
        ModelRequest(config, config_file, ckpt_path, random_weights),
        device,
        () if apply_postprocessing else _NO_POSTPROCESSING,
        hydra_overrides_extra,
        dtype,
        mode,
        backend,
        trust_config,
    )
    predictor = I2VImagePredictor(
        parts.model,
        dtype=parts.dtype,
        mask_settings=parts.policy.masks,
        refine_prompts=parts.policy.settings.refine_prompts,
        **{"max_hole_area": parts.policy.settings.fill_hole_area, **options},
    )
    predictor.config = parts.config
    return predictor


def build_i2v_hf(model_id: StrPath, **options: Any) -> I2VModel:
    """Build the network of a model by its name, as ``i2v.pretrained.find_pretrained`` finds it.

    Args:
        model_id: The model.
        **options: Arguments of ``build_i2v``, and of ``i2v.hub.HubOptions``.
    """
    choice, rest = _find(model_id, options)
    return build_i2v(choice.config, choice.checkpoint, **rest)


def build_i2v_video_predictor_hf(model_id: StrPath, **options: Any) -> I2VVideoPredictor:
    """Like ``build_i2v_hf``, for ``build_i2v_video_predictor``."""
    choice, rest = _find(model_id, options)
    return build_i2v_video_predictor(choice.config, choice.checkpoint, **rest)


def build_i2v_image_predictor_hf(model_id: StrPath, **options: Any) -> I2VImagePredictor:
    """Like ``build_i2v_hf``, for ``build_i2v_image_predictor``."""
    choice, rest = _find(model_id, options)
    return build_i2v_image_predictor(choice.config, choice.checkpoint, **rest)


def _find(model_id: StrPath, options: dict[str, Any]) -> tuple[ModelChoice, dict[str, Any]]:
    """Find a model by its name, and return the options that are not about finding it."""
    for name in ("config", "config_file", "ckpt_path", "random_weights"):
        if name in options:
            raise TypeError(f"{name}: {os.fspath(model_id)} has a config and weights of its own: expected no others")
    about_hub = {field.name for field in fields(HubOptions)} & set(options)
    hub = HubOptions(**{name: options[name] for name in about_hub})
    rest = {name: value for name, value in options.items() if name not in about_hub}
    return find_pretrained(model_id, hub), rest


def build_network(config: DictConfig) -> I2VModel:
    """Build the network of a composed config, with random weights, on the CPU, in training mode.

    Raises:
        ConfigError: If it cannot be built (a ``ValueError``).
    """
    network = copy.deepcopy(config)
    with open_dict(network.model):
        for name in _POLICY_NODES:
            network.model.pop(name, None)
    model: I2VModel = instantiate(network, "model")
    return model


def build_policy(config: DictConfig, static_shapes: bool = False) -> InferencePolicy:
    """Build the policy of a composed config from its ``model.selector``, ``model.masks`` and ``predictor``.

    Args:
        config: The composed config.
        static_shapes: Whether memories are padded to full length from the first frame on, for compiled models.

    Raises:
        ConfigError: If it cannot be built (a ``ValueError``).
    """
    return InferencePolicy(
        selector=instantiate(config, "model.selector"),
        masks=instantiate(config, "model.masks"),
        settings=instantiate(config, "predictor"),
        static_shapes=static_shapes,
    )


def resolve_device(device: str | torch.device | None = None) -> torch.device:
    """Return the requested device, or by default CUDA, else MPS, else the CPU.

    Raises:
        ValueError: If PyTorch cannot use the device on this machine.
    """
    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if device is None:
        return torch.device("cuda" if cuda else "mps" if mps else "cpu")
    try:
        requested = torch.device(device)
    except RuntimeError as error:
        raise ValueError(f"device {device!r}: {str(error).splitlines()[0]}") from error
    count = {"cuda": torch.cuda.device_count() if cuda else 0, "mps": int(mps)}.get(requested.type)
    if count is not None and (requested.index or 0) >= count:
        raise ValueError(f"device {str(device)!r}: PyTorch finds {count} {requested.type} devices on this machine")
    return requested


def resolve_dtype(dtype: torch.dtype | str | None, device: torch.device) -> torch.dtype:
    """Return the requested dtype, given as such or by name, or by default bfloat16 on CUDA and float32 elsewhere.

    Raises:
        ValueError: If it is not float32, bfloat16 or float16.
    """
    if dtype is None:
        return default_dtype(device)
    requested = parse_dtype(dtype)
    if device.type == "cpu" and requested is not torch.float32 and not _cpu_multiplies(requested):
        log.warning(
            "dtype=%s: this CPU has no instructions for it, so the model will be many times slower than in float32",
            str(requested).removeprefix("torch."),
        )
    return requested


def _cpu_multiplies(dtype: torch.dtype) -> bool:
    """Whether the CPU has instructions for products of a half-precision type."""
    names = {torch.bfloat16: ("avx512_bf16", "amx_bf16", "bf16"), torch.float16: ("avx512_fp16", "amx_fp16", "asimdhp")}
    try:
        words = set(Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").lower().split())
    except OSError:
        return True  # not Linux: nothing is known
    return words.isdisjoint({"flags", "features"}) or not words.isdisjoint(names[dtype])


@dataclass(frozen=True, eq=False)
class _Parts:
    """What a predictor is made of."""

    model: I2VModel
    policy: InferencePolicy
    config: DictConfig
    dtype: torch.dtype


def _build_parts(
    request: ModelRequest,
    device: str | torch.device | None,
    preset: Sequence[str],
    extra: Sequence[str],
    dtype: torch.dtype | str | None,
    mode: str,
    backend: Backend,
    trust_config: bool,
    static_shapes: bool = False,
) -> _Parts:
    request = request.completed()
    composed = _compose(request.config, request.config_file, preset, extra, trust_config)
    target = resolve_device(device)
    compute_dtype = resolve_dtype(dtype, target)
    policy = build_policy(composed, static_shapes)
    request.check_weights()
    model = _build_model(composed, request.ckpt_path, target, mode, backend)
    return _Parts(model, policy, composed, compute_dtype)


def _compose(
    config: ConfigLike | None,
    config_file: ConfigLike | None,
    preset: Sequence[str],
    extra: Sequence[str],
    trust_config: bool,
) -> DictConfig:
    given = config_file if config is None else config
    if given is None or (config is not None and config_file is not None):
        raise TypeError("expected one config, as `config` or by its published name `config_file`")
    if isinstance(extra, str):
        raise TypeError(f"hydra_overrides_extra: expected a list of strings, got the string {extra!r}")
    return load_config(given, [*preset, *extra], trust_config)


def _build_model(
    config: DictConfig, ckpt_path: StrPath | None, device: torch.device, mode: str, backend: Backend
) -> I2VModel:
    if mode not in ("eval", "train"):
        raise ValueError(f"mode: expected 'eval' or 'train', got {mode!r}")
    with fresh_defaults():
        model = build_network(config)
        set_backend(model, backend)
        # Load weights first: modules may derive tables from them when they enter eval mode or move.
        if ckpt_path is None:
            log.warning("no checkpoint was given: the weights of the model are random")
        else:
            load_checkpoint(model, ckpt_path)
        return model.train(mode == "train").to(device)
