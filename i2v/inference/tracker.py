"""Tracker: propagates the objects of a session from frame to frame and encodes their masks as memory."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

import numpy as np
import torch

from i2v.inference.crop_refinement import CropRefiner
from i2v.inference.frame_segmenter import FrameSegmenter
from i2v.inference.inference_state import InferenceState
from i2v.inference.object_track import ClickContext, ObjectTrack, PromptedFrame, to_frame_result
from i2v.inference.policy import InferencePolicy
from i2v.inference.precision import Precision
from i2v.modeling.i2v_model import I2VModel
from i2v.modeling.memory.memory_bank import FrameMemory
from i2v.modeling.memory.readout import MemoryReadout
from i2v.modeling.structures import FrameContext, FrameFeatures, FramePrediction, Prompt, TrackingStep
from i2v.utils.masks import fill_holes, suppress_overlap


@dataclass(frozen=True)
class StepRequest:
    """One step of a propagation, for some objects.

    Attributes:
        step: The frame and the direction.
        obj_ids: The objects to track; ``None`` for all of the session.
        following: Later frames that will have to be encoded as well, in order.
    """

    step: TrackingStep
    obj_ids: tuple[object, ...] | None = None
    following: tuple[int, ...] = ()


class Tracker:
    """A model under a policy. Sessions are arguments; the tracker keeps nothing of them."""

    def __init__(self, model: I2VModel, policy: InferencePolicy, precision: Precision) -> None:
        """Combine a model with a policy and the precision of its computation.

        Raises:
            ValueError: If the policy's selector fills more temporal slots than the model has.
        """
        self.model = model
        self.policy = policy
        self.precision = precision
        self.segmenter = FrameSegmenter(model, policy.selector, policy.masks, policy.static_shapes)
        self.refiner = CropRefiner(model, policy.masks) if policy.settings.refine_prompts else None

    def precision_context(self) -> AbstractContextManager[None]:
        """Context manager under which all methods that compute are to be called."""
        return self.precision.on(self.model.device)

    def features(self, state: InferenceState, frame: int, following: Sequence[int] = ()) -> FrameFeatures:
        """Return the features of a frame, which all objects share; see ``FeatureCache.features``."""
        return state.features(frame, self.precision, following)

    def context(self, state: InferenceState, track: ObjectTrack, frame: int, with_memory: bool) -> FrameContext:
        """Prepare a frame for prompts on one object, conditioned on the object's memories if ``with_memory``."""
        features = self.features(state, frame)
        if not with_memory or not track.bank.conditioning:
            return self.model.condition(features, None)
        latest = track.click_context
        # Banks are immutable, so the same object means the same memories.
        if latest is not None and latest.frame == frame and latest.bank is track.bank:
            if latest.policy == self.policy and latest.precision == self.precision:
                return latest.context
            track.drop_click_context()
        step = TrackingStep(frame, reverse=track.propagated[frame])
        self._restore_memories(state, track, step, self.policy.settings.num_restored_for_click)
        # Saved before the draw: a snapshot drops this context, and must draw the same memories again.
        generator_state = track.generator.get_state()
        context = self.segmenter.condition_on_memory(step, features, track.bank, track.generator)
        track.click_context = ClickContext(frame, track.bank, context, self.policy, self.precision, generator_state)
        return context

    def predict_prompted(
        self,
        state: InferenceState,
        frame: int,
        context: FrameContext,
        prompt: Prompt,
        on_first_answer: Callable[[FramePrediction], None] | None = None,
    ) -> FramePrediction:
        """Predict the mask for one object's prompt on a frame. Small holes are filled in ``low_res`` only.

        Args:
            state: The session.
            frame: Index of the frame.
            context: See ``context``.
            prompt: The prompt.
            on_first_answer: Called with the prediction that is about to be refined, if it is.
        """
        prediction = self.segmenter.segment(context, prompt)
        refiner, picture = self.refiner, None
        if refiner is not None and context.readout is None and prompt.points is not None:
            picture = _read_if_kept(state, frame)
        if refiner is not None and picture is not None:
            if on_first_answer is not None:
                on_first_answer(self._fill_holes(prediction))
            mirrored = functools.partial(self._mirrored_features, state, frame, refiner, picture)
            prediction = refiner.refine(picture, prompt, prediction, mirrored)
        return self._fill_holes(prediction)

    def prefetch(self, state: InferenceState, frame: int) -> None:
        """Compute what prompts on a frame share."""
        self.features(state, frame)
        picture = None if self.refiner is None else _read_if_kept(state, frame)
        if self.refiner is not None and picture is not None:
            self._mirrored_features(state, frame, self.refiner, picture)

    def _mirrored_features(
        self, state: InferenceState, frame: int, refiner: CropRefiner, picture: np.ndarray
    ) -> FrameFeatures:
        return state.mirrored_features(frame, self.precision, lambda: refiner.mirrored_features(picture))

    def _fill_holes(self, prediction: FramePrediction) -> FramePrediction:
        return replace(prediction, low_res=fill_holes(prediction.low_res, self.policy.settings.fill_hole_area))

    def commit_prompts(
        self, state: InferenceState, tracks: Sequence[ObjectTrack], request: StepRequest | None = None
    ) -> None:
        """Encode memories for prompts that do not have one yet. ``request`` is the step about to be taken, if any."""
        # Frame by frame rather than object by object, so that overlaps between the objects' masks can be removed.
        for frame in sorted({frame for track in tracks for frame in track.pending}):
            following = request.following if request is not None and request.step.frame == frame else ()
            features = self.features(state, frame, following)
            prompted_tracks = [track for track in tracks if frame in track.pending]
            pending_prompts = [track.pending[frame] for track in prompted_tracks]
            predictions = self._without_overlap([self.model.upsample(p.prediction) for p in pending_prompts])
            for track, pending, prediction in zip(prompted_tracks, pending_prompts, predictions, strict=True):
                memory = self.segmenter.memorize(frame, features, prediction, from_prompt=True).to(state.storage_device)
                result = to_frame_result(pending.prediction)
                track.add_prompted(frame, PromptedFrame(memory, result, pending.conditioning))
                del track.pending[frame]
                if pending.conditioning:
                    self._clear_memories_around(track, frame)

    def advance(self, state: InferenceState, request: StepRequest) -> None:
        """Track objects to the frame of a step. A prompted frame keeps its mask."""
        tracks = list(state.select_tracks(request.obj_ids).values())
        self.commit_prompts(state, tracks, request)
        to_track = []
        for track in tracks:
            if request.step.frame in track.prompted:
                self._visit_prompted(track, request.step)
            elif track.bank.conditioning:
                to_track.append(track)
        if to_track:
            self._track(state, request, to_track)

    def _visit_prompted(self, track: ObjectTrack, step: TrackingStep) -> None:
        prompted = track.prompted[step.frame]
        track.propagated[step.frame] = step.reverse
        if prompted.conditioning:
            self._clear_memories_around(track, step.frame)
        else:
            # A correction counts as a tracked frame, so its memory enters the bank in the order of the propagation.
            track.bank = track.bank.add_tracked(prompted.memory)

    def _clear_memories_around(self, track: ObjectTrack, frame: int) -> None:
        if self.policy.settings.clear_non_cond_mem_around_input:
            # SAM 2's distance: the number of temporal slots.
            max_distance = self.model.num_maskmem
            nearby = {m.frame for m in track.bank.tracked if abs(m.frame - frame) <= max_distance}
            track.drop_memories(nearby - track.prompted.keys())

    def _track(self, state: InferenceState, request: StepRequest, tracks: Sequence[ObjectTrack]) -> None:
        step = request.step
        features = self.features(state, step.frame, request.following)
        for track in tracks:
            self._restore_memories(state, track, step, self.policy.selector.span)
        predictions = self._segment(step, features, tracks)
        # Memories are encoded together, because removing overlaps needs the masks of all objects.
        memories = self._memorize(step.frame, features, predictions)
        for track, prediction, memory in zip(tracks, predictions, memories, strict=True):
            track.history.put(step.frame, to_frame_result(prediction))
            track.propagated[step.frame] = step.reverse
            track.dropped.discard(step.frame)
            # Frames before an object's first prompt leave no memory, so that masks after the prompt do not depend on
            # where the propagation started.
            if track.is_conditioned(step):
                track.bank = track.bank.add_tracked(memory.to(state.storage_device))

    def _segment(
        self, step: TrackingStep, features: FrameFeatures, tracks: Sequence[ObjectTrack]
    ) -> list[FramePrediction]:
        """Predict one mask per track. Objects whose readouts have the same layout run as one batch."""
        banks, generators = [t.bank for t in tracks], [t.generator for t in tracks]
        readouts = self.segmenter.read_memory(step, features, banks, generators)
        groups = [[i] for i in range(len(tracks))] if self._single_object_batches else _group_by_layout(readouts)
        batches = [MemoryReadout.batch([readouts[i] for i in group]) for group in groups]
        predictions: dict[int, FramePrediction] = {}
        for group, context in zip(groups, self.model.condition_all(features, batches), strict=True):
            predictions.update(zip(group, self._fill_holes(self.segmenter.segment(context)).split(), strict=True))
        return [predictions[i] for i in range(len(tracks))]

    def _memorize(
        self, frame: int, features: FrameFeatures, predictions: Sequence[FramePrediction]
    ) -> list[FrameMemory]:
        """Encode one memory per prediction, from its high-res mask, in which holes are not filled."""
        parts = self._without_overlap(predictions)
        batches = parts if self._single_object_batches else [FramePrediction.batch(parts)]
        return [m for memories in self.segmenter.memorize_all(frame, features, batches) for m in memories.split()]

    @property
    def _single_object_batches(self) -> bool:
        """Whether objects are tracked one after the other.

        Batches make a GPU fast. On a CPU they gain nothing, and kernels round differently for different batch sizes:
        one object at a time, no object can change a single bit of another's mask.
        """
        return self.model.device.type == "cpu"

    def _without_overlap(self, predictions: Sequence[FramePrediction]) -> list[FramePrediction]:
        """Remove overlap between the masks to be encoded as memory, if the settings say so."""
        if not self.policy.settings.non_overlap_masks_for_mem_enc:
            return list(predictions)
        high_res = suppress_overlap(torch.cat([p.high_res for p in predictions]))
        return [replace(p, high_res=h) for p, h in zip(predictions, high_res.split(1), strict=True)]

    def _restore_memories(
        self, state: InferenceState, track: ObjectTrack, step: TrackingStep, limit: int | None
    ) -> None:
        """Recompute memories that a step could select but that the bank no longer holds.

        They are recomputed from the masks in the track's history, of which older ones are compressed. Results are
        close to the original memories, not identical.

        Args:
            state: The session.
            track: The object.
            step: The frame to segment.
            limit: How many frames back to restore; ``None`` restores nothing, as the bank then keeps all memories.
        """
        if limit is None:
            return
        in_bank = {m.frame for m in (*track.bank.conditioning, *track.bank.tracked)}
        towards_past = 1 if step.reverse else -1
        # Oldest first, which is the order of the bank.
        for frame in (step.frame + towards_past * age for age in range(limit, 0, -1)):
            missing = frame not in in_bank and frame not in track.dropped
            same_direction = track.propagated.get(frame) == step.reverse
            # Only frames tracked in this direction, like those that `begin_propagation` leaves in the bank.
            if missing and same_direction and track.is_conditioned(TrackingStep(frame, step.reverse)):
                memory = self._recompute_memory(state, track, frame)
                if memory is not None:
                    track.bank = track.bank.add_tracked(memory)

    def _recompute_memory(self, state: InferenceState, track: ObjectTrack, frame: int) -> FrameMemory | None:
        if frame in track.prompted:
            return track.prompted[frame].memory
        result = track.history.get(frame, self.model.device)
        if result is None:
            return None
        # The memory encoder only needs the chosen mask; `upsample` computes the high-res one from the low-res logits.
        masks = result.low_res
        prediction = FramePrediction(masks, result.iou[:, None], masks, masks, result.pointer, result.object_score)
        memory = self.segmenter.memorize(frame, self.features(state, frame), self.model.upsample(prediction))
        return memory.to(state.storage_device)


def _read_if_kept(state: InferenceState, frame: int) -> np.ndarray | None:
    """Read a frame, or return ``None`` if the video is live and no longer has it: features are kept for longer."""
    try:
        return state.source.read(frame)
    except IndexError:
        return None


def _group_by_layout(readouts: Sequence[MemoryReadout]) -> list[list[int]]:
    """Group the indices of readouts by layout, in order."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for i, readout in enumerate(readouts):
        groups.setdefault(readout.layout, []).append(i)
    return list(groups.values())
