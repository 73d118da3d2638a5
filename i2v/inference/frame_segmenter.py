"""FrameSegmenter: the network's steps on a frame, with the choices that the network leaves to its caller."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

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
    """A network with a memory selector and mask settings, shared by inference and training.

    It keeps nothing between frames: memory banks are arguments, memories are results.
    """

    def __init__(self, model: I2VModel, selector: Selector, masks: MaskSettings, static_shapes: bool = False) -> None:
        """Combine a network with its settings.

        Args:
            model: The network.
            selector: Chooses the memories that a frame attends to.
            masks: How masks are chosen and encoded as memory.
            static_shapes: Whether to pad memories to full length from the first frame on, for compiled models.

        Raises:
            ValueError: If the selector fills more temporal slots than the model has.
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
        """Select memories from each bank and lay them out as tokens.

        Args:
            step: The frame to segment.
            features: Its features.
            banks: Memory banks, each with at least one conditioning frame.
            generators: One random generator per bank; ``None`` uses PyTorch's default one.

        Returns:
            One readout per bank.
        """
        selections = self.selector.select(step, banks, self._embedding(features), generators)
        return self.model.read(selections, self.selector.num_slots if self.static_shapes else None)

    def condition_on_memory(
        self, step: TrackingStep, features: FrameFeatures, bank: MemoryBank, generator: torch.Generator | None = None
    ) -> FrameContext:
        """Condition a frame on the bank of ``B`` objects, or on no memory if it has no conditioning frame yet."""
        if not bank.conditioning:
            return self.model.condition(features, None)
        return self.model.condition(features, self.read_memory(step, features, [bank], [generator])[0])

    def segment(self, context: FrameContext, prompt: Prompt | None = None) -> FramePrediction:
        """Predict masks of ``B`` objects on a frame, from a prompt or, without one, from memory alone."""
        return self.model.segment(context, prompt, self.masks)

    def memorize(
        self, frame: int, features: FrameFeatures, prediction: FramePrediction, from_prompt: bool = False
    ) -> FrameMemory:
        """Encode the memory of ``B`` objects on a frame; see ``memorize_all``."""
        return self.memorize_all(frame, features, [prediction], from_prompt)[0]

    def memorize_all(
        self,
        frame: int,
        features: FrameFeatures,
        predictions: Sequence[FramePrediction],
        from_prompt: bool = False,
    ) -> list[FrameMemory]:
        """Encode the memories of several groups of objects on a frame. What they share is computed once.

        Args:
            frame: Index of the frame.
            features: Its features before memory attention.
            predictions: One per group.
            from_prompt: Whether the masks come from prompts and may be thresholded.

        Returns:
            One memory per group.
        """
        embedding = self._embedding(features)
        memories = self.model.memorize(features, predictions, self.masks, from_prompt)
        return [
            FrameMemory(
                frame,
                memory.features,
                memory.foreground,
                prediction.pointer,
                embedding,
                self.selector.near_distractor(prediction),
            )
            for memory, prediction in zip(memories, predictions, strict=True)
        ]

    def _embedding(self, features: FrameFeatures) -> Tensor | None:
        """The frame embedding ``(C*h*w,)``, which is only computed for selectors that compare frames."""
        return features.frame_embedding if self.selector.compares_frames else None
