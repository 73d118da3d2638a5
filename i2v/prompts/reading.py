"""Users' points, boxes and masks, checked. Results are NumPy arrays; PyTorch is not imported."""

from __future__ import annotations

import logging
import numbers
from collections.abc import Hashable
from typing import Any

import numpy as np

from i2v.errors import brief
from i2v.modeling.constants import BOX_BOTTOM_RIGHT, BOX_TOP_LEFT, PADDING
from i2v.prompts.frame_bounds import check_points, clip_box
from i2v.prompts.mask_values import Mask, foreground
from i2v.prompts.object_area import warn_if_small
from i2v.utils.tensors import is_tensor, without_tensors

log = logging.getLogger(__name__)


def read_points(
    points: Any, labels: Any, box: Any, video_size: tuple[int, int], normalized: bool, where: str
) -> tuple[np.ndarray, np.ndarray]:
    """Read points and a box as one list of labelled points, box corners first.

    Args:
        points: ``(P, 2)`` or ``(1, P, 2)``, x first, as anything NumPy or PyTorch can convert, or ``None``.
        labels: ``(P,)`` or ``(1, P)``: 1 object, 0 background, 2 and 3 box corners, -1 padding; or ``None``.
        box: x0, y0, x1, y1, or ``None``. A box that exceeds the frame is clipped to it.
        video_size: (height, width) in pixels.
        normalized: Whether coordinates are in 0..1 of the frame instead of pixels.
        where: Prefix of error messages, such as ``describe_location`` returns.

    Returns:
        Coordinates ``(P, 2)`` float32 in 0..1 of the frame, and labels ``(P,)`` int32.

    Raises:
        ValueError: If the prompt is malformed or off the frame, or has one corner of a box without the other.
    """
    if (points is None) != (labels is None):
        raise ValueError(f"{where}: points and labels must be given together")
    if points is None and box is None:
        raise ValueError(f"{where}: expected points with labels, or a box, got neither")
    height, width = video_size
    scale = np.array([1, 1] if normalized else [width, height], dtype=np.float32)
    coordinates: np.ndarray = np.zeros((0, 2), dtype=np.float32)
    point_labels: np.ndarray = np.zeros(0, dtype=np.int32)
    if points is not None:
        coordinates, point_labels = _read_clicks(points, labels, where)
        _clip_corners(coordinates, point_labels, scale, where)
    if box is not None:
        if BOX_TOP_LEFT in point_labels:
            raise ValueError(f"{where}: expected one box, got another one as points with labels 2 and 3")
        corners = clip_box(_read_box(box, where), scale, where)
        coordinates = np.concatenate((corners, coordinates))
        point_labels = np.concatenate((np.array([BOX_TOP_LEFT, BOX_BOTTOM_RIGHT], dtype=np.int32), point_labels))
    if (point_labels == PADDING).all():
        raise ValueError(f"{where}: expected a box or at least one point with label 1 (object) or 0, got none")
    check_points(coordinates[point_labels != PADDING], scale, where)
    # Padding points have no place, so only real ones were checked.
    return coordinates / scale, point_labels


def warn_of_small_box(coordinates: np.ndarray, labels: np.ndarray, image_size: int, where: str) -> None:
    """Log a warning if a prompt of ``read_points`` has a box around an object that is too small to be followed."""
    corners = coordinates[np.isin(labels, (BOX_TOP_LEFT, BOX_BOTTOM_RIGHT))]
    if len(corners) == 2:
        warn_if_small(float(np.prod(corners[1] - corners[0])) * image_size**2, where)


def read_binary_mask(mask: Any, video_size: tuple[int, int], image_size: int, where: str) -> Mask:
    """Read a mask at its own size.

    Args:
        mask: ``(H, W)``, bool or numeric, with the video's size or aspect ratio, or the model image's size; see
            ``i2v.prompts.mask_values.foreground`` for what its values mean.
        video_size: (height, width) in pixels.
        image_size: Side of the model image in pixels.
        where: Prefix of error messages.

    Returns:
        ``(H, W)``, true on the object.

    Raises:
        ValueError: If the mask is not two-dimensional, has another shape, or values that are no mask, such as NaN.
    """
    values = _mask_array(mask, where)
    if values.ndim != 2 or 0 in values.shape:
        raise ValueError(f"{where}: expected a mask of shape (height, width), got {values.shape}")
    height, width = values.shape
    if (height, width) != (image_size, image_size) and not _same_shape((height, width), video_size):
        raise ValueError(
            f"{where}: expected a mask of the video's size {video_size[0]}x{video_size[1]} (height x width) or of its "
            f"shape, got {height}x{width}"
        )
    is_object = foreground(values, where)
    if not is_object.any() and np.any(values > 0):
        log.warning("%s: no value of the mask reaches half of its range, so the object is not in view there", where)
    return is_object


def describe_location(frame: int, obj_id: Hashable) -> str:
    """Name an object on a frame for error messages."""
    return f"frame {frame}, object {obj_id!r}"


def _read_clicks(points: Any, labels: Any, where: str) -> tuple[np.ndarray, np.ndarray]:
    coordinates = read_numbers(points, "points", where)
    point_labels = read_numbers(labels, "labels", where)
    if coordinates.ndim == 3 and coordinates.shape[0] == 1:
        coordinates = coordinates[0]
    if point_labels.ndim == 2 and point_labels.shape[0] == 1:
        point_labels = point_labels[0]
    # An empty list has shape (0,), which says nothing about pairs.
    if coordinates.size == 0:
        coordinates = coordinates.reshape(0, 2)
    if coordinates.ndim != 2 or coordinates.shape[1] != 2:
        raise ValueError(f"{where}: expected points of shape (P, 2), got {coordinates.shape}")
    if point_labels.shape != (len(coordinates),):
        raise ValueError(
            f"{where}: expected {len(coordinates)} labels, one for each point, got shape {point_labels.shape}"
        )
    known = np.isin(point_labels, [0, 1, 2, 3, PADDING])
    if not known.all():
        raise ValueError(f"{where}: expected labels 1 (object) or 0 (background), got {point_labels[~known][0]:g}")
    # A copy, which corners of a box may be clipped in.
    return coordinates.copy(), point_labels.astype(np.int32)


def _clip_corners(coordinates: np.ndarray, labels: np.ndarray, size: Any, where: str) -> None:
    """Check a box that is given as points with labels 2 and 3, and clip it to the frame in place."""
    corners = [np.flatnonzero(labels == corner) for corner in (BOX_TOP_LEFT, BOX_BOTTOM_RIGHT)]
    counts = [len(indices) for indices in corners]
    if counts == [0, 0]:
        return
    if counts != [1, 1]:
        raise ValueError(
            f"{where}: expected both corners of one box, labels 2 and 3, got {counts[0]} and {counts[1]} of them"
        )
    indices = np.concatenate(corners)
    coordinates[indices] = clip_box(_read_box(coordinates[indices], where), size, where)


def _read_box(box: Any, where: str) -> np.ndarray:
    corners = read_numbers(box, "box", where)
    if corners.size != 4:
        raise ValueError(f"{where}: expected one box x0, y0, x1, y1, got shape {corners.shape}")
    corners = corners.reshape(2, 2)
    if not (corners[0] < corners[1]).all():
        raise ValueError(f"{where}: expected a box with x0 < x1 and y0 < y1, got {corners.flatten().tolist()}")
    return corners


def _mask_array(mask: Any, where: str) -> np.ndarray:
    values = without_tensors(mask, where)
    if isinstance(values, np.ma.MaskedArray):
        values = values.filled(0)  # what is masked out is no object
    try:
        return np.asarray(values)
    except ValueError as error:  # rows of different lengths
        raise ValueError(f"{where}: expected a mask of shape (height, width): {error}") from error


def read_numbers(values: Any, name: str, where: str) -> np.ndarray:
    """Read numbers of any kind that NumPy and PyTorch have, in any nesting.

    Args:
        values: The numbers; texts that look like some are none.
        name: What they are, for error messages.
        where: Prefix of error messages.

    Returns:
        float32, in their shape.

    Raises:
        ValueError: If they are no numbers, or lists differ in length.
    """
    plain = without_tensors(values, f"{where}, {name}")
    try:
        if np.ma.is_masked(plain):
            raise TypeError("values that are masked")
        array = np.asarray(plain)
        if array.dtype.kind == "O":
            array = np.array([_number(value) for value in array.flat], dtype=np.float64).reshape(array.shape)
        if array.dtype.kind not in "biuf":
            raise TypeError(f"values of type {array.dtype}")
        return array.astype(np.float32)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise ValueError(f"{where}: expected {name} to be numbers, got {brief(values)}") from error


def _number(value: Any) -> float:
    if is_tensor(value):
        return float(value)
    if not isinstance(value, numbers.Real | np.bool_):
        raise TypeError(f"a {type(value).__name__}")
    return float(value)


def _same_shape(size: tuple[int, int], video_size: tuple[int, int]) -> bool:
    """Whether two (height, width) have the same aspect ratio, up to rounding one side to whole pixels."""
    height, width = size
    return (
        abs(width - height * video_size[1] / video_size[0]) <= 1
        or abs(height - width * video_size[0] / video_size[1]) <= 1
    )
