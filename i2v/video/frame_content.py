"""Masks and cut-outs that lie among the frames of a video under names that fit, told by what they show."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

import numpy as np
from PIL.Image import Image, getmodebands

_MOST_VALUES = 8  # of a picture of one channel that is taken for a mask; frames have more
_MOST_COLOURS = 64  # the same of one that is painted in areas, as masks of many objects are
_DARK = 48  # a picture without any brighter pixel is a scene that fades in or out
_MOST_UNEVEN = 0.2  # edges between colours, to a pixel
_GREY = 12  # by which channels differ at most where a lossy format leaves a little colour
_NEARLY = 24  # from black or white, after a lossy format
_FEWEST = 0.002  # of the pixels are white in a mask
_STRIDE = 4  # in pixels; a look at every pixel takes as long as decoding
_ALPHA = ("RGBA", "LA", "PA", "RGBa", "La")


@dataclass(frozen=True)
class FrameContent:
    """What the frames of a video are like, by the modes of some of them."""

    in_colour: bool
    """Whether any has more than one channel."""
    is_opaque: bool
    """Whether any has no channel of opacity."""

    @classmethod
    def of(cls, modes: Collection[str]) -> FrameContent:
        """Tell from Pillow's modes of some frames."""
        return cls(any(getmodebands(mode) > 1 for mode in modes), any(mode not in _ALPHA for mode in modes))

    def objection(self, image: Image, is_photographic: Callable[[], bool]) -> str | None:
        """Why a picture cannot be a frame of this video, or ``None``.

        Args:
            image: The picture.
            is_photographic: Whether the video shows more than masks do, asked only about a picture that is suspected.
        """
        if not self.in_colour:
            return None
        if _is_of_few_values(image) or (_is_painted(image) and is_photographic()):
            return "this looks like a mask among pictures in colour"
        if self.is_opaque and _is_cut_out(image) and is_photographic():
            return "this looks like a cut-out, transparent around an object, among pictures that are opaque"
        return None

    def is_doubtful(self, image: Image, is_photographic: Callable[[], bool]) -> bool:
        """Whether a picture may be a mask that was saved lossily, or a title in white on black. Arguments as above."""
        return self.in_colour and _is_black_and_white(image) and is_photographic()


def is_photo(image: Image) -> bool:
    """Whether a picture has several channels and more colours than masks have."""
    return len(image.getbands()) > 1 and image.getcolors(_MOST_COLOURS) is None


def _is_of_few_values(image: Image) -> bool:
    """Whether a picture has one channel of few values, as label maps have, but not of one, as a black frame has."""
    return len(image.getbands()) == 1 and 1 < len(np.unique(np.asarray(image))) <= _MOST_VALUES


def _is_painted(image: Image) -> bool:
    """Whether a picture consists of areas of few colours, one of them black, as masks in colours do."""
    if image.mode not in ("RGB", "RGBA", "P", "L"):
        return False
    colours = image.getcolors(_MOST_COLOURS)  # gives up at once where there are more
    if colours is None or len(colours) < 2:
        return False
    pixels = np.asarray(image.convert("RGB")).astype(np.int32)
    if pixels.reshape(-1, 3).any(axis=1).all():
        return False
    if pixels.max() < _DARK:
        return False
    packed = pixels @ np.array([1 << 16, 1 << 8, 1], np.int32)
    edges = np.count_nonzero(packed[:, 1:] != packed[:, :-1]) + np.count_nonzero(packed[1:] != packed[:-1])
    return len(colours) <= _MOST_VALUES or bool(edges <= _MOST_UNEVEN * packed.size)


def _is_cut_out(image: Image) -> bool:
    if image.mode not in _ALPHA:
        return False
    lowest, highest = image.getchannel("A").getextrema()
    return bool(lowest != highest)


def _is_black_and_white(image: Image) -> bool:
    if image.mode not in ("RGB", "L"):
        return False
    pixels = np.asarray(image)[::_STRIDE, ::_STRIDE]
    if pixels.ndim == 3:
        signed = pixels.astype(np.int16)
        if (signed.max(axis=2) - signed.min(axis=2)).max() > _GREY:
            return False
        pixels = pixels[..., 0]
    black = np.count_nonzero(pixels <= _NEARLY) / pixels.size
    white = np.count_nonzero(pixels >= 255 - _NEARLY) / pixels.size
    return bool(white >= _FEWEST and black >= _FEWEST and black + white >= 0.9)
