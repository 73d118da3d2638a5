"""Augmentations of a clip at model size. All randomness comes from the given generator.

Flip, affine and greyscale are drawn once per clip; colour jitter once per clip or per frame.
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

# Weights of red, green and blue in the luma of a pixel (ITU-R BT.601).
_LUMA = (0.299, 0.587, 0.114)


class Transform(Protocol):
    """Augments a clip, with new random parameters in every call."""

    def __call__(self, clip: RawClip, generator: np.random.Generator) -> RawClip: ...


@dataclass(frozen=True)
class RandomHorizontalFlip:
    """Flip horizontally with probability ``p``."""

    p: float = 0.5

    def __call__(self, clip: RawClip, generator: np.random.Generator) -> RawClip:
        if generator.random() >= self.p:
            return clip
        return dataclasses.replace(clip, frames=clip.frames.flip(-1), masks=clip.masks.flip(-1))


@dataclass(frozen=True)
class RandomAffine:
    """Rotate and shear about the center, in the aspect ratio of the original frame.

    A draw that pushes an object of the first frame out of the picture leaves the clip unchanged.

    Attributes:
        degrees: Rotation is uniform in +-``degrees``.
        shear: Horizontal shear angle is uniform in +-``shear`` degrees.
        fill: RGB beyond the border.
    """

    degrees: float = 25.0
    shear: float = 20.0
    fill: tuple[int, int, int] = (123, 116, 103)

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
    """Scale brightness, contrast and saturation in random order.

    Attributes:
        brightness: The factor is uniform in 1 +- ``brightness``; 0 leaves it unchanged.
        contrast: As ``brightness``.
        saturation: As ``brightness``.
        consistent_transform: Whether to draw once per clip instead of once per frame.
    """

    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    consistent_transform: bool = True

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
    """Convert to greyscale with probability ``p``."""

    p: float = 0.05

    def __call__(self, clip: RawClip, generator: np.random.Generator) -> RawClip:
        if generator.random() >= self.p:
            return clip
        grey = [_to_bytes(_luma(image.float())).expand(3, -1, -1) for image in clip.frames]
        return dataclasses.replace(clip, frames=torch.stack(grey))


def resize(frame: FrameObjects, size: int) -> FrameObjects:
    """Resize image and masks to squares of ``size`` pixels, bilinear with antialiasing; masks are cut at 0.5."""
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
    """Matrix that maps output to input coordinates, for ``affine_grid``.

    Args:
        rotation: Angle in radians, in the original aspect ratio.
        shear: Angle in radians, in the original aspect ratio.
        aspect: Width over height of the original frame.

    Returns:
        ``(2, 3)`` float32, for coordinates in -1..1.
    """
    cos, sin, lean = math.cos(rotation), math.sin(rotation), math.tan(shear)
    forward = np.array([[cos, -cos * lean - sin], [sin, -sin * lean + cos]])
    widen = np.diag([aspect, 1.0])
    matrix = np.linalg.inv(widen) @ np.linalg.inv(forward) @ widen
    return np.hstack([matrix, np.zeros((2, 1))]).astype(np.float32)


def _warp(image: Tensor, masks: Tensor, grid: Tensor, fill: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Sample image ``(3, S, S)`` uint8 and masks ``(N, S, S)`` bool at a grid, with ``fill`` beyond the border."""
    background = torch.tensor(fill, dtype=torch.float32).view(3, 1, 1)
    layers = torch.empty(3 + len(masks), *image.shape[1:])
    # grid_sample pads with zeros: subtract the fill colour before and add it afterwards.
    torch.sub(image, background, out=layers[:3])
    layers[3:].copy_(masks)
    sampled = F.grid_sample(layers[None], grid, mode="bilinear", padding_mode="zeros", align_corners=False)[0]
    return _to_bytes(sampled[:3] + background), sampled[3:] >= 0.5


def _scale_brightness(values: Tensor, factor: float) -> None:
    values.mul_(factor).clamp_(0, 255)


def _scale_contrast(values: Tensor, factor: float) -> None:
    # NumPy, because the rounding of torch's sums depends on the number of threads.
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
    """Luma ``(1, S, S)`` of an image ``(3, S, S)``."""
    red, green, blue = _LUMA
    return (values[0] * red).add_(values[1], alpha=green).add_(values[2], alpha=blue)[None]


def _to_bytes(values: Tensor) -> Tensor:
    return values.round_().clamp_(0, 255).to(torch.uint8)
