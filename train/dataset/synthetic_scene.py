"""A rendered scene: textured layers that move over a background before a moving camera, with exact masks.

Positions are in half screens: the screen runs from -1 to 1 on both axes, y down. Matrices are (3,3), and take
points of a sprite, which also runs from -1 to 1, to the world, or those of the world to the screen.
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

# Moments within the shutter time that make up a frame with motion blur.
_SHUTTER = (-0.25, 0.0, 0.25)


@dataclass(frozen=True)
class Layer:
    """One textured shape over all frames."""

    texture: Tensor  # (3,h,w) float32 in 0..255
    alpha: Tensor  # (h,w) float32 in 0..1
    poses: np.ndarray  # (T,3,3) sprite to world
    shown: np.ndarray  # (T,) bool
    label: int | None  # of the object; 0 for scenery, None for what hides nothing, as shadows do
    roll: np.ndarray  # (T,2) shift of the texture within the shape
    wave: tuple[float, float]  # amplitude and number of waves per half sprite of a bend that travels through it
    phases: np.ndarray  # (T,) of that wave, in radians


@dataclass(frozen=True)
class Backdrop:
    """What is behind all layers: one picture, or one for every frame."""

    pictures: tuple[Tensor, ...]  # 1 or T times (3,h,w) float32
    extent: float  # half screens from the middle to the border; beyond it the picture is mirrored


@dataclass(frozen=True)
class Look:
    """Light and lens."""

    gains: np.ndarray  # (T,3) factors of red, green and blue
    slopes: np.ndarray  # (T,2) how much the light changes over half a screen, to the right and down
    motion_blur: bool
    defocus: np.ndarray  # (T,) radius of blur in pixels
    noise: Tensor | None  # (3,h,w) larger than the frame
    jpeg_quality: int | None


@dataclass(frozen=True)
class Scene:
    """All that a clip shows; rendering a frame needs no more randomness."""

    backdrop: Backdrop
    layers: tuple[Layer, ...]  # from back to front
    cameras: np.ndarray  # (T,3,3) world to screen
    look: Look

    @property
    def num_frames(self) -> int:
        """T."""
        return len(self.cameras)


def render(scene: Scene, t: int, size: int) -> tuple[Tensor, Tensor]:
    """Frame (3,size,size) uint8 and labels (size,size) int16 of the objects that show, 0 elsewhere."""
    canvas, labels = _paint(scene, t, float(t), size)
    if scene.look.motion_blur:
        moments = [min(max(t + shift, 0.0), scene.num_frames - 1.0) for shift in _SHUTTER if shift]
        canvas = sum((_paint(scene, t, moment, size)[0] for moment in moments), canvas) / (len(moments) + 1)
    return _expose(canvas, scene.look, t), labels


def smooth_path(
    generator: np.random.Generator, num_frames: int, pace: float, amplitude: float, size: int = 1
) -> np.ndarray:
    """Random smooth curves (T,size) from 0, within +-2 `amplitude`, that turn about every `pace` frames."""
    knots = generator.uniform(-amplitude, amplitude, (max(2, math.ceil(num_frames / pace) + 1), size))
    places = np.arange(num_frames) / pace
    first = np.minimum(places.astype(int), len(knots) - 2)
    share = np.minimum(places - first, 1)[:, None]
    share = share * share * (3 - 2 * share)
    path = knots[first] * (1 - share) + knots[first + 1] * share
    return path - path[:1]


def affine(centre: np.ndarray, angle: np.ndarray, scale: np.ndarray, shear: np.ndarray | float = 0.0) -> np.ndarray:
    """Matrices (T,3,3): scale (T,2), then shear, turn by `angle` (T,) and move to `centre` (T,2)."""
    cos, sin = np.cos(angle), np.sin(angle)
    matrices = np.zeros((len(centre), 3, 3))
    matrices[:, 0, 0], matrices[:, 1, 0] = cos * scale[:, 0], sin * scale[:, 0]
    matrices[:, 0, 1] = (cos * shear - sin) * scale[:, 1]
    matrices[:, 1, 1] = (sin * shear + cos) * scale[:, 1]
    matrices[:, :2, 2] = centre
    matrices[:, 2, 2] = 1
    return matrices


def _paint(scene: Scene, t: int, moment: float, size: int) -> tuple[Tensor, Tensor]:
    """Backdrop and layers at a moment near frame t, before light and lens."""
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
    """Draw a sprite over the canvas and its label over the labels."""
    size = canvas.shape[-1]
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
    """Where the centres of pixels of the screen go under a matrix, (1,h,w,2) float32."""
    x = (torch.arange(*columns) * 2 + 1) / size - 1
    y = (torch.arange(*rows) * 2 + 1)[:, None] / size - 1
    (a, b, c), (d, e, f) = matrix[:2].astype(float).tolist()
    return torch.stack([a * x + (b * y + c), d * x + (e * y + f)], dim=-1)[None]


def _at(matrices: np.ndarray, moment: float) -> np.ndarray:
    """A matrix between two frames."""
    t = int(moment)
    share = moment - t
    return matrices[t] if share == 0 else (1 - share) * matrices[t] + share * matrices[t + 1]


def _expose(canvas: Tensor, look: Look, t: int) -> Tensor:
    """Light, blur, noise and compression: canvas (3,S,S) float32 to uint8."""
    size = canvas.shape[-1]
    line = (torch.arange(size) * 2 + 1) / size - 1
    right, down = look.slopes[t].tolist()
    light = 1 + right * line[None] + down * line[:, None]
    canvas = canvas * light * torch.from_numpy(look.gains[t].astype(np.float32)).view(3, 1, 1)
    if look.noise is not None:
        # Another piece of the same noise for every frame: drawing it anew takes longer than all the rest.
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
