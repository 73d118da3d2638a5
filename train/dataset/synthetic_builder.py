"""Scenes made up: what is in them, how it moves, and what becomes of it.

Textured shapes move, turn, bend and change size over a background before a moving camera. They hide one another,
leave and come back, have look-alikes beside them and wear changing light. Everything comes out of the generator.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from train.dataset import synthetic_assets as assets
from train.dataset.synthetic_footage import Footage, Still, bounds
from train.dataset.synthetic_scene import Backdrop, Layer, Look, Scene, affine, smooth_path

# How far the backdrop reaches, in half screens, before it repeats itself mirrored.
_EXTENT = 1.25


@dataclass(frozen=True)
class SceneSettings:
    """How often things happen, as probabilities, and how strongly."""

    max_objects: int = 4  # of their own kind; look-alikes come on top
    min_radius: float = 0.12  # of objects, in half screens
    max_radius: float = 0.7
    min_speed: float = 0.02  # of objects, in half screens per `pace`
    max_speed: float = 0.7
    min_pace: float = 3  # frames until objects and camera move on otherwise
    max_pace: float = 16
    max_pan: float = 0.3  # of the camera, in half screens per `pace`
    lookalike: float = 0.4  # per object, that there is another much like it
    in_place: float = 0.3  # that things stay in the picture that they were cut out of, where there are cut-outs
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


def build_scene(
    generator: np.random.Generator, num_frames: int, size: int, settings: SceneSettings, footage: Footage
) -> Scene:
    """A scene of `num_frames` to be rendered at `size`; see SceneSettings for what may happen in it."""
    things: list[list[Layer]] = []
    still = footage.cutouts.still(generator, size) if _plays_in_place(generator, settings, footage) else None
    if still is not None:
        things += [[layer] for layer in _things_in_place(generator, num_frames, still, settings)]
    for _ in range(int(generator.integers(still is None, settings.max_objects + 1))):
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
        backdrop=_backdrop(generator, num_frames, size, footage) if still is None else Backdrop((still.picture,), 1.0),
        layers=tuple(layers),
        cameras=_cameras(generator, num_frames, settings),
        look=_look(generator, num_frames, size, settings),
    )


def _thing(
    generator: np.random.Generator, num_frames: int, size: int, settings: SceneSettings, footage: Footage
) -> list[Layer]:
    """An object of its own kind: layers from back to front that share a label."""
    radius = _log_uniform(generator, settings.min_radius, settings.max_radius)
    pixels = _pixels(radius, size)
    texture, alpha = _sprite(generator, pixels, footage)
    poses = _poses(generator, num_frames, radius, settings)
    bends = generator.random() < settings.bend
    body = Layer(
        texture=texture,
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
    pace = _log_uniform(generator, settings.min_pace, settings.max_pace)
    speed = _log_uniform(generator, settings.min_speed, settings.max_speed)
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
    pace = _log_uniform(generator, settings.min_pace, settings.max_pace)
    pan = smooth_path(generator, num_frames, pace, strength * generator.uniform(0, settings.max_pan), 2)
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


def _sprite(generator: np.random.Generator, pixels: int, footage: Footage) -> tuple[Tensor, Tensor]:
    """Colours (3,P,P) and opacity (P,P): cut out of a picture, or a drawn shape that wears some texture."""
    if footage.cutouts.wanted(generator):
        colours, alpha = footage.cutouts.sprite(generator, pixels)
        tint = generator.uniform(0.7, 1.2) * generator.uniform(0.85, 1.15, (3, 1, 1))
        return (colours * torch.from_numpy(tint).float()).clamp(0, 255), alpha
    alpha = assets.silhouette(generator, pixels)
    drawn = footage.patch(generator, pixels) if footage.wanted(generator) else assets.texture(generator, pixels)
    return drawn * assets.shading(alpha, generator), alpha


def _plays_in_place(generator: np.random.Generator, settings: SceneSettings, footage: Footage) -> bool:
    return footage.cutouts.wanted(generator) and bool(generator.random() < settings.in_place)


def _things_in_place(
    generator: np.random.Generator, num_frames: int, still: Still, settings: SceneSettings
) -> list[Layer]:
    """One or two things of a picture where they are in it; half of them move a little."""
    count = min(int(generator.integers(1, 3)), len(still.things))
    return [
        _thing_in_place(generator, num_frames, still.picture, still.things[i], settings)
        for i in generator.permutation(len(still.things))[:count]
        if still.things[i].any()
    ]


def _thing_in_place(
    generator: np.random.Generator, num_frames: int, picture: Tensor, mask: Tensor, settings: SceneSettings
) -> Layer:
    top, bottom, left, right = bounds(mask)
    half = picture.shape[-1] / 2
    centre = np.array([left + right, top + bottom]) / 2 / half - 1
    extent = np.array([right - left, bottom - top]) / 2 / half
    strength = float(generator.random() < 0.5)
    pace = _log_uniform(generator, settings.min_pace, settings.max_pace)
    path = smooth_path(generator, num_frames, pace, 0.15 * strength, 2)
    turn = smooth_path(generator, num_frames, pace, 0.15 * strength)[:, 0]
    grow = smooth_path(generator, num_frames, pace, 0.1 * strength)
    return Layer(
        texture=picture[:, top:bottom, left:right],
        alpha=mask[top:bottom, left:right].float(),
        poses=affine(centre + path, turn, extent * np.exp(grow)),
        shown=np.ones(num_frames, bool),
        label=1,
        roll=np.zeros((num_frames, 2)),
        wave=(0.0, 0.0),
        phases=np.zeros(num_frames),
    )


def _pixels(radius: float, size: int) -> int:
    """Side of a sprite that is drawn at about one pixel per pixel."""
    return int(min(max(math.ceil(radius * size * 1.2), 16), size))


def _log_uniform(generator: np.random.Generator, low: float, high: float) -> float:
    """Small values as often as large ones, by ratio."""
    return math.exp(generator.uniform(math.log(low), math.log(high)))
