"""Engine: what the model remembers of one session, brought in line with the session's document."""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from i2v.annotator.document import Box, Click, Document, Paint, Place, Step
from i2v.annotator.masks import FrameAnswer, StoredMask, decode
from i2v.annotator.plan import Leg
from i2v.i2v_video_predictor import I2VVideoPredictor
from i2v.inference.inference_state import InferenceState, ObjectTrack
from i2v.results.rle import encode_mask
from i2v.utils.masks import resize_logits
from i2v.video.frame_source import FrameSource


class Engine:
    """Answers prompts and tracks, in the thread that owns the model; `knows` may be called from any thread.

    What it answers is what `I2VVideoPredictor` gives for the same prompts in the same order. Only a painted mask is
    kept as it was painted, where the predictor returns it smoothed.
    """

    def __init__(self, predictor: I2VVideoPredictor, source: FrameSource) -> None:
        self._predictor = predictor
        self._state: InferenceState = predictor.init_state(source)
        self._shelf: dict[int, ObjectTrack] = {}  # of deleted objects, which undo may bring back

    def knows(self, place: Place) -> bool:
        """Whether the predictor has a mask of that object on that frame, so that a click corrects it."""
        number, frame = place
        track = self._state.tracks.get(number)
        return track is not None and (frame in track.pending or frame in track.anchors or frame in track.history)

    def become(self, old: Document, new: Document, places: Collection[Place]) -> dict[Place, FrameAnswer]:
        """Turn from one document into another; returns an answer for each of the `places` whose prompts differ.

        Objects that are gone are kept aside, and come back as they went.
        """
        for number in set(old.numbers) - set(new.numbers):
            if number in self._state.tracks:
                self._shelf[number] = self._state.tracks.pop(number)
        for number in (set(new.numbers) - set(old.numbers)) & self._shelf.keys():
            self._state.tracks[number] = self._shelf.pop(number)
        return {place: self._prompt(place, old.prompts.get(place, ()), new.prompts.get(place, ())) for place in places}

    def forget(self, numbers: Collection[int]) -> None:
        """Let go of deleted objects that can no longer come back."""
        for number in numbers:
            self._shelf.pop(number, None)

    def track(self, leg: Leg) -> Iterator[FrameAnswer]:
        """Follow a leg, one frame for every step; objects prompted or deleted meanwhile are minded from the next on."""
        view = copy.copy(self._state)
        view.tracks = self._chosen(leg)
        count = None if leg.count is None else leg.count - 1
        for frame, numbers, logits in self._predictor.propagate_in_video(view, leg.start, count, leg.reverse):
            yield self._answer(frame, numbers, logits)
            view.tracks = self._chosen(leg)

    @torch.inference_mode()
    def prepare(self, frame: int) -> None:
        """Encode a frame, so that a prompt on it is answered faster."""
        tracker = self._predictor.tracker
        with tracker.computing():
            tracker.features(self._state, frame)

    def close(self) -> None:
        """Let go of the video and of all that was remembered."""
        self._shelf.clear()
        self._state.close()

    def _chosen(self, leg: Leg) -> dict[Any, ObjectTrack]:
        tracks = self._state.tracks
        return {n: t for n, t in tracks.items() if leg.objects is None or n in leg.objects}

    def _prompt(self, place: Place, old: tuple[Step, ...], new: tuple[Step, ...]) -> FrameAnswer:
        number, frame = place
        steps = new
        if old and new[: len(old)] == old:
            steps = new[len(old) :]
        elif old and number in self._state.tracks and not (new and isinstance(new[0], Paint)):
            # A mask replaces whatever was said; all else would build on it.
            self._predictor.clear_all_prompts_in_frame(self._state, frame, number, need_output=False)
        for step in steps:
            self._step(place, step)
        answer = self._answer(frame, *self._masks(frame), wanted={number} if new else ())
        if new and isinstance(new[-1], Paint):
            scores = answer.masks[number]
            painted = StoredMask(new[-1].counts, scores.presence, scores.iou)
            return FrameAnswer(frame, {number: painted}, answer.ceded)
        return answer

    def _step(self, place: Place, step: Step) -> None:
        number, frame = place
        if isinstance(step, Paint):
            mask = decode(step.counts, (self._state.video_height, self._state.video_width))
            self._predictor.add_new_mask(self._state, frame, number, mask)
        elif isinstance(step, Box):
            corners = [step.x0, step.y0, step.x1, step.y1]
            self._predictor.add_new_points_or_box(self._state, frame, number, box=corners)
        else:
            assert isinstance(step, Click)
            point, label = [[step.x, step.y]], [int(step.positive)]
            self._predictor.add_new_points_or_box(self._state, frame, number, point, label, clear_old_points=False)

    @torch.inference_mode()
    def _masks(self, frame: int, but: Collection[Any] = ()) -> tuple[list[Any], Tensor]:
        """Logits (N,1,H,W) of the objects that have any on a frame."""
        state = self._state
        results = {n: t.result(frame, state.device) for n, t in state.tracks.items() if n not in but}
        known = {number: result for number, result in results.items() if result is not None}
        size = (state.video_height, state.video_width)
        # One by one: what one object's mask is must not depend on how many others there are.
        planes = [resize_logits(result.low_res.to(state.device), size) for result in known.values()]
        return list(known), torch.cat(planes) if planes else torch.zeros((0, 1, *size), device=state.device)

    def _answer(
        self, frame: int, numbers: list[Any], logits: Tensor, wanted: Collection[int] | None = None
    ) -> FrameAnswer:
        scores = self._predictor.frame_scores(self._state, frame)
        logits = logits[[i for i, number in enumerate(numbers) if number in scores]]
        numbers = [number for number in numbers if number in scores]
        masks = (logits[:, 0] > 0).cpu().numpy()
        stored = {
            number: StoredMask(encode_mask(mask), scores[number].presence, scores[number].iou)
            for number, mask in zip(numbers, masks, strict=True)
            if wanted is None or number in wanted
        }
        others, more = self._masks(frame, but=numbers)
        return FrameAnswer(frame, stored, _ceded([*numbers, *others], torch.cat((logits, more))))


def _ceded(numbers: list[int], logits: Tensor) -> dict[int, bytes]:
    """Of every object, the pixels where it has a positive logit and another one a higher one."""
    if len(numbers) < 2:
        return {}
    masks = (logits[:, 0] > 0).cpu().numpy()
    contested = masks.sum(0, dtype=np.uint8) > 1
    if not contested.any():
        return {}
    # The few pixels that count, rather than all of them: this is done for every frame that is tracked.
    winner = logits[:, 0][:, torch.from_numpy(contested).to(logits.device)].argmax(0).cpu().numpy()
    lost = {}
    for i, number in enumerate(numbers):
        mask = np.zeros(contested.shape, bool)
        mask[contested] = masks[i][contested] & (winner != i)
        if mask.any():
            lost[number] = encode_mask(mask)
    return lost
