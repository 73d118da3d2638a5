"""InferenceState: one video in work. It is the only owner of what changes over time."""

from __future__ import annotations

import threading
from collections.abc import Collection, Hashable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

import torch

from i2v.inference.feature_cache import Encoder, FeatureCache
from i2v.inference.object_track import ObjectScores, ObjectSnapshot, ObjectTrack
from i2v.modeling.structures import FrameFeatures
from i2v.video.frame_loader import FrameLoader
from i2v.video.frame_source import FrameSource


class InferenceState:
    """The objects of one video: their prompts, masks and memories. Made by ``predictor.init_state``.

    The video's frames and features are held beside them and can be computed again at any time. :meth:`close` (or a
    ``with`` block) ends reading ahead and closes the video.

    Several threads may use a state: the predictor's verbs wait for each other. It is propagated by one propagation at a
    time; to follow objects in two directions at once, propagate a :meth:`copy`.
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
        """``storage_device``: of the memories, by default ``device``; ``frames_at_once``: see `PredictorSettings`."""
        self.device = device
        self.storage_device = storage_device or device
        self.frames_at_once = frames_at_once
        self.tracks: dict[Hashable, ObjectTrack] = {}
        self.lock = threading.RLock()
        self._video = _OpenVideo(source, FrameLoader(source, image_size))
        self._cache = FeatureCache(self._video.loader, window_length, device, frames_at_once)
        self._is_propagated = False

    @property
    def source(self) -> FrameSource:
        """Where the frames come from."""
        return self._video.source

    @property
    def num_frames(self) -> int | None:
        """Frames of the video; ``None`` while a live one goes on."""
        return self.source.num_frames

    @property
    def video_height(self) -> int:
        return self.source.height

    @property
    def video_width(self) -> int:
        return self.source.width

    # Objects

    @property
    def obj_ids(self) -> list[Hashable]:
        """The objects in the order in which they came, which is the order of the masks."""
        return list(self.tracks)

    def track_of(self, obj_id: Hashable) -> ObjectTrack:
        """An object's track; KeyError for an object that the session does not have."""
        if obj_id not in self.tracks:
            raise KeyError(f"object {obj_id!r} is not in the session, which has {self.obj_ids}")
        return self.tracks[obj_id]

    def chosen(self, obj_ids: Collection[Hashable] | None) -> dict[Hashable, ObjectTrack]:
        """The tracks of these objects that the session has, in its order; ``None``: all."""
        return {i: track for i, track in self.tracks.items() if obj_ids is None or i in obj_ids}

    def has_mask(self, obj_id: Hashable, frame: int) -> bool:
        """Whether an object has a mask on a frame, from a prompt or from tracking."""
        return obj_id in self.tracks and self.tracks[obj_id].has_mask(frame)

    def frames_with_mask(self, obj_id: Hashable) -> list[int]:
        """The frames on which an object has a mask, in order; KeyError for an object that is not there."""
        return self.track_of(obj_id).frames

    def mask_ranges(self, obj_id: Hashable) -> list[range]:
        """The same as ranges of consecutive frames."""
        ranges: list[range] = []
        for frame in self.frames_with_mask(obj_id):
            if ranges and ranges[-1].stop == frame:
                ranges[-1] = range(ranges[-1].start, frame + 1)
            else:
                ranges.append(range(frame, frame + 1))
        return ranges

    def scores(self, frame: int) -> dict[Hashable, ObjectScores]:
        """The scores of every object that has a mask on a frame."""
        found = {obj_id: track.scores(frame) for obj_id, track in self.tracks.items()}
        return {obj_id: scores for obj_id, scores in found.items() if scores is not None}

    def snapshot_object(self, obj_id: Hashable) -> ObjectSnapshot:
        """An object as it is now, to be restored later; KeyError for an object that is not there.

        Masks and memories are shared with the session, so a snapshot takes little until they are replaced there.
        """
        with self.lock:
            return ObjectSnapshot(self.track_of(obj_id).without_features())

    def restore_object(self, obj_id: Hashable, snapshot: ObjectSnapshot) -> None:
        """Put an object back as it was, in place of what it is now. A snapshot may be restored any number of times."""
        with self.lock:
            self.tracks[obj_id] = snapshot.track.copy()

    # Copies

    def copy(self) -> InferenceState:
        """A state with the same objects that goes its own way from here; the video is shared.

        Each of them is to be closed. The video closes with the last one.
        """
        with self.lock:
            other = object.__new__(type(self))
            other.__dict__.update(self.__dict__)
            other.tracks = {obj_id: track.copy() for obj_id, track in self.tracks.items()}
            other.lock = threading.RLock()
            other._video = self._video.share()
            other._cache = self._cache.empty()
            other._is_propagated = False
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
        """A frame's features, computed unless they are among the latest; see :meth:`FeatureCache.features`."""
        return self._cache.features(frame, encoder, following)

    def read_ahead(self, frames: range) -> None:
        """Let the frames that are asked for next, at least one, be decoded in the background."""
        self._video.loader.expect(frames.start, frames.step)

    @contextmanager
    def propagating(self) -> Iterator[None]:
        """For the time of one propagation. Raises RuntimeError if another one has not ended."""
        with self.lock:
            if self._is_propagated:
                raise RuntimeError(
                    "this state is being propagated: exhaust or close() that generator before the next one, or "
                    "propagate a copy, state.copy()"
                )
            self._is_propagated = True
        try:
            yield
        finally:
            self._is_propagated = False

    def close(self) -> None:
        """Stop reading ahead and, unless a copy is still open, close the video."""
        self._video.close()

    def __enter__(self) -> InferenceState:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _OpenVideo:
    """A source and its loader, shared by a state and its copies; closed with the last of them."""

    def __init__(self, source: FrameSource, loader: FrameLoader, users: _Count | None = None) -> None:
        self.source = source
        self.loader = loader
        self._users = users or _Count()
        self._users.add(1)
        self._is_open = True

    def share(self) -> _OpenVideo:
        return _OpenVideo(self.source, self.loader, self._users)

    def close(self) -> None:
        if not self._is_open:
            return
        self._is_open = False
        if self._users.add(-1) == 0:
            self.loader.close()
            self.source.close()


class _Count:
    """A number that several threads change."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._value = 0

    def add(self, number: int) -> int:
        with self._lock:
            self._value += number
            return self._value
