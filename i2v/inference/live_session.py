"""LiveSession: tracking on a stream, one frame at a time."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

from i2v.i2v_video_predictor import FrameMasks, I2VVideoPredictor
from i2v.inference.inference_state import InferenceState
from i2v.inference.object_track import ObjectScores
from i2v.modeling.structures import TrackingStep
from i2v.video.sources import LiveFrames


class LiveSession:
    """Tracks objects in a stream of frames, with the same masks as a propagation through the whole video.

    Prompts refer to the latest frame. Host and device memory stay bounded, except for a few kilobytes per frame and
    object.

    Example::

        session = LiveSession(predictor)
        for image in camera:
            frame, obj_ids, masks = session.step(image)
            if frame == 0:
                frame, obj_ids, masks = session.add_new_points_or_box(1, points=[[210, 350]], labels=[1])
    """

    def __init__(self, predictor: I2VVideoPredictor) -> None:
        """Create a session without frames."""
        self.predictor = predictor
        self._frames = LiveFrames()
        self._state: InferenceState | None = None
        self._latest = -1

    @property
    def state(self) -> InferenceState:
        """The inference state, for the predictor's other methods.

        Raises:
            RuntimeError: Before the first frame.
        """
        if self._state is None:
            raise RuntimeError("no frame has come yet: call step(frame) first")
        return self._state

    def step(self, frame: Any) -> FrameMasks:
        """Track all objects to the next frame.

        Args:
            frame: ``(H, W, 3)`` uint8 RGB, of the same size as the first one.

        Returns:
            Its index, the object ids, and their mask logits ``(num_objects, 1, H, W)``.

        Raises:
            TypeError: If ``frame`` is not an image.
            ValueError: If it has another size than the first one.
            RuntimeError: If a propagation of the state has not ended. The frame is not taken.
        """
        if self._state is not None:
            self._state.check_idle()
        self._frames.append(frame)
        self._latest += 1
        if self._state is None:
            # Not earlier: until a frame has arrived, a state cannot tell the video's size.
            self._state = self.predictor.init_state(self._frames)
        return self.predictor.advance(self._state, TrackingStep(self._latest))

    def add_new_points_or_box(self, obj_id: Hashable, **prompt: Any) -> FrameMasks:
        """Prompt an object on the latest frame; see ``I2VVideoPredictor.add_new_points_or_box``."""
        return self.predictor.add_new_points_or_box(self.state, self._latest, obj_id, **prompt)

    def add_new_mask(self, obj_id: Hashable, mask: Any) -> FrameMasks:
        """Set an object's mask on the latest frame; see ``I2VVideoPredictor.add_new_mask``."""
        return self.predictor.add_new_mask(self.state, self._latest, obj_id, mask)

    def remove_object(self, obj_id: Hashable) -> list[Hashable]:
        """Remove an object. Returns the ids of the others; an unknown id is ignored."""
        return self.predictor.remove_object(self.state, obj_id, need_output=False)[0]

    def scores(self) -> dict[Hashable, ObjectScores]:
        """Return object score and predicted IoU of every object that has a mask on the latest frame."""
        return self.predictor.frame_scores(self.state, self._latest)

    def close(self) -> None:
        """Close the session and its state."""
        if self._state is not None:
            self._state.close()

    def __enter__(self) -> LiveSession:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
