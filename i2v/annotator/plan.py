"""Which frames to track, in which order: from what the user asks for to ranges for the predictor."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

Direction = Literal["forward", "backward", "both"]
Until = Literal["end", "prompt"]


@dataclass(frozen=True)
class TrackRange:
    """One propagation: from `start`, `count` frames with it, of the `objects` (None: all).

    `count` None: as frames come.
    """

    start: int
    count: int | None
    reverse: bool
    objects: frozenset[int] | None = None


def plan_tracking(
    shown: int,
    direction: Direction,
    until: Until,
    prompts: Mapping[int, Collection[int]],
    num_frames: int,
    objects: Collection[int] | None = None,
    live: bool = False,
) -> list[TrackRange]:
    """Ranges for "track `direction` from here": from the prompted frame nearest to the `shown` one.

    Forward it is the nearest at or before it, backward at or behind it, and where there is none on that side, the
    nearest on the other. `prompts`: every object's prompted frames. `until` "prompt" ends a range before the next
    prompted frame. `live`: frames are still arriving, and a forward range to the end goes on with them.
    Raises ValueError where none of the objects has a prompt.
    """
    chosen = prompts if objects is None else {number: prompts.get(number, ()) for number in objects}
    prompted = sorted({frame for frames in chosen.values() for frame in frames})
    if not prompted:
        raise ValueError("nothing to track yet: mark an object with a click, a box or the brush first")
    before, behind = [f for f in prompted if f <= shown], [f for f in prompted if f >= shown]
    start = behind[0] if direction == "backward" and behind else before[-1] if before else prompted[0]
    only = None if objects is None else frozenset(objects)
    reversals = {"forward": (False,), "backward": (True,), "both": (False, True)}[direction]
    stops = prompted if until == "prompt" else []
    ranges = [_range(start, reverse, stops, num_frames, only) for reverse in reversals]
    if live and until == "end":
        ranges = [
            track_range if track_range.reverse else TrackRange(track_range.start, None, False, only)
            for track_range in ranges
        ]
    ranges = [track_range for track_range in ranges if track_range.count != 1]
    if not ranges:
        raise ValueError(f"there is no frame to track {direction} from the prompt on frame {start}")
    # What has no end comes last.
    return sorted(ranges, key=lambda r: r.count is None)


def plan_update(
    corrected: Iterable[tuple[int, int]],
    prompts: Mapping[int, Collection[int]],
    outdated: Mapping[int, Collection[int]],
    num_frames: int,
) -> list[TrackRange]:
    """Ranges that track anew only what corrections changed: from each to the object's prompts or ends on either side.

    `corrected`: (object, frame) whose prompts changed; where the frame has none left, the prompt before it leads on,
    or else the one behind it back. A side without outdated frames is left alone.
    """
    found: dict[tuple[int, bool, int | None], set[int]] = {}
    for number, frame in sorted(set(corrected)):
        prompted = sorted(prompts.get(number, ()))
        for start, reverse in _ways(frame, prompted):
            track_range = _range(start, reverse, prompted, num_frames)
            assert track_range.count is not None
            frames = range(start, start - track_range.count, -1) if reverse else range(start, start + track_range.count)
            if track_range.count > 1 and not set(outdated.get(number, ())).isdisjoint(frames):
                found.setdefault((start, reverse, track_range.count), set()).add(number)
    return [TrackRange(start, count, reverse, frozenset(numbers)) for (start, reverse, count), numbers in found.items()]


def _ways(frame: int, prompted: list[int]) -> list[tuple[int, bool]]:
    if frame in prompted:
        return [(frame, False), (frame, True)]
    before, behind = [f for f in prompted if f < frame], [f for f in prompted if f > frame]
    return [(before[-1], False)] if before else [(behind[0], True)] if behind else []


def _range(
    start: int, reverse: bool, stops: list[int], num_frames: int, only: frozenset[int] | None = None
) -> TrackRange:
    # Up to, without, the next of the stops, or the end of the video.
    end = (
        max((f for f in stops if f < start), default=-1)
        if reverse
        else min((f for f in stops if f > start), default=num_frames)
    )
    return TrackRange(start, abs(end - start), reverse, only)
