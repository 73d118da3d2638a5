"""The order in which a propagation visits frames, and which of them it encodes."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterator

from i2v.inference.inference_state import InferenceState


def frames_ahead(state: InferenceState, start: int, max_frames: int | None, reverse: bool) -> Iterator[range]:
    """Yield for every frame of a propagation the range from it to the last frame, as far as known for a live video."""
    frame, step = start, -1 if reverse else 1
    while True:
        # Ask again on every frame: a live video may have ended meanwhile. Until then only the next frame is certain.
        count = state.num_frames
        end = max(frame + step, -1) if count is None else (-1 if reverse else count)
        if max_frames is not None:
            # As in SAM 2, `max_frames` does not count the start frame.
            last = start + step * (max_frames + 1)
            end = max(end, last) if reverse else min(end, last)
        ahead = range(frame, end, step)
        if not ahead:
            return
        yield ahead
        frame += step


def frames_to_encode_next(state: InferenceState, ahead: range, obj_ids: Collection[Hashable] | None) -> tuple[int, ...]:
    """Frames of the next batch, after the first of ``ahead``, that have to be encoded.

    A frame on which all objects have prompts needs no features.
    """
    tracks = state.select_tracks(obj_ids).values()
    to_encode = [f for f in ahead[: state.frames_at_once] if any(f not in track.prompted for track in tracks)]
    # If the first frame itself needs no features, nothing is encoded now, so there is no batch to join.
    return tuple(to_encode[1:]) if to_encode[:1] == [ahead.start] else ()
