"""Exporting a predictor's model: its parts as files, and their description, in a folder of their own."""

from __future__ import annotations

import copy
import json
import logging
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch.export import Dim, ExportedProgram

from i2v.export.description import (
    FILE_NAME,
    PART_NAMES,
    TARGETS,
    WEIGHT_TYPES,
    Constants,
    ModelDescription,
    PartFile,
    PromptRules,
    SelectionRules,
    Sizes,
)
from i2v.export.parts import PartSpec, split_model
from i2v.export.weight_storage import store_weights
from i2v.i2v_video_predictor import I2VVideoPredictor
from i2v.inference.policy import InferencePolicy
from i2v.modeling.fast_path import set_backend
from i2v.modeling.i2v_model import I2VModel
from i2v.modeling.memory.selectors import SimilaritySelector
from i2v.utils.files import sha256_of
from i2v.utils.output_folder import new_folder

MADE_FILES = rf"{re.escape(FILE_NAME)}|({'|'.join(PART_NAMES)})\.(onnx|pt2)"
"""Regular expression of the names of the files of an export."""

# Settings that need what only the sessions of PyTorch have; each with the only value that is exported.
_ONLY = {
    "non_overlap_masks_for_mem_enc": False,
    "clear_non_cond_mem_around_input": False,
}


def export_model(
    predictor: I2VVideoPredictor,
    folder: Path,
    name: str,
    target: str = "onnx",
    weight_type: str = "float32",
    overwrite: bool = False,
    progress: Callable[[str], None] = lambda part: None,
) -> ModelDescription:
    """Export a predictor's model.

    Args:
        predictor: The predictor, on a CPU. It does not change.
        folder: The folder to make.
        name: What the model is called in the description.
        target: ``"onnx"``, or ``"torch.export"`` for programs that ``torch.export.load`` reads.
        weight_type: Type in which large weights are stored, one of ``WEIGHT_TYPES``. All parts compute in float32.
        overwrite: Whether to replace an earlier export.
        progress: Called with the name of each part before it is exported.

    Returns:
        The description of the export.

    Raises:
        ValueError: If the target, the type or a setting of the predictor cannot be exported.
        FileExistsError: If the folder exists and may not be replaced, or has files in it that are of no export.
        RuntimeError: If a package is missing that the target needs.
        OSError: If a file cannot be written.
    """
    check_exportable(predictor, target, weight_type)
    with new_folder(folder.parent, folder.name, MADE_FILES, overwrite) as hidden:
        return write_parts(predictor, hidden, name, target, weight_type, progress)


def check_exportable(predictor: I2VVideoPredictor, target: str, weight_type: str) -> None:
    """Check that a predictor's model can be exported, and that the packages for it are there.

    Args:
        predictor: The predictor, on a CPU.
        target: ``"onnx"`` or ``"torch.export"``.
        weight_type: Type in which large weights are stored.

    Raises:
        ValueError: If the target, the type or a setting of the predictor cannot be exported.
        RuntimeError: If a package is missing that the target needs.
    """
    if target not in TARGETS:
        raise ValueError(f"target: expected one of {', '.join(TARGETS)}, got {target!r}")
    if weight_type not in WEIGHT_TYPES:
        raise ValueError(f"dtype: expected one of {', '.join(WEIGHT_TYPES)}, got {weight_type!r}")
    _selector_of(predictor.policy)
    if predictor.device.type != "cpu":
        raise ValueError(f"expected a predictor on the CPU, from where a model is exported, got {predictor.device}")
    if target == "onnx":
        _check_packages()


def write_parts(
    predictor: I2VVideoPredictor,
    folder: Path,
    name: str,
    target: str,
    weight_type: str,
    progress: Callable[[str], None],
) -> ModelDescription:
    """Write the parts of a model, which was checked, and their description into a folder that exists.

    Args:
        predictor: The predictor. It does not change.
        folder: The folder.
        name: What the model is called in the description.
        target: ``"onnx"`` or ``"torch.export"``.
        weight_type: Type in which large weights are stored.
        progress: Called with the name of each part before it is exported.

    Returns:
        The description of the export.

    Raises:
        OSError: If a file cannot be written.
    """
    save = {"onnx": _save_onnx, "torch.export": _save_program}[target]
    selector, model = _selector_of(predictor.policy), _reference(predictor.model)
    with torch.no_grad(), _quietly():
        parts = {}
        for spec in split_model(model, predictor.policy.masks):
            progress(spec.name)
            store_weights(spec.module, weight_type)
            path = folder / f"{spec.name}{TARGETS[target]}"
            save(spec, path)
            parts[spec.name] = PartFile(path.name, sha256_of(path))
        description = ModelDescription(
            name=name,
            target=target,
            weights=weight_type,
            sizes=_sizes(predictor.model, selector),
            selection=_selection(selector, predictor.settings.seed),
            prompts=_prompts(predictor.policy),
            constants=_constants(predictor.model),
            parts=parts,
        )
        (folder / FILE_NAME).write_text(json.dumps(description.to_json(), indent=1, allow_nan=False) + "\n")
    return description


def _selector_of(policy: InferencePolicy) -> SimilaritySelector:
    if not isinstance(policy.selector, SimilaritySelector):
        raise ValueError(
            f"model.selector: expected a SimilaritySelector, which exported models run with, got "
            f"{type(policy.selector).__name__}"
        )
    for name, value in _ONLY.items():
        if getattr(policy.settings, name) != value:
            raise ValueError(f"predictor.{name}: expected {value}, as exported models do without, got {not value}")
    return policy.selector


def _check_packages() -> None:
    for name in ("onnx", "onnxscript"):
        try:
            __import__(name)
        except ModuleNotFoundError as error:
            if error.name != name:
                raise
            raise RuntimeError(f"export to ONNX needs {name}: pip install 'i2v[onnx]'") from error


def _reference(model: I2VModel) -> I2VModel:
    """A copy in float32 without fast paths, which look at weights and would be exported as what they saw."""
    other = copy.deepcopy(model).float().eval()
    set_backend(other, "reference")
    return other


@contextmanager
def _quietly() -> Iterator[None]:
    """Without the warnings of exporters, which are about their own affairs."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "torch.export")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            for logger in loggers:
                logger.setLevel(logging.ERROR)
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


def _program(spec: PartSpec) -> ExportedProgram:
    axes = {name: Dim(name, min=1) for named in spec.dynamic.values() for name in named.values()}
    shapes = tuple({axis: axes[n] for axis, n in spec.dynamic.get(name, {}).items()} for name in spec.inputs)
    return torch.export.export(spec.module, tuple(spec.inputs.values()), dynamic_shapes=shapes)


def _save_program(spec: PartSpec, path: Path) -> None:
    torch.export.save(_program(spec), path)


def _save_onnx(spec: PartSpec, path: Path) -> None:
    inputs, outputs = list(spec.inputs), list(spec.outputs)
    program = torch.onnx.export(_program(spec), input_names=inputs, output_names=outputs, verbose=False, dynamo=True)
    assert program is not None
    program.save(path, external_data=False)


def _sizes(model: I2VModel, selector: SimilaritySelector) -> Sizes:
    return Sizes(
        image_size=model.image_size,
        grid=model.image_size // 16,
        channels=model.no_mem_embed.shape[-1],
        memory_channels=model.no_obj_embed_spatial.shape[-1],
        window_length=model.window_length,
        memory_length=selector.num_slots,
        num_queries=model.memory_prompt_generator.query_embedding_fg.num_embeddings,
        num_high_res=len(model.sam_mask_decoder.high_res_projections),
    )


def _selection(selector: SimilaritySelector, seed: int) -> SelectionRules:
    return SelectionRules(
        global_window=selector.global_window,
        num_global=selector.num_global,
        local_window=selector.local_window,
        num_local=selector.num_local,
        max_conditioning=selector.max_conditioning,
        only_past_pointers=selector.only_past_pointers,
        mode=selector.mode,
        seed=seed & 0xFFFFFFFF,
    )


def _prompts(policy: InferencePolicy) -> PromptRules:
    return PromptRules(
        multimask=policy.masks.multimask_output_in_sam,
        multimask_min_points=policy.masks.multimask_min_pt_num,
        multimask_max_points=policy.masks.multimask_max_pt_num,
        fill_hole_area=policy.settings.fill_hole_area,
        non_overlap=policy.settings.non_overlap_masks,
        refine=policy.settings.refine_prompts,
    )


def _constants(model: I2VModel) -> Constants:
    def numbers(parameter: torch.Tensor | None) -> tuple[float, ...]:
        assert parameter is not None
        return tuple(parameter.detach().float().flatten().tolist())

    return Constants(
        no_memory=numbers(model.no_mem_embed),
        no_memory_prompt=numbers(model.memory_prompt_generator.no_memory_prompt_embeddings_fg.weight),
        no_object_pointer=numbers(model.no_obj_ptr),
        mask_kernel=numbers(model.mask_downsample.weight),
        mask_bias=numbers(model.mask_downsample.bias)[0],
    )
