"""Clips made of photos with masks: layers in smooth motion, composed as one batch on any device.

A clip has a background, which is a photo whose own object is followed under camera motion, or one whose objects do
not matter; before it move objects that were cut out of other photos. Letters: B clips, T frames, S side of the model
image, L layers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from i2v.build_i2v import resolve_device
from i2v.modeling.structures import IMAGE_MEAN, IMAGE_STD
from train.dataset.frame_grids import pixel_places, read_frames
from train.dataset.photo_library import PhotoLibrary
from train.dataset.posts import render_posts
from train.dataset.random_draws import RandomDraws
from train.dataset.structures import BatchedClip
from train.seeding import generator_for

WARP_POINTS = 4  # control points of the elastic deformation along each axis
MAX_ZOOM = 6.0
MAX_PHOTO_ZOOM, PHOTO_TURN = 2.5, 0.1  # of photos that are shown as they are


@dataclass(frozen=True)
class SceneSettings:
    """How often what happens in a clip, and how much things move; lengths count in half heights of the frame.

    Attributes:
        plain_prob: Probability that single images show photos as they are, not compositions.
        num_layers: Most objects that are cut out of other photos and move before the background.
        layer_prob: Probability of each of them but the first, which always shows.
        in_place: Probability that an object of the background is followed, too.
        twins: Probability that a layer shows the same object as the one below it.
        relatives: Probability that it shows another object of the same category.
        leaves: Probability that a layer moves so far that it leaves the frame; it may return.
        posts: Probability that a post stands, or passes, before everything else.
        min_size: Lower bound of the square root of a layer's part of the frame.
        max_size: Its upper bound.
        speed: Length of a layer's path.
        camera_speed: Length of the background's path.
        zoom: Logarithm of the change in size.
        turn: Rotation in radians.
        warp: Elastic deformation.
        min_area: Part of the frame from which on an object is followed.
        noise: Standard deviation of the noise, for pixels in 0 to 1.
        light: Strength of changes in brightness and contrast.
    """

    plain_prob: float = 0.7
    num_layers: int = 3
    layer_prob: float = 0.6
    in_place: float = 0.5
    twins: float = 0.2
    relatives: float = 0.25
    leaves: float = 0.2
    posts: float = 0.0
    min_size: float = 0.1
    max_size: float = 0.65
    speed: float = 0.45
    camera_speed: float = 0.3
    zoom: float = 0.3
    turn: float = 0.35
    warp: float = 0.05
    min_area: float = 0.003
    noise: float = 0.04
    light: float = 0.3


@dataclass(frozen=True)
class Picture:
    """Pictures (B,C,S',S') that are read through sampling grids, with what their affine maps need."""

    pixels: Tensor
    aspect: Tensor  # (B,)
    center: Tensor  # (B,2), in half heights of the picture: the point that motion starts from
    scale: Tensor  # (B,) half heights of the frame in one of the picture


@dataclass(frozen=True)
class BatchSettings:
    """What batches are like. ``image_prob``: that one is of single images rather than of clips.

    ``max_num_objects``, ``max_image_objects``: of a clip, and of a single image.
    """

    resolution: int = 320
    num_frames: int = 4
    clips_per_batch: int = 4
    images_per_batch: int = 8
    image_prob: float = 0.3
    max_num_objects: int = 2
    max_image_objects: int = 6
    steps_per_epoch: int = 1000

    def __post_init__(self) -> None:
        if not 0 <= self.image_prob <= 1:
            raise ValueError(f"image_prob: expected a probability between 0 and 1, got {self.image_prob}")
        for name in (
            "num_frames",
            "clips_per_batch",
            "images_per_batch",
            "max_num_objects",
            "max_image_objects",
            "steps_per_epoch",
        ):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected at least 1, got {getattr(self, name)}")


class PhotoClipLoader:
    """Makes batches of clips, or of single images, from a pack of photos. The same batch for the same seed and number.

    Everything is drawn on the CPU and composed on ``device``, where the photos are kept, too.
    """

    def __init__(
        self,
        pack: str,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        batches: BatchSettings | None = None,
        device: str | None = None,
        scene: SceneSettings | None = None,
    ) -> None:
        """``pack``: see :class:`PhotoLibrary`. ``world_size`` changes nothing: each rank draws for itself.

        ``device``: cuda, mps or cpu, ``None`` for the best there is. Raises as :meth:`PhotoLibrary.open` does.
        """
        self.library = PhotoLibrary.open(pack).to(resolve_device(device))
        self.seed, self.rank = seed, rank
        self.batches = batches or BatchSettings()
        self.scene = scene or SceneSettings()

    def __len__(self) -> int:
        """Batches of an epoch."""
        return self.batches.steps_per_epoch

    def epoch(self, epoch: int, start: int = 0) -> Iterator[BatchedClip]:
        """The batches of an epoch from number ``start`` on."""
        for number in range(start, len(self)):
            yield self.batch(epoch, number)

    def batch(self, epoch: int, number: int) -> BatchedClip:
        """Batch ``number`` of an epoch."""
        batches = self.batches
        # Whether it is of images is the same on all ranks, so that all have the same work.
        is_image, is_plain = np.random.default_rng((self.seed, epoch, number)).random(2) < (
            batches.image_prob,
            self.scene.plain_prob,
        )
        generator = generator_for(torch.device("cpu"), self.seed, epoch, number, self.rank)
        num_clips = batches.images_per_batch if is_image else batches.clips_per_batch
        composer = SceneComposer(self.library, self.scene, 1 if is_image else batches.num_frames, batches.resolution)
        if is_image and is_plain:
            return composer.photos(num_clips, batches.max_image_objects, generator)
        return composer.compose(num_clips, batches.max_num_objects, generator)


class SceneComposer:
    """Draws and renders clips of ``num_frames`` square frames of side ``resolution``."""

    def __init__(self, library: PhotoLibrary, scene: SceneSettings, num_frames: int, resolution: int) -> None:
        self.library, self.scene = library, scene
        self.num_frames, self.resolution = num_frames, resolution
        self.device = library.photos.device

    @torch.no_grad()
    def compose(self, num_clips: int, max_num_objects: int, generator: torch.Generator) -> BatchedClip:
        """Clips, each with 1 to ``max_num_objects`` objects that show on the first frame."""
        draw = RandomDraws(generator, self.device)
        aspect = torch.exp(draw.uniform((num_clips,), math.log(0.6), math.log(1.9)))
        frames, masks = self._background(num_clips, aspect, draw)
        candidates = [masks]
        previous: Tensor | None = None
        for number in range(self.scene.num_layers):
            objects = self._objects(num_clips, previous, draw)
            pixels, alpha = self._layer(objects, aspect, draw)
            shown = (draw.uniform((num_clips,)) < (1.0 if number == 0 else self.scene.layer_prob)).float()
            alpha = alpha * shown[:, None, None, None]
            frames, candidates = _covered(frames, candidates, pixels, alpha)
            candidates.append(alpha)
            previous = objects
        if self.scene.posts:
            frames, candidates = _covered(frames, candidates, *self._posts(aspect, draw))
        return self._batch(frames, torch.stack(candidates, dim=1) > 0.5, max_num_objects, draw)

    @torch.no_grad()
    def photos(self, num_photos: int, max_num_objects: int, generator: torch.Generator) -> BatchedClip:
        """Photos as they are, or a part of them, each with 1 to ``max_num_objects`` of its objects."""
        library, draw = self.library, RandomDraws(generator, self.device)
        # Photos with many objects are drawn more often, but less than as many times.
        first = draw.weighted(library.weights.sqrt(), num_photos)
        photo = library.photo_of[first]
        objects, is_object = self._others_on_photo(first, max_num_objects, draw)
        masks = library.labels[photo][:, None] == library.label_of[objects][..., None, None]
        pixels = torch.cat((library.photos[photo].float() / 255, (masks & is_object[..., None, None]).float()), dim=1)
        # Half of them whole, the others closer to an object.
        aspect = library.aspects[photo]
        is_close = (draw.uniform((num_photos,)) < 0.5).float()
        scale = torch.exp(is_close * draw.uniform((num_photos,), 0.0, math.log(MAX_PHOTO_ZOOM)))
        room = (1 - 1 / scale)[:, None]
        center = torch.maximum(torch.minimum(library.centers[first], room), -room)
        center = center * torch.stack((aspect, torch.ones_like(aspect)), dim=1)
        still = torch.zeros((num_photos, 1, 2), device=self.device)
        picture = Picture(pixels, aspect, center, scale)
        seen = self._render(picture, aspect, still, still, PHOTO_TURN, "reflection", draw)
        return self._batch(seen[:, :, :3], seen[:, :, 3:].transpose(1, 2) > 0.5, max_num_objects, draw)

    def _others_on_photo(self, objects: Tensor, limit: int, draw: RandomDraws) -> tuple[Tensor, Tensor]:
        """``objects`` (B,) and others on the same photos in random order, (B,K), and whether there are so many."""
        library = self.library
        same = library.photo_of[objects][:, None] == library.photo_of
        rank = same * (1 + draw.uniform((len(library.photo_of),)))
        rank[torch.arange(len(objects), device=self.device), objects] = 3.0
        found, order = rank.topk(min(limit, rank.shape[1]), dim=1)
        return order, found > 0

    def _batch(self, frames: Tensor, masks: Tensor, max_num_objects: int, draw: RandomDraws) -> BatchedClip:
        """Frames (B,T,3,S,S) in 0..1 and masks (B,K,T,S,S) of what is on them, with up to so many objects a clip."""
        frames = self._photometric(frames, draw)
        rows, clips = self._choose(masks, max_num_objects, draw)
        mean, std = (torch.tensor(v, device=self.device).view(3, 1, 1) for v in (IMAGE_MEAN, IMAGE_STD))
        return BatchedClip(
            frames=((frames.clamp(0, 1) - mean) / std).transpose(0, 1).contiguous(),
            masks=rows.transpose(0, 1).contiguous(),
            video_of=clips,
            names=tuple(f"clip {number}" for number in range(len(masks))),
        )

    def _background(self, num_clips: int, aspect: Tensor, draw: RandomDraws) -> tuple[Tensor, Tensor]:
        """Frames (B,T,3,S,S) in 0..1, and masks (B,T,S,S) of what is followed on them, empty where nothing is."""
        library, scene = self.library, self.scene
        objects = draw.weighted(library.weights, num_clips)
        photo = library.photo_of[objects]
        in_place = draw.uniform((num_clips,)) < scene.in_place
        mask = library.labels[photo] == library.label_of[objects].view(-1, 1, 1)
        pixels = torch.cat((library.photos[photo].float() / 255, (mask & in_place.view(-1, 1, 1)).float()[:, None]), 1)
        photo_aspect = library.aspects[photo]
        if len(library.backgrounds):
            other = draw.integers(len(library.backgrounds), num_clips)
            replaced = ~in_place & (draw.uniform((num_clips,)) < 0.5)
            plain = F.pad(library.backgrounds[other].float() / 255, (0, 0, 0, 0, 0, 1))
            pixels = torch.where(replaced.view(-1, 1, 1, 1), plain, pixels)
            photo_aspect = torch.where(replaced, library.background_aspects[other], photo_aspect)
        # The view is as large as the photo allows, or smaller; small objects are looked at more closely.
        fit = torch.minimum(torch.ones_like(aspect), photo_aspect / aspect)
        scale = 1 / (fit * draw.uniform((num_clips,), 0.55, 1.1))
        wanted = torch.sqrt(0.015 * aspect / (library.areas[objects] * photo_aspect))
        largest = torch.sqrt(0.4 * aspect / (library.areas[objects] * photo_aspect))
        closer = torch.minimum(torch.maximum(scale, wanted), torch.maximum(largest, 0.9 / fit))
        scale = torch.where(in_place, closer, scale).clamp(max=MAX_ZOOM)
        of_object = torch.stack((library.centers[objects, 0] * photo_aspect, library.centers[objects, 1]), dim=1)
        room = (1 - 1 / (scale / fit.clamp(min=1e-3)).clamp(min=1)).view(-1, 1)
        spread = draw.uniform((num_clips, 2), -0.6, 0.6) * torch.stack((aspect, torch.ones_like(aspect)), 1)
        center = torch.where(in_place.view(-1, 1), of_object + 0.7 * spread / scale.view(-1, 1), spread * room)
        picture = Picture(pixels, photo_aspect, center, scale)
        move = self._motion(num_clips, scene.camera_speed, draw)
        seen = self._render(picture, aspect, torch.zeros_like(move), move, 0.5 * scene.turn, "reflection", draw)
        return seen[:, :, :3], seen[:, :, 3]

    def _objects(self, num_clips: int, previous: Tensor | None, draw: RandomDraws) -> Tensor:
        """An object for a layer of each clip: any, or one like the ``previous`` layer's."""
        library = self.library
        fresh = draw.weighted(library.weights, num_clips)
        if previous is None:
            return fresh
        same = library.categories[None] == library.categories[previous][:, None]
        related = draw.weighted_rows(same * library.weights)
        chance = draw.uniform((num_clips,))
        chosen = torch.where(chance < self.scene.twins, previous, fresh)
        is_relative = (chance >= self.scene.twins) & (chance < self.scene.twins + self.scene.relatives)
        return torch.where(is_relative, related, chosen)

    def _layer(self, objects: Tensor, aspect: Tensor, draw: RandomDraws) -> tuple[Tensor, Tensor]:
        """Pixels (B,T,3,S,S) and opacities (B,T,S,S) of objects that are cut out of their photos."""
        library, scene, count = self.library, self.scene, len(objects)
        photo = library.photo_of[objects]
        mask = (library.labels[photo] == library.label_of[objects].view(-1, 1, 1)).float()[:, None]
        gain = draw.uniform((count, 3, 1, 1), 0.75, 1.25)
        pixels = torch.cat(((library.photos[photo].float() / 255 * gain).clamp(0, 1), mask), dim=1)
        photo_aspect = library.aspects[photo]
        size = torch.exp(draw.uniform((count,), math.log(scene.min_size), math.log(scene.max_size)))
        scale = (size * torch.sqrt(aspect / (library.areas[objects] * photo_aspect))).clamp(max=MAX_ZOOM)
        center = torch.stack((library.centers[objects, 0] * photo_aspect, library.centers[objects, 1]), dim=1)
        start = draw.uniform((count, 1, 2), -0.8, 0.8) * torch.stack((aspect, torch.ones_like(aspect)), 1)[:, None]
        leaves = (draw.uniform((count, 1, 1)) < scene.leaves).float()
        move = self._motion(count, scene.speed, draw) * (1 + 3 * leaves)
        picture = Picture(pixels, photo_aspect, center, scale)
        seen = self._render(picture, aspect, start, move, scene.turn, "zeros", draw)
        return seen[:, :, :3], seen[:, :, 3]

    def _posts(self, aspect: Tensor, draw: RandomDraws) -> tuple[Tensor, Tensor]:
        """Pixels (B,T,3,S,S) and opacities (B,T,S,S) of a post in each clip, 0 where there is none."""
        count = len(aspect)
        shown = (draw.uniform((count, 1, 1, 1)) < self.scene.posts).float()
        photos = self.library.photos[draw.integers(len(self.library.photos), count)].float() / 255
        paths = self._motion(count, self.scene.speed, draw)[..., 0]
        pixels, opacity = render_posts(photos, paths, aspect, self.resolution, draw)
        return pixels, opacity * shown

    def _motion(self, count: int, amplitude: float, draw: RandomDraws) -> Tensor:
        """Smooth paths (B,T,2) that begin at 0, of all speeds up to the given one."""
        pace = draw.uniform((count, 1, 1)) ** 1.5
        return amplitude * pace * draw.paths(count, self.num_frames, 2)

    def _render(
        self,
        picture: Picture,
        aspect: Tensor,
        start: Tensor,
        move: Tensor,
        turn: float,
        padding: str,
        draw: RandomDraws,
    ) -> Tensor:
        """Read pictures through grids in motion -> (B,T,C,S,S). ``start``, ``move``: places (B,1 or T,2)."""
        count, steps = len(aspect), self.num_frames
        liveliness = draw.uniform((count, 1, 1)) ** 1.5
        zoom = torch.exp(self.scene.zoom * liveliness * draw.paths(count, steps, 1))[..., 0]
        tilt = draw.uniform((count, 1), -turn, turn) + turn * (liveliness * draw.paths(count, steps, 1))[..., 0]
        flip = torch.where(draw.uniform((count, 1)) < 0.5, -1.0, 1.0)
        x, y = pixel_places(aspect, self.resolution)
        place = torch.stack((x, y.expand(count, -1, -1)), dim=-1)[:, None]
        place = place - (start + move)[:, :, None, None] + self._warp(count, draw)
        scale = (picture.scale[:, None] * zoom)[..., None, None]
        sine, cosine = (f(tilt)[..., None, None] / scale for f in (torch.sin, torch.cos))
        u = (place[..., 0] * cosine + place[..., 1] * sine) * flip[..., None, None]
        v = place[..., 1] * cosine - place[..., 0] * sine
        u = (u + picture.center[:, 0].view(-1, 1, 1, 1)) / picture.aspect.view(-1, 1, 1, 1)
        v = v + picture.center[:, 1].view(-1, 1, 1, 1)
        return read_frames(picture.pixels, u, v, padding)

    def _warp(self, count: int, draw: RandomDraws) -> Tensor:
        """Elastic displacements (B,T,S,S,2) that change smoothly over time."""
        points = WARP_POINTS * WARP_POINTS * 2
        strength = self.scene.warp * draw.uniform((count, 1, 1)) ** 1.5
        controls = strength * (draw.normal((count, 1, points)) + 1.5 * draw.paths(count, self.num_frames, points))
        controls = controls.view(-1, 2, WARP_POINTS, WARP_POINTS)
        size = (self.resolution, self.resolution)
        field = F.interpolate(controls, size=size, mode="bicubic", align_corners=True)
        return field.unflatten(0, (count, self.num_frames)).movedim(2, -1)

    def _photometric(self, frames: Tensor, draw: RandomDraws) -> Tensor:
        """Light that changes over time, blur by a lost resolution, noise; each clip has its own."""
        count, steps = frames.shape[:2]
        light = self.scene.light * (draw.normal((count, 1, 2)) * 0.5 + 0.3 * draw.paths(count, steps, 2))
        gain, bias = torch.exp(light[..., 0]), 0.3 * light[..., 1]
        mean = frames.mean(dim=(-3, -2, -1), keepdim=True)
        frames = (frames - mean) * gain[..., None, None, None] + mean + bias[..., None, None, None]
        tint = draw.uniform((count, 1, 3, 1, 1), 0.85, 1.15)
        grey = (draw.uniform((count, 1, 1, 1, 1)) < 0.05).float()
        frames = torch.lerp(frames * tint, frames.mean(dim=2, keepdim=True).expand_as(frames), grey)
        blurred = F.avg_pool2d(frames.flatten(0, 1), 3, 1, 1)
        coarse = F.interpolate(F.avg_pool2d(blurred, 2, ceil_mode=True), size=frames.shape[-2:], mode="bilinear")
        amount = draw.uniform((count, 1, 1, 1, 1)) * (draw.uniform((count, 1, 1, 1, 1)) < 0.5).float()
        frames = torch.lerp(frames, coarse.unflatten(0, (count, steps)), amount)
        noise = self.scene.noise * draw.uniform((count, 1, 1, 1, 1)) ** 2
        return frames + noise * torch.randn(frames.shape, device=self.device, generator=draw.on_device())

    def _choose(self, masks: Tensor, limit: int, draw: RandomDraws) -> tuple[Tensor, Tensor]:
        """Of masks (B,K,T,S,S) bool up to ``limit`` a clip that show on its first frame, in random order.

        Returns their masks (N,T,S,S) and clips (N,). Where none shows well, it is the one that shows best.
        """
        area = masks[:, :, 0].float().mean(dim=(-2, -1))
        shows = area >= self.scene.min_area
        rank = torch.where(shows, 1 + draw.uniform(tuple(area.shape)), area)
        order = rank.argsort(dim=1, descending=True)[:, :limit]
        clips = torch.arange(len(masks), device=self.device)[:, None].expand_as(order)
        wanted = shows.gather(1, order)
        wanted[:, 0] = True
        return masks[clips[wanted], order[wanted]], clips[wanted]


def _covered(frames: Tensor, masks: list[Tensor], pixels: Tensor, alpha: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Frames (B,T,3,S,S) and masks (B,T,S,S) behind a layer of pixels with opacities ``alpha`` (B,T,S,S)."""
    return torch.lerp(frames, pixels, alpha[:, :, None]), [mask * (1 - alpha) for mask in masks]
