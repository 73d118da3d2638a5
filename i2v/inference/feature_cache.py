"""FeatureCache: the features of a video's latest frames, each computed once for all objects."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from itertools import takewhile
from typing import Generic, Protocol, TypeVar

import torch
from torch import Tensor

from i2v.modeling.structures import FrameFeatures
from i2v.video.frame_loader import FrameLoader, normalize
from i2v.video.sources import window_indices

Value = TypeVar("Value")

NUM_CACHED_FEATURES = 4


class LRU(Generic[Value]):
    """The latest few values by frame."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._values: OrderedDict[int, Value] = OrderedDict()

    def __contains__(self, key: int) -> bool:
        return key in self._values

    def get(self, key: int, make: Callable[[], Value]) -> Value:
        """The value of a frame, made if it is not there."""
        if key in self._values:
            self._values.move_to_end(key)
        else:
            self.put(key, make())
        return self._values[key]

    def put(self, key: int, value: Value) -> None:
        """Keep a frame's value in place of the one used longest ago."""
        self._values[key] = value
        self._values.move_to_end(key)
        while len(self._values) > self._capacity:
            self._values.popitem(last=False)


class Encoder(Protocol):
    """What encodes frames; I2VModel is one."""

    def stem_features(self, frames: Tensor) -> Tensor: ...

    def encode_frames(self, frames: Tensor, stem_features: Sequence[Tensor]) -> FrameFeatures: ...


class FeatureCache:
    """Frames from a loader, and what an encoder makes of them, on a device."""

    def __init__(self, loader: FrameLoader, window_length: int, device: torch.device, frames_at_once: int = 1) -> None:
        """``frames_at_once``: how many frames are encoded as one batch, where the caller says which come next."""
        self._loader = loader
        self._device = device
        self._window_length = window_length
        self._frames_at_once = frames_at_once
        self._frames: LRU[Tensor] = LRU(frames_at_once)
        # What each frame adds to the windows around it, so that the next window computes only that of its own frame.
        self._stem_features: LRU[Tensor] = LRU(window_length + frames_at_once)
        self._features: LRU[FrameFeatures] = LRU(NUM_CACHED_FEATURES + frames_at_once - 1)

    def features(self, frame: int, encoder: Encoder, following: Sequence[int] = ()) -> FrameFeatures:
        """A frame's features, computed unless they are among the latest.

        ``following``: the frames to be asked for next, in order. If ``frame`` has to be encoded, the next few of them
        are encoded in the same batch.
        """
        return self._features.get(frame, lambda: self._encode(frame, encoder, following))

    def empty(self) -> FeatureCache:
        """A cache of the same loader that has nothing yet."""
        return FeatureCache(self._loader, self._window_length, self._device, self._frames_at_once)

    def _encode(self, frame: int, encoder: Encoder, following: Sequence[int]) -> FrameFeatures:
        missing = (f for f in following[: self._frames_at_once - 1] if f not in self._features)
        frames = [frame, *takewhile(self._can_read, missing)]
        windows = [[self._stem(i, encoder) for i in window_indices(f, self._window_length)] for f in frames]
        stem_features = [torch.cat(places) for places in zip(*windows, strict=True)]
        batch = encoder.encode_frames(torch.cat([self._frame(f) for f in frames]), stem_features)
        first, *others = batch.split()
        for other, features in zip(frames[1:], others, strict=True):
            self._features.put(other, features)
        return first

    def _can_read(self, frame: int) -> bool:
        """Whether a frame can be read. If not, the error is to be raised when its turn comes, not before."""
        try:
            self._frame(frame)
        except (OSError, ValueError, TypeError, LookupError, RuntimeError):
            return False
        return True

    def _stem(self, index: int, encoder: Encoder) -> Tensor:
        return self._stem_features.get(index, lambda: encoder.stem_features(self._frame(index)))

    def _frame(self, index: int) -> Tensor:
        """A frame (1,3,S,S), normalized, on the device."""
        return self._frames.get(index, lambda: normalize(self._loader.get(index).to(self._device))[None])
