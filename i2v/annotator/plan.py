"""Planning what to track: from the user's request to ranges of frames for the predictor."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

Direction = Literal["forward", "backward", "both"]
Until = Literal["end", "prompt"]


@dataclass(frozen=True)
class TrackRange:
    """One propagation.

    Attributes:
        start: First frame.
        count: Number of frames, the first included; ``None`` to continue as frames arrive.
        reverse: Whether to track backward.
        objects: Objects to track; ``None`` for all.
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
    """Plan tracking from the prompted frame that is nearest to the shown one.

    Forward (and both), that is the nearest one at or before the shown frame; backward, the nearest at or after it. If
    there is none on that side, the nearest on the other is used.

    Args:
        shown: Index of the shown frame.
        direction: Direction of tracking.
        until: "prompt" to stop before the next prompted frame, "end" to continue to the end of the video.
        prompts: Prompted frames of each object.
        num_frames: Number of frames.
        objects: Objects to track; ``None`` for all.
        live: Whether frames are still arriving. A forward range to the end then continues with them.

    Returns:
        The ranges in order; one without end comes last.

    Raises:
        ValueError: If none of the objects has a prompt, or there is no frame to track.
    """
    chosen = prompts if objects is None else {number: prompts.get(number, ()) for number in objects}
    prompted = sorted({frame for frames in chosen.values() for frame in frames})
    if not prompted:
        raise ValueError("nothing to track yet: prompt an object with a click, a box or the brush first")
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
    # A range without end comes last.
    return sorted(ranges, key=lambda r: r.count is None)


def within(prompts: Mapping[int, Collection[int]], first: int, last: int | None) -> dict[int, list[int]]:
    """Return the prompted frames of each object in limits, of which tracking starts; all of them, if none is there.

    Args:
        prompts: Prompted frames of each object.
        first: First frame of the limits.
        last: Last frame of the limits; ``None`` for no limit.
    """
    found = {n: [f for f in frames if first <= f and (last is None or f <= last)] for n, frames in prompts.items()}
    return found if any(found.values()) else {n: list(frames) for n, frames in prompts.items()}


def clipped(ranges: Iterable[TrackRange], first: int, last: int | None) -> list[TrackRange]:
    """Limit ranges to frames.

    Args:
        ranges: The ranges.
        first: First frame of the limits.
        last: Last frame of the limits; ``None`` for no limit.

    Returns:
        The ranges, without those of which nothing is left.

    Raises:
        ValueError: If tracking would start outside the limits, or nothing is left.
    """
    found = []
    for track_range in ranges:
        start = track_range.start
        if start < first or (last is not None and start > last):
            raise ValueError(
                f"tracking starts from the prompt on frame {start}, outside the chosen range: prompt in it"
            )
        most = start - first + 1 if track_range.reverse else None if last is None else last - start + 1
        counts = [count for count in (track_range.count, most) if count is not None]
        found.append(replace(track_range, count=min(counts) if counts else None))
    found = [track_range for track_range in found if track_range.count != 1]
    if not found:
        raise ValueError("there is no frame to track in the chosen range")
    return found


def plan_update(
    corrected: Iterable[tuple[int, int]],
    prompts: Mapping[int, Collection[int]],
    outdated: Mapping[int, Collection[int]],
    num_frames: int,
) -> list[TrackRange]:
    """Plan tracking again only what corrections have changed: from each to the object's next prompts on either side.

    A side without outdated frames is skipped. If a corrected frame has no prompts left, tracking starts from the prompt
    before it, or else backward from the one after it.

    Args:
        corrected: (object, frame) pairs whose prompts changed.
        prompts: Prompted frames of each object.
        outdated: Outdated frames of each object.
        num_frames: Number of frames.

    Returns:
        The ranges; objects with the same range share one.
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
    # Up to the next stop (exclusive) or the end of the video.
    end = (
        max((f for f in stops if f < start), default=-1)
        if reverse
        else min((f for f in stops if f > start), default=num_frames)
    )
    return TrackRange(start, abs(end - start), reverse, only)
