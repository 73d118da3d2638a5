"""Tracker: takes a session's objects from frame to frame, and memorizes their masks."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

import torch

from i2v.inference.frame_segmenter import FrameSegmenter
from i2v.inference.inference_state import InferenceState
from i2v.inference.object_track import ClickContext, ObjectTrack, PromptedFrame, result_of
from i2v.inference.policy import InferencePolicy
from i2v.inference.precision import Precision
from i2v.modeling.i2v_model import I2VModel
from i2v.modeling.memory.memory_bank import FrameMemory
from i2v.modeling.memory.readout import MemoryReadout
from i2v.modeling.structures import FrameContext, FrameFeatures, FramePrediction, Prompt, TrackingStep
from i2v.utils.masks import fill_holes, suppress_overlap


@dataclass(frozen=True)
class Advance:
    """One step of a propagation for some objects.

    ``following``: the frames after it that will have to be encoded as well.
    """

    step: TrackingStep
    obj_ids: tuple[object, ...] | None = None  # None: all of the session
    following: tuple[int, ...] = ()


class Tracker:
    """A model under a policy. It holds no session itself."""

    def __init__(self, model: I2VModel, policy: InferencePolicy, precision: Precision) -> None:
        self.model = model
        self.policy = policy
        self.precision = precision
        self.segmenter = FrameSegmenter(model, policy.selector, policy.masks, policy.static_shapes)

    def computing(self) -> AbstractContextManager[None]:
        """All computation runs inside of this."""
        return self.precision.on(self.model.device)

    def features(self, state: InferenceState, frame: int, following: Sequence[int] = ()) -> FrameFeatures:
        """A frame's features, whatever the number of objects computed once."""
        return state.features(frame, self.model, following)

    def context(self, state: InferenceState, track: ObjectTrack, frame: int, with_memory: bool) -> FrameContext:
        """A frame ready for a prompt of one object, conditioned on the object's memories if it has any."""
        features = self.features(state, frame)
        if not with_memory or not track.bank.conditioning:
            return self.model.condition(features, None)
        latest = track.click_context
        if latest is not None and latest.frame == frame and latest.bank is track.bank:
            return latest.context
        step = TrackingStep(frame, reverse=track.passed[frame])
        self._restore(state, track, step, self.policy.settings.num_restored_for_click)
        generator_state = track.generator.get_state()
        context = self.segmenter.condition_on_memory(step, features, track.bank, track.generator)
        track.click_context = ClickContext(frame, track.bank, context, generator_state)
        return context

    def predict(self, context: FrameContext, prompt: Prompt | None) -> FramePrediction:
        """The masks for a prompt, or from memory alone; small holes are filled in ``low_res``."""
        prediction = self.segmenter.segment(context, prompt)
        return replace(prediction, low_res=fill_holes(prediction.low_res, self.policy.settings.fill_hole_area))

    def commit_prompts(self, state: InferenceState, tracks: Sequence[ObjectTrack], at: Advance | None = None) -> None:
        """Memorize the prompts that have not been yet. ``at``: the step that is about to be taken."""
        for frame in sorted({frame for track in tracks for frame in track.pending}):
            following = at.following if at is not None and at.step.frame == frame else ()
            features = self.features(state, frame, following)
            waiting = [track for track in tracks if frame in track.pending]
            pending = [track.pending[frame] for track in waiting]
            predictions = self._without_overlap([self.model.upsample(p.prediction) for p in pending])
            for track, answer, prediction in zip(waiting, pending, predictions, strict=True):
                memory = self.segmenter.memorize(frame, features, prediction, from_prompt=True)
                result = result_of(answer.prediction)
                track.add_prompted(frame, PromptedFrame(memory.to(state.storage_device), result, answer.conditioning))
                del track.pending[frame]
                if answer.conditioning:
                    self._clear_around(track, frame)

    def advance(self, state: InferenceState, at: Advance) -> None:
        """Take objects to a step's frame. A prompted frame stands as it is."""
        tracks = list(state.chosen(at.obj_ids).values())
        self.commit_prompts(state, tracks, at)
        tracked = []
        for track in tracks:
            if at.step.frame in track.prompted:
                self._pass_prompted(track, at.step)
            elif track.bank.conditioning:
                tracked.append(track)
        if tracked:
            self._track(state, at, tracked)

    def _pass_prompted(self, track: ObjectTrack, step: TrackingStep) -> None:
        prompted = track.prompted[step.frame]
        track.passed[step.frame] = step.reverse
        if prompted.conditioning:
            self._clear_around(track, step.frame)
        else:
            track.bank = track.bank.add_tracked(prompted.memory)

    def _clear_around(self, track: ObjectTrack, frame: int) -> None:
        if self.policy.settings.clear_non_cond_mem_around_input:
            reach = self.model.num_maskmem
            near = {m.frame for m in track.bank.tracked if abs(m.frame - frame) <= reach}
            track.drop_memories(near - track.prompted.keys())

    def _track(self, state: InferenceState, at: Advance, tracks: Sequence[ObjectTrack]) -> None:
        step = at.step
        features = self.features(state, step.frame, at.following)
        for track in tracks:
            self._restore(state, track, step, self.policy.selector.span)
        predictions = self._segment(step, features, tracks)
        memories = self._memorize(step.frame, features, predictions)
        for track, prediction, memory in zip(tracks, predictions, memories, strict=True):
            track.history.put(step.frame, result_of(prediction))
            track.passed[step.frame] = step.reverse
            track.dropped.discard(step.frame)
            # Frames before an object's first prompt are not remembered: so masks after it do not depend on where the
            # propagation began.
            if track.is_conditioned(step):
                track.bank = track.bank.add_tracked(memory.to(state.storage_device))

    def _segment(
        self, step: TrackingStep, features: FrameFeatures, tracks: Sequence[ObjectTrack]
    ) -> list[FramePrediction]:
        """One prediction for every track. Objects whose readouts have the same layout run as one batch."""
        banks, generators = [t.bank for t in tracks], [t.generator for t in tracks]
        readouts = self.segmenter.read_memory(step, features, banks, generators)
        groups = [[i] for i in range(len(tracks))] if self._one_by_one else _by_layout(readouts)
        batches = [MemoryReadout.batch([readouts[i] for i in group]) for group in groups]
        found: dict[int, FramePrediction] = {}
        for group, context in zip(groups, self.model.condition_all(features, batches), strict=True):
            found.update(zip(group, self.predict(context, None).split(), strict=True))
        return [found[i] for i in range(len(tracks))]

    def _memorize(
        self, frame: int, features: FrameFeatures, predictions: Sequence[FramePrediction]
    ) -> list[FrameMemory]:
        """One memory for every prediction, made of its mask as it was before holes were filled."""
        parts = self._without_overlap(predictions)
        batches = parts if self._one_by_one else [FramePrediction.batch(parts)]
        return [m for memories in self.segmenter.memorize_all(frame, features, batches) for m in memories.split()]

    @property
    def _one_by_one(self) -> bool:
        """Whether objects are tracked one after the other.

        A batch is what makes a GPU fast. On a CPU it gains nothing, and kernels round differently for different
        numbers of objects: one by one, no object can change another's mask by a bit.
        """
        return self.model.device.type == "cpu"

    def _without_overlap(self, predictions: Sequence[FramePrediction]) -> list[FramePrediction]:
        """The predictions with overlap removed from what will be memorized, where the settings ask for it."""
        if not self.policy.settings.non_overlap_masks_for_mem_enc:
            return list(predictions)
        high_res = suppress_overlap(torch.cat([p.high_res for p in predictions]))
        return [replace(p, high_res=h) for p, h in zip(predictions, high_res.split(1), strict=True)]

    def _restore(self, state: InferenceState, track: ObjectTrack, step: TrackingStep, limit: int | None) -> None:
        """Recompute memories that a step could select but the bank no longer has, from the masks kept of their frames.

        Masks of older frames are kept compressed, so these memories are close to what they were, not identical.
        """
        if limit is None:
            return
        held = {m.frame for m in (*track.bank.conditioning, *track.bank.tracked)}
        backward = 1 if step.reverse else -1
        for frame in (step.frame + backward * age for age in range(limit, 0, -1)):
            missing = frame not in held and frame not in track.dropped
            same_direction = track.passed.get(frame) == step.reverse
            if missing and same_direction and track.is_conditioned(TrackingStep(frame, step.reverse)):
                memory = self._recompute(state, track, frame)
                if memory is not None:
                    track.bank = track.bank.add_tracked(memory)

    def _recompute(self, state: InferenceState, track: ObjectTrack, frame: int) -> FrameMemory | None:
        if frame in track.prompted:
            return track.prompted[frame].memory
        result = track.history.get(frame, self.model.device)
        if result is None:
            return None
        masks = result.low_res
        prediction = FramePrediction(masks, result.iou[:, None], masks, masks, result.pointer, result.object_score)
        memory = self.segmenter.memorize(frame, self.features(state, frame), self.model.upsample(prediction))
        return memory.to(state.storage_device)


def _by_layout(readouts: Sequence[MemoryReadout]) -> list[list[int]]:
    """Indices of readouts grouped by layout, in order."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for i, readout in enumerate(readouts):
        groups.setdefault(readout.layout, []).append(i)
    return list(groups.values())
