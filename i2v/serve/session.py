"""A session over one video: prompts and tracking, as answers."""

from __future__ import annotations

import secrets
import time
from collections.abc import Collection, Generator
from tempfile import TemporaryDirectory
from typing import Any

from starlette.exceptions import HTTPException
from torch import Tensor

from i2v.errors import listed
from i2v.i2v_video_predictor import I2VVideoPredictor
from i2v.results.rle import RunLengths
from i2v.serve.limits import Limits
from i2v.serve.masks import arguments_of, describe_mask
from i2v.serve.schemas import FrameAnswer, ObjectAnswer, PromptRequest, SessionAnswer, TrackRequest
from i2v.video.frame_source import FrameSource


class VideoSession:
    """Objects in one video. Its methods, apart from ``describe``, run in the thread that owns the model.

    Attributes:
        name: Name that clients use, hard to guess.
        last_used: Time of the last request, in seconds of ``time.monotonic``.
        tracking: Whether a stream is tracking its objects.
        closed: Whether it was closed.
    """

    def __init__(
        self,
        predictor: I2VVideoPredictor,
        source: FrameSource,
        limits: Limits,
        video: str,
        folder: TemporaryDirectory[str] | None = None,
    ) -> None:
        """Open a session without objects.

        Args:
            predictor: The predictor.
            source: The video, which is closed with the session.
            limits: The service's limits.
            video: Name of the video for clients.
            folder: Temporary folder of an upload, which is removed with the session.
        """
        self.name = secrets.token_hex(8)
        self.last_used = time.monotonic()
        self.tracking = self.closed = False
        self._predictor, self._limits, self._video, self._folder = predictor, limits, video, folder
        self._state = predictor.init_state(source)

    def describe(self) -> SessionAnswer:
        """Describe the video and the objects."""
        source = self._state.source
        assert source.num_frames is not None
        return SessionAnswer(
            session=self.name,
            video=self._video,
            width=source.width,
            height=source.height,
            frames=source.num_frames,
            frame_rate=source.frame_rate,
            objects=self._objects,
            tracking=self.tracking,
        )

    @property
    def _objects(self) -> list[int]:
        return [number for number in self._state.obj_ids if isinstance(number, int)]

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the frames in pixels."""
        return self._state.video_height, self._state.video_width

    def prompt(self, request: PromptRequest) -> FrameAnswer:
        """Prompt an object.

        Raises:
            HTTPException: If the session is closed or has too many objects, or memory is short.
            IndexError: If there is no such frame.
            ValueError: If the prompt is malformed or off the frame.
        """
        self._check_open()
        self._limits.check_memory()
        number, frame = request.object, request.frame
        if number not in self._objects and len(self._objects) >= self._limits.objects:
            raise HTTPException(429, f"the session has {self._limits.objects} objects, expected no more: remove one")
        if request.mask is not None:
            mask = RunLengths.of_coco(request.mask.model_dump(), self.size).mask()
            found = self._predictor.add_new_mask(self._state, frame, number, mask, output_ids=[number])
        else:
            arguments = arguments_of(request)
            found = self._predictor.add_new_points_or_box(self._state, frame, number, **arguments, output_ids=[number])
        return self._answer(*found)

    def remove(self, number: int) -> None:
        """Remove an object.

        Raises:
            HTTPException: If there is no such object, or the session is closed.
        """
        self._check_open()
        self._check_objects([number])
        self._predictor.remove_object(self._state, number, need_output=False)

    def track(self, request: TrackRequest) -> Generator[FrameAnswer, None, None]:
        """Start to track objects.

        Returns:
            A generator of frames. From its first step on until it is closed, nothing else tracks the session.

        Raises:
            HTTPException: If another stream is tracking, there is no such object, or the session is closed.
            IndexError: If there is no such frame.
            RuntimeError: If no object has a prompt.
        """
        self._check_open()
        self._check_free()
        if request.objects is not None:
            self._check_objects(request.objects)
        frames = self._predictor.propagate_in_video(
            self._state,
            request.start,
            None if request.frames is None else request.frames - 1,
            request.reverse,
            request.objects,
        )
        return self._steps(frames)

    def _steps(self, frames: Any) -> Generator[FrameAnswer, None, None]:
        # Only from the first step on: a client can go away before.
        self._check_free()
        self.tracking = True
        try:
            for found in frames:
                self.last_used = time.monotonic()
                yield self._answer(*found)
                self._check_open()
                self._limits.check_memory()
        finally:
            self.tracking = False
            if hasattr(frames, "close"):  # without any frame it is an empty iterator
                frames.close()

    def close(self) -> None:
        """Close the video, and remove it if it was uploaded."""
        if not self.closed:
            self.closed = True
            self._state.close()
            if self._folder is not None:
                self._folder.cleanup()

    def _check_open(self) -> None:
        if self.closed:
            raise HTTPException(404, "this session was closed")

    def _check_free(self) -> None:
        if self.tracking:
            raise HTTPException(409, "another request is tracking this session: wait for its end, or close its stream")

    def _check_objects(self, numbers: Collection[int]) -> None:
        missing = [number for number in numbers if number not in self._objects]
        if missing:
            known = listed(self._objects, 10) or "none"
            raise HTTPException(404, f"there is no object {listed(missing, 10)} in this session, which has {known}")

    def _answer(self, frame: int, numbers: list[Any], logits: Tensor) -> FrameAnswer:
        scores = self._predictor.frame_scores(self._state, frame)
        planes = (logits[:, 0] > 0).cpu().numpy()
        masks = []
        for number, plane in zip(numbers, planes, strict=True):
            own = scores.get(number)
            masks.append(
                ObjectAnswer(
                    **describe_mask(plane, None if own is None else own.iou).model_dump(),
                    object=number,
                    object_score=None if own is None else round(own.object_score, 4),
                )
            )
        return FrameAnswer(frame=frame, masks=masks)
