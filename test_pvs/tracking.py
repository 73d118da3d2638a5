"""One video through the predictor: every object is prompted where it first appears, and followed to the end."""

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
    """Follow objects in one pass over a video, from the frame where the first of them appears to the end.

    Yields a frame's index, the objects that have appeared by then, and their logits (N,1,H,W). Raises ValueError for
    masks that are not of the video's size and IndexError for frames that it does not have.
    """
    targets = in_order(targets)
    with predictor.init_state(video) as state:
        check_targets(state.source, targets)
        _prompt_on(targets[0].frame, predictor, state, targets, prompt)
        for frame, objects, logits in predictor.propagate_in_video(state, targets[0].frame):
            yield frame, objects, logits
            # Only now: the pass comes to that frame next, so its features are computed once for both.
            _prompt_on(frame + 1, predictor, state, targets, prompt)


def track_apart(
    predictor: I2VVideoPredictor, video: str, targets: Sequence[Target], prompt: Protocol
) -> Iterator[FrameMasks]:
    """The same with a pass of its own for every object, all frame by frame side by side."""
    targets = in_order(targets)
    passes = [(target, track_together(predictor, video, [target], prompt)) for target in targets]
    with open_source(video) as source:
        num_frames = source.num_frames or 0
    for frame in range(targets[0].frame, num_frames):
        found = [next(masks) for target, masks in passes if target.frame <= frame]
        yield frame, [obj for _, objects, _ in found for obj in objects], torch.cat([logits for *_, logits in found])


def in_order(targets: Sequence[Target]) -> list[Target]:
    """Targets by the frames on which they appear, otherwise as given."""
    return sorted(targets, key=lambda target: target.frame)


def check_targets(source: FrameSource, targets: Sequence[Target]) -> None:
    """Raise ValueError for masks that are not of the video's size, IndexError for frames that it does not have."""
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
