"""InferencePolicy: everything besides the weights that decides how a session behaves."""

from __future__ import annotations

import numbers
import operator
from dataclasses import dataclass, field, replace
from typing import Any

from i2v.errors import brief
from i2v.modeling.memory.selectors import Selector, SimilaritySelector
from i2v.modeling.structures import MaskSettings


@dataclass(frozen=True)
class PredictorSettings:
    """How a session behaves. Names are the published ones where these exist.

    Attributes:
        fill_hole_area: Largest background hole to fill, in low-res pixels; 0 fills none.
        non_overlap_masks: Whether each pixel of the output masks belongs to at most one object.
        non_overlap_masks_for_mem_enc: The same for the masks that are encoded as memory. Objects then depend on each
            other.
        add_all_frames_to_correct_as_cond: Whether a corrected frame becomes a conditioning frame.
        clear_non_cond_mem_around_input: Whether a prompt drops the memories of tracked frames around it.
        seed: Seed of each object's memory selection, applied at the start of every propagation.
        num_restored_for_click: Only memories of the latest tracked frames are kept. A correction further back
            recomputes at most this many, and encodes as many frames again. A propagation recomputes all it can select.
        frames_at_once: Most coming frames that a propagation encodes as one batch, which is faster for small images.
            Features differ by round-off from those of single frames, so masks may depend slightly on where the
            propagation starts and which frames have prompts. Compiled models and live videos encode single frames.
        refine_prompts: Whether points and boxes on a frame without memory are answered again, on the mirrored frame and
            on a crop around the first answers; see ``i2v.inference.crop_refinement``. Masks are better, most of all
            those of small objects, for three more encoded images per prompt, or two after the first on a frame.

    Raises:
        ValueError: If ``frames_at_once`` is less than 1, or ``seed`` no whole number that a generator takes.
    """

    fill_hole_area: int = 8
    non_overlap_masks: bool = False
    non_overlap_masks_for_mem_enc: bool = False
    add_all_frames_to_correct_as_cond: bool = False
    clear_non_cond_mem_around_input: bool = False
    seed: int = 123
    num_restored_for_click: int = 4
    frames_at_once: int = 1
    refine_prompts: bool = False

    def __post_init__(self) -> None:
        if self.frames_at_once < 1:
            raise ValueError(f"frames_at_once: expected at least 1, got {self.frames_at_once}")
        object.__setattr__(self, "seed", _whole_number(self.seed))


def _whole_number(seed: Any) -> int:
    """A seed as an integer: also one of NumPy, a tensor of one, or a float without a fraction."""
    is_float = isinstance(seed, numbers.Real) and not isinstance(seed, numbers.Integral)
    try:
        number = operator.index(int(seed) if is_float and float(seed).is_integer() else seed)
    except TypeError:
        number = None
    if number is None or not -(2**63) <= number < 2**64:
        raise ValueError(f"seed: expected a whole number of at most 64 bits, got {brief(seed)}")
    return number


@dataclass(frozen=True)
class InferencePolicy:
    """The policy of a predictor.

    Attributes:
        selector: Which memories a frame attends to.
        masks: How masks are chosen and encoded as memory.
        settings: How a session behaves.
        static_shapes: Whether memories are padded to full length from the first frame on, for compiled models.
    """

    selector: Selector = field(default_factory=SimilaritySelector)
    masks: MaskSettings = field(default_factory=MaskSettings)
    settings: PredictorSettings = field(default_factory=PredictorSettings)
    static_shapes: bool = False

    @property
    def memory_selection(self) -> str:
        """Mode of memory selection: ``"sample"``, ``"topk"``, or ``"recent"`` for a selector without modes."""
        return self.selector.mode if isinstance(self.selector, SimilaritySelector) else "recent"

    def with_memory_selection(self, mode: str) -> InferencePolicy:
        """Return the same policy with another mode of memory selection.

        Raises:
            ValueError: If the selector has no such mode.
        """
        if not isinstance(self.selector, SimilaritySelector):
            raise ValueError(f"{type(self.selector).__name__} has no choice of mode")
        return replace(self, selector=self.selector.with_mode(mode))

    def with_seed(self, seed: int) -> InferencePolicy:
        """Return the same policy with another seed of the memory selection."""
        return replace(self, settings=replace(self.settings, seed=seed))
