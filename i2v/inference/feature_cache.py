"""FeatureCache: features of a video's latest frames, computed once for all objects."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from itertools import takewhile
from typing import Generic, Protocol, TypeVar

import torch
from torch import Tensor

from i2v.inference.precision import Precision
from i2v.modeling.structures import FrameFeatures
from i2v.video.frame_loader import FrameLoader, normalize
from i2v.video.sources import window_indices

Value = TypeVar("Value")

NUM_CACHED_FEATURES = 4


class LRU(Generic[Value]):
    """A cache by frame index that drops the value used longest ago."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._values: OrderedDict[int, Value] = OrderedDict()

    def __contains__(self, key: int) -> bool:
        return key in self._values

    def get(self, key: int, make: Callable[[], Value]) -> Value:
        """Return the value of a frame; ``make`` it if it is not cached."""
        if key in self._values:
            self._values.move_to_end(key)
        else:
            self.put(key, make())
        return self._values[key]

    def put(self, key: int, value: Value) -> None:
        """Store the value of a frame; at capacity, the value used longest ago is dropped."""
        self._values[key] = value
        self._values.move_to_end(key)
        while len(self._values) > self._capacity:
            self._values.popitem(last=False)

    def clear(self) -> None:
        """Drop all values."""
        self._values.clear()


class Encoder(Protocol):
    """The encoding part of ``I2VModel``; see there for shapes."""

    def stem_features(self, frames: Tensor) -> Tensor: ...

    def encode_frames(self, frames: Tensor, stem_features: Sequence[Tensor]) -> FrameFeatures: ...


class FeatureCache:
    """Caches a loader's frames and an encoder's features of them on a device.

    The features are those of one precision at a time: asked for another one, the cache computes them anew.
    """

    def __init__(
        self,
        loader: FrameLoader,
        encoder: Encoder,
        window_length: int,
        device: torch.device,
        frames_at_once: int = 1,
    ) -> None:
        """Create an empty cache.

        Args:
            loader: Where frames come from.
            encoder: What encodes them.
            window_length: Frames in the encoder's window.
            device: Device of frames and features.
            frames_at_once: Most frames to encode as one batch, if the caller says which come next.
        """
        self._loader = loader
        self._encoder = encoder
        self._device = device
        self._window_length = window_length
        self._frames_at_once = frames_at_once
        self._frames: LRU[Tensor] = LRU(frames_at_once)
        # Each frame's contribution to the windows it is part of, so that the next window only computes its own frame.
        self._stem_features: LRU[Tensor] = LRU(window_length + frames_at_once)
        # Room for a whole batch, so that features encoded ahead are not evicted before their turn.
        self._features: LRU[FrameFeatures] = LRU(NUM_CACHED_FEATURES + frames_at_once - 1)
        # Clicks come in a row on one frame.
        self._mirrored: LRU[FrameFeatures] = LRU(1)
        self._precision: Precision | None = None  # of everything in the three caches above

    def features(self, frame: int, precision: Precision, following: Sequence[int] = ()) -> FrameFeatures:
        """Return a frame's features, computing them if they are not cached.

        Args:
            frame: Index of the frame.
            precision: The precision under which the caller computes.
            following: Frames that will be asked for next, in order. If ``frame`` has to be encoded, the first few of
                them are encoded in the same batch.

        Raises:
            IndexError: If the video has no such frame.
            InvalidFileError: If the frame cannot be decoded.
        """
        self._set_precision(precision)
        return self._features.get(frame, lambda: self._encode(frame, following))

    def mirrored(self, frame: int, precision: Precision, encode: Callable[[], FrameFeatures]) -> FrameFeatures:
        """Return the features of a frame's mirror image, of which only the latest are kept.

        Args:
            frame: Index of the frame.
            precision: The precision under which the caller computes.
            encode: Computes them.
        """
        self._set_precision(precision)
        return self._mirrored.get(frame, encode)

    def _set_precision(self, precision: Precision) -> None:
        if precision != self._precision:
            self.clear()
            self._precision = precision

    def clear(self) -> None:
        """Drop all features. Frames, which do not depend on the encoder, stay."""
        self._stem_features.clear()
        self._features.clear()
        self._mirrored.clear()

    def empty_copy(self) -> FeatureCache:
        """Return an empty cache with the same loader and settings."""
        return FeatureCache(self._loader, self._encoder, self._window_length, self._device, self._frames_at_once)

    def _encode(self, frame: int, following: Sequence[int]) -> FrameFeatures:
        missing = (f for f in following[: self._frames_at_once - 1] if f not in self._features)
        frames = [frame, *takewhile(self._can_read, missing)]
        windows = [[self._stem(i) for i in window_indices(f, self._window_length)] for f in frames]
        # From frames of windows to windows of frames: one batch for each of the T places in a window.
        stem_features = [torch.cat(batch) for batch in zip(*windows, strict=True)]
        encoded = self._encoder.encode_frames(torch.cat([self._frame(f) for f in frames]), stem_features)
        # Only the features ahead are stored here; the LRU's `get` stores those of the requested frame.
        first, *others = encoded.split()
        for other, features in zip(frames[1:], others, strict=True):
            self._features.put(other, features)
        return first

    def _can_read(self, frame: int) -> bool:
        """Whether a frame can be read. If not, the error belongs to that frame's own turn, not to this one."""
        try:
            self._frame(frame)
        except (OSError, ValueError, TypeError, LookupError, RuntimeError):
            return False
        return True

    def _stem(self, index: int) -> Tensor:
        return self._stem_features.get(index, lambda: self._encoder.stem_features(self._frame(index)))

    def _frame(self, index: int) -> Tensor:
        """A normalized frame ``(1, 3, S, S)`` on the device."""
        return self._frames.get(index, lambda: normalize(self._loader.get(index).to(self._device))[None])
