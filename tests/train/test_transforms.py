"""Augmentations move pictures and masks alike, draw what they should, and depend on their generator alone."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from data_support import disc
from torch import Tensor
from torchvision.transforms.v2 import functional as TF

from train.dataset.structures import FrameObjects, RawClip
from train.dataset.transforms import (
    ColorJitter,
    RandomAffine,
    RandomGrayscale,
    RandomHorizontalFlip,
    Transform,
    resize,
)

ALL = (RandomHorizontalFlip(), RandomAffine(), ColorJitter(0.3, 0.3, 0.3), RandomGrayscale(0.5))


class Fixed:
    """A generator whose uniform draws are given."""

    def __init__(self, *values: float) -> None:
        self._values = list(values)

    def uniform(self, low: float, high: float) -> float:
        value = self._values.pop(0)
        assert low <= value <= high
        return value

    def permutation(self, count: int) -> np.ndarray:
        return np.arange(count)


def make_clip(size: int = 48, num_frames: int = 3, aspect: float = 1.0, x: float = 16) -> RawClip:
    """A disc, in the picture as in the mask, over a smooth background."""
    mask = torch.from_numpy(disc(x, 20, 7, (size, size)))
    ramp = torch.linspace(20, 120, size).expand(3, size, size)
    colour = torch.tensor([250.0, 230.0, 210.0]).view(3, 1, 1)
    frames = torch.stack([torch.where(mask, colour, ramp + 5 * t) for t in range(num_frames)])
    return RawClip(frames.to(torch.uint8), mask.expand(num_frames, 1, size, size), aspect, "clip", (0, 1, 2))


def apply(transform: Transform, clip: RawClip, seed: int = 0) -> RawClip:
    return transform(clip, np.random.default_rng(seed))


def fixed(transform: Transform, clip: RawClip, *values: float) -> RawClip:
    return transform(clip, Fixed(*values))  # type: ignore[arg-type]


def iou(a: Tensor, b: Tensor) -> float:
    return float((a & b).sum() / (a | b).sum())


@pytest.mark.parametrize("transform", ALL, ids=lambda t: type(t).__name__)
def test_equal_generators_give_equal_clips_and_types_stay(transform: Transform) -> None:
    torch.manual_seed(3)
    clip = make_clip()
    before = clip.frames.clone()
    seen = set()
    for seed in range(8):
        first, second = apply(transform, clip, seed), apply(transform, clip, seed)
        assert torch.equal(first.frames, second.frames) and torch.equal(first.masks, second.masks)
        assert (first.frames.dtype, first.masks.dtype) == (torch.uint8, torch.bool)
        assert (first.frames.shape, first.masks.shape) == (clip.frames.shape, clip.masks.shape)
        seen.add(first.frames.numpy().tobytes())
    assert len(seen) > 1
    assert torch.equal(clip.frames, before)


def test_the_result_does_not_depend_on_the_number_of_threads() -> None:
    clip = make_clip(256)

    def run() -> bytes:
        augmented = clip
        generator = np.random.default_rng(5)
        for transform in (RandomAffine(), ColorJitter(0.4, 0.4, 0.4)):
            augmented = transform(augmented, generator)
        return (
            augmented.frames.numpy().tobytes()
            + resize(FrameObjects(clip.frames[0], clip.masks[0]), 100).image.numpy().tobytes()
        )

    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = run()
        torch.set_num_threads(3)
        assert run() == one
    finally:
        torch.set_num_threads(threads)


def test_flip_mirrors_half_of_the_clips() -> None:
    clip = make_clip()
    flipped = [not torch.equal(apply(RandomHorizontalFlip(), clip, seed).frames, clip.frames) for seed in range(100)]
    assert 30 < sum(flipped) < 70
    mirrored = apply(RandomHorizontalFlip(1.0), clip)
    assert torch.equal(mirrored.frames, clip.frames.flip(-1)) and torch.equal(mirrored.masks, clip.masks.flip(-1))


def test_affine_agrees_with_torchvision_on_a_square_picture() -> None:
    clip = make_clip(num_frames=1)
    ours = fixed(RandomAffine(), clip, 20.0, 15.0)
    turn = {"angle": 20.0, "translate": [0, 0], "scale": 1.0, "shear": [15.0, 0.0]}
    linear = TF.InterpolationMode.BILINEAR
    theirs = TF.affine(clip.frames[0], **turn, interpolation=linear, fill=[123.0, 116.0, 103.0])
    mask = TF.affine(clip.masks[0].to(torch.uint8), **turn).bool()
    # At the border torchvision blends with the fill twice.
    cover = TF.affine(torch.full((1, 48, 48), 255, dtype=torch.uint8), **turn, interpolation=linear)
    clear = ((cover == 0) | (cover == 255)).expand(3, -1, -1)
    assert (ours.frames[0].int() - theirs.int()).abs()[clear].max() <= 2
    assert iou(ours.masks[0, 0], mask[0]) > 0.95
    assert ours.frames[0, :, 0, 0].tolist() == [123, 116, 103]


def test_affine_turns_in_the_proportions_of_the_picture() -> None:
    # Twice as wide as high, squeezed to a square: turned by a right angle, what was 8 wide becomes 16 high.
    masks = torch.zeros(1, 1, 64, 64, dtype=torch.bool)
    masks[..., 28:36, 28:36] = True
    clip = RawClip(torch.zeros(1, 3, 64, 64, dtype=torch.uint8), masks, 2.0, "clip", (0,))
    turned = fixed(RandomAffine(degrees=90), clip, 90.0, 0.0).masks[0, 0]
    assert (int(turned.any(1).sum()), int(turned.any(0).sum())) == (16, 4)


def test_affine_moves_picture_and_mask_together_on_every_frame() -> None:
    warped = apply(RandomAffine(), make_clip(), 2)
    bright = warped.frames.float().mean(1) > 190
    assert all(iou(bright[t], warped.masks[t, 0]) > 0.85 for t in range(3))
    assert torch.equal(warped.masks[0], warped.masks[2])


def test_affine_leaves_a_clip_alone_whose_object_it_would_lose() -> None:
    corner = make_clip(x=2)
    corner = dataclasses.replace(corner, masks=torch.zeros_like(corner.masks))
    corner.masks[:, :, 0, 0] = True
    assert fixed(RandomAffine(degrees=45), corner, 45.0, 0.0) is corner
    # An object that is not there to begin with cannot be lost.
    empty = dataclasses.replace(corner, masks=torch.zeros_like(corner.masks))
    assert fixed(RandomAffine(degrees=45), empty, 45.0, 0.0) is not empty


def test_colour_steps_agree_with_torchvision() -> None:
    generator = np.random.default_rng(0)
    image = torch.from_numpy(generator.integers(0, 255, (1, 3, 32, 32), np.uint8))
    clip = RawClip(image, torch.zeros(1, 1, 32, 32, dtype=torch.bool), 1.0, "clip", (0,))
    for field, theirs in (
        ("brightness", TF.adjust_brightness),
        ("contrast", TF.adjust_contrast),
        ("saturation", TF.adjust_saturation),
    ):
        for factor in (0.6, 1.3):
            ours = fixed(ColorJitter(**{field: 0.5}), clip, factor).frames
            assert (ours.int() - theirs(image, factor).int()).abs().max() <= 2, (field, factor)


@pytest.mark.parametrize("consistent", [True, False])
def test_colours_change_for_the_clip_or_for_every_frame(consistent: bool) -> None:
    still = RawClip(torch.full((4, 3, 8, 8), 100, dtype=torch.uint8), torch.zeros(4, 1, 8, 8).bool(), 1.0, "c", (0,))
    levels = [
        apply(ColorJitter(brightness=0.2, consistent_transform=consistent), still, seed).frames[:, 0, 0, 0].tolist()
        for seed in range(30)
    ]
    assert all((len(set(level)) == 1) == consistent for level in levels)
    flat = [value for level in levels for value in level]
    assert 79 < min(flat) < 86 and 114 < max(flat) < 121


def test_greyscale_is_rare_and_takes_the_whole_clip() -> None:
    frames = torch.zeros(2, 3, 4, 4, dtype=torch.uint8)
    frames[:, 0] = 200
    clip = RawClip(frames, torch.zeros(2, 1, 4, 4).bool(), 1.0, "clip", (0, 1))
    grey = [apply(RandomGrayscale(), clip, seed) for seed in range(400)]
    changed = [g for g in grey if not torch.equal(g.frames, frames)]
    assert 8 <= len(changed) <= 36
    assert changed[0].frames.unique().tolist() == [60]


def test_resize_smooths_pictures_and_cuts_masks_at_one_half() -> None:
    generator = np.random.default_rng(0)
    image = torch.from_numpy(generator.integers(0, 255, (3, 90, 160), np.uint8))
    mask = torch.from_numpy(disc(80, 45, 30, (90, 160)))[None]
    found = resize(FrameObjects(image, mask), 32)
    wanted = TF.resize(image, [32, 32], antialias=True)
    assert (found.image.int() - wanted.int()).abs().max() <= 1
    assert found.image.float().std() < 40  # noise averages out
    area = float(mask.float().mean())
    assert (found.masks.dtype, found.masks.float().mean().item()) == (torch.bool, pytest.approx(area, rel=0.03))
    assert resize(FrameObjects(image, mask[:0]), 32).masks.shape == (0, 32, 32)
