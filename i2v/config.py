"""Configs by name: find the file, compose it with Hydra, apply overrides, instantiate.

Hydra's global state is neither needed nor changed, so a program with a Hydra app of its own can build models, too.
"""

from __future__ import annotations

import copy
import difflib
import filecmp
import inspect
import logging
import os
import pkgutil
import re
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePath
from typing import Any

import hydra.utils
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from i2v.config_files import ConfigError, compose, hydra_lock
from i2v.config_trust import AllowedTargets, check_config, check_resolved, is_trusted, trust
from i2v.errors import describe_error
from i2v.utils.terminal import printable

__all__ = ["ConfigError", "ConfigLike", "available_configs", "instantiate", "load_config", "packaged_name"]

log = logging.getLogger(__name__)

# A config: its name or path, or a composed config.
ConfigLike = str | os.PathLike[str] | DictConfig

PACKAGE_CONFIGS = Path(__file__).parent / "configs"
FEATURE_STRIDE = 16  # pixels of the model image for one cell of its feature map

# Keys of the published configs that have another place here. Keys below them move along.
_MOVED_KEYS = {
    "model.num_maskmem_global_all": "model.selector.num_maskmem_global_all",
    "model.num_maskmem_global": "model.selector.num_maskmem_global",
    "model.num_maskmem_local_all": "model.selector.num_maskmem_local_all",
    "model.num_maskmem_local": "model.selector.num_maskmem_local",
    "model.max_cond_frames_in_attn": "model.selector.max_cond_frames_in_attn",
    "model.only_obj_ptrs_in_the_past_for_eval": "model.selector.only_obj_ptrs_in_the_past_for_eval",
    "model.max_obj_ptrs_in_encoder": "model.selector.max_obj_ptrs_in_encoder",
    "model.sam_mask_decoder_extra_args": "model.masks",
    "model.binarize_mask_from_pts_for_mem_enc": "model.masks.binarize_mask_from_pts_for_mem_enc",
    "model.non_overlap_masks_for_mem_enc": "predictor.non_overlap_masks_for_mem_enc",
    "model.sigmoid_scale_for_mem_enc": "model.masks.sigmoid_scale_for_mem_enc",
    "model.sigmoid_bias_for_mem_enc": "model.masks.sigmoid_bias_for_mem_enc",
    "model.multimask_output_in_sam": "model.masks.multimask_output_in_sam",
    "model.multimask_min_pt_num": "model.masks.multimask_min_pt_num",
    "model.multimask_max_pt_num": "model.masks.multimask_max_pt_num",
    "model.iou_prediction_use_sigmoid": "model.sam_mask_decoder.iou_prediction_use_sigmoid",
    "model.pred_obj_scores_mlp": "model.sam_mask_decoder.pred_obj_scores_mlp",
    "model.fill_hole_area": "predictor.fill_hole_area",
    "model.non_overlap_masks": "predictor.non_overlap_masks",
    "model.clear_non_cond_mem_around_input": "predictor.clear_non_cond_mem_around_input",
    "model.add_all_frames_to_correct_as_cond": "predictor.add_all_frames_to_correct_as_cond",
}

# Old paths of classes in configs of version 0.1.0, such as the inference.yaml next to a training run's checkpoints.
_MOVED_TARGETS = {
    "i2v.inference_state.PredictorSettings": "i2v.inference.policy.PredictorSettings",
    "i2v.modeling.memory_associator.SimilaritySelector": "i2v.modeling.memory.selectors.SimilaritySelector",
    "i2v.modeling.memory_associator.RecentSelector": "i2v.modeling.memory.selectors.RecentSelector",
    "i2v.modeling.memory_attention.MemoryAttention": "i2v.modeling.memory.memory_attention.MemoryAttention",
    "i2v.modeling.memory_attention.MemoryAttentionLayer": "i2v.modeling.memory.memory_attention.MemoryAttentionLayer",
    "i2v.modeling.memory_encoder.MemoryEncoder": "i2v.modeling.memory.memory_encoder.MemoryEncoder",
    "i2v.modeling.memory_encoder.MaskDownSampler": "i2v.modeling.memory.memory_encoder.MaskDownSampler",
    "i2v.modeling.memory_encoder.Fuser": "i2v.modeling.memory.memory_encoder.Fuser",
    "i2v.modeling.memory_encoder.CXBlock": "i2v.modeling.memory.memory_encoder.CXBlock",
    "i2v.modeling.memory_prompt_generator.MemoryPromptGenerator": (
        "i2v.modeling.memory.memory_prompt_generator.MemoryPromptGenerator"
    ),
    "i2v.modeling.memory_reader.MemoryReader": "i2v.modeling.memory.memory_cross_attention.MemoryCrossAttention",
}

# Published keys without a counterpart here, with the values that this implementation has built in.
_FIXED_KEYS: dict[str, tuple[Any, ...]] = {
    "model.iou_threshold": (0,),
    "model.area_threshold": (100,),
    "model.backbone_stride": (16,),
    "model.use_mask_input_as_output_without_sam": (True,),
    "model.directly_add_no_mem_embed": (True,),
    "model.use_high_res_features_in_sam": (False,),
    "model.multimask_output_for_tracking": (True,),
    "model.use_multimask_token_for_obj_ptr": (True,),
    "model.iou_prediction_use_sigmoid": (True,),
    "model.use_obj_ptrs_in_encoder": (True,),
    "model.max_obj_ptrs_in_encoder": (16,),
    "model.add_tpos_enc_to_obj_ptrs": (True,),
    "model.proj_tpos_enc_in_obj_ptrs": (True,),
    "model.use_signed_tpos_enc_to_obj_ptrs": (True,),
    "model.pred_obj_scores": (True,),
    "model.pred_obj_scores_mlp": (True,),
    "model.fixed_no_obj_ptr": (True,),
    "model.soft_no_obj_ptr": (False,),
    "model.use_mlp_for_obj_ptr_proj": (True,),
    "model.no_obj_embed_spatial": (True,),
    "model.memory_temporal_stride_for_eval": (1,),
    "model.clear_non_cond_mem_for_multi_obj": (False, True),  # every object is tracked by itself
    "model.compile_image_encoder": (False,),
}


def load_config(config: ConfigLike, overrides: Sequence[str] = (), trust_config: bool = False) -> DictConfig:
    """Compose a config and apply overrides.

    A path contains a separator ("./mine.yaml"): a bare name is never a file in the working directory. If there is no
    such file, the published paths ``configs/NAME`` and ``i2v/configs/NAME`` refer to the package's configs. The
    ``defaults`` of a YAML file can name the package's config groups (``model: i2v``) and files below its own folder.

    Untrusted configs are restricted, see ``i2v.config_trust``.

    Args:
        config: Name of a packaged config ("i2v-infer"), path of a YAML file with or without its suffix, or a composed
            config, which is copied.
        overrides: Hydra overrides; later ones win. ``KEY=VALUE`` and ``++KEY=VALUE`` set an existing key or a parameter
            of the constructor that the node names, ``+KEY=VALUE`` can also add a key to a plain mapping, ``~KEY``
            deletes one, and ``GROUP@NODE=NAME`` selects another file. Keys of the published SAM-I2V configs are
            translated.
        trust_config: Whether config and overrides are trusted like code. Any ``_target_`` and resolver is then allowed,
            also in copies of the config.

    Returns:
        The config in struct mode, with unresolved interpolations.

    Raises:
        FileNotFoundError: If there is no such config.
        ConfigError: If a file is malformed, a key is unknown, a value is invalid, or something is only allowed in a
            trusted config (a ``ValueError``).
    """
    # `${grid:SIDE}` in the model's YAML files is the side of the feature map of a square image.
    OmegaConf.register_new_resolver("grid", lambda side: int(side) // FEATURE_STRIDE, replace=True)
    parsed = [_parse(line) for line in overrides]
    if isinstance(config, DictConfig):
        composed, settings = copy.deepcopy(config), parsed
        OmegaConf.set_readonly(composed, False)
    else:
        composed, settings = compose(_find_config(config), PACKAGE_CONFIGS, parsed)
        _rename_targets(composed)
    if trust_config:
        trust(composed)
    allowed = AllowedTargets(PACKAGE_CONFIGS)
    check_config(composed, allowed)  # before overrides, which import and inspect constructors
    for override in settings:
        _apply(composed, override, allowed)
    check_config(composed, allowed)
    OmegaConf.set_struct(composed, True)
    return composed


def instantiate(config: DictConfig, key: str, **arguments: Any) -> Any:
    """Build the object that a node of a config describes.

    Args:
        config: The composed config.
        key: Dotted key of the node.
        **arguments: Constructor arguments that override those of the node.

    Returns:
        The object.

    Raises:
        ConfigError: If there is no such node, it names something only allowed in a trusted config, or building fails
            (a ``ValueError``).
    """
    try:
        node = OmegaConf.select(config, key)
        if node is None:
            raise ConfigError(f"the config has no node {key!r}, only {', '.join(map(str, config))}")
        plain = _nested(key, OmegaConf.to_container(node, resolve=True))
        # Resolve first, so that the values checked here are exactly those that are built.
        check_resolved(plain)
        if not is_trusted(config):
            AllowedTargets(PACKAGE_CONFIGS).check(plain)
        alone = OmegaConf.create(plain, flags={"allow_objects": True})
        return hydra.utils.instantiate(OmegaConf.select(alone, key), _convert_="all", **arguments)
    except (HydraException, OmegaConfBaseException, RecursionError) as error:
        raise ConfigError(_describe_failure(error, key)) from error


def _describe_failure(error: Exception, key: str) -> str:
    """Say what went wrong in `instantiate`, in the words of the part that refused its arguments."""
    cause = error.__cause__
    if not isinstance(cause, OSError | ValueError):  # a misspelt argument, for example, of which Hydra tells more
        return f"cannot build the node {key!r} of the config: {printable(error)}"
    where = re.search(r"^full_key: (\S+)$", str(error), re.MULTILINE)
    return f"cannot build the node {(where[1] if where else key)!r} of the config: {describe_error(cause)}"


def available_configs() -> list[str]:
    """List the names of the package's top-level configs."""
    return sorted(path.stem for path in PACKAGE_CONFIGS.glob("*.yaml"))


def packaged_name(config: str | os.PathLike[str]) -> str | None:
    """Return the name of the packaged config that is meant, or ``None`` if it is a file of the user's.

    Args:
        config: Name or path of a config.

    Raises:
        FileNotFoundError: If there is no such config.
        ConfigError: If the path is ambiguous or not a YAML file (a ``ValueError``).
    """
    path = _find_config(config)
    return path.stem if path.parent == PACKAGE_CONFIGS else None


def _parse(line: str) -> Override:
    try:
        with hydra_lock:
            override = OverridesParser.create().parse_override(line)
    except HydraException as error:
        raise ConfigError(f"cannot read the override {line!r}: {error}") from error
    except RecursionError:
        raise ConfigError(f"cannot read the override {line[:40]!r}...: it is nested too deep") from None
    if override.is_sweep_override():
        raise ConfigError(f"override {line!r}: expected one value, got a sweep over several")
    return override


def _find_config(config: str | os.PathLike[str]) -> Path:
    given = os.path.expanduser(os.fspath(config))
    relative = PurePath(os.path.normpath(given))
    folders = [part for part in relative.parts[:-1] if part != ".."]
    is_path = os.path.basename(given) != given
    ours = not relative.is_absolute() and folders in ([], ["configs"], ["i2v", "configs"])
    own = _first_file(Path.cwd() / given) if is_path else None
    packaged = _first_file(PACKAGE_CONFIGS / relative.name) if ours and (folders or not is_path) else None
    if own and packaged and not filecmp.cmp(own, packaged, shallow=False):
        raise ConfigError(
            f"config {given!r} may mean {own} or {packaged}, which differ: give the whole path of the one, or "
            f"{packaged.stem!r} for the other"
        )
    found = packaged or own
    if found is None:
        raise FileNotFoundError(_not_found(given, is_path))
    if found.suffix != ".yaml":
        raise ConfigError(f"config {given!r}: expected a file that ends in .yaml, got {found}")
    return found


def _first_file(path: Path) -> Path | None:
    """Return the file at a path, or at the path with the suffix .yaml."""
    return next((each.absolute() for each in (path, path.with_name(f"{path.name}.yaml")) if each.is_file()), None)


def _not_found(given: str, is_path: bool) -> str:
    names = f"the package has {', '.join(available_configs()) or 'none'}"
    if is_path:
        return f"config {given!r} not found; tried {Path.cwd() / given} and the same with .yaml; {names}"
    near = _first_file(Path.cwd() / given)
    return f"config {given!r} not found; {names}; a file needs a path: ./{near.name if near else given}"


def _apply(config: DictConfig, override: Override, allowed: AllowedTargets) -> None:
    published = override.key_or_group
    key = _translate(config, published)
    value = override.value()
    if key is None:
        if value not in _FIXED_KEYS[published]:
            raise ConfigError(f"{published} is fixed at {_FIXED_KEYS[published][0]} here, got {value}")
        log.debug("%s makes no difference, nothing to set", published)
        return
    if override.package is not None:
        raise ConfigError(f"override {override.input_line!r}: there is no config group {published!r} to choose from")
    if not (_is_known(config, key) or (override.is_add() and _may_add(config, key))):
        raise ConfigError(f"override {override.input_line!r}: unknown key {published!r}{_near_matches(config, key)}")
    if not is_trusted(config):  # check now: the next override may import and inspect the constructor
        allowed.check(_nested(key, value))
    if override.is_delete():
        _delete(config, key)
    else:
        _set(config, key, value)


def _rename_targets(config: DictConfig) -> None:
    """Update the paths of classes that have moved."""
    plain = OmegaConf.to_container(config, resolve=False)
    for key, target in _targets(plain):
        if target in _MOVED_TARGETS:
            OmegaConf.update(config, key, _MOVED_TARGETS[target])


def _targets(node: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield the dotted key and value of every ``_target_`` in nested dictionaries."""
    if isinstance(node, dict):
        for name, value in node.items():
            if name == "_target_" and isinstance(value, str):
                yield f"{prefix}{name}", value
            else:
                yield from _targets(value, f"{prefix}{name}.")


def _translate(config: DictConfig, key: str) -> str | None:
    """Translate a published key to ours; ``None`` if it has no effect here."""
    moved = _moved(key)
    for name in (key, moved):
        if _is_known(config, name):
            return name
    return None if key in _FIXED_KEYS else moved


def _moved(key: str) -> str:
    for published, ours in _MOVED_KEYS.items():
        if key == published or key.startswith(f"{published}."):
            return ours + key.removeprefix(published)
    return key


def _set(config: DictConfig, key: str, value: Any) -> None:
    current = _node(config, key)
    if isinstance(current, DictConfig) and not isinstance(value, dict | None):
        names = ", ".join(map(str, current))
        raise ConfigError(f"{key} holds the settings {names}: set one of these, got {key}={value}")
    try:
        OmegaConf.update(config, key, value, merge=True, force_add=True)
    except OmegaConfBaseException as error:
        raise ConfigError(f"cannot set {key} to {value}: {error}") from error


def _nested(key: str, value: Any) -> Any:
    for name in reversed(key.split(".")):
        value = {name: value}
    return value


def _delete(config: DictConfig, key: str) -> None:
    parent, _, name = key.rpartition(".")
    node = _node(config, parent)
    with open_dict(node):
        node.pop(name, None)


def _node(config: DictConfig, key: str) -> Any:
    """Return the value at a dotted key, or ``None``. The empty key is the root."""
    try:
        return OmegaConf.select(config, key) if key else config
    except OmegaConfBaseException:
        return None


def _is_known(config: DictConfig, key: str) -> bool:
    parent, _, name = key.rpartition(".")
    node = _node(config, parent)
    if not isinstance(node, DictConfig):
        return _node(config, key) is not None
    # `in node` would be False for a missing value ("???").
    return name in [*node.keys(), *_parameters(node.get("_target_"))]


def _may_add(config: DictConfig, key: str) -> bool:
    node = _node(config, key.rpartition(".")[0])
    return isinstance(node, DictConfig) and "_target_" not in node


def _parameters(target: Any) -> set[str]:
    """Return the keyword parameters of a node's constructor; empty for a node without one."""
    if not isinstance(target, str):
        return set()
    try:
        parameters = inspect.signature(pkgutil.resolve_name(target)).parameters.values()
    except (ImportError, AttributeError, TypeError, ValueError):
        return set()  # a wrong target is reported when the node is built
    return {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}


def _known_keys(node: dict[Any, Any], prefix: str = "") -> Iterator[str]:
    for name in {*node, *_parameters(node.get("_target_"))}:
        if not name.startswith("_"):
            yield f"{prefix}{name}"
        if isinstance(node.get(name), dict):
            yield from _known_keys(node[name], f"{prefix}{name}.")


def _near_matches(config: DictConfig, key: str) -> str:
    """Return a clause that suggests the most similar keys, compared as a whole or by their last part."""
    top = key.partition(".")[0]
    if "." in key and top not in config:
        return f"; this config has no node {top!r}, only {', '.join(map(str, config))}"
    plain = OmegaConf.to_container(config, resolve=False)
    assert isinstance(plain, dict)
    known = list(_known_keys(plain))
    last = key.rpartition(".")[2]
    alike = difflib.get_close_matches(last, {name.rpartition(".")[2] for name in known}, n=3, cutoff=0.7)
    candidates = [name for name in known if name.rpartition(".")[2] in alike]
    near = difflib.get_close_matches(key, candidates or known, n=3, cutoff=0.0 if candidates else 0.6)
    return f"; did you mean {', '.join(near)}?" if near else ""
