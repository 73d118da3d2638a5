"""InferencePolicy: all that decides how a session behaves, beside the weights."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from i2v.modeling.memory.selectors import Selector, SimilaritySelector
from i2v.modeling.structures import MaskSettings


@dataclass(frozen=True)
class PredictorSettings:
    """How a session behaves; the names are the published ones where these exist.

    ``fill_hole_area``: background spots of at most so many low-resolution pixels are filled, 0 for none.
    ``non_overlap_masks``: of the masks given out, every pixel belongs to one object at most.
    ``non_overlap_masks_for_mem_enc``: the same of the masks that are memorized, which ties the objects together.
    ``add_all_frames_to_correct_as_cond``: a corrected frame becomes a conditioning frame.
    ``clear_non_cond_mem_around_input``: a prompt drops the memories of the tracked frames around it.
    ``seed``: of every object's memory selection, anew at each propagation.
    ``num_restored_for_click``: memories are kept of the latest tracked frames only; a correction further back
    recomputes at most so many, for which as many frames are encoded again. A propagation recomputes all it can reach.
    ``frames_at_once``: a propagation encodes so many coming frames as one batch, which is faster for small images.
    Features are the same but for round-off, so masks may depend, by as little, on where the propagation starts and
    which frames had prompts. Compiled models and live videos encode one by one.
    """

    fill_hole_area: int = 8
    non_overlap_masks: bool = False
    non_overlap_masks_for_mem_enc: bool = False
    add_all_frames_to_correct_as_cond: bool = False
    clear_non_cond_mem_around_input: bool = False
    seed: int = 123
    num_restored_for_click: int = 4
    frames_at_once: int = 1

    def __post_init__(self) -> None:
        if self.frames_at_once < 1:
            raise ValueError(f"frames_at_once: expected at least 1, got {self.frames_at_once}")


@dataclass(frozen=True)
class InferencePolicy:
    """Which memories are selected, how masks are chosen and memorized, and how a session behaves.

    ``static_shapes``: memories are laid out at full length from the first frame on, for compiled models.
    """

    selector: Selector = field(default_factory=SimilaritySelector)
    masks: MaskSettings = field(default_factory=MaskSettings)
    settings: PredictorSettings = field(default_factory=PredictorSettings)
    static_shapes: bool = False

    @property
    def memory_selection(self) -> str:
        """How tracked memories are selected: ``"sample"``, ``"topk"`` or, by a selector without modes, ``"recent"``."""
        return self.selector.mode if isinstance(self.selector, SimilaritySelector) else "recent"

    def with_memory_selection(self, mode: str) -> InferencePolicy:
        """The same policy with another mode of selection; ValueError if the selector has no such mode."""
        if not isinstance(self.selector, SimilaritySelector):
            raise ValueError(f"{type(self.selector).__name__} has no choice of mode")
        return replace(self, selector=self.selector.with_mode(mode))

    def with_seed(self, seed: int) -> InferencePolicy:
        """The same policy with another seed of the memory selection."""
        return replace(self, settings=replace(self.settings, seed=seed))
