"""Engine: what the model remembers of one session, brought in line with the session's document."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from i2v.annotator.document import Box, Click, Document, Paint, Place, Step
from i2v.annotator.masks import FrameAnswer, StoredMask, decode
from i2v.annotator.plan import TrackRange
from i2v.i2v_video_predictor import I2VVideoPredictor
from i2v.inference.inference_state import InferenceState
from i2v.inference.object_track import ObjectSnapshot
from i2v.results.rle import encode_mask
from i2v.video.frame_source import FrameSource


class Engine:
    """Answers prompts and tracks, in the thread that owns the model; `knows` may be called from any thread.

    What it answers is what `I2VVideoPredictor` gives for the same prompts in the same order. Only a painted mask is
    kept as it was painted, where the predictor returns it smoothed.
    """

    def __init__(self, predictor: I2VVideoPredictor, source: FrameSource) -> None:
        self._predictor = predictor
        self._state: InferenceState = predictor.init_state(source)
        self._deleted: dict[int, ObjectSnapshot] = {}  # objects that undo may bring back

    def knows(self, place: Place) -> bool:
        """Whether the predictor has a mask of that object on that frame, so that a click corrects it."""
        return self._state.has_mask(*place)

    def become(self, old: Document, new: Document, places: Collection[Place]) -> dict[Place, FrameAnswer]:
        """Turn from one document into another; returns an answer for each of the `places` whose prompts differ.

        Objects that are gone are kept aside, and come back as they went.
        """
        for number in set(old.numbers) - set(new.numbers):
            if number in self._state.obj_ids:
                self._deleted[number] = self._state.snapshot_object(number)
                self._predictor.remove_object(self._state, number, need_output=False)
        for number in (set(new.numbers) - set(old.numbers)) & self._deleted.keys():
            self._state.restore_object(number, self._deleted.pop(number))
        return {place: self._prompt(place, old.prompts.get(place, ()), new.prompts.get(place, ())) for place in places}

    def forget(self, numbers: Collection[int]) -> None:
        """Drop deleted objects that can no longer come back."""
        for number in numbers:
            self._deleted.pop(number, None)

    def track(self, track_range: TrackRange) -> Iterator[FrameAnswer]:
        """Track over a range, one frame for every step; prompts and deletions meanwhile count from the next one on."""
        count = None if track_range.count is None else track_range.count - 1
        chosen = track_range.objects
        if chosen is not None:
            chosen = chosen & set(self._state.obj_ids)
        steps = self._predictor.propagate_in_video(self._state, track_range.start, count, track_range.reverse, chosen)
        for frame, numbers, logits in steps:
            yield self._answer(frame, numbers, logits)

    def prepare(self, frame: int) -> None:
        """Encode a frame, so that a prompt on it is answered faster."""
        self._predictor.prefetch_frame(self._state, frame)

    def close(self) -> None:
        """Close the video and drop all objects."""
        self._deleted.clear()
        self._state.close()

    def _prompt(self, place: Place, old: tuple[Step, ...], new: tuple[Step, ...]) -> FrameAnswer:
        number, frame = place
        steps = new
        if old and new[: len(old)] == old:
            steps = new[len(old) :]
        elif old and number in self._state.obj_ids and not (new and isinstance(new[0], Paint)):
            # A mask replaces whatever was said; all else would build on it.
            self._predictor.clear_all_prompts_in_frame(self._state, frame, number, need_output=False)
        for step in steps:
            self._step(place, step)
        answer = self._answer(frame, *self._masks(frame), wanted={number} if new else ())
        if new and isinstance(new[-1], Paint):
            scores = answer.masks[number]
            painted = StoredMask(new[-1].counts, scores.object_score, scores.iou)
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

    def _masks(self, frame: int, but: Collection[Any] = ()) -> tuple[list[Any], Tensor]:
        """Logits (N,1,H,W) of the objects that have any on a frame."""
        known = [n for n in self._state.obj_ids if n not in but and self._state.has_mask(n, frame)]
        return self._predictor.masks_on_frame(self._state, frame, known)[1:]

    def _answer(
        self, frame: int, numbers: list[Any], logits: Tensor, wanted: Collection[int] | None = None
    ) -> FrameAnswer:
        scores = self._predictor.frame_scores(self._state, frame)
        logits = logits[[i for i, number in enumerate(numbers) if number in scores]]
        numbers = [number for number in numbers if number in scores]
        masks = (logits[:, 0] > 0).cpu().numpy()
        stored = {
            number: StoredMask(encode_mask(mask), scores[number].object_score, scores[number].iou)
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
