"""Tracker: takes a session's objects from frame to frame, and memorizes what they leave behind."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import replace

import torch

from i2v.inference.inference_state import Anchor, InferenceState, ObjectTrack, PredictorSettings, result_of
from i2v.inference.precision import Precision
from i2v.modeling.i2v_model import I2VModel
from i2v.modeling.memory.memory_bank import FrameMemory
from i2v.modeling.structures import (
    FrameContext,
    FrameFeatures,
    FramePrediction,
    MemoryReadout,
    Moment,
    Prompt,
)
from i2v.utils.masks import fill_holes, suppress_overlap


class Tracker:
    """A model with the rules of a session around it. It holds no session itself."""

    def __init__(self, model: I2VModel, settings: PredictorSettings, precision: Precision) -> None:
        self.model = model
        self.settings = settings
        self.precision = precision

    def computing(self) -> AbstractContextManager[None]:
        """All computation runs inside of this."""
        return self.precision.on(self.model.device)

    def features(self, state: InferenceState, frame: int) -> FrameFeatures:
        """A frame's features, whatever the number of objects computed once."""
        return state.features(frame, self.model)

    def context(self, state: InferenceState, track: ObjectTrack, frame: int, with_memory: bool) -> FrameContext:
        """A frame ready for a prompt of one object: bare, or in the light of what the object left behind."""
        features = self.features(state, frame)
        if not with_memory or not track.bank.prompted:
            return self.model.condition(features, None)
        if track.context is not None and track.context[:2] == (frame, track.bank):
            return track.context[2]
        moment = Moment(frame, reverse=track.visited[frame])
        self._restore(state, track, moment, self.settings.num_restored_for_click)
        context = self.model.associate(moment, features, track.bank, track.generator)
        track.context = (frame, track.bank, context)
        return context

    def answer(self, context: FrameContext, prompt: Prompt | None) -> FramePrediction:
        """The masks that a prompt, or memory alone, asks for; small holes are filled in ``low_res``."""
        return self._without_holes(self.model.segment(context, prompt))

    def settle_prompts(self, state: InferenceState) -> None:
        """Memorize all prompts that have not been yet."""
        for frame in sorted({frame for track in state.tracks.values() for frame in track.pending}):
            features = self.features(state, frame)
            tracks = [track for track in state.tracks.values() if frame in track.pending]
            pending = [track.pending[frame] for track in tracks]
            sharp = self._apart([self.model.sharpen(p.prediction) for p in pending])
            for track, prompted, prediction in zip(tracks, pending, sharp, strict=True):
                memory = self.model.memorize(frame, features, prediction, from_prompt=True)
                anchor = Anchor(memory.to(state.storage_device), result_of(prompted.prediction), prompted.conditioning)
                track.settle(frame, anchor)
                del track.pending[frame]
                if prompted.conditioning:
                    self._clear_around(track, frame)

    def advance(self, state: InferenceState, moment: Moment) -> None:
        """Bring every object to a moment's frame. A prompted frame stands as it is."""
        self.settle_prompts(state)
        followed = []
        for track in state.tracks.values():
            if moment.frame in track.anchors:
                self._pass_anchor(track, moment)
            elif track.bank.prompted:
                followed.append(track)
        if followed:
            self._follow(state, moment, followed)

    def _pass_anchor(self, track: ObjectTrack, moment: Moment) -> None:
        anchor = track.anchors[moment.frame]
        track.visited[moment.frame] = moment.reverse
        if anchor.conditioning:
            self._clear_around(track, moment.frame)
        else:
            track.bank = track.bank.remember(anchor.memory)

    def _clear_around(self, track: ObjectTrack, frame: int) -> None:
        if self.settings.clear_non_cond_mem_around_input:
            reach = len(self.model.maskmem_tpos_enc)
            near = {m.frame for m in track.bank.tracked if abs(m.frame - frame) <= reach}
            track.put_out_of_mind(near - track.anchors.keys())

    def _follow(self, state: InferenceState, moment: Moment, tracks: Sequence[ObjectTrack]) -> None:
        features = self.features(state, moment.frame)
        for track in tracks:
            self._restore(state, track, moment, self.model.selector.span)
        predictions = self._segment(moment, features, tracks)
        for track, prediction, memory in zip(
            tracks, predictions, self._memorize(moment.frame, features, predictions), strict=True
        ):
            track.history.put(moment.frame, result_of(prediction))
            track.visited[moment.frame] = moment.reverse
            track.forgotten.discard(moment.frame)
            # Before an object's first prompt there is nothing to trust yet: such frames are not remembered, so what
            # is found after it does not depend on where the journey began.
            if track.follows_prompt(moment):
                track.bank = track.bank.remember(memory.to(state.storage_device))

    def _segment(self, moment: Moment, features: FrameFeatures, tracks: Sequence[ObjectTrack]) -> list[FramePrediction]:
        """One prediction for every track. Objects whose readouts are laid out alike run as one batch."""
        readouts = self.model.recall(moment, features, [t.bank for t in tracks], [t.generator for t in tracks])
        groups = [[i] for i in range(len(tracks))] if self._one_by_one else _laid_out_alike(readouts)
        batches = [MemoryReadout.batch([readouts[i] for i in group]) for group in groups]
        found: dict[int, FramePrediction] = {}
        for group, context in zip(groups, self.model.condition_all(features, batches), strict=True):
            found.update(zip(group, self.answer(context, None).split(), strict=True))
        return [found[i] for i in range(len(tracks))]

    def _memorize(
        self, frame: int, features: FrameFeatures, predictions: Sequence[FramePrediction]
    ) -> list[FrameMemory]:
        """One memory for every prediction, made of its mask as it was before holes were filled."""
        parts = self._apart(predictions)
        batches = parts if self._one_by_one else [FramePrediction.batch(parts)]
        return [m for memories in self.model.memorize_all(frame, features, batches) for m in memories.split()]

    @property
    def _one_by_one(self) -> bool:
        """Whether objects are followed one after the other.

        A batch is what makes a GPU fast. On a CPU it gains nothing, and kernels round differently for different
        numbers of objects: one by one, no object can change another's mask by a bit.
        """
        return self.model.device.type == "cpu"

    def _apart(self, predictions: Sequence[FramePrediction]) -> list[FramePrediction]:
        """The predictions with overlap removed from what will be memorized, where the settings ask for it."""
        if not self.settings.non_overlap_masks_for_mem_enc:
            return list(predictions)
        high_res = suppress_overlap(torch.cat([p.high_res for p in predictions]))
        return [replace(p, high_res=h) for p, h in zip(predictions, high_res.split(1), strict=True)]

    def _restore(self, state: InferenceState, track: ObjectTrack, moment: Moment, limit: int | None) -> None:
        """Make memories anew that a moment could use but the bank has dropped, from the masks kept of their frames."""
        if limit is None:
            return
        held = {m.frame for m in (*track.bank.prompted, *track.bank.tracked)}
        step = 1 if moment.reverse else -1
        for frame in (moment.frame + step * age for age in range(limit, 0, -1)):
            wanted = frame not in held and frame not in track.forgotten
            same_way = track.visited.get(frame) == moment.reverse
            if wanted and same_way and track.follows_prompt(Moment(frame, moment.reverse)):
                memory = self._remake(state, track, frame)
                if memory is not None:
                    track.bank = track.bank.remember(memory)

    def _remake(self, state: InferenceState, track: ObjectTrack, frame: int) -> FrameMemory | None:
        if frame in track.anchors:
            return track.anchors[frame].memory
        result = track.history.get(frame, self.model.device)
        if result is None:
            return None
        masks = result.low_res
        prediction = FramePrediction(masks, result.iou[:, None], masks, masks, result.pointer, result.presence)
        memory = self.model.memorize(frame, self.features(state, frame), self.model.sharpen(prediction))
        return memory.to(state.storage_device)

    def _without_holes(self, prediction: FramePrediction) -> FramePrediction:
        return replace(prediction, low_res=fill_holes(prediction.low_res, self.settings.fill_hole_area))


def _laid_out_alike(readouts: Sequence[MemoryReadout]) -> list[list[int]]:
    """Indices of readouts grouped by layout, in order."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for i, readout in enumerate(readouts):
        groups.setdefault(readout.layout, []).append(i)
    return list(groups.values())
