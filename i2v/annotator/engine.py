"""The model's side of a session: tracks, memories and masks of its objects, always changed together."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Generator, Hashable, Mapping
from itertools import combinations
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from i2v.annotator.document import Box, Click, Document, Paint, Place, Step
from i2v.annotator.history import ObjectState, States
from i2v.annotator.masks import Frames, Masks, MaskStore, Size, StoredMask, box_of, decode
from i2v.annotator.plan import TrackRange
from i2v.i2v_video_predictor import I2VVideoPredictor
from i2v.inference.inference_state import InferenceState
from i2v.results.rle import encode_mask
from i2v.video.frame_source import FrameSource

OnPreview: TypeAlias = Callable[[Place, bytes], None]
"""Takes the first mask of a prompt on a (object, frame), as run lengths."""


class Engine:
    """Answers prompts and tracks, in the thread that owns the model. ``store`` and ``knows`` are safe in any thread.

    The ``MaskStore`` owns every mask that is shown, saved and exported, encoded from the logits when it was predicted.
    The model's ``InferenceState`` owns what later prompts and tracking start from; its logits of older frames are
    compressed and never shown. An edit, an exchange and each step of tracking change both in one call, and a failed
    edit changes neither. So the store has a mask wherever the model has one. It can have more: imported masks, and
    those whose memories the model has dropped.

    Answers are what ``I2VVideoPredictor`` returns for the same prompts in the same order, except that a painted mask is
    kept as painted, while the predictor returns it smoothed.
    """

    def __init__(self, predictor: I2VVideoPredictor, source: FrameSource) -> None:
        """Open a session without objects.

        Args:
            predictor: The predictor.
            source: The video, for this session alone.
        """
        self._predictor = predictor
        self._model: InferenceState = predictor.init_state(source)
        self._store = MaskStore()

    @property
    def store(self) -> MaskStore:
        """The current masks, an immutable value."""
        return self._store

    def knows(self, place: Place) -> bool:
        """Whether the model has a mask of this (object, frame), so that a click corrects it."""
        return self._model.has_mask(*place)

    # Snapshots

    def states(self, numbers: Collection[int]) -> dict[int, ObjectState]:
        """Snapshot the current state of objects."""
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
        """Set the state of objects, and return their previous states."""
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

    def edit(
        self,
        old: Document,
        new: Document,
        imported: Masks,
        cleared: Frames,
        on_preview: OnPreview | None = None,
    ) -> dict[int, ObjectState]:
        """Change from one document to another, and import and clear masks. If an error is raised, nothing has changed.

        Args:
            old: The current document.
            new: The new document.
            imported: Masks to import, by object and frame.
            cleared: Frames without prompts whose masks are removed, by object.
            on_preview: Called with a prompt's first mask before the model refines it.

        Returns:
            The previous states of the objects that changed.

        Raises:
            ValueError: If the model rejects a prompt.
        """
        gone = set(old.numbers) - set(new.numbers)
        places = changed_places(old, new)
        before = self.states(touched_objects(old, new, imported, cleared))
        try:
            self.exchange(dict.fromkeys(gone, ObjectState()))
            for place in places:
                self._answer(place, old.prompts.get(place, ()), new.prompts.get(place, ()), on_preview)
            for number, masks in imported.items():
                self._store = self._store.with_masks(number, self._store.of(number).with_imported(masks))
                for frame in masks:
                    self._store = self._store.with_overlaps(frame, {number}, {})
            for number, frames in cleared.items():
                self._clear(number, frames)
        except BaseException:
            self.exchange(before)
            raise
        return before

    def _answer(self, place: Place, old: tuple[Step, ...], new: tuple[Step, ...], on_preview: OnPreview | None) -> None:
        number, frame = place
        steps = new
        if old and new[: len(old)] == old:
            steps = new[len(old) :]
        elif old and number in self._model.obj_ids and not (new and isinstance(new[0], Paint)):
            # A mask replaces earlier prompts by itself; clicks and boxes would build on their result.
            self._predictor.clear_all_prompts_in_frame(self._model, frame, number, need_output=False)
        for step in steps:
            self._step(place, step, on_preview if step is steps[-1] else None)
        numbers, logits = self._logits_around(number, frame)
        mask = None
        if new:
            mask = self._masks(frame, [number], logits[[numbers.index(number)]])[number]
            if isinstance(new[-1], Paint):
                mask = StoredMask(new[-1].counts, mask.object_score, mask.iou)
        store = self._store.with_masks(number, self._store.of(number).with_answer(frame, mask))
        self._store = store.with_overlaps(frame, {number}, _lost(numbers, logits, {number}))

    def _clear(self, number: int, frames: Collection[int]) -> None:
        if number in self._model.obj_ids:
            # Else a click on such a frame would correct the mask that is gone.
            track = self._model.get_track(number)
            track.drop_memories(set(frames))
            track.drop_click_context()
            for frame in frames:
                track.history.drop(frame)
                track.propagated.pop(frame, None)
        self._store = self._store.with_masks(number, self._store.of(number).without(frames))
        for frame in frames:
            self._store = self._store.with_overlaps(frame, {number}, {})

    def _step(self, place: Place, step: Step, on_preview: OnPreview | None) -> None:
        number, frame = place

        def preview(tell: OnPreview, logits: Tensor) -> None:
            tell(place, encode_mask((logits[0, 0] > 0).cpu().numpy()))

        # None costs nothing: the first mask is then not made at video size.
        tell_first = None if on_preview is None else functools.partial(preview, on_preview)
        if isinstance(step, Paint):
            mask = decode(step.counts, self._size)
            self._predictor.add_new_mask(self._model, frame, number, mask, output_ids=())
        elif isinstance(step, Box):
            corners = [step.x0, step.y0, step.x1, step.y1]
            self._predictor.add_new_points_or_box(
                self._model, frame, number, box=corners, output_ids=(), on_first_answer=tell_first
            )
        else:
            assert isinstance(step, Click)
            point, label = [[step.x, step.y]], [int(step.positive)]
            self._predictor.add_new_points_or_box(
                self._model,
                frame,
                number,
                point,
                label,
                clear_old_points=False,
                output_ids=(),
                on_first_answer=tell_first,
            )

    # Tracking

    def track(self, track_range: TrackRange, is_kept: Callable[[Place], bool]) -> Generator[int, None, None]:
        """Track over a range, one frame per step. Close the generator before tracking another range.

        Prompts, removals and exchanges in between take effect from the next frame on.

        Args:
            track_range: The frames and objects.
            is_kept: Whether the mask of an (object, frame) stays as it is. It is tracked over, but its mask is not
                taken.

        Yields:
            The index of the tracked frame.
        """
        count = None if track_range.count is None else track_range.count - 1
        chosen = track_range.objects
        if chosen is not None:
            chosen = chosen & set(self._model.obj_ids)
        steps = self._predictor.propagate_in_video(self._model, track_range.start, count, track_range.reverse, chosen)
        for frame, obj_ids, logits in steps:
            numbers: list[Any] = obj_ids
            kept = {number for number in numbers if is_kept((number, frame))}
            self._forget(frame, [(n, plane) for n, plane in zip(numbers, logits[:, 0], strict=True) if n in kept])
            taken = [i for i, number in enumerate(numbers) if number not in kept]
            if taken:
                self._keep_tracked(frame, [numbers[i] for i in taken], logits[taken])
            yield frame

    def _forget(self, frame: int, planes: Collection[tuple[int, Tensor]]) -> None:
        """Make the model forget masks that are not taken: a click corrects the one that is shown.

        Args:
            frame: Index of the frame.
            planes: The objects and their logits ``(H, W)``.
        """
        for number, plane in planes:
            shown = self._store.shown(number, frame)
            if shown is None or shown.counts != encode_mask((plane > 0).cpu().numpy()):
                self._model.get_track(number).history.drop(frame)

    def prepare(self, frame: int) -> None:
        """Encode a frame in advance, so that a prompt on it is answered faster."""
        self._predictor.prefetch_frame(self._model, frame)

    def close(self) -> None:
        """Close the video."""
        self._model.close()

    def _keep_tracked(self, frame: int, numbers: list[Any], logits: Tensor) -> None:
        store = self._store
        masks = self._masks(frame, numbers, logits)
        for number, mask in masks.items():
            store = store.with_masks(number, store.of(number).with_tracked(frame, mask))
        others, more = self._logits(frame, [n for n in self._model.obj_ids if n not in numbers])
        lost = _lost([*numbers, *others], torch.cat((logits, more)), masks.keys())
        self._store = store.with_overlaps(frame, masks.keys(), lost)

    # Logits

    @property
    def _size(self) -> Size:
        return self._model.video_height, self._model.video_width

    def _logits(self, frame: int, numbers: Collection[Any]) -> tuple[list[Any], Tensor]:
        """Return those of the objects that have a mask on a frame, and their logits ``(N, 1, H, W)``."""
        known = [n for n in numbers if self._model.has_mask(n, frame)]
        return self._predictor.masks_on_frame(self._model, frame, known)[1:]

    def _logits_around(self, number: int, frame: int) -> tuple[list[Any], Tensor]:
        """Return an object and those near it that have a mask on a frame, and their logits ``(N, 1, H, W)``.

        Logits at video size take most of a prompt's time where there are many objects; those far away share no pixel
        with this one.
        """
        if self._predictor.settings.non_overlap_masks:  # every object's logits depend on all others
            return self._logits(frame, self._model.obj_ids)
        own, logits = self._logits(frame, [number] if number in self._model.obj_ids else [])
        if not own:
            return own, logits
        box = box_of(encode_mask((logits[0, 0] > 0).cpu().numpy()), self._size)
        near = [n for n in self._model.obj_ids if n != number and self._may_touch(n, frame, box)]
        others, more = self._logits(frame, near)
        # In the session's order, as ties go to the first.
        place = {n: i for i, n in enumerate(self._model.obj_ids)}
        both = sorted(zip([*own, *others], [*logits, *more], strict=True), key=lambda pair: place[pair[0]])
        return [n for n, _ in both], torch.stack([plane for _, plane in both])

    def _may_touch(self, number: Any, frame: int, box: Box | None) -> bool:
        stored = self._store.shown(number, frame)
        other = None if stored is None else box_of(stored.counts, self._size)
        if stored is None or box is None or other is None:
            return stored is None  # only the model has its mask
        # A painted mask is shown as painted, while the model has it at its own resolution.
        slack = max(self._size) / 16
        return (
            other.x0 - slack < box.x1
            and box.x0 < other.x1 + slack
            and other.y0 - slack < box.y1
            and box.y0 < other.y1 + slack
        )

    def _masks(self, frame: int, numbers: list[Any], logits: Tensor) -> dict[int, StoredMask]:
        """Convert logits ``(N, 1, H, W)`` to masks with scores, of the objects that have scores on the frame."""
        scores: Mapping[Hashable, Any] = self._predictor.frame_scores(self._model, frame)
        planes = (logits[:, 0] > 0).cpu().numpy()
        return {
            number: StoredMask(encode_mask(mask), scores[number].object_score, scores[number].iou)
            for number, mask in zip(numbers, planes, strict=True)
            if number in scores
        }


def changed_places(old: Document, new: Document) -> list[Place]:
    """Return the (object, frame) pairs whose prompts differ between two documents, of objects that remain."""
    numbers = set(new.numbers)
    places = {**old.prompts, **new.prompts}
    return [p for p in places if p[0] in numbers and old.prompts.get(p) != new.prompts.get(p)]


def touched_objects(old: Document, new: Document, imported: Masks, cleared: Frames) -> set[int]:
    """Return the objects whose masks or prompts an edit changes; new names do not count."""
    gone = set(old.numbers) - set(new.numbers)
    return gone | {number for number, _ in changed_places(old, new)} | imported.keys() | cleared.keys()


def _lost(numbers: list[int], logits: Tensor, changed: Collection[int]) -> dict[tuple[int, int], bytes]:
    """Find the pixels that objects lose to others where their masks overlap: the higher logit wins, the first on ties.

    Args:
        numbers: The ``N`` objects.
        logits: ``(N, 1, H, W)``.
        changed: Objects that changed; pairs without any of them are skipped.

    Returns:
        The lost pixels of each (loser, winner), as compressed run lengths.
    """
    if len(numbers) < 2:
        return {}
    masks = (logits[:, 0] > 0).cpu().numpy()
    contested = masks.sum(0, dtype=np.uint8) > 1
    if not contested.any():
        return {}
    # Copy only the contested pixels from the device: this runs for every tracked frame.
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
