"""Tracks the objects of one video: each is prompted on its first frame and propagated to the end."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence

import torch
from torch import Tensor

from i2v.i2v_video_predictor import I2VVideoPredictor
from i2v.inference.inference_state import InferenceState
from i2v.video.sources import FrameSource, open_source
from test_pvs.prompts import Protocol, Target

FrameMasks = tuple[int, list[Hashable], Tensor]


def track_together(
    predictor: I2VVideoPredictor, video: str, targets: Sequence[Target], prompt: Protocol
) -> Iterator[FrameMasks]:
    """Track all objects in one pass over a video, starting at the first prompted frame.

    Args:
        predictor: The predictor.
        video: Path of the video.
        targets: The objects, at least one.
        prompt: The prompt protocol.

    Yields:
        Frame index, the objects prompted so far, and their logits ``(N, 1, H, W)``.

    Raises:
        ValueError: If a mask has another size than the video.
        IndexError: If the video does not have a target's frame.
    """
    targets = in_order(targets)
    with predictor.init_state(video) as state:
        check_targets(state.source, targets)
        _prompt_on(targets[0].frame, predictor, state, targets, prompt)
        for frame, objects, logits in predictor.propagate_in_video(state, targets[0].frame):
            yield frame, objects, logits
            # Prompt just before the pass reaches that frame, so that its features are computed only once.
            _prompt_on(frame + 1, predictor, state, targets, prompt)


def track_apart(
    predictor: I2VVideoPredictor, video: str, targets: Sequence[Target], prompt: Protocol
) -> Iterator[FrameMasks]:
    """Track like :func:`track_together`, but with one pass per object; the passes advance frame by frame together."""
    targets = in_order(targets)
    passes = [(target, track_together(predictor, video, [target], prompt)) for target in targets]
    with open_source(video) as source:
        num_frames = source.num_frames or 0
    for frame in range(targets[0].frame, num_frames):
        found = [next(masks) for target, masks in passes if target.frame <= frame]
        yield frame, [obj for _, objects, _ in found for obj in objects], torch.cat([logits for *_, logits in found])


def in_order(targets: Sequence[Target]) -> list[Target]:
    """Sort targets by their frames, stably."""
    return sorted(targets, key=lambda target: target.frame)


def check_targets(source: FrameSource, targets: Sequence[Target]) -> None:
    """Check targets against a video.

    Raises:
        ValueError: If a mask has another size than the video.
        IndexError: If the video does not have a target's frame.
    """
    for target in targets:
        height, width = target.mask.shape
        if (height, width) != (source.height, source.width):
            raise ValueError(
                f"{source.name}, object {target.obj}: the annotation has {width}x{height} pixels, "
                f"the frames {source.width}x{source.height}"
            )
        if source.num_frames is not None and target.frame >= source.num_frames:
            raise IndexError(
                f"{source.name}, object {target.obj}: annotated on frame {target.frame}, "
                f"but there are {source.num_frames} frames"
            )


def _prompt_on(
    frame: int, predictor: I2VVideoPredictor, state: InferenceState, targets: Sequence[Target], prompt: Protocol
) -> None:
    for target in targets:
        if target.frame == frame:
            prompt(predictor, state, target)
