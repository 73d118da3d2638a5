"""ObjectTrack: everything a session knows about one object."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field, replace

import torch

from i2v.inference.mask_history import FrameResult, MaskHistory
from i2v.inference.policy import InferencePolicy
from i2v.inference.precision import Precision
from i2v.modeling.memory.memory_bank import FrameMemory, MemoryBank
from i2v.modeling.structures import FrameContext, FramePrediction, Prompt, TrackingStep


@dataclass(frozen=True)
class ObjectScores:
    """How confident the model is of a mask.

    Attributes:
        object_score: Logit, positive where the object is in view.
        iou: Predicted IoU, 0 to 1.
    """

    object_score: float
    iou: float


@dataclass(frozen=True, eq=False)
class PendingPrompt:
    """The prediction for a prompt whose memory has not been encoded yet.

    Attributes:
        prediction: The prediction for one object.
        conditioning: Whether the frame will be a conditioning frame.
    """

    prediction: FramePrediction
    conditioning: bool


@dataclass(frozen=True, eq=False)
class PromptedFrame:
    """A frame whose prompt was committed: its result is fixed, and propagation does not overwrite it.

    Attributes:
        memory: The memory of the prompted mask.
        result: The prompted mask and its scores.
        conditioning: Whether it is a conditioning frame. If not, it is a correction whose memory is treated like a
            tracked frame's.
    """

    memory: FrameMemory
    result: FrameResult
    conditioning: bool


@dataclass(frozen=True, eq=False)
class ClickContext:
    """The tracked frame that was corrected last, conditioned on its memories: clicks on a frame often come in a row.

    Attributes:
        frame: Index of the frame.
        bank: The memories.
        context: The conditioned frame.
        policy: The policy under which it was computed.
        precision: The precision in which it was computed.
        generator_state: State of the track's generator before memories were drawn, so that the draw can be repeated.
    """

    frame: int
    bank: MemoryBank
    context: FrameContext
    policy: InferencePolicy
    precision: Precision
    generator_state: torch.Tensor


@dataclass(eq=False)
class ObjectTrack:
    """One object: its prompts, its masks, and the memories that later frames attend to.

    Attributes:
        bank: Memories that the next frame can select from.
        generator: Random generator of the memory selection.
        prompts: The user's prompts by frame.
        pending: Predictions for prompts that are not committed yet, by frame.
        prompted: Committed prompts, by frame.
        history: Results of tracked frames.
        propagated: Frames that a propagation visited, with whether the last one went in reverse.
        dropped: Frames whose memories were dropped on purpose and must not be recomputed.
        click_context: The tracked frame that was corrected last, conditioned on its memories. Several clicks on the
            same frame reuse it.
    """

    bank: MemoryBank
    generator: torch.Generator
    prompts: dict[int, Prompt] = field(default_factory=dict)
    pending: dict[int, PendingPrompt] = field(default_factory=dict)
    prompted: dict[int, PromptedFrame] = field(default_factory=dict)
    history: MaskHistory = field(default_factory=MaskHistory)
    propagated: dict[int, bool] = field(default_factory=dict)
    dropped: set[int] = field(default_factory=set)
    click_context: ClickContext | None = None

    def copy(self) -> ObjectTrack:
        """Return an independent track. Values that do not change, such as memories, are shared."""
        other = copy.copy(self)
        # A generator of its own: a shared one would let the copies change each other's random draws.
        other.generator = torch.Generator(self.generator.device)
        other.generator.set_state(self.generator.get_state())
        other.prompts, other.pending, other.prompted = dict(self.prompts), dict(self.pending), dict(self.prompted)
        other.history = self.history.copy()
        other.propagated, other.dropped = dict(self.propagated), set(self.dropped)
        return other

    def without_features(self) -> ObjectTrack:
        """A copy that holds no features of a frame, which are large; the next click computes the same ones again."""
        other = self.copy()
        other.drop_click_context()
        return other

    def drop_click_context(self) -> None:
        """Drop the conditioned frame; the next click on it computes it again, from the same draw of memories."""
        if self.click_context is not None:
            self.generator.set_state(self.click_context.generator_state)
            self.click_context = None

    def has_mask(self, frame: int) -> bool:
        """Whether the object has a mask on a frame, from a prompt or from tracking."""
        return frame in self.pending or frame in self.prompted or frame in self.history

    @property
    def frames(self) -> list[int]:
        """Indices of the frames on which the object has a mask, in order."""
        return sorted({*self.pending, *self.prompted, *self.history.frames})

    def result(self, frame: int, device: torch.device) -> FrameResult | None:
        """Return the latest result on a frame, from a prompt or from tracking, or ``None``."""
        # A pending prompt is newer than a committed one, and both take precedence over tracking.
        if frame in self.pending:
            return to_frame_result(self.pending[frame].prediction)
        if frame in self.prompted:
            return self.prompted[frame].result
        return self.history.get(frame, device)

    def scores(self, frame: int) -> ObjectScores | None:
        """Return the scores of the latest result on a frame, or ``None``."""
        if frame in self.pending or frame in self.prompted:
            result = self.result(frame, torch.device("cpu"))
            assert result is not None
            return ObjectScores(float(result.object_score), float(result.iou))
        # Not through `result`, which would unpack a compressed mask for two numbers.
        scores = self.history.scores(frame)
        return None if scores is None else ObjectScores(*scores)

    def is_conditioned(self, step: TrackingStep) -> bool:
        """Whether there is a conditioning frame at or before this step, in the direction of the propagation."""
        return any(step.age(memory.frame) >= 0 for memory in self.bank.conditioning)

    def begin_propagation(self, reverse: bool, seed: int) -> None:
        """Reseed the memory selection, and drop memories of frames tracked in the opposite direction from the bank."""
        # Reseeding makes a propagation reproducible, whatever was drawn for clicks before it.
        self.generator.manual_seed(seed)
        self.click_context = None
        same_direction = {frame for frame, was_reverse in self.propagated.items() if was_reverse == reverse}
        self.bank = self.bank.keep_tracked(same_direction | self.prompted.keys())

    def add_prompted(self, frame: int, prompted: PromptedFrame) -> None:
        """Commit a prompt: add its memory to the bank, for later frames to attend to."""
        self.prompted[frame] = prompted
        add = self.bank.add_conditioning if prompted.conditioning else self.bank.add_tracked
        self.bank = add(prompted.memory)

    def drop_memories(self, frames: set[int]) -> None:
        """Drop the memories of tracked frames until they are tracked again. Their masks stay."""
        self.bank = self.bank.keep_tracked({memory.frame for memory in self.bank.tracked} - frames)
        self.dropped |= frames

    def clear_prompt(self, frame: int) -> None:
        """Remove the prompt of a frame. If no conditioning frame is left, corrections become conditioning frames."""
        self.prompts.pop(frame, None)
        self.pending.pop(frame, None)
        self.click_context = None
        if self.prompted.pop(frame, None) is None:
            return
        self.bank = self.bank.remove(frame)
        # Visited only as a prompted frame: without the prompt the frame counts as never tracked.
        if frame not in self.history:
            self.propagated.pop(frame, None)
        if not self.bank.conditioning:
            self._reset_tracking()

    def _reset_tracking(self) -> None:
        """Remove all tracked results, which have lost their conditioning frames, and promote the corrections."""
        self.history.clear()
        self.propagated.clear()
        self.dropped.clear()
        self.bank = MemoryBank(span=self.bank.span, num_resolving=self.bank.num_resolving)
        for frame, prompted in sorted(self.prompted.items()):
            self.add_prompted(frame, PromptedFrame(prompted.memory, prompted.result, conditioning=True))
        for frame, pending in self.pending.items():
            self.pending[frame] = PendingPrompt(pending.prediction, conditioning=True)


@dataclass(frozen=True)
class SessionFormat:
    """What two sessions have to share for an object of one to fit the other.

    Attributes:
        video_size: (height, width) in pixels.
        num_frames: Frames of the video; ``None`` for a live video that is still running, which fits any number.
        image_size: Side of the model image in pixels.
        widths: Channels of the model's frame features and memories.
    """

    video_size: tuple[int, int]
    num_frames: int | None
    image_size: int
    widths: tuple[int, int]

    def fits(self, other: SessionFormat) -> bool:
        """Whether an object of one session fits the other."""
        one_is_live = self.num_frames is None or other.num_frames is None
        return replace(self, num_frames=other.num_frames if one_is_live else self.num_frames) == other

    def __str__(self) -> str:
        height, width = self.video_size
        frames = "a live video" if self.num_frames is None else f"{self.num_frames} frames"
        video = f"{frames} of {height}x{width} (height x width)"
        return f"{video} in a model of {self.image_size} pixels and widths {self.widths}"


@dataclass(frozen=True, eq=False)
class ObjectSnapshot:
    """An object of a session at some moment; see ``InferenceState.snapshot_object``.

    Attributes:
        session: What kind of session it fits.
        track: The object.
    """

    session: SessionFormat
    track: ObjectTrack = field(repr=False)


def to_frame_result(prediction: FramePrediction) -> FrameResult:
    """Reduce a prediction for one object to what a session keeps."""
    return FrameResult(prediction.low_res, prediction.pointer, prediction.object_score, prediction.best_iou)
