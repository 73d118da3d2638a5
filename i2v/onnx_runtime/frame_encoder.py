"""Frames of a video, encoded by an exported model."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from i2v.onnx_runtime.mask_arrays import Floats
from i2v.onnx_runtime.network import FrameFeatures, OnnxNetwork
from i2v.video.frame_source import FrameSource
from i2v.video.window import window_indices

NUM_CACHED_FEATURES = 4


class FrameEncoder:
    """Encodes the frames of a video, and keeps the features of the latest ones."""

    def __init__(self, source: FrameSource, network: OnnxNetwork) -> None:
        self._source = source
        self._network = network
        self._stems: dict[int, Floats] = {}
        self._features: dict[int, FrameFeatures] = {}

    def features(self, frame: int) -> FrameFeatures:
        """Return the features of a frame.

        Raises:
            IndexError: If the video has no such frame.
            InvalidFileError: If the frame cannot be decoded.
        """
        if frame not in self._features:
            sizes = self._network.description.sizes
            pixels: dict[int, NDArray[np.uint8]] = {}
            window = window_indices(frame, sizes.window_length)
            for index in window:
                if index not in self._stems:
                    pixels[index] = to_model_pixels(self._source.read(index), sizes.image_size)
                    self._stems[index] = self._network.stem(pixels[index])
            if frame not in pixels:
                pixels[frame] = to_model_pixels(self._source.read(frame), sizes.image_size)
            self._features[frame] = self._network.encode(pixels[frame], [self._stems[i] for i in window])
            self._stems = {index: stem for index, stem in self._stems.items() if index in window}
            while len(self._features) > NUM_CACHED_FEATURES:
                del self._features[next(iter(self._features))]
        return self._features[frame]


def to_model_pixels(
    picture: NDArray[np.uint8], image_size: int, box: tuple[float, float, float, float] | None = None
) -> NDArray[np.uint8]:
    """Resize a picture, or a part of it, to the model image.

    Args:
        picture: ``(H, W, 3)`` RGB.
        image_size: Side ``S`` of the model image in pixels.
        box: Left, top, right and bottom of the part in pixels, which may be fractions; by default the whole picture.

    Returns:
        ``(1, 3, S, S)``.
    """
    resized = np.asarray(Image.fromarray(picture).resize((image_size, image_size), box=box))
    return np.ascontiguousarray(resized.transpose(2, 0, 1))[None]
