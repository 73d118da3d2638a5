"""Builds random scenes: their objects, how these move, and the camera.

Textured shapes move, rotate, bend and change size over a background under a moving camera. They occlude each other,
leave and re-enter the frame, have distractors that look alike, and the light changes. All randomness comes from the
generator.
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

# Extent of a procedural backdrop in half frames; beyond it the backdrop is mirrored.
_EXTENT = 1.25


@dataclass(frozen=True)
class SceneSettings:
    """Ranges and probabilities (0..1) of what happens in a scene. Lengths are in half frames.

    Attributes:
        max_objects: Maximum number of objects, not counting look-alikes.
        min_radius: Smallest radius of an object.
        max_radius: Largest radius of an object.
        min_speed: Smallest distance that an object moves per ``pace``.
        max_speed: Largest distance that an object moves per ``pace``.
        min_pace: Smallest number of frames until objects and camera change direction.
        max_pace: Largest number of frames until objects and camera change direction.
        max_pan: Largest distance that the camera moves per ``pace``.
        lookalike: Probability, per object, of another one that looks alike.
        in_place: Probability that cut-outs stay in the picture that they were cut from, if there are any.
        exit: Probability, per object, that it leaves the frame for a while.
        cut: Probability, per object, that it vanishes for some frames.
        limbs: Probability, per object, of swinging parts.
        bend: Probability, per object, of deformation.
        occluder: Probability of something passing in front of all objects.
        camera: Probability of camera motion.
        motion_blur: Probability of motion blur.
        defocus: Probability of changing focus.
        noise: Probability of sensor noise.
        jpeg: Probability of JPEG artifacts.
        min_area: Fraction (0..1) of the frame that an object must show to be prompted there.
    """

    max_objects: int = 4
    min_radius: float = 0.12
    max_radius: float = 0.7
    min_speed: float = 0.02
    max_speed: float = 0.7
    min_pace: float = 3
    max_pace: float = 16
    max_pan: float = 0.3
    lookalike: float = 0.4
    in_place: float = 0.3
    exit: float = 0.2
    cut: float = 0.1
    limbs: float = 0.25
    bend: float = 0.4
    occluder: float = 0.35
    camera: float = 0.7
    motion_blur: float = 0.2
    defocus: float = 0.15
    noise: float = 0.5
    jpeg: float = 0.25
    min_area: float = 0.0005


def build_scene(
    generator: np.random.Generator, num_frames: int, size: int, settings: SceneSettings, footage: Footage
) -> Scene:
    """Build a random scene.

    Args:
        generator: Source of all randomness.
        num_frames: Frames of the scene.
        size: Side in pixels at which it will be rendered.
        settings: What may happen in it.
        footage: Real pictures to use.
    """
    things: list[list[Layer]] = []
    still = footage.cutouts.still(generator, size) if _plays_in_place(generator, settings, footage) else None
    if still is not None:
        things += [[layer] for layer in _things_in_place(generator, num_frames, still, settings)]
    for _ in range(int(generator.integers(still is None, settings.max_objects + 1))):
        thing = _thing(generator, num_frames, size, settings, footage)
        things.append(thing)
        if generator.random() < settings.lookalike:
            things.append(_lookalike(generator, thing, num_frames, size, settings, footage))
    # Shuffle depth and labels, so that a label does not tell how its object was made.
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
    """Build an object: layers from back to front that share a label."""
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
    """Build another object with the same shape, the same texture or both (slightly tinted), and its own motion."""
    other = _thing(generator, num_frames, size, settings, footage)[-1]
    body = thing[-1]
    # Scale it to the area that the first one has on the first frame.
    grow = math.sqrt(abs(np.linalg.det(body.poses[0]) / np.linalg.det(other.poses[0])))
    poses = other.poses @ np.diag([grow, grow, 1.0])
    kind = generator.integers(3)
    if kind == 0:
        return [dataclasses.replace(other, alpha=body.alpha, poses=poses)]
    if kind == 1:
        return [dataclasses.replace(other, texture=body.texture, poses=poses)]
    tint = torch.from_numpy(generator.uniform(0.9, 1.1, (3, 1, 1)).astype(np.float32))
    # Limbs are not copied: their poses follow the first body.
    return [dataclasses.replace(other, texture=body.texture * tint, alpha=body.alpha, poses=poses)]


def _limb(generator: np.random.Generator, body: Layer, pixels: int) -> Layer:
    """Build a limb that swings around a joint on the body."""
    num_frames = len(body.poses)
    angle = generator.uniform(0, 2 * math.pi)
    joint = 0.45 * np.array([-math.sin(angle), math.cos(angle)])
    swing = smooth_path(generator, num_frames, generator.uniform(2, 8), generator.uniform(0, 0.8))[:, 0]
    turned = affine(np.tile(joint, (num_frames, 1)), angle + swing, np.full((num_frames, 2), 1.0))
    lengths = np.diag([generator.uniform(0.2, 0.4), generator.uniform(0.3, 0.6), 1.0])
    hung = np.array([[1.0, 0, 0], [0, 1, 0.85], [0, 0, 1]])  # moves the limb's upper end to the joint
    texture = body.texture if generator.random() < 0.5 else assets.texture(generator, pixels)
    return dataclasses.replace(
        body,
        texture=texture,
        alpha=assets.limb(generator, max(pixels // 2, 16)),
        poses=body.poses @ turned @ lengths @ hung,
        wave=(0.0, 0.0),
    )


def _shadow(generator: np.random.Generator, body: Layer) -> Layer:
    """Build a soft shadow next to a body."""
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
    """Build scenery in front of all objects: a bar across the frame or a blob, at rest or passing by."""
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
    """Draw the poses ``(T, 3, 3)`` of an object, which moves, rotates, scales, shears and may leave for a while."""
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
    """Offsets ``(T, 2)`` that take an object out of the frame and back."""
    angle = generator.uniform(0, 2 * math.pi)
    out = 2.6 * np.array([math.cos(angle), math.sin(angle)])
    last = max(num_frames - 1, 1)
    rise, fall = np.sort(generator.uniform(0.1, 0.9, 2)) * last
    width = max(0.1 * last, 0.5)
    t = np.arange(num_frames)
    away = np.clip(np.minimum((t - rise) / width + 1, (fall - t) / width + 1), 0, 1)
    return away[:, None] * out


def _shown(generator: np.random.Generator, num_frames: int, settings: SceneSettings) -> np.ndarray:
    """Draw on which frames ``(T,)`` an object exists at all."""
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
    """Draw pan, roll, zoom and shake of the camera as matrices ``(T, 3, 3)``."""
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
    """Draw colours ``(3, P, P)`` in 0..255 and opacity ``(P, P)`` in 0..1: a cut-out, or a textured silhouette."""
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
    """Place one or two things of a picture where they are in it; half of them move a little."""
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
    """Side of a sprite in pixels, so that it is rendered at about its own resolution."""
    return int(min(max(math.ceil(radius * size * 1.2), 16), size))


def _log_uniform(generator: np.random.Generator, low: float, high: float) -> float:
    """Draw from a log-uniform distribution."""
    return math.exp(generator.uniform(math.log(low), math.log(high)))
