"""InferenceState: the session over one video, and the only owner of what changes over time."""

from __future__ import annotations

import os
import threading
from collections.abc import Collection, Hashable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

import torch

from i2v.inference.feature_cache import Encoder, FeatureCache
from i2v.inference.object_track import ObjectScores, ObjectSnapshot, ObjectTrack
from i2v.modeling.structures import FrameFeatures
from i2v.prompts.object_ids import canonical_id
from i2v.video.frame_loader import FrameLoader
from i2v.video.frame_source import FrameSource


class InferenceState:
    """A session over one video: the objects with their prompts, masks and memories.

    ``I2VVideoPredictor.init_state`` creates it. Frames and their features are only cached and can be recomputed at any
    time. ``close``, or the end of a ``with`` block, stops reading ahead and closes the video.

    Several threads may share a state: the predictor's methods wait for each other. Only one propagation may run on a
    state at a time; to track in both directions at once, propagate a ``copy``.

    Attributes:
        device: Device of the model and of the features.
        storage_device: Device of the memories.
        frames_at_once: Most frames that a propagation encodes as one batch.
        tracks: Everything known about each object, by object id.
    """

    def __init__(
        self,
        source: FrameSource,
        image_size: int,
        window_length: int,
        device: torch.device,
        storage_device: torch.device | None = None,
        frames_at_once: int = 1,
    ) -> None:
        """Open a session without objects.

        Args:
            source: The video.
            image_size: Side ``S`` of the model image in pixels.
            window_length: Frames in the model's window.
            device: Device of the model and of the features.
            storage_device: Device of the memories, ``device`` by default.
            frames_at_once: See ``PredictorSettings``.
        """
        self.device = device
        self.storage_device = storage_device or device
        self.frames_at_once = frames_at_once
        self.tracks: dict[Hashable, ObjectTrack] = {}
        self._process = os.getpid()
        # Reentrant, because methods that hold it call others that take it.
        self._lock = threading.RLock()
        self._video = _OpenVideo(source, FrameLoader(source, image_size))
        self._cache = FeatureCache(self._video.loader, window_length, device, frames_at_once)
        self._is_propagating = False

    @property
    def lock(self) -> threading.RLock:
        """Held while the state changes.

        Raises:
            RuntimeError: In a process that was forked, where the lock and the thread that reads frames do not work.
        """
        if self._process != os.getpid():
            raise RuntimeError(
                "this inference state was made in another process, before a fork, and cannot be used here: "
                "call init_state in this process"
            )
        return self._lock

    @property
    def source(self) -> FrameSource:
        """The video that the frames come from."""
        return self._video.source

    @property
    def num_frames(self) -> int | None:
        """Number of frames; ``None`` while a live video is still running."""
        return self.source.num_frames

    @property
    def video_height(self) -> int:
        """Height of the original frames in pixels."""
        return self.source.height

    @property
    def video_width(self) -> int:
        """Width of the original frames in pixels."""
        return self.source.width

    # Objects

    @property
    def obj_ids(self) -> list[Hashable]:
        """Object ids in the order in which they were added, which is the order of the masks."""
        return list(self.tracks)

    def get_track(self, obj_id: Hashable) -> ObjectTrack:
        """Return the track of an object.

        Raises:
            KeyError: If the session has no such object.
        """
        obj_id = canonical_id(obj_id)
        if obj_id not in self.tracks:
            raise KeyError(f"object {obj_id!r} is not in the session, which has {self.obj_ids}")
        return self.tracks[obj_id]

    def select_tracks(self, obj_ids: Collection[Hashable] | None) -> dict[Hashable, ObjectTrack]:
        """Return the tracks of ``obj_ids``, or of all objects if ``None``, in the session's order.

        Ids that the session does not have are skipped.
        """
        wanted = None if obj_ids is None else {canonical_id(i) for i in obj_ids}
        return {i: track for i, track in self.tracks.items() if wanted is None or i in wanted}

    def has_mask(self, obj_id: Hashable, frame: int) -> bool:
        """Whether an object has a mask on a frame, from a prompt or from tracking."""
        track = self.tracks.get(canonical_id(obj_id))
        return track is not None and track.has_mask(frame)

    def frames_with_mask(self, obj_id: Hashable) -> list[int]:
        """Return the indices of the frames on which an object has a mask, in order.

        Raises:
            KeyError: If the session has no such object.
        """
        return self.get_track(obj_id).frames

    def mask_ranges(self, obj_id: Hashable) -> list[range]:
        """Return the frames on which an object has a mask as ranges of consecutive indices.

        Raises:
            KeyError: If the session has no such object.
        """
        ranges: list[range] = []
        for frame in self.frames_with_mask(obj_id):
            if ranges and ranges[-1].stop == frame:
                ranges[-1] = range(ranges[-1].start, frame + 1)
            else:
                ranges.append(range(frame, frame + 1))
        return ranges

    def scores(self, frame: int) -> dict[Hashable, ObjectScores]:
        """Return the scores of every object that has a mask on a frame, by object id."""
        all_scores = {obj_id: track.scores(frame) for obj_id, track in self.tracks.items()}
        return {obj_id: scores for obj_id, scores in all_scores.items() if scores is not None}

    def snapshot_object(self, obj_id: Hashable) -> ObjectSnapshot:
        """Take a snapshot of an object, to be restored later.

        Masks and memories are shared with the session, so a snapshot takes little until they are replaced there.

        Raises:
            KeyError: If the session has no such object.
        """
        with self.lock:
            return ObjectSnapshot(self.get_track(obj_id).without_features())

    def restore_object(self, obj_id: Hashable, snapshot: ObjectSnapshot) -> None:
        """Replace an object, or add it again, as it was at a snapshot. A snapshot can be restored many times."""
        with self.lock:
            # A copy, so that tracking on does not change the snapshot.
            self.tracks[canonical_id(obj_id)] = snapshot.track.copy()

    # Copies

    def copy(self) -> InferenceState:
        """Return an independent state with copies of the objects. The video is shared.

        Close every copy; the video closes with the last one. ``copy.copy`` and ``copy.deepcopy`` do the same.
        """
        with self.lock:
            # Not through __init__, which would start another loader.
            other = object.__new__(type(self))
            other.__dict__.update(self.__dict__)
            other.tracks = {obj_id: track.copy() for obj_id, track in self.tracks.items()}
            other._lock = threading.RLock()
            other._video = self._video.share()
            other._cache = self._cache.empty_copy()
            other._is_propagating = False
            return other

    def __copy__(self) -> InferenceState:
        return self.copy()

    def __deepcopy__(self, memo: dict[int, Any]) -> InferenceState:
        return self.copy()

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "an inference state cannot be pickled or sent to another process: it holds an open video; "
            "call init_state there"
        )

    # Frames

    def features(self, frame: int, encoder: Encoder, following: Sequence[int] = ()) -> FrameFeatures:
        """Return a frame's features, computing them if they are not cached; see ``FeatureCache.features``."""
        return self._cache.features(frame, encoder, following)

    def read_ahead(self, frames: range) -> None:
        """Decode ``frames``, which will be asked for next, in the background. At least one frame is expected."""
        self._video.loader.expect(frames.start, frames.step)

    @contextmanager
    def propagating(self) -> Iterator[None]:
        """Mark the state as being propagated inside a ``with`` block.

        Raises:
            RuntimeError: If another propagation has not ended.
        """
        with self.lock:
            if self._is_propagating:
                raise RuntimeError(
                    "this state is being propagated: exhaust or close() that generator before the next one, or "
                    "propagate a copy, state.copy()"
                )
            self._is_propagating = True
        # The lock is released between frames, so that prompts can be given while a propagation is suspended.
        try:
            yield
        finally:
            self._is_propagating = False

    def close(self) -> None:
        """Stop reading ahead, and close the video unless a copy of the state is still open. Nothing after a fork."""
        if self._process == os.getpid():
            self._video.close()

    def __enter__(self) -> InferenceState:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _OpenVideo:
    """A source and its loader, shared by a state and its copies and closed with the last of them."""

    def __init__(self, source: FrameSource, loader: FrameLoader, users: _SharedCounter | None = None) -> None:
        self.source = source
        self.loader = loader
        self._users = users or _SharedCounter()
        self._users.add(1)
        self._is_open = True

    def share(self) -> _OpenVideo:
        return _OpenVideo(self.source, self.loader, self._users)

    def close(self) -> None:
        if not self._is_open:
            return
        self._is_open = False
        if self._users.add(-1) == 0:
            # Loader first: its thread reads from the source.
            self.loader.close()
            self.source.close()


class _SharedCounter:
    """A thread-safe counter."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._value = 0

    def add(self, number: int) -> int:
        with self._lock:
            self._value += number
            return self._value
