"""ObjectTrack: all that a session holds of one object."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field

import torch

from i2v.inference.mask_history import FrameResult, MaskHistory
from i2v.modeling.memory.memory_bank import FrameMemory, MemoryBank
from i2v.modeling.structures import FrameContext, FramePrediction, Prompt, TrackingStep


@dataclass(frozen=True)
class ObjectScores:
    """How sure the model is of its mask: ``object_score`` logit (positive: in view), predicted ``iou`` (0 to 1)."""

    object_score: float
    iou: float


@dataclass(frozen=True, eq=False)
class PendingPrompt:
    """The prediction for a prompt that has not been memorized yet.

    ``conditioning``: whether the frame will be a conditioning frame.
    """

    prediction: FramePrediction
    conditioning: bool


@dataclass(frozen=True, eq=False)
class PromptedFrame:
    """A frame whose prompt was memorized: its result stands, and is never tracked over.

    ``conditioning``: whether it is a conditioning frame, or a correction that counts like a tracked frame.
    """

    memory: FrameMemory
    result: FrameResult
    conditioning: bool


@dataclass(frozen=True, eq=False)
class ClickContext:
    """The last tracked frame that was corrected, conditioned on ``bank``: clicks on a frame come in a row.

    ``generator_state``: of the track's generator before the memories were drawn, so that the same can be drawn again.
    """

    frame: int
    bank: MemoryBank
    context: FrameContext
    generator_state: torch.Tensor


@dataclass(eq=False)
class ObjectTrack:
    """One object: its prompts, its masks, and the memories that the next frames attend to."""

    bank: MemoryBank
    generator: torch.Generator  # of its memory selection
    prompts: dict[int, Prompt] = field(default_factory=dict)
    pending: dict[int, PendingPrompt] = field(default_factory=dict)
    prompted: dict[int, PromptedFrame] = field(default_factory=dict)
    history: MaskHistory = field(default_factory=MaskHistory)
    passed: dict[int, bool] = field(default_factory=dict)  # frame -> whether it was last propagated to in reverse
    dropped: set[int] = field(default_factory=set)  # frames whose memories were dropped on purpose
    click_context: ClickContext | None = None

    def copy(self) -> ObjectTrack:
        """A track that goes its own way from here. What does not change, such as memories, is shared."""
        other = copy.copy(self)
        other.generator = torch.Generator(self.generator.device)
        other.generator.set_state(self.generator.get_state())
        other.prompts, other.pending, other.prompted = dict(self.prompts), dict(self.pending), dict(self.prompted)
        other.history = self.history.copy()
        other.passed, other.dropped = dict(self.passed), set(self.dropped)
        return other

    def without_features(self) -> ObjectTrack:
        """A copy that holds no features of a frame, which are large; the next click computes the same ones again."""
        other = self.copy()
        if other.click_context is not None:
            other.generator.set_state(other.click_context.generator_state)
            other.click_context = None
        return other

    def has_mask(self, frame: int) -> bool:
        """Whether the object has a mask on a frame, from a prompt or from tracking."""
        return frame in self.pending or frame in self.prompted or frame in self.history

    @property
    def frames(self) -> list[int]:
        """The frames on which the object has a mask, in order."""
        return sorted({*self.pending, *self.prompted, *self.history.frames})

    def result(self, frame: int, device: torch.device) -> FrameResult | None:
        """The latest result on a frame, of a prompt or of tracking."""
        if frame in self.pending:
            return result_of(self.pending[frame].prediction)
        if frame in self.prompted:
            return self.prompted[frame].result
        return self.history.get(frame, device)

    def scores(self, frame: int) -> ObjectScores | None:
        """The scores that belong to :meth:`result`."""
        if frame in self.pending or frame in self.prompted:
            result = self.result(frame, torch.device("cpu"))
            assert result is not None
            return ObjectScores(float(result.object_score), float(result.iou))
        scores = self.history.scores(frame)
        return None if scores is None else ObjectScores(*scores)

    def is_conditioned(self, step: TrackingStep) -> bool:
        """Whether a conditioning frame lies at a step's frame or before it in the direction of the propagation."""
        return any(step.age(memory.frame) >= 0 for memory in self.bank.conditioning)

    def begin_propagation(self, reverse: bool, seed: int) -> None:
        """Begin the draws of the memory selection anew, and set aside the memories of the opposite direction."""
        self.generator.manual_seed(seed)
        self.click_context = None
        same_direction = {frame for frame, was_reverse in self.passed.items() if was_reverse == reverse}
        self.bank = self.bank.keep_tracked(same_direction | self.prompted.keys())

    def add_prompted(self, frame: int, prompted: PromptedFrame) -> None:
        """Make a prompted frame part of what later frames attend to."""
        self.prompted[frame] = prompted
        add = self.bank.add_conditioning if prompted.conditioning else self.bank.add_tracked
        self.bank = add(prompted.memory)

    def drop_memories(self, frames: set[int]) -> None:
        """Drop the memories of tracked frames until they are tracked again; their masks stay."""
        self.bank = self.bank.keep_tracked({memory.frame for memory in self.bank.tracked} - frames)
        self.dropped |= frames

    def clear_prompt(self, frame: int) -> None:
        """Remove the prompt of a frame. If it was the last conditioning frame, a correction takes its place."""
        self.prompts.pop(frame, None)
        self.pending.pop(frame, None)
        self.click_context = None
        if self.prompted.pop(frame, None) is None:
            return
        self.bank = self.bank.remove(frame)
        if frame not in self.history:
            self.passed.pop(frame, None)
        if not self.bank.conditioning:
            self._start_over()

    def _start_over(self) -> None:
        """Without a conditioning frame nothing tracked can stand; corrections that are left become such frames."""
        self.history.clear()
        self.passed.clear()
        self.dropped.clear()
        self.bank = MemoryBank(span=self.bank.span)
        for frame, prompted in sorted(self.prompted.items()):
            self.add_prompted(frame, PromptedFrame(prompted.memory, prompted.result, conditioning=True))
        for frame, pending in self.pending.items():
            self.pending[frame] = PendingPrompt(pending.prediction, conditioning=True)


@dataclass(frozen=True, eq=False)
class ObjectSnapshot:
    """An object of a session as it was; see :meth:`InferenceState.snapshot_object`."""

    track: ObjectTrack = field(repr=False)


def result_of(prediction: FramePrediction) -> FrameResult:
    """What is kept of a prediction for one object."""
    return FrameResult(prediction.low_res, prediction.pointer, prediction.object_score, prediction.best_iou)
