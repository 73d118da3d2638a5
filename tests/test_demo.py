"""The rendered clip of the demo."""

from __future__ import annotations

import numpy as np
import pytest

from i2v.demo import render_demo_clip
from i2v.prompts.sampling import centroid_pixel


def test_demo_clip_is_reproducible_and_its_masks_are_exact() -> None:
    clip, again, other = render_demo_clip(8), render_demo_clip(8), render_demo_clip(8, seed=1)
    assert (clip.frames.shape, clip.frames.dtype) == ((8, 240, 320, 3), np.uint8)
    assert (clip.masks.shape, clip.masks.dtype) == ((8, 240, 320), bool)
    np.testing.assert_array_equal(clip.frames, again.frames)
    assert (clip.frames != other.frames).any()
    # What does not move is the same on every frame, wherever no mask is on either of the two.
    for t in range(1, 8):
        free = ~(clip.masks[0] | clip.masks[t])
        np.testing.assert_array_equal(clip.frames[0][free], clip.frames[t][free])
        changed = (clip.frames[0] != clip.frames[t]).any(axis=2)
        assert changed[clip.masks[0] ^ clip.masks[t]].mean() > 0.97
    areas = clip.masks.sum(axis=(1, 2))
    assert areas.min() > 3000
    assert areas.min() < 0.75 * areas.max()  # behind the pillar
    x, y = centroid_pixel(clip.masks[0])
    assert clip.masks[0, y - 10 : y + 11, x - 10 : x + 11].all()
    with pytest.raises(ValueError, match="mask: expected at least one object pixel"):
        centroid_pixel(np.zeros((4, 4), bool))
