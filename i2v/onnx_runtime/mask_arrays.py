"""Operations on masks as arrays; those of ``i2v.utils.masks`` and of PyTorch, without PyTorch."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from i2v.prompts.object_area import LOW_RES_STRIDE, MOST_CELLS

Floats = NDArray[np.float32]
Bools = NDArray[np.bool_]

HOLE_LOGIT = np.float32(0.1)  # logit of filled pixels
TIE = 1e-6  # coverages that are closer are equal
OVERLAP_LOGIT = np.float32(-10.0)  # largest logit of an object where another one wins


def resize(x: Floats, size: tuple[int, int], antialias: bool = False) -> Floats:
    """Resize maps bilinearly, with pixel centres at half-integers.

    Args:
        x: ``(..., H, W)``.
        size: (height, width).
        antialias: Whether pixels that shrink are averaged.

    Returns:
        ``(..., height, width)``.
    """
    if x.shape[-2:] == tuple(size):
        return x
    rows, columns = (_weights(n, m, antialias) for n, m in zip(x.shape[-2:], size, strict=True))
    return np.asarray(rows @ x @ columns.T)


@functools.lru_cache(maxsize=64)
def _weights(source: int, target: int, antialias: bool) -> Floats:
    """The matrix ``(target, source)`` that resizes an axis."""
    scale = source / target
    support = max(scale, 1.0) if antialias else 1.0
    centres = (np.arange(target) + 0.5) * scale - 0.5
    if not antialias:
        centres = centres.clip(0, source - 1)
    weights = np.maximum(0, 1 - np.abs(np.arange(source) - centres[:, None]) / support)
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


def fill_holes(logits: Floats, max_area: int) -> Floats:
    """Fill small holes in masks; see ``i2v.utils.masks.fill_holes``.

    Args:
        logits: ``(N, 1, H, W)``.
        max_area: Largest hole to fill in pixels; 0 fills nothing.

    Returns:
        ``(N, 1, H, W)``.
    """
    if max_area <= 0 or logits.size == 0:
        return logits
    holes = np.stack([_small_components(mask, max_area) for mask in logits[:, 0] <= 0])
    return np.where(holes[:, None], HOLE_LOGIT, logits)


def _small_components(region: Bools, max_area: int) -> Bools:
    """Find the 8-connected components ``(H, W)`` of at most ``max_area`` pixels.

    Every pixel starts with its own label and takes the largest one around it ``max_area`` times.
    """
    outside = region.size + 1
    labels = np.where(region, np.arange(1, outside).reshape(region.shape), 0)
    for _ in range(max_area):
        labels = np.where(region, _around(np.maximum, labels, 0), 0)
    lowest = _around(np.minimum, np.where(region, labels, outside), outside)
    settled = (_around(np.maximum, labels, 0) == labels) & (lowest == labels)
    area = np.bincount(labels.ravel(), minlength=outside)
    loose = np.bincount(labels[~settled], minlength=outside)
    return np.asarray(region & (area[labels] <= max_area) & (loose[labels] == 0))


def _around(extreme: Callable[..., Any], x: NDArray[np.int64], outside: int) -> NDArray[np.int64]:
    """Maximum (or minimum) filter of size 3 x 3."""
    x = np.pad(x, 1, constant_values=outside)
    x = extreme(extreme(x[:, :-2], x[:, 1:-1]), x[:, 2:])
    return np.asarray(extreme(extreme(x[:-2], x[1:-1]), x[2:]))


def suppress_overlap(logits: Floats) -> Floats:
    """Keep only the highest logit per pixel of ``(N, 1, H, W)``; the first object wins ties."""
    if len(logits) <= 1:
        return logits
    wins = np.arange(len(logits))[:, None, None, None] == logits.argmax(axis=0)
    return np.where(wins, logits, np.minimum(logits, OVERLAP_LOGIT))


def to_model_mask(mask: Bools, image_size: int, video_size: tuple[int, int]) -> Floats:
    """Resize a user's mask to the model image; see ``i2v.prompts.parsing.read_mask``.

    Args:
        mask: ``(H, W)``, true on the object.
        image_size: Side ``S`` of the model image in pixels.
        video_size: (height, width) in pixels.

    Returns:
        ``(S, S)`` of zeros and ones. A mask that would vanish is widened until a pixel of it is left.
    """
    coverage = resize(mask.astype(np.float32), (image_size, image_size), antialias=True)
    # An edge through the middle of a pixel covers exactly half of it, which round-off must not decide.
    resized = (coverage >= 0.5 - TIE).astype(np.float32)
    return _keep_visible(resized, coverage, video_size) if mask.any() else resized


def _keep_visible(binary: Floats, coverage: Floats, video_size: tuple[int, int]) -> Floats:
    """Widen a mask that would vanish on the coarser grid of predicted masks to the cells that it covers most."""
    if _is_visible(binary, video_size):
        return binary
    side, stride = binary.shape[0] // LOW_RES_STRIDE, LOW_RES_STRIDE
    cells = coverage.reshape(side, stride, side, stride).mean(axis=(1, 3))
    # Of a thin structure, every cell that it passes through the middle of.
    chosen = np.asarray(cells >= 0.5 * cells.max())
    widened = np.maximum(_to_pixels(chosen), binary)
    for cells_across in range(2, MOST_CELLS + 1):
        if _is_visible(widened, video_size):
            break
        padded = np.pad(chosen, ((cells_across - 1, 0), (cells_across - 1, 0)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, (cells_across, cells_across))
        widened = _to_pixels(np.asarray(windows.any(axis=(2, 3))))
    return widened


def _to_pixels(cells: Bools) -> Floats:
    return cells.repeat(LOW_RES_STRIDE, axis=0).repeat(LOW_RES_STRIDE, axis=1).astype(np.float32)


def _is_visible(binary: Floats, video_size: tuple[int, int]) -> bool:
    """Whether a mask has a pixel left after it went through the grid of predicted masks to the video's size."""
    side = binary.shape[0] // LOW_RES_STRIDE
    low_res = resize(binary - np.float32(0.5), (side, side), antialias=True)
    return bool((resize(low_res, video_size) > 0).any())
