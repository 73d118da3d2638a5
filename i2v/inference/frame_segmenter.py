"""FrameSegmenter: the network's steps on a frame, with the choices that the network leaves to its caller."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from i2v.modeling.i2v_model import I2VModel
from i2v.modeling.memory.memory_bank import FrameMemory, MemoryBank
from i2v.modeling.memory.readout import MemoryReadout
from i2v.modeling.memory.selectors import Selector
from i2v.modeling.structures import (
    FrameContext,
    FrameFeatures,
    FramePrediction,
    MaskSettings,
    Prompt,
    TrackingStep,
)


class FrameSegmenter:
    """A network with a memory selector and mask settings. Inference and training take the same steps through it.

    It holds no state of a video: memory banks come in and memories go out.
    """

    def __init__(self, model: I2VModel, selector: Selector, masks: MaskSettings, static_shapes: bool = False) -> None:
        """``static_shapes``: lay memories out at full length from the first frame on, for compiled models.

        Raises ValueError if the selector fills more temporal slots than the model has.
        """
        if selector.num_slots > model.num_maskmem:
            raise ValueError(f"num_maskmem: the selector fills {selector.num_slots} slots, got {model.num_maskmem}")
        self.model = model
        self.selector = selector
        self.masks = masks
        self.static_shapes = static_shapes

    def read_memory(
        self,
        step: TrackingStep,
        features: FrameFeatures,
        banks: Sequence[MemoryBank],
        generators: Sequence[torch.Generator | None],
    ) -> list[MemoryReadout]:
        """The memories selected from each bank for a frame. Every bank needs a conditioning frame."""
        embedding = features.frame_embedding if self.selector.compares_frames else None
        selections = self.selector.select(step, banks, embedding, generators)
        return self.model.read(selections, self.selector.num_slots if self.static_shapes else None)

    def condition_on_memory(
        self, step: TrackingStep, features: FrameFeatures, bank: MemoryBank, generator: torch.Generator | None = None
    ) -> FrameContext:
        """Condition a frame on a bank of B objects; a bank without conditioning frames is an object's first frame."""
        if not bank.conditioning:
            return self.model.condition(features, None)
        return self.model.condition(features, self.read_memory(step, features, [bank], [generator])[0])

    def segment(self, context: FrameContext, prompt: Prompt | None = None) -> FramePrediction:
        """Masks of B objects on a frame, from a prompt or, without one, from memory alone."""
        return self.model.segment(context, prompt, self.masks)

    def memorize(
        self, frame: int, features: FrameFeatures, prediction: FramePrediction, from_prompt: bool = False
    ) -> FrameMemory:
        """The memory of B objects on a frame. ``from_prompt``: the masks answer a prompt and may be thresholded."""
        return self.memorize_all(frame, features, [prediction], from_prompt)[0]

    def memorize_all(
        self,
        frame: int,
        features: FrameFeatures,
        predictions: Sequence[FramePrediction],
        from_prompt: bool = False,
    ) -> list[FrameMemory]:
        """The memories of several groups of objects on a frame; what they share is computed once."""
        embedding = features.frame_embedding if self.selector.compares_frames else None
        memories = self.model.memorize(features, predictions, self.masks, from_prompt)
        return [
            FrameMemory(frame, memory.features, memory.foreground, prediction.pointer, embedding)
            for memory, prediction in zip(memories, predictions, strict=True)
        ]
