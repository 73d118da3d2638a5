"""Prompts on single images: one object or a batch of them, in the forms that SAM 2's image predictor takes."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from i2v.modeling.constants import PRIOR_LIMIT
from i2v.modeling.structures import PADDING, Prompt
from i2v.prompts.reading import read_numbers, read_points


def read_prompts(
    point_coords: Any,
    point_labels: Any,
    box: Any,
    mask_input: Any,
    *,
    size: tuple[int, int],
    image_size: int,
    normalized: bool,
    where: str,
) -> Prompt:
    """Read the prompts for ``B`` objects.

    Args:
        point_coords: ``(P, 2)`` or ``(B, P, 2)``, or ``None``.
        point_labels: ``(P,)`` or ``(B, P)``, or ``None``.
        box: ``(4,)``, ``(2, 2)``, ``(B, 4)`` or ``(B, 2, 2)``, or ``None``.
        mask_input: Low-res logits ``(4h, 4w)``, ``(1, 4h, 4w)`` or ``(B, 1, 4h, 4w)``, or ``None``.
        size: (height, width) of the image in pixels.
        image_size: Side ``S`` of the model image in pixels.
        normalized: Whether coordinates are in 0..1 of the image instead of pixels.
        where: Prefix of error messages.

    Returns:
        Points ``(B, P, 2)`` with labels and, if there is a mask, a prior.

    Raises:
        ValueError: If there is no prompt at all, a part is malformed or off the image, or parts are for another number
            of objects.
    """
    points = _batch(point_coords, "point_coords", 2, where)
    labels = _batch(point_labels, "point_labels", 1, where)
    boxes = None if box is None else _boxes(box, where)
    prior = None if mask_input is None else _prior(mask_input, image_size // 4, where)
    given = {"point_coords": points, "point_labels": labels, "box": boxes, "mask_input": prior}
    counts = {name: len(part) for name, part in given.items() if part is not None}
    if not counts:
        raise ValueError(f"{where}: expected points with labels, a box or a mask_input, got none")
    if len(set(counts.values())) > 1:
        found = ", ".join(f"{name} {count}" for name, count in counts.items())
        raise ValueError(f"{where}: expected all parts to be for the same number of objects, got {found}")
    batch = next(iter(counts.values()))
    if batch == 0:
        raise ValueError(f"{where}: expected at least one object, got none")
    if points is None and labels is None and boxes is None:
        # A padding point is what the prompt encoder is given where there are no points.
        padding = torch.full((batch, 1), PADDING, dtype=torch.int32)
        return Prompt.click(torch.zeros(batch, 1, 2), padding).with_prior(prior)
    rows = []
    for row in range(batch):
        own_points, own_labels, own_box = (None if part is None else part[row] for part in (points, labels, boxes))
        who = where if batch == 1 else f"{where}, object {row}"
        rows.append(read_points(own_points, own_labels, own_box, size, normalized, who))
    coordinates, kinds = (torch.from_numpy(np.stack(column)) for column in zip(*rows, strict=True))
    return Prompt.click(coordinates * image_size, kinds).with_prior(prior)


def _batch(values: Any, name: str, num_axes: int, where: str) -> NDArray[np.float32] | None:
    """Values with an axis of objects in front of their ``num_axes`` own ones."""
    if values is None:
        return None
    array = read_numbers(values, name, where)
    if array.ndim == num_axes:
        array = array[None]
    if array.ndim != num_axes + 1:
        shape = "(P, 2) or (B, P, 2)" if num_axes == 2 else "(P,) or (B, P)"
        raise ValueError(f"{where}: expected {name} of shape {shape}, got {array.shape}")
    return array


def _boxes(box: Any, where: str) -> NDArray[np.float32]:
    array = read_numbers(box, "box", where)
    if array.shape in ((4,), (2, 2)):
        return array.reshape(1, 4)
    if array.shape[1:] in ((4,), (1, 4), (2, 2)):
        return array.reshape(len(array), 4)
    raise ValueError(f"{where}: expected a box of shape (4,) or (B, 4), got {array.shape}")


def _prior(mask_input: Any, side: int, where: str) -> Tensor:
    array = read_numbers(mask_input, "mask_input", where)
    if array.ndim == 2 or (array.ndim == 3 and len(array) == 1):
        array = array.reshape(1, 1, *array.shape[-2:])
    if array.ndim != 4 or array.shape[1] != 1 or array.shape[2:] != (side, side):
        raise ValueError(
            f"{where}: expected mask_input of shape (1, {side}, {side}) or (B, 1, {side}, {side}), the low-res logits "
            f"of an earlier prediction, got {array.shape}"
        )
    if not np.isfinite(array).all():
        raise ValueError(f"{where}: expected finite numbers in mask_input, got NaN or infinity")
    return torch.from_numpy(array).clamp(-PRIOR_LIMIT, PRIOR_LIMIT)
