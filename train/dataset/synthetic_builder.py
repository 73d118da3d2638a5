"""Scenes made up: what is in them, how it moves, and what becomes of it.

Textured shapes move, turn, bend and change size over a background before a moving camera. They hide one another,
leave and come back, have look-alikes beside them and wear changing light. Everything comes out of the generator.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from i2v.utils.frame_source import IMAGE_SUFFIXES
from train.dataset import synthetic_assets as assets
from train.dataset.frame_reader import VIDEO_SUFFIXES, files_of, is_file_name, open_frames
from train.dataset.synthetic_scene import Backdrop, Layer, Look, Scene, affine, smooth_path
from train.dataset.vos_raw_dataset import PathLike

# How far the backdrop reaches, in half screens, before it repeats itself mirrored.
_EXTENT = 1.25


@dataclass(frozen=True)
class SceneSettings:
    """How often things happen, as probabilities, and how strongly."""

    max_objects: int = 4  # of their own kind; look-alikes come on top
    lookalike: float = 0.4  # per object, that there is another much like it
    exit: float = 0.2  # per object, that it leaves the picture for a while
    cut: float = 0.1  # per object, that it is gone for some frames at once
    limbs: float = 0.25  # per object, that it has parts that swing
    bend: float = 0.4  # per object, that it deforms
    occluder: float = 0.35  # that scenery passes in front
    camera: float = 0.7  # that the camera moves
    motion_blur: float = 0.2
    defocus: float = 0.15
    noise: float = 0.5
    jpeg: float = 0.25
    min_area: float = 0.0005  # share of the picture that an object has to show to be prompted on a frame


@dataclass(frozen=True)
class Footage:
    """Real videos to take pictures from."""

    videos: tuple[Path, ...] = ()
    probability: float = 0.0

    def wanted(self, generator: np.random.Generator) -> bool:
        """Draw whether to take a picture."""
        return generator.random() < self.probability

    def pictures(self, generator: np.random.Generator, num_frames: int, size: int) -> tuple[Tensor, ...]:
        """Frames of a random part of a video, about six a second at 24, as squares (3,size,size) float32."""
        reader = open_frames(self._choose(generator))
        try:
            there = reader.frames
            step = max(min(4, (len(there) - 1) // max(num_frames - 1, 1)), 1)
            count = min(num_frames, len(there))
            start = int(generator.integers(len(there) - (count - 1) * step))
            # A video shorter than the clip plays to its end and stays there.
            places = [start + min(t, count - 1) * step for t in range(num_frames)]
            loaded = {place: reader.read(there[place], size) for place in dict.fromkeys(places)}
        finally:
            reader.close()
        squares = {place: _square(image, size) for place, image in loaded.items()}
        return tuple(squares[place] for place in places)

    def patch(self, generator: np.random.Generator, size: int) -> Tensor:
        """A piece of a frame (3,size,size) float32."""
        reader = open_frames(self._choose(generator))
        try:
            image = reader.read(reader.frames[int(generator.integers(len(reader.frames)))], size)
        finally:
            reader.close()
        side = max(int(min(image.shape[1:]) * generator.uniform(0.2, 1)), 1)
        top, left = (int(generator.integers(length - side + 1)) for length in image.shape[1:])
        return _square(image[:, top : top + side, left : left + side], size)

    def _choose(self, generator: np.random.Generator) -> Path:
        return self.videos[int(generator.integers(len(self.videos)))]


def find_footage(paths: Sequence[PathLike]) -> tuple[Path, ...]:
    """The videos that paths stand for: a video file or a folder of images is one, another folder holds some.

    FileNotFoundError for a path that is not there, ValueError for a folder without videos.
    """
    videos: list[Path] = []
    for path in map(Path, paths):
        if not path.exists():
            raise FileNotFoundError(f"{path}: there is no such video or folder")
        if not path.is_dir() or files_of(path, IMAGE_SUFFIXES):
            videos.append(path)
            continue
        inside = [e for e in sorted(path.iterdir()) if e.is_dir() or is_file_name(e.name, VIDEO_SUFFIXES)]
        if not inside:
            raise ValueError(f"{path}: neither images nor videos in this folder")
        videos += inside
    return tuple(videos)


def build_scene(
    generator: np.random.Generator, num_frames: int, size: int, settings: SceneSettings, footage: Footage
) -> Scene:
    """A scene of `num_frames` to be rendered at `size`; see SceneSettings for what may happen in it."""
    things: list[list[Layer]] = []
    for _ in range(int(generator.integers(1, settings.max_objects + 1))):
        thing = _thing(generator, num_frames, size, settings, footage)
        things.append(thing)
        if generator.random() < settings.lookalike:
            things.append(_lookalike(generator, thing, num_frames, size, settings, footage))
    # From now on an object's number says nothing about how it came into being.
    depth = generator.permutation(len(things))
    layers = [
        dataclasses.replace(layer, label=None if layer.label is None else label)
        for label, i in enumerate(depth, 1)
        for layer in things[i]
    ]
    if generator.random() < settings.occluder:
        layers.append(_occluder(generator, num_frames, size))
    return Scene(
        backdrop=_backdrop(generator, num_frames, size, footage),
        layers=tuple(layers),
        cameras=_cameras(generator, num_frames, settings),
        look=_look(generator, num_frames, size, settings),
    )


def _thing(
    generator: np.random.Generator, num_frames: int, size: int, settings: SceneSettings, footage: Footage
) -> list[Layer]:
    """An object of its own kind: layers from back to front that share a label."""
    radius = math.exp(generator.uniform(math.log(0.12), math.log(0.7)))
    pixels = _pixels(radius, size)
    alpha = assets.silhouette(generator, pixels)
    poses = _poses(generator, num_frames, radius, settings)
    bends = generator.random() < settings.bend
    body = Layer(
        texture=_texture(generator, pixels, footage) * assets.shading(alpha, generator),
        alpha=alpha,
        poses=poses,
        shown=_shown(generator, num_frames, settings),
        label=1,
        roll=smooth_path(generator, num_frames, 8, 0.4 * (generator.random() < 0.2), 2),
        wave=(generator.uniform(0.03, 0.15) if bends else 0.0, generator.uniform(0.5, 2)),
        phases=generator.uniform(0, 6) + generator.uniform(-1, 1) * np.arange(num_frames),
    )
    parts = [body]
    if generator.random() < settings.limbs:
        limbs = [_limb(generator, body, pixels) for _ in range(int(generator.integers(1, 5)))]
        parts = limbs + parts
    if generator.random() < 0.3:
        parts = [_shadow(generator, body), *parts]
    return parts


def _lookalike(
    generator: np.random.Generator,
    thing: list[Layer],
    num_frames: int,
    size: int,
    settings: SceneSettings,
    footage: Footage,
) -> list[Layer]:
    """Another object that shares its shape, its texture, or all but a shade of colour, and goes its own way."""
    other = _thing(generator, num_frames, size, settings, footage)[-1]
    body = thing[-1]
    # As large as the first one, give or take.
    grow = math.sqrt(abs(np.linalg.det(body.poses[0]) / np.linalg.det(other.poses[0])))
    poses = other.poses @ np.diag([grow, grow, 1.0])
    kind = generator.integers(3)
    if kind == 0:
        return [dataclasses.replace(other, alpha=body.alpha, poses=poses)]
    if kind == 1:
        return [dataclasses.replace(other, texture=body.texture, poses=poses)]
    tint = torch.from_numpy(generator.uniform(0.9, 1.1, (3, 1, 1)).astype(np.float32))
    # Parts of the first one follow its body, so they would follow that of the copy.
    return [dataclasses.replace(other, texture=body.texture * tint, alpha=body.alpha, poses=poses)]


def _limb(generator: np.random.Generator, body: Layer, pixels: int) -> Layer:
    """A part that hangs from a joint on the body and swings."""
    num_frames = len(body.poses)
    angle = generator.uniform(0, 2 * math.pi)
    joint = 0.45 * np.array([-math.sin(angle), math.cos(angle)])
    swing = smooth_path(generator, num_frames, generator.uniform(2, 8), generator.uniform(0, 0.8))[:, 0]
    turned = affine(np.tile(joint, (num_frames, 1)), angle + swing, np.full((num_frames, 2), 1.0))
    lengths = np.diag([generator.uniform(0.2, 0.4), generator.uniform(0.3, 0.6), 1.0])
    hung = np.array([[1.0, 0, 0], [0, 1, 0.85], [0, 0, 1]])
    texture = body.texture if generator.random() < 0.5 else assets.texture(generator, pixels)
    return dataclasses.replace(
        body,
        texture=texture,
        alpha=assets.limb(generator, max(pixels // 2, 16)),
        poses=body.poses @ turned @ lengths @ hung,
        wave=(0.0, 0.0),
    )


def _shadow(generator: np.random.Generator, body: Layer) -> Layer:
    """Darkness beside a body that falls on what is behind it."""
    pixels = body.alpha.shape[-1]
    away = np.zeros_like(body.poses)
    away[:, :2, 2] = generator.uniform(-0.06, 0.06, 2)
    return dataclasses.replace(
        body,
        texture=torch.zeros(3, 1, 1),
        alpha=assets.blurred(body.alpha, pixels * 0.04) * generator.uniform(0.2, 0.6),
        poses=body.poses + away,
        label=None,
    )


def _occluder(generator: np.random.Generator, num_frames: int, size: int) -> Layer:
    """Scenery in front: a bar across the picture, or a blob, at rest or passing by."""
    bar = generator.random() < 0.6
    extent = np.array([generator.uniform(0.05, 0.25), 3.0] if bar else [generator.uniform(0.2, 0.6)] * 2)
    start = np.array([generator.uniform(-0.9, 0.9), 0.0 if bar else generator.uniform(-0.9, 0.9)])
    path = smooth_path(generator, num_frames, 8, generator.choice([0.0, 0.8]), 2)
    pixels = max(size // 2, 16)
    return Layer(
        texture=assets.texture(generator, pixels),
        alpha=torch.ones(pixels, pixels) if bar else assets.silhouette(generator, pixels),
        poses=affine(start + path, np.full(num_frames, generator.normal(0, 0.4)), np.tile(extent, (num_frames, 1))),
        shown=np.ones(num_frames, bool),
        label=0,
        roll=np.zeros((num_frames, 2)),
        wave=(0.0, 0.0),
        phases=np.zeros(num_frames),
    )


def _poses(generator: np.random.Generator, num_frames: int, radius: float, settings: SceneSettings) -> np.ndarray:
    """Where an object is: it wanders, turns, grows, is seen from other sides, and may leave for a while."""
    pace = math.exp(generator.uniform(math.log(3), math.log(16)))
    speed = math.exp(generator.uniform(math.log(0.02), math.log(0.7)))
    centre = generator.uniform(-0.8, 0.8, 2) + smooth_path(generator, num_frames, pace, speed, 2)
    if generator.random() < settings.exit:
        centre = centre + _excursion(generator, num_frames)
    turn = generator.choice([0.1, 0.4, 1.5])
    angle = generator.uniform(0, 2 * math.pi) + smooth_path(generator, num_frames, pace, turn)[:, 0]
    grow = smooth_path(generator, num_frames, pace, 0.3)
    squeeze = smooth_path(generator, num_frames, pace, generator.choice([0.0, 0.25]), 2)
    shear = smooth_path(generator, num_frames, pace, generator.choice([0.0, 0.3]))[:, 0]
    return affine(centre, angle, radius * np.exp(grow + squeeze), shear)


def _excursion(generator: np.random.Generator, num_frames: int) -> np.ndarray:
    """A way out of the picture and back (T,2), from and to where one is."""
    angle = generator.uniform(0, 2 * math.pi)
    out = 2.6 * np.array([math.cos(angle), math.sin(angle)])
    last = max(num_frames - 1, 1)
    rise, fall = np.sort(generator.uniform(0.1, 0.9, 2)) * last
    width = max(0.1 * last, 0.5)
    t = np.arange(num_frames)
    away = np.clip(np.minimum((t - rise) / width + 1, (fall - t) / width + 1), 0, 1)
    return away[:, None] * out


def _shown(generator: np.random.Generator, num_frames: int, settings: SceneSettings) -> np.ndarray:
    """Frames on which an object is there at all."""
    shown = np.ones(num_frames, bool)
    if num_frames > 2 and generator.random() < settings.cut:
        first, last = np.sort(generator.integers(1, num_frames, 2))
        shown[first : last + 1] = False
    return shown


def _backdrop(generator: np.random.Generator, num_frames: int, size: int, footage: Footage) -> Backdrop:
    if footage.wanted(generator):
        return Backdrop(footage.pictures(generator, num_frames, size), 1.0)
    pixels = math.ceil(size * _EXTENT)
    paint = assets.collage if generator.random() < 0.6 else assets.texture
    return Backdrop((paint(generator, pixels),), _EXTENT)


def _cameras(generator: np.random.Generator, num_frames: int, settings: SceneSettings) -> np.ndarray:
    """Pan, roll, zoom and shake, from no motion on the first frame."""
    strength = float(generator.random() < settings.camera)
    pace = math.exp(generator.uniform(math.log(3), math.log(16)))
    pan = smooth_path(generator, num_frames, pace, strength * generator.uniform(0, 0.3), 2)
    roll = smooth_path(generator, num_frames, pace, strength * generator.uniform(0, 0.2))[:, 0]
    zoom = smooth_path(generator, num_frames, pace, strength * generator.uniform(0, 0.2))
    shake = strength * generator.choice([0.0, 0.01]) * generator.normal(size=(num_frames, 2))
    return affine(pan + shake, roll, np.exp(np.repeat(zoom, 2, axis=1)))


def _look(generator: np.random.Generator, num_frames: int, size: int, settings: SceneSettings) -> Look:
    flicker = smooth_path(generator, num_frames, 6, generator.choice([0.0, 0.05, 0.2]))
    cast = smooth_path(generator, num_frames, 8, generator.choice([0.0, 0.06]), 3)
    slopes = generator.uniform(-0.2, 0.2, 2) + smooth_path(generator, num_frames, 8, 0.1, 2)
    noise = None
    if generator.random() < settings.noise:
        side = size + max(size // 8, 1)
        noise = torch.from_numpy(generator.standard_normal((3, side, side), dtype=np.float32))
        noise = noise * generator.uniform(1, 8)
    defocus: np.ndarray = np.zeros(num_frames)
    if generator.random() < settings.defocus:
        focus = generator.uniform(0, 1) + smooth_path(generator, num_frames, 4, 1.0)[:, 0]
        defocus = np.abs(focus) * size / 512
    return Look(
        gains=np.exp(flicker + cast),
        slopes=slopes,
        motion_blur=bool(generator.random() < settings.motion_blur),
        defocus=defocus,
        noise=noise,
        jpeg_quality=int(generator.integers(30, 90)) if generator.random() < settings.jpeg else None,
    )


def _texture(generator: np.random.Generator, pixels: int, footage: Footage) -> Tensor:
    return footage.patch(generator, pixels) if footage.wanted(generator) else assets.texture(generator, pixels)


def _pixels(radius: float, size: int) -> int:
    """Side of a sprite that is drawn at about one pixel per pixel."""
    return int(min(max(math.ceil(radius * size * 1.2), 16), size))


def _square(image: Tensor, size: int) -> Tensor:
    """An image (3,H,W) uint8 as (3,size,size) float32."""
    resized = F.interpolate(image[None], (size, size), mode="bilinear", antialias=True, align_corners=False)
    return resized[0].float()
