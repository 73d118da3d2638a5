"""InferenceState: the session over one video, and the only owner of what changes over time."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Collection, Hashable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

import torch

from i2v.inference.feature_cache import FeatureCache
from i2v.inference.object_track import ObjectScores, ObjectSnapshot, ObjectTrack, SessionFormat
from i2v.inference.precision import Precision
from i2v.modeling.i2v_model import I2VModel
from i2v.modeling.structures import FrameFeatures
from i2v.prompts.object_ids import canonical_id
from i2v.video.frame_loader import FrameLoader
from i2v.video.frame_source import FrameSource


class InferenceState:
    """A session over one video: the objects with their prompts, masks and memories.

    ``I2VVideoPredictor.init_state`` creates it. Frames and their features are only cached and can be recomputed at any
    time. A state belongs to the model that it was created with: if you replace that model's weights, call
    ``clear_features``. ``close``, or the end of a ``with`` block, stops reading ahead and closes the video.

    Several threads may share a state: the predictor's methods wait for each other. Only one propagation may run on a
    state at a time; to track in both directions at once, propagate a ``copy``.

    Attributes:
        model: The network that encodes the frames.
        device: Device of the model and of the features.
        storage_device: Device of the memories.
        frames_at_once: Most frames that a propagation encodes as one batch.
        tracks: Everything known about each object, by object id.
    """

    def __init__(
        self,
        source: FrameSource,
        model: I2VModel,
        storage_device: torch.device | None = None,
        frames_at_once: int = 1,
    ) -> None:
        """Open a session without objects.

        Args:
            source: The video.
            model: The network that encodes the frames.
            storage_device: Device of the memories, by default the model's.
            frames_at_once: See ``PredictorSettings``.
        """
        self.model = model
        self.device = model.device
        self.storage_device = storage_device or model.device
        self.frames_at_once = frames_at_once
        self.tracks: dict[Hashable, ObjectTrack] = {}
        self._process = os.getpid()
        # Reentrant, because methods that hold it call others that take it.
        self._lock = threading.RLock()
        self._video = _OpenVideo(source, FrameLoader(source, model.image_size))
        self._cache = FeatureCache(self._video.loader, model, model.window_length, model.device, frames_at_once)
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
        with self.lock:
            track = self.tracks.get(canonical_id(obj_id))
            return track is not None and track.has_mask(frame)

    def frames_with_mask(self, obj_id: Hashable) -> list[int]:
        """Return the indices of the frames on which an object has a mask, in order.

        Raises:
            KeyError: If the session has no such object.
        """
        with self.lock:
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
        with self.lock:
            all_scores = {obj_id: track.scores(frame) for obj_id, track in self.tracks.items()}
        return {obj_id: scores for obj_id, scores in all_scores.items() if scores is not None}

    def snapshot_object(self, obj_id: Hashable) -> ObjectSnapshot:
        """Take a snapshot of an object, to be restored later.

        Masks and memories are shared with the session, so a snapshot takes little until they are replaced there.

        Raises:
            KeyError: If the session has no such object.
        """
        with self.lock:
            return ObjectSnapshot(self._format, self.get_track(obj_id).without_features())

    def restore_object(self, obj_id: Hashable, snapshot: ObjectSnapshot) -> None:
        """Replace an object, or add it again, as it was at a snapshot. A snapshot can be restored many times.

        Raises:
            ValueError: If the snapshot is of a video of another size or length, or of a model of another size.
        """
        with self.lock:
            if not snapshot.session.fits(self._format):
                raise ValueError(
                    f"the snapshot of object {obj_id!r} is of another session: expected {self._format}, "
                    f"got {snapshot.session}"
                )
            # A copy, so that tracking on does not change the snapshot.
            self.tracks[canonical_id(obj_id)] = snapshot.track.copy()

    @property
    def _format(self) -> SessionFormat:
        size, channels = (self.video_height, self.video_width), self.model.no_mem_embed.shape[-1]
        widths = (channels, self.model.no_obj_embed_spatial.shape[-1])
        return SessionFormat(size, self.num_frames, self.model.image_size, widths)

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

    def features(self, frame: int, precision: Precision, following: Sequence[int] = ()) -> FrameFeatures:
        """Return a frame's features, computing them if they are not cached; see ``FeatureCache.features``."""
        return self._cache.features(frame, precision, following)

    def mirrored_features(self, frame: int, precision: Precision, encode: Callable[[], FrameFeatures]) -> FrameFeatures:
        """Return the features of a frame's mirror image; see ``FeatureCache.mirrored``."""
        return self._cache.mirrored(frame, precision, encode)

    def clear_features(self) -> None:
        """Drop everything computed from frames alone, to be called after the model's weights were replaced.

        Objects keep their prompts, masks and memories, which are results of the old weights; remove them with
        ``I2VVideoPredictor.reset_state`` to start over.
        """
        with self.lock:
            self._cache.clear()
            for track in self.tracks.values():
                track.drop_click_context()

    def read_ahead(self, frames: range) -> None:
        """Decode ``frames``, which will be asked for next, in the background. At least one frame is expected."""
        self._video.loader.expect(frames.start, frames.step)

    def check_idle(self) -> None:
        """Check that no propagation of the state is suspended or running.

        Raises:
            RuntimeError: If one is.
        """
        if self._is_propagating:
            raise RuntimeError(
                "this state is being propagated: exhaust or close() that generator before the next one, or "
                "propagate a copy, state.copy()"
            )

    @contextmanager
    def propagating(self) -> Iterator[None]:
        """Mark the state as being propagated inside a ``with`` block.

        Raises:
            RuntimeError: If another propagation has not ended.
        """
        with self.lock:
            self.check_idle()
            self._is_propagating = True
        # The lock is released between frames, so that prompts can be given while a propagation is suspended.
        try:
            yield
        finally:
            self._is_propagating = False

    # Entries, as in SAM 2's sessions, which are dictionaries

    def __getitem__(self, key: str) -> Any:
        """Return what a session of SAM 2 has under a key, as far as it is not about how SAM 2 stores its tensors.

        Raises:
            KeyError: If there is no such entry.
        """
        if key not in self:
            raise KeyError(
                f"expected one of {', '.join(_SAM2_ENTRIES)}, got {key!r}; frames are state.source.read(frame), masks "
                "predictor.masks_on_frame(state, frame)"
            )
        return _SAM2_ENTRIES[key](self)

    def __contains__(self, key: object) -> bool:
        return key in _SAM2_ENTRIES

    def keys(self) -> list[str]:
        """Return the keys of all entries."""
        return list(_SAM2_ENTRIES)

    def __iter__(self) -> Iterator[str]:
        return iter(_SAM2_ENTRIES)

    def close(self) -> None:
        """Stop reading ahead, and close the video unless a copy of the state is still open. Nothing after a fork."""
        if self._process == os.getpid():
            self._video.close()

    def __enter__(self) -> InferenceState:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


_SAM2_ENTRIES: dict[str, Callable[[InferenceState], Any]] = {
    "num_frames": lambda state: state.num_frames,
    "video_height": lambda state: state.video_height,
    "video_width": lambda state: state.video_width,
    "device": lambda state: state.device,
    "storage_device": lambda state: state.storage_device,
    "offload_state_to_cpu": lambda state: state.storage_device.type == "cpu",
    "obj_ids": lambda state: state.obj_ids,
    "obj_id_to_idx": lambda state: {obj_id: index for index, obj_id in enumerate(state.obj_ids)},
    "obj_idx_to_id": lambda state: dict(enumerate(state.obj_ids)),
}


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
