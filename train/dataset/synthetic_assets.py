"""Procedural assets of rendered clips: colour textures, collages and silhouettes, all drawn from a generator."""

from __future__ import annotations

import math

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFilter
from torch import Tensor
from torch.nn import functional as F

# Silhouettes are drawn this many times larger and then reduced, to anti-alias their edges.
_OVERSAMPLING = 2


def texture(generator: np.random.Generator, size: int) -> Tensor:
    """Draw a procedural texture ``(3, size, size)`` float32 in 0..255: a pattern in colours of a random palette."""
    pattern = _PATTERNS[int(generator.integers(len(_PATTERNS)))](generator, size)
    pattern = pattern + generator.uniform(0, 0.3) * (fractal_noise(generator, size) - 0.5)
    low, high = float(pattern.min()), float(pattern.max())
    indices = ((pattern - low) * (255 / max(high - low, 1e-6))).long()
    return torch.from_numpy(_palette(generator))[:, indices.clamp_(0, 255)]


def collage(generator: np.random.Generator, size: int) -> Tensor:
    """Draw unevenly lit flat shapes of many sizes on top of each other.

    With edges of all contrasts at all scales, such pictures resemble photographs.

    Returns:
        ``(3, size, size)`` float32 in 0..255.
    """
    colours = _palette(generator).T
    image = Image.new("RGB", (size, size), _colour(generator, colours))
    draw = ImageDraw.Draw(image)
    count = int(generator.integers(30, 150))
    # Many small shapes for each large one, like objects at all distances.
    radii = size * np.minimum(0.025 / np.sqrt(generator.uniform(0.002, 1, count)), 0.45)
    for radius in np.sort(radii)[::-1]:
        centre = generator.uniform(-0.1, 1.1, 2) * size
        colour = _colour(generator, colours)
        points = centre + radius * _outline(generator)
        draw.polygon([(float(x), float(y)) for x, y in points], fill=colour)
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).float()
    light = 0.75 + 0.5 * fractal_noise(generator, size)
    return (pixels * light).clamp_(0, 255)


def silhouette(generator: np.random.Generator, size: int) -> Tensor:
    """Draw a shape ``(size, size)`` float32: 1 inside, 0 outside, with a soft edge and a margin around it."""
    side = size * _OVERSAMPLING
    image = Image.new("L", (side, side))
    draw = ImageDraw.Draw(image)
    for _ in range(int(generator.choice([1, 1, 1, 2, 3]))):
        spread = 0.0 if image.getbbox() is None else 0.25
        centre = (0.5 + generator.uniform(-spread, spread, 2)) * side
        stretch = np.array([1.0, generator.uniform(0.4, 1)])[generator.permutation(2)]
        points = centre + (0.44 - 0.6 * spread) * side * stretch * _outline(generator)
        draw.polygon([(float(x), float(y)) for x, y in points], fill=255)
    if generator.random() < 0.1:
        _punch(draw, generator, side)
    return _reduced(image, size)


def limb(generator: np.random.Generator, size: int) -> Tensor:
    """Draw a limb ``(size, size)`` float32 like :func:`silhouette`, along the vertical axis from edge to edge."""
    side = size * _OVERSAMPLING
    image = Image.new("L", (side, side))
    draw = ImageDraw.Draw(image)
    thick, thin = generator.uniform(0.15, 0.35), generator.uniform(0.05, 0.2)
    ends = [(0.5 - thick, 0.05), (0.5 + thick, 0.05), (0.5 + thin, 0.95), (0.5 - thin, 0.95)]
    draw.polygon([(x * side, y * side) for x, y in ends], fill=255)
    return _reduced(image, size)


def shading(shape: Tensor, generator: np.random.Generator) -> Tensor:
    """Draw light from a random side that makes a silhouette look rounded.

    Args:
        shape: Silhouette ``(h, w)`` in 0..1.
        generator: Source of randomness.

    Returns:
        Factors ``(h, w)`` around 1.
    """
    height, width = shape.shape
    # The result is smooth, so a quarter of the resolution is enough.
    small = Image.fromarray((shape * 255).byte().numpy()).resize((max(width // 4, 4), max(height // 4, 4)))
    relief = np.asarray(small.filter(ImageFilter.GaussianBlur(max(small.width / 10, 1))), np.float32) / 255
    down, right = np.gradient(relief)
    angle, strength = generator.uniform(0, 2 * math.pi), generator.uniform(0, 0.5)
    slope = (down * math.sin(angle) + right * math.cos(angle)) * small.width / 4
    light = torch.from_numpy(np.asarray(1 + strength * np.clip(slope, -1, 1), np.float32))
    return F.interpolate(light[None, None], (height, width), mode="bilinear", align_corners=False)[0, 0]


def blurred(shape: Tensor, radius: float) -> Tensor:
    """Blur a silhouette ``(h, w)`` with a Gaussian of ``radius`` pixels, for shadows."""
    image = Image.fromarray((shape * 255).byte().numpy()).filter(ImageFilter.GaussianBlur(radius))
    return torch.from_numpy(np.asarray(image, np.float32) / 255)


def fractal_noise(generator: np.random.Generator, size: int) -> Tensor:
    """Draw smooth noise ``(size, size)`` float32 in 0..1 with details at several scales."""
    cells = int(generator.integers(2, 6))
    persistence = generator.uniform(0.3, 0.75)
    total, weight, weights = torch.zeros(size, size), 1.0, 0.0
    while cells <= size // 4 and weight > 0.05:
        grid = torch.from_numpy(generator.random((1, 1, cells + 1, cells + 1), dtype=np.float32))
        total.add_(F.interpolate(grid, (size, size), mode="bilinear", align_corners=True)[0, 0], alpha=weight)
        weights += weight
        cells, weight = cells * 2, weight * persistence
    return total / max(weights, 1e-6)


def _stripes(generator: np.random.Generator, size: int) -> Tensor:
    across = _plane(generator, size)[0]
    return _edge(generator, torch.sin(across * generator.uniform(10, 60)))


def _checks(generator: np.random.Generator, size: int) -> Tensor:
    x, y = _plane(generator, size)
    scale = generator.uniform(10, 50)
    return _edge(generator, torch.sin(x * scale) * torch.sin(y * scale * generator.uniform(0.5, 1.5)))


def _dots(generator: np.random.Generator, size: int) -> Tensor:
    x, y = _plane(generator, size)
    scale = generator.uniform(10, 60)
    return _edge(generator, torch.sin(x * scale) + torch.sin(y * scale) - generator.uniform(0, 1))


def _rings(generator: np.random.Generator, size: int) -> Tensor:
    x, y = _plane(generator, size)
    return _edge(generator, torch.sin(torch.hypot(x, y) * generator.uniform(8, 50)))


def _gradient(generator: np.random.Generator, size: int) -> Tensor:
    return _plane(generator, size)[0]


_PATTERNS = (fractal_noise, fractal_noise, fractal_noise, _stripes, _checks, _dots, _rings, _gradient)


def _plane(generator: np.random.Generator, size: int) -> tuple[Tensor, Tensor]:
    """Coordinates x and y around 0, randomly rotated, shifted and bent, ``(size, size)`` each."""
    line = torch.linspace(-1, 1, size)
    angle = generator.uniform(0, math.pi)
    cos, sin = math.cos(angle), math.sin(angle)
    x = cos * line[None] + sin * line[:, None] + generator.uniform(-0.5, 0.5)
    y = cos * line[:, None] - sin * line[None] + generator.uniform(-0.5, 0.5)
    if generator.random() < 0.5:
        bend = generator.uniform(0, 0.4)
        x = x + bend * fractal_noise(generator, size)
        y = y + bend * fractal_noise(generator, size)
    return x, y


def _edge(generator: np.random.Generator, wave: Tensor) -> Tensor:
    """Sharpen the flanks of a wave by a random amount."""
    return torch.tanh(wave * generator.uniform(1, 8))


def _palette(generator: np.random.Generator) -> np.ndarray:
    """Draw 256 colours ``(3, 256)`` float32 that interpolate a few random ones around a common mean."""
    mood, spread = generator.uniform(30, 225, 3), generator.uniform(10, 120)
    count = int(generator.integers(2, 6))
    stops = mood + generator.normal(0, spread, (count, 3))
    # Most real objects have unsaturated colours.
    stops += generator.uniform(0, 0.9) * (stops.mean(1, keepdims=True) - stops)
    stops = np.clip(stops, 0, 255)
    places = np.linspace(0, 255, count)
    return np.stack([np.interp(np.arange(256), places, stops[:, c]) for c in range(3)]).astype(np.float32)


def _colour(generator: np.random.Generator, colours: np.ndarray) -> tuple[int, int, int]:
    red, green, blue = np.clip(colours[generator.integers(256)] + generator.normal(0, 20, 3), 0, 255)
    return int(red), int(green), int(blue)


def _outline(generator: np.random.Generator) -> np.ndarray:
    """Draw a closed outline ``(P, 2)`` around the origin whose largest coordinate is 1 in magnitude."""
    angles: np.ndarray
    radii: np.ndarray
    kind = generator.integers(4)
    if kind == 0:  # ellipse or regular polygon
        corners = int(generator.choice([3, 4, 5, 6, 48]))
        angles = np.arange(corners) * 2 * math.pi / corners + generator.uniform(0, 2 * math.pi)
        radii = np.ones(corners)
    elif kind == 1:  # star or irregular polygon
        corners = int(generator.integers(5, 12))
        angles = np.sort(np.arange(corners) + generator.uniform(0, 0.8, corners)) * 2 * math.pi / corners
        radii = generator.uniform(0.35, 1, corners)
    else:  # round blob
        angles = np.linspace(0, 2 * math.pi, 64, endpoint=False)
        waves = np.arange(1, 7)
        amounts = generator.normal(0, 0.35, 6) / waves ** generator.uniform(0.6, 1.6)
        phases = generator.uniform(0, 2 * math.pi, 6)
        radii = np.exp((amounts * np.cos(angles[:, None] * waves + phases)).sum(1))
    points = radii[:, None] * np.stack([np.cos(angles), np.sin(angles)], 1)
    return points / np.abs(points).max()


def _punch(draw: ImageDraw.ImageDraw, generator: np.random.Generator, side: int) -> None:
    """Cut a round hole near the middle."""
    x, y = generator.uniform(0.4, 0.6, 2) * side
    radius = generator.uniform(0.08, 0.18) * side
    draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=0)


def _reduced(image: Image.Image, size: int) -> Tensor:
    small = image.reduce(_OVERSAMPLING)
    assert small.size == (size, size)
    return torch.from_numpy(np.asarray(small, np.float32) / 255)
