"""A rendered clip with exact masks: a blob that moves, rotates, deforms and passes behind a pillar."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image


@dataclass(frozen=True)
class DemoClip:
    """A clip and its masks.

    Attributes:
        frames: ``(T, H, W, 3)`` uint8 RGB.
        masks: ``(T, H, W)`` bool, the visible part of the object.
    """

    frames: NDArray[np.uint8]
    masks: NDArray[np.bool_]


def render_demo_clip(num_frames: int = 48, width: int = 320, height: int = 240, seed: int = 0) -> DemoClip:
    """Render the clip. Equal arguments give equal pixels.

    Args:
        num_frames: Number of frames ``T``.
        width: Width in pixels.
        height: Height in pixels.
        seed: Seed of the textures.
    """
    rng = np.random.default_rng(seed)
    scene = _texture(rng, height, width, dark=(40, 62, 58), light=(136, 150, 122))
    skin = _texture(rng, height, height, dark=(74, 40, 130), light=(236, 206, 250))
    pillar = _texture(rng, height, width, dark=(58, 56, 74), light=(104, 100, 128))
    behind = np.zeros((height, width), bool)
    behind[:, round(0.56 * width) : round(0.63 * width)] = True
    frames = np.empty((num_frames, height, width, 3), np.uint8)
    masks = np.empty((num_frames, height, width), bool)
    for frame in range(num_frames):
        blob, surface = _blob(frame / max(1, num_frames - 1), skin, height, width)
        picture = np.where(blob[..., None], surface, scene)
        frames[frame] = np.where(behind[..., None], pillar, picture)
        masks[frame] = blob & ~behind
    return DemoClip(frames, masks)


def _blob(time: float, skin: NDArray[np.uint8], height: int, width: int) -> tuple[NDArray[np.bool_], NDArray[np.uint8]]:
    # The blob's mask (H, W) and its texture at every pixel (H, W, 3), at a time in 0..1.
    y, x = np.mgrid[:height, :width].astype(np.float64)
    x -= width * (0.22 + 0.56 * time)
    y -= height * (0.5 + 0.14 * np.sin(2 * np.pi * time))
    turn = 1.2 * time
    angle = np.arctan2(y, x) - turn
    lobes = 0.16 * np.sin(3 * angle + 4 * time) + 0.07 * np.sin(5 * angle - 9 * time)
    inside = np.hypot(x, y) < 0.19 * height * (1 + lobes)
    # The texture rotates with the blob. It is tiled, and its seams are outside the blob.
    side = len(skin)
    u = np.rint(np.cos(turn) * x + np.sin(turn) * y).astype(int) + side // 2
    v = np.rint(np.cos(turn) * y - np.sin(turn) * x).astype(int) + side // 2
    return inside, skin[v % side, u % side]


def _texture(
    rng: np.random.Generator,
    height: int,
    width: int,
    dark: tuple[int, int, int],
    light: tuple[int, int, int],
) -> NDArray[np.uint8]:
    # Multi-scale noise (H, W, 3) between two colours, strongest at coarse scales.
    noise = np.zeros((height, width))
    for cells, strength in ((4, 1.0), (10, 0.6), (28, 0.4), (80, 0.25)):
        grains = Image.fromarray(rng.random((cells, cells), dtype=np.float32))
        noise += strength * np.asarray(grains.resize((width, height), Image.Resampling.BICUBIC))
    shade = ((noise - noise.min()) / (noise.max() - noise.min()))[..., None]
    return np.rint((1 - shade) * np.array(dark) + shade * np.array(light)).astype(np.uint8)
