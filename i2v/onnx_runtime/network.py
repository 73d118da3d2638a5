"""The parts of an exported model, run by ONNX Runtime."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from i2v.errors import InvalidFileError, reading
from i2v.export.description import PART_NAMES, PartFile, read_description
from i2v.onnx_runtime.mask_arrays import Bools, Floats


@dataclass(frozen=True, eq=False)
class FrameFeatures:
    """Features of a frame.

    Attributes:
        vision: ``(1, C, h, w)``.
        embedding: Unit vector ``(C*h*w,)``; the dot product of two is the similarity of the frames.
        high_res: Maps at strides 4 and 8 for the mask decoder, or none.
    """

    vision: Floats
    embedding: Floats
    high_res: tuple[Floats, ...]


@dataclass(frozen=True, eq=False)
class Readout:
    """Memories and pointers of ``B`` objects, ``L`` of each; see ``i2v.export.parts.MemoryAttentionPart``."""

    memories: Floats
    foreground: Bools
    slots: NDArray[np.int64]
    memory_counts: Floats
    pointers: Floats
    distances: Floats
    pointer_counts: Floats


@dataclass(frozen=True, eq=False)
class DecoderPrompts:
    """Prompts of ``B`` objects on a frame; see ``i2v.export.parts.MaskDecoderPart``."""

    points: Floats
    labels: NDArray[np.int64]
    prior: Floats
    has_prior: Bools
    multimask: Bools


@dataclass(frozen=True, eq=False)
class Predictions:
    """Masks of ``B`` objects on a frame.

    Attributes:
        low_res: Logits ``(B, 1, 4h, 4w)``.
        iou: Predicted IoU ``(B, 1)``.
        pointer: Object pointers ``(B, C)``.
        object_score: ``(B, 1)`` logit, positive where the object is in view.
    """

    low_res: Floats
    iou: Floats
    pointer: Floats
    object_score: Floats


class OnnxNetwork:
    """An exported model. It keeps nothing of a video, and several threads may share it.

    Attributes:
        description: What the export says of itself.
    """

    def __init__(self, folder: str | os.PathLike[str], threads: int | None = None) -> None:
        """Load all parts.

        Args:
            folder: The folder that ``i2v export --to onnx`` made.
            threads: Threads of a part, by default one for each CPU that the process may use.

        Raises:
            FileNotFoundError: If the folder or a part does not exist.
            InvalidFileError: If the description or a part is damaged, or they do not fit each other.
            ValueError: If the export is not for ONNX, or ``threads`` is below 1.
        """
        if threads is not None and threads < 1:
            raise ValueError(f"threads: expected at least 1, got {threads}")
        path = Path(folder)
        self.description = read_description(path)
        if self.description.target != "onnx":
            raise ValueError(f"{path}: expected a model for onnx, got one for {self.description.target}")
        self._threads = threads or _usable_cpus()
        self._parts = {name: self._load(path, self.description.parts[name]) for name in PART_NAMES}
        self._check(path)

    def stem(self, pixels: NDArray[np.uint8]) -> Floats:
        """Stem features ``(1, K, D, h, w)`` of a frame ``(1, 3, S, S)`` RGB."""
        (stem,) = self._run("stem", pixels=pixels)
        return stem

    def encode(self, pixels: NDArray[np.uint8], window: Sequence[Floats]) -> FrameFeatures:
        """Encode a frame ``(1, 3, S, S)`` RGB, given the stem features of its window, oldest first."""
        vision, embedding, *high_res = self._run("image_encoder", pixels=pixels, window=np.concatenate(window))
        return FrameFeatures(vision, embedding, tuple(high_res))

    def attend(self, features: FrameFeatures, readout: Readout) -> tuple[Floats, Floats]:
        """Condition a frame on memories of ``B`` objects: features ``(B, C, h, w)``, prompt tokens ``(B, Q, C)``."""
        conditioned, prompts = self._run("memory_attention", vision=features.vision, **vars(readout))
        return conditioned, prompts

    def decode(
        self, image: Floats, memory_prompts: Floats, prompts: DecoderPrompts, high_res: Sequence[Floats]
    ) -> Predictions:
        """Segment ``B`` objects, given features ``(B, C, h, w)``, memory prompts ``(B, Q, C)`` and high-res maps."""
        maps = dict(zip(("high_res_4", "high_res_8"), high_res, strict=False))
        found = self._run("mask_decoder", image=image, memory_prompts=memory_prompts, **vars(prompts), **maps)
        return Predictions(*found)

    def memorize(
        self, features: FrameFeatures, predictions: Predictions, masks: Floats, from_prompt: Bools
    ) -> tuple[Floats, Bools]:
        """Encode the memories of ``B`` objects: ``(B, M, h, w)``, and their foreground ``(B, h, w)``.

        Args:
            features: Features of the frame.
            predictions: Their masks, with small holes filled.
            masks: The masks ``(B, 1, 4h, 4w)`` to be encoded.
            from_prompt: ``(B,)``, whether they come from prompts.
        """
        memory, foreground = self._run(
            "memory_encoder",
            vision=features.vision,
            masks=masks,
            filled=predictions.low_res,
            object_score=predictions.object_score,
            from_prompt=from_prompt,
        )
        return memory, foreground.astype(np.bool_)

    def _run(self, part: str, **inputs: Any) -> list[Any]:
        return list(self._parts[part].run(None, inputs))

    def _load(self, folder: Path, part: PartFile) -> Any:
        path = folder / part.file
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            raise FileNotFoundError(f"{path}: this part of the exported model is missing: export it again") from None
        if hashlib.sha256(data).hexdigest() != part.sha256:
            raise InvalidFileError(path, "this part is damaged, or of another export: export the model again")
        try:
            import onnxruntime
        except ModuleNotFoundError as error:
            if error.name != "onnxruntime":
                raise
            raise RuntimeError("exported models run with onnxruntime: pip install 'i2v[onnx]'") from error
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self._threads
        options.log_severity_level = 3  # errors only
        with reading(path, "this part of a model"):
            return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])

    def _check(self, folder: Path) -> None:
        """Check that the parts have the sizes of the description, before anything of these sizes is allocated."""
        sizes = self.description.sizes
        pixels = [1, 3, sizes.image_size, sizes.image_size]
        features = [sizes.channels, sizes.grid, sizes.grid]
        expected = {
            ("stem", "pixels"): pixels,
            ("image_encoder", "pixels"): pixels,
            ("memory_attention", "memories"): [sizes.memory_channels, *features[1:]],
            ("mask_decoder", "image"): features,
            ("mask_decoder", "memory_prompts"): [sizes.num_queries, sizes.channels],
            ("memory_encoder", "vision"): features,
        }
        for (part, name), shape in expected.items():
            inputs = {found.name: found.shape for found in self._parts[part].get_inputs()}
            if inputs.get(name, [])[-len(shape) :] != shape:
                path = folder / self.description.parts[part].file
                raise InvalidFileError(path, f"{name}: expected sizes {shape}, got {inputs.get(name)}")
        num_maps = sum(i.name.startswith("high_res") for i in self._parts["mask_decoder"].get_inputs())
        if num_maps != sizes.num_high_res:
            path = folder / self.description.parts["mask_decoder"].file
            raise InvalidFileError(path, f"expected {sizes.num_high_res} maps of the image encoder, got {num_maps}")


def _usable_cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
