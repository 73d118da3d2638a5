"""A mask as polygons whose vertices are moved: what the page shows of it, and the mask that they make."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from i2v.annotator.document import Document, Paint
from i2v.annotator.masks import decode
from i2v.annotator.session import Session
from i2v.prompts.frame_bounds import check_points
from i2v.results.polygons import Part, Polygon, edge_length, parts_of, simplified
from i2v.results.rle import Mask, Size, encode_mask
from i2v.utils.iou import mask_iou

MAX_POLYGONS = 500
MAX_EDGE = 100_000
"""Pixels of a mask's edges, and so the most vertices that its polygons can have."""

MIN_IOU = 0.97
"""Of a part of a mask with that of its simplified polygons."""

_COARSEST = 0.003  # of the frame's diagonal; 3 pixels at 854 x 480
_FINEST = 0.5  # pixels; below, a staircase of pixels keeps all of its corners
_FINER = 1.5  # steps between them


def polygons_of_mask(counts: bytes, size: Size) -> list[Polygon]:
    """Return the polygons of a mask with few vertices: of each part its outline, then its holes.

    Args:
        counts: The mask, as compressed run lengths.
        size: (height, width).

    Raises:
        ValueError: If the mask has too many polygons, or edges that are too long.
    """
    coarsest = max(1.0, _COARSEST * math.hypot(*size))
    return [polygon for part in _traced(decode(counts, size)) for polygon in _simplified(part, coarsest).polygons]


def redrawn(counts: bytes, size: Size, changes: Mapping[int, Polygon]) -> bytes:
    """Return a mask with polygons changed. The other polygons keep their pixels exactly.

    Args:
        counts: The mask, as compressed run lengths.
        size: (height, width).
        changes: The new vertices of polygons, by their place in ``polygons_of_mask``.

    Returns:
        The new mask, as compressed run lengths: of each part what is inside its outline, and in none of its holes.

    Raises:
        ValueError: If there is no such polygon, it has less than three vertices, or one that is off the frame, or there
            are too many.
    """
    num_vertices = sum(len(polygon) for polygon in changes.values())
    if num_vertices > MAX_EDGE:
        raise ValueError(f"polygons: expected at most {MAX_EDGE:,} vertices, got {num_vertices:,}")
    for place, polygon in changes.items():
        check_points(polygon, size[::-1], f"polygon {place}")
    mask = np.array(decode(counts, size))
    parts = _traced(mask)
    count = sum(len(part.polygons) for part in parts)
    unknown = next((place for place in changes if place >= count), None)
    if unknown is not None:
        raise ValueError(f"polygon {unknown}: the mask has {count}, counted from 0")
    changed: list[Part] = []
    first = 0
    for part in parts:
        places = range(first, first + len(part.polygons))
        first = places.stop
        if changes.keys().isdisjoint(places):
            continue
        outline, *holes = (changes.get(i, polygon) for i, polygon in zip(places, part.polygons, strict=True))
        mask &= ~part.mask(size)
        changed.append(Part(outline, tuple(holes)))
    for part in changed:
        mask |= part.mask(size)
    return encode_mask(mask)


def shown_polygons(session: Session, number: int, frame: int) -> tuple[bytes, list[Polygon]]:
    """Return an object's mask on a frame as compressed run lengths, and its polygons.

    Args:
        session: The session.
        number: The object.
        frame: Index of the frame.

    Raises:
        ValueError: If there is no such object or frame, or no mask, or one that is too complex.
    """
    counts = session.mask_on(number, frame, "be edited as polygons").counts
    return counts, polygons_of_mask(counts, session.size)


async def redraw(session: Session, number: int, frame: int, mask: str, changes: Mapping[int, Polygon]) -> None:
    """Change polygons of an object's mask on a frame, as a prompt with the new mask.

    Args:
        session: The session.
        number: The object.
        frame: Index of the frame.
        mask: The mask that the polygons are of, as compressed run lengths.
        changes: The new vertices of polygons, by their place in ``polygons_of_mask``.

    Raises:
        ValueError: If the object is locked, another mask is shown by now, or as for ``shown_polygons`` and ``redrawn``.
    """

    def check(document: Document) -> bytes:
        document.check_unlocked(number)
        counts = session.mask_on(number, frame, "be edited as polygons").counts
        if counts.decode("ascii") != mask:
            raise ValueError(f"object {number}, frame {frame}: the mask has changed since its polygons were shown")
        return counts

    counts = await asyncio.to_thread(redrawn, check(session.document), session.size, changes)

    def change(document: Document) -> Document:
        check(document)  # again, as other edits may have come first
        return document.with_steps((number, frame), Paint(counts))

    await session.edit(change)


def _traced(mask: Mask) -> list[Part]:
    length = edge_length(mask)
    if length > MAX_EDGE:
        raise ValueError(f"the mask has {length:,} pixels of edges: polygons are for at most {MAX_EDGE:,}")
    parts = parts_of(mask)
    count = sum(len(part.polygons) for part in parts)
    if count > MAX_POLYGONS:
        raise ValueError(f"the mask has {count:,} outlines and holes: at most {MAX_POLYGONS} can be edited")
    return parts


def _simplified(part: Part, coarsest: float) -> Part:
    """Leave out vertices of a part, as many as its IoU allows."""
    # In the box around it, as most parts are much smaller than the frame.
    corner = part.outline.min(axis=0)
    width, height = (int(side) for side in part.outline.max(axis=0) - corner)
    exact = _moved(part, -corner).mask((height, width))
    tolerance = coarsest
    while tolerance >= _FINEST:
        simpler = replace(
            part,
            outline=simplified(part.outline, tolerance),
            holes=tuple(simplified(hole, tolerance) for hole in part.holes),
        )
        if mask_iou(_moved(simpler, -corner).mask(exact.shape), exact) >= MIN_IOU:
            return simpler
        tolerance /= _FINER
    return part


def _moved(part: Part, by: Polygon) -> Part:
    return Part(part.outline + by, tuple(hole + by for hole in part.holes))
