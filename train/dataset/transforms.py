"""Augmentations of a clip at the model's size. Whatever is random comes out of the generator given.

Flip, affine and greyscale are drawn once for all frames of a clip, colours as told.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from train.dataset.structures import FrameObjects, RawClip

# Shares of red, green and blue in the brightness of a pixel (ITU-R BT.601).
_LUMA = (0.299, 0.587, 0.114)


class Transform(Protocol):
    """Changes a clip by what it draws from the generator; every call draws anew."""

    def __call__(self, clip: RawClip, generator: np.random.Generator) -> RawClip: ...


@dataclass(frozen=True)
class RandomHorizontalFlip:
    """Mirror left and right with a probability."""

    p: float = 0.5

    def __call__(self, clip: RawClip, generator: np.random.Generator) -> RawClip:
        if generator.random() >= self.p:
            return clip
        return dataclasses.replace(clip, frames=clip.frames.flip(-1), masks=clip.masks.flip(-1))


@dataclass(frozen=True)
class RandomAffine:
    """Rotate and shear about the centre, in the picture's own proportions.

    A draw that pushes an object of the first frame out of the picture leaves the clip as it was.
    """

    degrees: float = 25.0  # rotation is uniform in +-degrees
    shear: float = 20.0  # so is the angle by which columns lean
    fill: tuple[int, int, int] = (123, 116, 103)  # RGB beyond the border

    def __call__(self, clip: RawClip, generator: np.random.Generator) -> RawClip:
        rotation = math.radians(generator.uniform(-self.degrees, self.degrees))
        shear = math.radians(generator.uniform(-self.shear, self.shear))
        size = clip.frames.shape[-1]
        theta = torch.from_numpy(_sampling_matrix(rotation, shear, clip.aspect))
        grid = F.affine_grid(theta[None], [1, 1, size, size], align_corners=False)
        warped = [_warp(image, masks, grid, self.fill) for image, masks in zip(clip.frames, clip.masks, strict=True)]
        frames, masks = (torch.stack(parts) for parts in zip(*warped, strict=True))
        if (clip.masks[0].flatten(1).any(1) & ~masks[0].flatten(1).any(1)).any():
            return clip
        return dataclasses.replace(clip, frames=frames, masks=masks)


@dataclass(frozen=True)
class ColorJitter:
    """Change brightness, contrast and saturation, in random order, by factors uniform in 1 +- the value given."""

    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    consistent_transform: bool = True  # one draw for the clip, or one for every frame

    def __call__(self, clip: RawClip, generator: np.random.Generator) -> RawClip:
        frames = []
        steps = self._draw(generator)
        for i, image in enumerate(clip.frames):
            if i and not self.consistent_transform:
                steps = self._draw(generator)
            values = image.float()
            for name, factor in steps:
                _COLOUR_STEPS[name](values, factor)
            frames.append(_to_bytes(values))
        return dataclasses.replace(clip, frames=torch.stack(frames))

    def _draw(self, generator: np.random.Generator) -> list[tuple[str, float]]:
        ranges = {"brightness": self.brightness, "contrast": self.contrast, "saturation": self.saturation}
        drawn = [
            (name, generator.uniform(max(0.0, 1 - amount), 1 + amount)) for name, amount in ranges.items() if amount
        ]
        return [drawn[i] for i in generator.permutation(len(drawn))]


@dataclass(frozen=True)
class RandomGrayscale:
    """Take the colours out with a probability."""

    p: float = 0.05

    def __call__(self, clip: RawClip, generator: np.random.Generator) -> RawClip:
        if generator.random() >= self.p:
            return clip
        grey = [_to_bytes(_luma(image.float())).expand(3, -1, -1) for image in clip.frames]
        return dataclasses.replace(clip, frames=torch.stack(grey))


def resize(frame: FrameObjects, size: int) -> FrameObjects:
    """Image and masks as squares of `size` pixels, bilinear with antialiasing; masks are cut at one half."""
    masks = frame.masks
    if masks.shape[0] and tuple(masks.shape[1:]) != (size, size):
        masks = _squared(masks[None].to(torch.uint8) * 255, size)[0] >= 128
    elif not masks.shape[0]:
        masks = masks.new_zeros(0, size, size)
    return FrameObjects(_squared(frame.image[None], size)[0], masks)


def _squared(images: Tensor, size: int) -> Tensor:
    if tuple(images.shape[2:]) == (size, size):
        return images
    return F.interpolate(images, (size, size), mode="bilinear", antialias=True, align_corners=False)


def _sampling_matrix(rotation: float, shear: float, aspect: float) -> np.ndarray:
    """Where the pixels of the result come from: (2,3) in coordinates that run from -1 to 1 on both axes.

    The angles, in radians, hold for a picture `aspect` times as wide as high.
    """
    cos, sin, lean = math.cos(rotation), math.sin(rotation), math.tan(shear)
    forward = np.array([[cos, -cos * lean - sin], [sin, -sin * lean + cos]])
    widen = np.diag([aspect, 1.0])
    matrix = np.linalg.inv(widen) @ np.linalg.inv(forward) @ widen
    return np.hstack([matrix, np.zeros((2, 1))]).astype(np.float32)


def _warp(image: Tensor, masks: Tensor, grid: Tensor, fill: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Image (3,S,S) uint8 and masks (N,S,S) bool sampled at a grid; beyond the border are `fill` and no mask."""
    background = torch.tensor(fill, dtype=torch.float32).view(3, 1, 1)
    layers = torch.empty(3 + len(masks), *image.shape[1:])
    # Less the fill, so that the zeros that grid_sample puts beyond the border become it.
    torch.sub(image, background, out=layers[:3])
    layers[3:].copy_(masks)
    sampled = F.grid_sample(layers[None], grid, mode="bilinear", padding_mode="zeros", align_corners=False)[0]
    return _to_bytes(sampled[:3] + background), sampled[3:] >= 0.5


def _scale_brightness(values: Tensor, factor: float) -> None:
    values.mul_(factor).clamp_(0, 255)


def _scale_contrast(values: Tensor, factor: float) -> None:
    # By NumPy, because torch splits sums over its threads, and the result must not depend on their number.
    mean = float(_luma(values).numpy().mean(dtype=np.float64))
    values.mul_(factor).add_((1 - factor) * mean).clamp_(0, 255)


def _scale_saturation(values: Tensor, factor: float) -> None:
    grey = _luma(values)
    values.mul_(factor).add_(grey, alpha=1 - factor).clamp_(0, 255)


_COLOUR_STEPS = {
    "brightness": _scale_brightness,
    "contrast": _scale_contrast,
    "saturation": _scale_saturation,
}


def _luma(values: Tensor) -> Tensor:
    """Brightness (1,S,S) of an image (3,S,S)."""
    red, green, blue = _LUMA
    return (values[0] * red).add_(values[1], alpha=green).add_(values[2], alpha=blue)[None]


def _to_bytes(values: Tensor) -> Tensor:
    return values.round_().clamp_(0, 255).to(torch.uint8)
