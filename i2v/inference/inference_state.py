"""All that a session remembers. Nothing else in the library changes over time."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Generic, Protocol, TypeVar

import torch
from torch import Tensor

from i2v.inference.mask_history import FrameResult, MaskHistory
from i2v.modeling.memory.memory_bank import FrameMemory, MemoryBank
from i2v.modeling.structures import FrameContext, FrameFeatures, FramePrediction, Moment, Prompt
from i2v.video.sources import FrameLoader, FrameSource, normalize, window_indices

Value = TypeVar("Value")


@dataclass(frozen=True)
class PredictorSettings:
    """How a session behaves; the names are the published ones where these exist.

    ``fill_hole_area``: background spots of at most so many low-resolution pixels are filled, 0 for none.
    ``non_overlap_masks``: of the masks given out, every pixel belongs to one object at most.
    ``non_overlap_masks_for_mem_enc``: the same of the masks that are memorized, which ties the objects together.
    ``add_all_frames_to_correct_as_cond``: a correction on a tracked frame counts as a prompt of its own from then on.
    ``clear_non_cond_mem_around_input``: a prompt makes the tracked frames around it forgotten.
    ``seed``: of every object's memory selection, anew at each propagation.
    ``num_restored_for_click``: memories are kept for the latest tracked frames only; a correction further back makes at
    most so many anew, for which as many frames are encoded again. A propagation makes all it can reach.
    ``frames_at_once``: a propagation encodes so many coming frames as one batch, which is faster for small images.
    Features are the same but for rounding, so what is found of an object may depend, by as little, on where the
    propagation starts and which frames had prompts. Compiled models and live videos encode one by one.
    """

    fill_hole_area: int = 0
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
class ObjectScores:
    """What the model thinks of its mask: ``presence`` logit (positive: in view), predicted ``iou`` (0 to 1)."""

    presence: float
    iou: float


@dataclass(frozen=True)
class PendingPrompt:
    """The answer to a prompt that has not been memorized yet. ``conditioning``: it will guide every later frame."""

    prediction: FramePrediction
    conditioning: bool


@dataclass(frozen=True)
class Anchor:
    """A prompted frame as it was memorized: it is given out as it is, and never tracked over."""

    memory: FrameMemory
    result: FrameResult
    conditioning: bool


@dataclass
class ObjectTrack:
    """One object: what was said of it, what was found, what is remembered."""

    bank: MemoryBank
    generator: torch.Generator  # of its memory selection
    prompts: dict[int, Prompt] = field(default_factory=dict)
    pending: dict[int, PendingPrompt] = field(default_factory=dict)
    anchors: dict[int, Anchor] = field(default_factory=dict)
    history: MaskHistory = field(default_factory=MaskHistory)
    visited: dict[int, bool] = field(default_factory=dict)  # frame -> whether it was last passed in reverse
    forgotten: set[int] = field(default_factory=set)  # frames whose memories were dropped on purpose
    # The last tracked frame that was corrected, with the bank it was read from: more clicks on it come fast.
    context: tuple[int, MemoryBank, FrameContext] | None = None

    def result(self, frame: int, device: torch.device) -> FrameResult | None:
        """The latest word on a frame: the answer to a prompt, or what was tracked."""
        if frame in self.pending:
            return result_of(self.pending[frame].prediction)
        if frame in self.anchors:
            return self.anchors[frame].result
        return self.history.get(frame, device)

    def scores(self, frame: int) -> ObjectScores | None:
        """The scores that belong to :meth:`result`."""
        if frame in self.pending or frame in self.anchors:
            result = self.result(frame, torch.device("cpu"))
            assert result is not None
            return ObjectScores(float(result.presence), float(result.iou))
        scores = self.history.scores(frame)
        return None if scores is None else ObjectScores(*scores)

    def follows_prompt(self, moment: Moment) -> bool:
        """Whether a prompted frame lies behind (or at) a moment in the direction of travel."""
        return any(moment.age(m.frame) >= 0 for m in self.bank.prompted)

    def begin_pass(self, reverse: bool, seed: int) -> None:
        """Start travelling: draws begin anew, and memories left by the opposite direction are put aside."""
        self.generator.manual_seed(seed)
        self.context = None
        same_way = {f for f, was_reverse in self.visited.items() if was_reverse == reverse}
        self.bank = self.bank.retain(same_way | self.anchors.keys())

    def settle(self, frame: int, anchor: Anchor) -> None:
        """Make a prompted frame part of what is remembered."""
        self.anchors[frame] = anchor
        self.bank = (self.bank.pin if anchor.conditioning else self.bank.remember)(anchor.memory)

    def put_out_of_mind(self, frames: set[int]) -> None:
        """Drop the memories of tracked frames until they are tracked again; their masks stay."""
        self.bank = self.bank.retain({m.frame for m in self.bank.tracked} - frames)
        self.forgotten |= frames

    def clear_prompt(self, frame: int) -> None:
        """Take back what was said of a frame. Another prompt takes over if it was the only one that guided."""
        self.prompts.pop(frame, None)
        self.pending.pop(frame, None)
        self.context = None
        if self.anchors.pop(frame, None) is None:
            return
        self.bank = self.bank.forget(frame)
        if frame not in self.history:
            self.visited.pop(frame, None)
        if not self.bank.prompted:
            self._start_over()

    def _start_over(self) -> None:
        """Without a prompt that guides, nothing tracked can stand; corrections that are left become such prompts."""
        self.history.clear()
        self.visited.clear()
        self.forgotten.clear()
        self.bank = MemoryBank(span=self.bank.span)
        for frame, anchor in sorted(self.anchors.items()):
            self.settle(frame, Anchor(anchor.memory, anchor.result, conditioning=True))
        for frame, pending in self.pending.items():
            self.pending[frame] = PendingPrompt(pending.prediction, conditioning=True)


def result_of(prediction: FramePrediction) -> FrameResult:
    """What is kept of a prediction for one object."""
    return FrameResult(prediction.low_res, prediction.pointer, prediction.presence, prediction.best_iou)


class LRU(Generic[Value]):
    """The latest few values by frame."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._values: OrderedDict[int, Value] = OrderedDict()

    def __contains__(self, key: int) -> bool:
        return key in self._values

    def get(self, key: int, make: Callable[[], Value]) -> Value:
        """The value of a frame, made if it is not there."""
        if key in self._values:
            self._values.move_to_end(key)
        else:
            self.put(key, make())
        return self._values[key]

    def put(self, key: int, value: Value) -> None:
        """Keep a frame's value in place of the one used longest ago."""
        self._values[key] = value
        self._values.move_to_end(key)
        while len(self._values) > self._capacity:
            self._values.popitem(last=False)


class Encoder(Protocol):
    """What a session needs of the model to encode frames; I2VModel is one."""

    def taps(self, frames: Tensor) -> Tensor: ...

    def encode_frames(self, frames: Tensor, taps: Sequence[Tensor]) -> FrameFeatures: ...


class InferenceState:
    """One video in work: its frames, the features of the latest ones, and a track for every object.

    Made by ``predictor.init_state``; :meth:`close` (or a ``with`` block) ends its reading ahead.
    """

    NUM_CACHED_FEATURES = 4

    def __init__(
        self, source: FrameSource, image_size: int, window_length: int, device: torch.device, frames_at_once: int = 1
    ) -> None:
        """``frames_at_once``: how many frames are encoded as one batch, where it is known which come next."""
        self.source = source
        self.loader = FrameLoader(source, image_size)
        self.device = device
        self.storage_device = device
        self.tracks: dict[Hashable, ObjectTrack] = {}
        self._window_length = window_length
        self._frames_at_once = frames_at_once
        self._expected: Sequence[int] = ()
        self._frames: LRU[Tensor] = LRU(frames_at_once)
        # What each frame adds to the windows around it, so that the next window computes only that of its own frame.
        self._taps: LRU[Tensor] = LRU(window_length + frames_at_once)
        self._features: LRU[FrameFeatures] = LRU(self.NUM_CACHED_FEATURES + frames_at_once - 1)

    @property
    def num_frames(self) -> int | None:
        """Frames of the video; ``None`` while a live one goes on."""
        return self.source.num_frames

    @property
    def video_height(self) -> int:
        return self.source.height

    @property
    def video_width(self) -> int:
        return self.source.width

    @property
    def obj_ids(self) -> list[Hashable]:
        """The objects in the order in which they came, which is the order of the masks."""
        return list(self.tracks)

    def expect(self, frames: range) -> None:
        """Say which frames, at least one, are visited from now on. They are read ahead, and encoded in batches."""
        unknown = (f for f in frames[: self._frames_at_once] if any(f not in t.anchors for t in self.tracks.values()))
        self._expected = tuple(unknown)
        self.loader.expect(frames.start, frames.step)

    def features(self, frame: int, encoder: Encoder) -> FrameFeatures:
        """A frame's features, computed unless they are among the latest."""
        return self._features.get(frame, lambda: self._encode(frame, encoder))

    def _encode(self, frame: int, encoder: Encoder) -> FrameFeatures:
        """Features of a frame; if it is the one expected next, those of the frames behind it are made, too."""
        frames = [frame]
        if frame in self._expected[:1]:
            frames += takewhile(self._can_read, (f for f in self._expected[1:] if f not in self._features))
        windows = [[self._tap(i, encoder) for i in window_indices(f, self._window_length)] for f in frames]
        taps = [torch.cat(places) for places in zip(*windows, strict=True)]
        first, *others = encoder.encode_frames(torch.cat([self._frame(f) for f in frames]), taps).split()
        for other, features in zip(frames[1:], others, strict=True):
            self._features.put(other, features)
        return first

    def _can_read(self, frame: int) -> bool:
        """Whether a frame can be had. If not, the error is to be raised when its turn comes, not before."""
        try:
            self._frame(frame)
        except (OSError, ValueError, TypeError, LookupError, RuntimeError):
            return False
        return True

    def _tap(self, index: int, encoder: Encoder) -> Tensor:
        return self._taps.get(index, lambda: encoder.taps(self._frame(index)))

    def _frame(self, index: int) -> Tensor:
        """A frame (1,3,S,S), normalized, on the device."""
        return self._frames.get(index, lambda: normalize(self.loader.get(index).to(self.device))[None])

    def close(self) -> None:
        """Stop reading ahead and close the video."""
        self.loader.close()
        self.source.close()

    def __enter__(self) -> InferenceState:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
