"""Engine: the objects of one session, what the model remembers of them and their masks, always changed together."""

from __future__ import annotations

from collections.abc import Collection, Generator, Hashable, Mapping
from itertools import combinations
from typing import Any

import numpy as np
import torch
from torch import Tensor

from i2v.annotator.document import Box, Click, Document, Paint, Place, Step
from i2v.annotator.history import ObjectState, States
from i2v.annotator.masks import Masks, MaskStore, StoredMask, decode
from i2v.annotator.plan import TrackRange
from i2v.i2v_video_predictor import I2VVideoPredictor
from i2v.inference.inference_state import InferenceState
from i2v.results.rle import encode_mask
from i2v.video.frame_source import FrameSource


class Engine:
    """Answers prompts and tracks, in the thread that owns the model. `store` and `knows` may be used in any thread.

    The `MaskStore` owns every mask that is shown, saved and exported, with the run lengths of the logits when it was
    made. The model's `InferenceState` owns what prompts and tracking start from; of older frames it keeps logits
    rounded, and they are never shown. An edit, an exchange and each step of tracking change both in one call, an edit
    that fails changes neither, and an `ObjectState` has both: so the store has a mask wherever the model remembers one.
    It may have more: imported masks, and those whose memories the model dropped.

    What it answers is what `I2VVideoPredictor` gives for the same prompts in the same order. Only a painted mask is
    kept as it was painted, where the predictor returns it smoothed.
    """

    def __init__(self, predictor: I2VVideoPredictor, source: FrameSource) -> None:
        self._predictor = predictor
        self._model: InferenceState = predictor.init_state(source)
        self._store = MaskStore()

    @property
    def store(self) -> MaskStore:
        """The masks as they are now, a value that does not change."""
        return self._store

    def knows(self, place: Place) -> bool:
        """Whether the model has a mask of that object on that frame, so that a click corrects it."""
        return self._model.has_mask(*place)

    # Snapshots

    def states(self, numbers: Collection[int]) -> dict[int, ObjectState]:
        """The objects as they are now."""
        known = set(self._model.obj_ids)
        return {
            number: ObjectState(
                self._store.of(number),
                self._store.overlaps_of(number),
                self._model.snapshot_object(number) if number in known else None,
            )
            for number in numbers
        }

    def exchange(self, states: States) -> dict[int, ObjectState]:
        """Bring objects into other states; returns those they were in."""
        before = self.states(states.keys())
        store = self._store
        for number, state in states.items():
            store = store.with_object(number, state.masks, state.overlaps)
            if state.model is None:
                self._predictor.remove_object(self._model, number, need_output=False)
            else:
                self._model.restore_object(number, state.model)
        self._store = store
        return before

    # Edits

    def edit(self, old: Document, new: Document, imported: Masks) -> dict[int, ObjectState]:
        """Turn from one document into another, and take in imported masks.

        Returns the states in which the objects were that this changes.
        """
        gone = set(old.numbers) - set(new.numbers)
        places = changed_places(old, new)
        before = self.states(touched_objects(old, new, imported))
        try:
            self.exchange(dict.fromkeys(gone, ObjectState()))
            for place in places:
                self._answer(place, old.prompts.get(place, ()), new.prompts.get(place, ()))
            for number, masks in imported.items():
                self._store = self._store.with_masks(number, self._store.of(number).with_imported(masks))
                for frame in masks:
                    self._store = self._store.with_overlaps(frame, {number}, {})
        except BaseException:
            self.exchange(before)
            raise
        return before

    def _answer(self, place: Place, old: tuple[Step, ...], new: tuple[Step, ...]) -> None:
        number, frame = place
        steps = new
        if old and new[: len(old)] == old:
            steps = new[len(old) :]
        elif old and number in self._model.obj_ids and not (new and isinstance(new[0], Paint)):
            # A mask replaces whatever was said; all else would build on it.
            self._predictor.clear_all_prompts_in_frame(self._model, frame, number, need_output=False)
        for step in steps:
            self._step(place, step)
        numbers, logits = self._logits(frame)
        mask = None
        if new:
            mask = self._masks(frame, [number], logits[[numbers.index(number)]])[number]
            if isinstance(new[-1], Paint):
                mask = StoredMask(new[-1].counts, mask.object_score, mask.iou)
        store = self._store.with_masks(number, self._store.of(number).with_answer(frame, mask))
        self._store = store.with_overlaps(frame, {number}, _lost(numbers, logits, {number}))

    def _step(self, place: Place, step: Step) -> None:
        number, frame = place
        if isinstance(step, Paint):
            mask = decode(step.counts, (self._model.video_height, self._model.video_width))
            self._predictor.add_new_mask(self._model, frame, number, mask)
        elif isinstance(step, Box):
            corners = [step.x0, step.y0, step.x1, step.y1]
            self._predictor.add_new_points_or_box(self._model, frame, number, box=corners)
        else:
            assert isinstance(step, Click)
            point, label = [[step.x, step.y]], [int(step.positive)]
            self._predictor.add_new_points_or_box(self._model, frame, number, point, label, clear_old_points=False)

    # Tracking

    def track(self, track_range: TrackRange) -> Generator[int, None, None]:
        """Track over a range, one frame for every step, and yield its index.

        Prompts, deletions and exchanges meanwhile count from the next frame on. Close it before another range.
        """
        count = None if track_range.count is None else track_range.count - 1
        chosen = track_range.objects
        if chosen is not None:
            chosen = chosen & set(self._model.obj_ids)
        steps = self._predictor.propagate_in_video(self._model, track_range.start, count, track_range.reverse, chosen)
        for frame, numbers, logits in steps:
            self._keep_tracked(frame, numbers, logits)
            yield frame

    def prepare(self, frame: int) -> None:
        """Encode a frame, so that a prompt on it is answered faster."""
        self._predictor.prefetch_frame(self._model, frame)

    def close(self) -> None:
        """Close the video."""
        self._model.close()

    def _keep_tracked(self, frame: int, numbers: list[Any], logits: Tensor) -> None:
        store = self._store
        masks = self._masks(frame, numbers, logits)
        for number, mask in masks.items():
            store = store.with_masks(number, store.of(number).with_tracked(frame, mask))
        others, more = self._logits(frame, but=numbers)
        lost = _lost([*numbers, *others], torch.cat((logits, more)), masks.keys())
        self._store = store.with_overlaps(frame, masks.keys(), lost)

    # Logits

    def _logits(self, frame: int, but: Collection[Any] = ()) -> tuple[list[Any], Tensor]:
        """Logits (N,1,H,W) of the objects that have any on a frame."""
        known = [n for n in self._model.obj_ids if n not in but and self._model.has_mask(n, frame)]
        return self._predictor.masks_on_frame(self._model, frame, known)[1:]

    def _masks(self, frame: int, numbers: list[Any], logits: Tensor) -> dict[int, StoredMask]:
        """The masks of logits (N,1,H,W), with their scores, of the objects that have a mask on the frame."""
        scores: Mapping[Hashable, Any] = self._predictor.frame_scores(self._model, frame)
        planes = (logits[:, 0] > 0).cpu().numpy()
        return {
            number: StoredMask(encode_mask(mask), scores[number].object_score, scores[number].iou)
            for number, mask in zip(numbers, planes, strict=True)
            if number in scores
        }


def changed_places(old: Document, new: Document) -> list[Place]:
    """The places, of objects that stay, whose prompts differ between two documents."""
    numbers = set(new.numbers)
    places = {**old.prompts, **new.prompts}
    return [p for p in places if p[0] in numbers and old.prompts.get(p) != new.prompts.get(p)]


def touched_objects(old: Document, new: Document, imported: Masks) -> set[int]:
    """The objects whose masks or prompts an edit changes: all but their names."""
    gone = set(old.numbers) - set(new.numbers)
    return gone | {number for number, _ in changed_places(old, new)} | imported.keys()


def _lost(numbers: list[int], logits: Tensor, changed: Collection[int]) -> dict[tuple[int, int], bytes]:
    """Of every two objects (loser, winner), the pixels of both where the winner's logit is higher; alike, the first's.

    ``logits`` (N,1,H,W); at least one of the two is ``changed``.
    """
    if len(numbers) < 2:
        return {}
    masks = (logits[:, 0] > 0).cpu().numpy()
    contested = masks.sum(0, dtype=np.uint8) > 1
    if not contested.any():
        return {}
    # The few pixels that count, rather than all of them: this is done for every frame that is tracked.
    values = logits[:, 0][:, torch.from_numpy(contested).to(logits.device)].float().cpu().numpy()
    found = {}
    for a, b in combinations(np.flatnonzero((values > 0).any(1)), 2):
        if numbers[a] not in changed and numbers[b] not in changed:
            continue
        both = (values[a] > 0) & (values[b] > 0)
        for loser, winner, lost in ((a, b, values[a] < values[b]), (b, a, values[b] <= values[a])):
            if (both & lost).any():
                mask = np.zeros(contested.shape, bool)
                mask[contested] = both & lost
                found[numbers[loser], numbers[winner]] = encode_mask(mask)
    return found
