"""Scenes and their rendering: textured layers move over a background under a moving camera, with exact masks.

Positions are in half frames: the screen spans -1 to 1 on both axes, y down. Matrices ``(3, 3)`` map points of a sprite,
which also spans -1 to 1, to the world, or points of the world to the screen.
"""

from __future__ import annotations

import io
import math
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, ImageFilter
from torch import Tensor
from torch.nn import functional as F

# Moments within the exposure that are averaged for motion blur, in frames.
_SHUTTER = (-0.25, 0.0, 0.25)


@dataclass(frozen=True)
class Layer:
    """A textured shape over all T frames.

    Attributes:
        texture: ``(3, h, w)`` float32 in 0..255.
        alpha: Opacity ``(h, w)`` float32 in 0..1.
        poses: ``(T, 3, 3)`` from sprite to world.
        shown: ``(T,)`` bool, whether it exists on a frame.
        label: Label of the object; 0 for scenery, ``None`` for what occludes nothing, such as shadows.
        roll: ``(T, 2)`` shift of the texture within the shape.
        wave: Amplitude, and number of waves per half sprite, of a bend that travels through the shape.
        phases: ``(T,)`` phase of that wave in radians.
    """

    texture: Tensor
    alpha: Tensor
    poses: np.ndarray
    shown: np.ndarray
    label: int | None
    roll: np.ndarray
    wave: tuple[float, float]
    phases: np.ndarray


@dataclass(frozen=True)
class Backdrop:
    """What is behind all layers.

    Attributes:
        pictures: 1 or T pictures ``(3, h, w)`` float32 in 0..255.
        extent: Distance from the center to the border in half frames; beyond it the picture is mirrored.
    """

    pictures: tuple[Tensor, ...]
    extent: float


@dataclass(frozen=True)
class Look:
    """Light and lens.

    Attributes:
        gains: ``(T, 3)`` factors of red, green and blue.
        slopes: ``(T, 2)`` relative change of the light over half a frame, to the right and down.
        motion_blur: Whether to blur motion.
        defocus: ``(T,)`` radius of the blur in pixels.
        noise: ``(3, h, w)``, larger than a frame, or ``None``.
        jpeg_quality: 1..95, or ``None`` for no compression.
    """

    gains: np.ndarray
    slopes: np.ndarray
    motion_blur: bool
    defocus: np.ndarray
    noise: Tensor | None
    jpeg_quality: int | None


@dataclass(frozen=True)
class Scene:
    """Everything a clip shows; rendering it is deterministic.

    Attributes:
        backdrop: The background.
        layers: Layers from back to front.
        cameras: ``(T, 3, 3)`` from world to screen.
        look: Light and lens.
    """

    backdrop: Backdrop
    layers: tuple[Layer, ...]
    cameras: np.ndarray
    look: Look

    @property
    def num_frames(self) -> int:
        """Number of frames ``T``."""
        return len(self.cameras)


def render(scene: Scene, t: int, size: int) -> tuple[Tensor, Tensor]:
    """Render frame ``t``.

    Returns:
        Frame ``(3, size, size)`` uint8, and labels ``(size, size)`` int16 of the visible objects, 0 elsewhere.
    """
    canvas, labels = _paint(scene, t, float(t), size)
    if scene.look.motion_blur:
        moments = [min(max(t + shift, 0.0), scene.num_frames - 1.0) for shift in _SHUTTER if shift]
        canvas = sum((_paint(scene, t, moment, size)[0] for moment in moments), canvas) / (len(moments) + 1)
    return _expose(canvas, scene.look, t), labels


def smooth_path(
    generator: np.random.Generator, num_frames: int, pace: float, amplitude: float, size: int = 1
) -> np.ndarray:
    """Draw random smooth curves.

    Args:
        generator: Source of randomness.
        num_frames: Number of frames ``T``.
        pace: Frames between random knots, at which a curve may change direction.
        amplitude: Knots are uniform within +-``amplitude``.
        size: Number of curves.

    Returns:
        ``(T, size)``, starting at 0 and within +-2 ``amplitude``.
    """
    knots = generator.uniform(-amplitude, amplitude, (max(2, math.ceil(num_frames / pace) + 1), size))
    places = np.arange(num_frames) / pace
    first = np.minimum(places.astype(int), len(knots) - 2)
    share = np.minimum(places - first, 1)[:, None]
    share = share * share * (3 - 2 * share)  # smoothstep: no jump in velocity at the knots
    path = knots[first] * (1 - share) + knots[first + 1] * share
    return path - path[:1]


def affine(centre: np.ndarray, angle: np.ndarray, scale: np.ndarray, shear: np.ndarray | float = 0.0) -> np.ndarray:
    """Compose affine matrices that scale, then shear, rotate and translate.

    Args:
        centre: Translation ``(T, 2)``.
        angle: Rotation ``(T,)`` in radians.
        scale: ``(T, 2)``.
        shear: ``(T,)``, or the same for all.

    Returns:
        ``(T, 3, 3)``.
    """
    cos, sin = np.cos(angle), np.sin(angle)
    matrices = np.zeros((len(centre), 3, 3))
    matrices[:, 0, 0], matrices[:, 1, 0] = cos * scale[:, 0], sin * scale[:, 0]
    matrices[:, 0, 1] = (cos * shear - sin) * scale[:, 1]
    matrices[:, 1, 1] = (sin * shear + cos) * scale[:, 1]
    matrices[:, :2, 2] = centre
    matrices[:, 2, 2] = 1
    return matrices


def _paint(scene: Scene, t: int, moment: float, size: int) -> tuple[Tensor, Tensor]:
    """Paint backdrop and layers at a moment near frame ``t``, before light and lens."""
    camera = _at(scene.cameras, moment)
    canvas = _paint_backdrop(scene.backdrop, camera, t, size)
    labels = torch.zeros(size, size, dtype=torch.int16)
    for layer in scene.layers:
        if layer.shown[t]:
            _paint_layer(canvas, labels, layer, camera @ _at(layer.poses, moment), t)
    return canvas, labels


def _paint_backdrop(backdrop: Backdrop, camera: np.ndarray, t: int, size: int) -> Tensor:
    picture = backdrop.pictures[t % len(backdrop.pictures)]
    grid = _grid(np.linalg.inv(camera), (0, size), (0, size), size) / backdrop.extent
    return F.grid_sample(picture[None], grid, padding_mode="reflection", align_corners=False)[0]


def _paint_layer(canvas: Tensor, labels: Tensor, layer: Layer, matrix: np.ndarray, t: int) -> None:
    """Draw a sprite over the canvas and its label over the labels, both in place."""
    size = canvas.shape[-1]
    # Only the bounding box of the sprite on the screen is sampled; a wave may push its border outwards.
    amplitude, waves = layer.wave
    reach = 1 + abs(amplitude)
    corners = matrix[:2, :2] @ (reach * np.array([[-1, 1, 1, -1], [-1, -1, 1, 1]])) + matrix[:2, 2:]
    low = np.floor((corners.min(1) + 1) * size / 2).clip(0, size).astype(int)
    high = np.ceil((corners.max(1) + 1) * size / 2).clip(0, size).astype(int)
    if (high <= low).any() or abs(np.linalg.det(matrix)) < 1e-8:
        return
    grid = _grid(np.linalg.inv(matrix), (low[0], high[0]), (low[1], high[1]), size)
    if amplitude:
        grid = grid + amplitude * torch.sin(grid.flip(-1) * (waves * math.pi) + float(layer.phases[t]))
    alpha = F.grid_sample(layer.alpha[None, None], grid, align_corners=False)[0]
    shift = torch.from_numpy(layer.roll[t].astype(np.float32))
    colours = F.grid_sample(layer.texture[None], grid + shift, padding_mode="reflection", align_corners=False)[0]
    canvas[:, low[1] : high[1], low[0] : high[0]].lerp_(colours, alpha.expand_as(colours))
    if layer.label is not None:
        labels[low[1] : high[1], low[0] : high[0]].masked_fill_(alpha[0] > 0.5, layer.label)


def _grid(matrix: np.ndarray, columns: tuple[int, int], rows: tuple[int, int], size: int) -> Tensor:
    """Map the centers of screen pixels by a matrix, as a sampling grid ``(1, h, w, 2)`` float32."""
    x = (torch.arange(*columns) * 2 + 1) / size - 1
    y = (torch.arange(*rows) * 2 + 1)[:, None] / size - 1
    (a, b, c), (d, e, f) = matrix[:2].astype(float).tolist()
    return torch.stack([a * x + (b * y + c), d * x + (e * y + f)], dim=-1)[None]


def _at(matrices: np.ndarray, moment: float) -> np.ndarray:
    """Interpolate a matrix between two frames."""
    t = int(moment)
    share = moment - t
    return matrices[t] if share == 0 else (1 - share) * matrices[t] + share * matrices[t + 1]


def _expose(canvas: Tensor, look: Look, t: int) -> Tensor:
    """Apply light, noise, blur and compression to a canvas ``(3, S, S)`` float32; returns uint8."""
    size = canvas.shape[-1]
    line = (torch.arange(size) * 2 + 1) / size - 1
    right, down = look.slopes[t].tolist()
    light = 1 + right * line[None] + down * line[:, None]
    canvas = canvas * light * torch.from_numpy(look.gains[t].astype(np.float32)).view(3, 1, 1)
    if look.noise is not None:
        # Every frame gets another crop of the same noise: drawing new noise would take longer than everything else.
        spare = look.noise.shape[-1] - size
        x, y = (spare * t * 7) // 11 % (spare + 1), (spare * t * 5) // 13 % (spare + 1)
        canvas = canvas + look.noise[:, y : y + size, x : x + size]
    image = canvas.round_().clamp_(0, 255).to(torch.uint8)
    radius, quality = float(look.defocus[t]), look.jpeg_quality
    if radius < 0.3 and quality is None:
        return image
    picture = Image.fromarray(image.permute(1, 2, 0).numpy())
    if radius >= 0.3:
        picture = picture.filter(ImageFilter.GaussianBlur(radius))
    if quality is not None:
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=quality)
        picture = Image.open(file)
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1).contiguous()
