"""LiveSession: frames come one by one, masks come back one by one."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

from i2v.i2v_video_predictor import FrameMasks, I2VVideoPredictor
from i2v.inference.inference_state import InferenceState
from i2v.inference.object_track import ObjectScores
from i2v.modeling.structures import TrackingStep
from i2v.video.sources import LiveFrames


class LiveSession:
    """Tracks objects through a camera's frames, with the masks that the whole video would give.

    ::

        session = LiveSession(predictor)
        for image in camera:
            frame, obj_ids, masks = session.step(image)
            if frame == 0:
                frame, obj_ids, masks = session.add_new_points_or_box(1, points=[[210, 350]], labels=[1])

    Prompts concern the frame that came last. Memory stays bounded however long it goes on, but for a few kilobytes for
    every frame and object.
    """

    def __init__(self, predictor: I2VVideoPredictor) -> None:
        self.predictor = predictor
        self._frames = LiveFrames()
        self._state: InferenceState | None = None
        self._last = -1

    @property
    def state(self) -> InferenceState:
        """The session behind it, for the predictor's other methods; RuntimeError before the first frame."""
        if self._state is None:
            raise RuntimeError("no frame has come yet: call step(frame) first")
        return self._state

    def step(self, frame: Any) -> FrameMasks:
        """Take the next frame, (H,W,3) uint8 RGB; returns its index, the object ids and their masks (N,1,H,W)."""
        self._frames.append(frame)
        self._last += 1
        if self._state is None:
            self._state = self.predictor.init_state(self._frames)
        return self.predictor.advance(self._state, TrackingStep(self._last))

    def add_new_points_or_box(self, obj_id: Hashable, **prompt: Any) -> FrameMasks:
        """Prompt an object on the last frame, see :meth:`I2VVideoPredictor.add_new_points_or_box`."""
        return self.predictor.add_new_points_or_box(self.state, self._last, obj_id, **prompt)

    def add_new_mask(self, obj_id: Hashable, mask: Any) -> FrameMasks:
        """Give an object's mask on the last frame, see :meth:`I2VVideoPredictor.add_new_mask`."""
        return self.predictor.add_new_mask(self.state, self._last, obj_id, mask)

    def remove_object(self, obj_id: Hashable) -> list[Hashable]:
        """Remove an object; returns the ids that are left."""
        return self.predictor.remove_object(self.state, obj_id, need_output=False)[0]

    def scores(self) -> dict[Hashable, ObjectScores]:
        """Object score and predicted IoU of the objects on the last frame."""
        return self.predictor.frame_scores(self.state, self._last)

    def close(self) -> None:
        """End the session."""
        if self._state is not None:
            self._state.close()

    def __enter__(self) -> LiveSession:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
