"""Masks as polygons along the edges of their pixels, and back: exact both ways."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from i2v.results.rle import Mask, Size

Polygon = NDArray[np.float64]  # (P, 2): x, y of the corners in pixels; closed without repeating the first
_Loop = list[tuple[int, int]]

_FAR = 1e9  # pixels, beyond which no frame is
_CROSSINGS_AT_ONCE = 1 << 20  # of edges and rows
_TURNS = {(1, 0): (0, 1), (0, 1): (-1, 0), (-1, 0): (0, -1), (0, -1): (1, 0)}  # to the right, with y downwards


@dataclass(frozen=True, eq=False)
class Part:
    """A connected part of a mask.

    Attributes:
        outline: The polygon around it.
        holes: The polygons around its holes.
    """

    outline: Polygon
    holes: tuple[Polygon, ...] = ()

    @property
    def polygons(self) -> tuple[Polygon, ...]:
        """The outline, then the holes."""
        return self.outline, *self.holes

    def mask(self, size: Size) -> Mask:
        """Return the mask of the pixels whose centres are inside the outline and in none of the holes.

        Args:
            size: (height, width).

        Raises:
            ValueError: As ``fill_polygons`` does.
        """
        return fill_polygons([self.outline], size) & ~fill_polygons(self.holes, size)


def parts_of(mask: Mask) -> list[Part]:
    """Trace a mask: its parts, where parts that touch at a corner only are apart. Their masks are disjoint.

    Args:
        mask: ``(H, W)``.

    Returns:
        The parts; none for an empty mask.
    """
    outlines, holes = _loops(np.asarray(mask, dtype=bool))
    owned: list[list[Polygon]] = [[] for _ in outlines]
    for hole in holes:
        # The smallest outline around the hole is that of its part.
        around = [i for i, outline in enumerate(outlines) if _contains(outline, hole[0])]
        owned[min(around, key=lambda i: abs(_area(outlines[i])))].append(np.array(hole, dtype=np.float64))
    return [Part(np.array(outline, dtype=np.float64), tuple(own)) for outline, own in zip(outlines, owned, strict=True)]


def edge_length(mask: Mask) -> int:
    """Return the length of a mask's edges, of its holes, too, in pixels: what tracing takes time and memory for.

    Args:
        mask: ``(H, W)``.
    """
    padded = np.pad(np.asarray(mask, dtype=bool), 1)
    return sum(int(np.count_nonzero(np.diff(padded, axis=axis))) for axis in (0, 1))


def polygons_of(mask: Mask) -> list[Polygon]:
    """Trace a mask: one polygon for each part, where parts that touch at a corner only are apart.

    A hole is connected with the outline around it by a line that is run along twice, so that filling a polygon (by the
    even-odd or the nonzero rule, at the centres of pixels) gives the mask again.

    Args:
        mask: ``(H, W)``.

    Returns:
        The polygons; none for an empty mask.
    """
    return [joined_polygon(part.polygons) for part in parts_of(mask)]


def outlines_of(mask: Mask, tolerance: float = 0.0) -> list[Polygon]:
    """Trace the outlines of a mask's parts without their holes, the largest first.

    Args:
        mask: ``(H, W)``.
        tolerance: How far a corner that is left out may be from the outline, in pixels; 0 leaves out none.

    Returns:
        The polygons; none for an empty mask.
    """
    outlines = sorted(_loops(np.asarray(mask, dtype=bool))[0], key=lambda loop: -abs(_area(loop)))
    polygons = [np.array(loop, dtype=np.float64) for loop in outlines]
    return [simplified(polygon, tolerance) for polygon in polygons] if tolerance else polygons


def simplified(polygon: Polygon, tolerance: float) -> Polygon:
    """Leave out corners, by the algorithm of Douglas and Peucker.

    Args:
        polygon: Corners ``(P, 2)``.
        tolerance: How far a corner that is left out may be from the polygon, in pixels.

    Returns:
        The corners that stay, three at least.
    """
    # On the two halves between the first corner and the one farthest from it.
    ring = np.vstack((polygon, polygon[:1]))
    farthest = int(((polygon - polygon[0]) ** 2).sum(axis=1).argmax())
    kept = {0, farthest}
    pieces = [(0, farthest), (farthest, len(polygon))]
    while pieces:
        first, last = pieces.pop()
        if last - first < 2:
            continue
        distances = _distances(ring[first + 1 : last], ring[first], ring[last])
        worst = int(distances.argmax())
        if distances[worst] > tolerance:
            middle = first + 1 + worst
            kept.add(middle)
            pieces += [(first, middle), (middle, last)]
    return polygon[sorted(kept)] if len(kept) > 2 else polygon


def _distances(points: Polygon, start: NDArray[np.float64], end: NDArray[np.float64]) -> NDArray[np.float64]:
    """Distances of points from the line through two others, or from the one where both are the same."""
    along, offsets = end - start, points - start
    length = float(np.hypot(*along))
    if length == 0:
        return np.asarray(np.hypot(offsets[:, 0], offsets[:, 1]))
    return np.asarray(np.abs(along[0] * offsets[:, 1] - along[1] * offsets[:, 0]) / length)


def joined_polygon(polygons: Sequence[Polygon]) -> Polygon:
    """Join polygons into one, by lines that are run along twice, for formats with one polygon per instance.

    Args:
        polygons: At least one.
    """
    return np.array(_joined([list(map(tuple, polygon.tolist())) for polygon in polygons]), dtype=np.float64)


def fill_polygons(polygons: Sequence[NDArray[np.floating]], size: Size) -> Mask:
    """Return the mask of the pixels whose centres are inside any of the polygons, each by the even-odd rule.

    Args:
        polygons: Corners ``(P, 2)``, x first, in pixels; they may be outside the frame.
        size: (height, width).

    Raises:
        ValueError: If a polygon has fewer than three corners, or one that is not finite or beyond a billion pixels.
    """
    mask = np.zeros(size, dtype=bool)
    for polygon in polygons:
        corners = np.asarray(polygon, dtype=np.float64)
        if corners.ndim != 2 or corners.shape[1] != 2 or len(corners) < 3 or not (np.abs(corners) < _FAR).all():
            raise ValueError(
                f"a polygon: expected at least three corners of two numbers within {_FAR:g} pixels, "
                f"got shape {corners.shape}"
            )
        mask |= _filled(corners, size)
    return mask


def _filled(corners: NDArray[np.float64], size: Size) -> Mask:
    height, width = size
    # From top to bottom, so that a line that is run along in both directions has the same round-off.
    edges = np.stack([corners, np.roll(corners, -1, axis=0)], axis=1)
    upwards = (edges[:, 0, 1] > edges[:, 1, 1]) | (
        (edges[:, 0, 1] == edges[:, 1, 1]) & (edges[:, 0, 0] > edges[:, 1, 0])
    )
    edges[upwards] = edges[upwards, ::-1]
    spans = np.clip(np.ceil(edges[:, :, 1] - 0.5), 0, height).astype(np.int64)  # first row, and end
    crossing = spans[:, 0] < spans[:, 1]
    edges, spans = edges[crossing], spans[crossing]
    mask = np.zeros((height, width), dtype=bool)
    if not len(edges):
        return mask
    # Only the box around it is filled, with a margin for round-off.
    top, bottom = int(spans[:, 0].min()), int(spans[:, 1].max())
    left = int(np.clip(np.floor(edges[:, :, 0].min()) - 1, 0, width))
    right = int(np.clip(np.ceil(edges[:, :, 0].max()) + 1, left, width))
    stride = right - left + 1
    flips = np.zeros((bottom - top) * stride, dtype=np.int64)
    # In parts, as a polygon can have very many edges that cross all rows.
    part = max(1, _CROSSINGS_AT_ONCE // height)
    for begin in range(0, len(edges), part):
        rows, columns = _crossings(edges[begin : begin + part], spans[begin : begin + part])
        places = (rows - top) * stride + np.clip(columns, left, right).astype(np.int64) - left
        flips += np.bincount(places, minlength=len(flips))
    # Of eight bits, as only the last one counts.
    crossed = np.cumsum(flips.reshape(-1, stride)[:, :-1], axis=1, dtype=np.uint8)
    mask[top:bottom, left:right] = crossed % 2 == 1
    return mask


def _crossings(edges: NDArray[np.float64], spans: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return rows that edges cross, and the first column right of each crossing, on the frame or not."""
    counts = spans[:, 1] - spans[:, 0]
    which = np.repeat(np.arange(len(edges)), counts)
    rows = np.arange(len(which)) - np.repeat(np.cumsum(counts) - counts, counts) + spans[which, 0]
    (x0, y0), (x1, y1) = edges[:, 0].T, edges[:, 1].T
    x = x0[which] + (rows + 0.5 - y0[which]) * ((x1 - x0) / (y1 - y0))[which]
    return rows, np.ceil(x - 0.5)


def _loops(mask: Mask) -> tuple[list[_Loop], list[_Loop]]:
    """Return outlines and holes as loops of corners, with the mask on the right of each edge."""
    padded = np.pad(mask, 1).astype(np.int8)
    steps = _steps(padded)
    outlines: list[_Loop] = []
    holes: list[_Loop] = []
    while steps:
        start, ways = next(iter(steps.items()))
        loop: _Loop = []
        point, way = start, ways[0]
        first = (start, way)
        while True:
            ways = steps[point]
            ways.remove(way)
            if not ways:
                del steps[point]
            following = (point[0] + way[0], point[1] + way[1])
            turned = _next_way(steps.get(following, []), way)
            if (following, turned) == first or turned is None:
                if turned is None:
                    turned = first[1]
                if turned != way:
                    loop.append(following)
                break
            if turned != way:
                loop.append(following)
            point, way = following, turned
        (outlines if _area(loop) > 0 else holes).append(loop)
    return outlines, holes


def _steps(padded: NDArray[np.int8]) -> dict[tuple[int, int], list[tuple[int, int]]]:
    """Unit edges between pixels in and off the mask: the ways that lead on from each corner, the mask on the right."""
    steps: dict[tuple[int, int], list[tuple[int, int]]] = {}
    down = padded[1:] - padded[:-1]  # 1 where the mask begins below an edge: it is run along to the right
    across = padded[:, 1:] - padded[:, :-1]  # 1 where it begins right of an edge: upwards
    for y, x in zip(*(v.tolist() for v in np.nonzero(down)), strict=True):
        start, way = ((x - 1, y), (1, 0)) if down[y, x] > 0 else ((x, y), (-1, 0))
        steps.setdefault(start, []).append(way)
    for y, x in zip(*(v.tolist() for v in np.nonzero(across)), strict=True):
        start, way = ((x, y), (0, -1)) if across[y, x] > 0 else ((x, y - 1), (0, 1))
        steps.setdefault(start, []).append(way)
    return steps


def _next_way(ways: list[tuple[int, int]], way: tuple[int, int]) -> tuple[int, int] | None:
    # Where two parts touch at a corner, the turn towards the mask keeps them apart.
    right = _TURNS[way]
    if right in ways:
        return right
    return ways[0] if ways else None


def _area(loop: Sequence[tuple[float, float]]) -> float:
    """Twice the area, positive for outlines."""
    return sum(x0 * y1 - x1 * y0 for (x0, y0), (x1, y1) in zip(loop, [*loop[1:], loop[0]], strict=True))


def _contains(loop: _Loop, corner: tuple[int, int]) -> bool:
    # A little off the corner, which may be one of the outline's, too: to the left and above, where a hole's first
    # corner is on the mask.
    x, y = corner[0] - 0.25, corner[1] - 0.25
    inside = False
    for (x0, y0), (x1, y1) in zip(loop, [*loop[1:], loop[0]], strict=True):
        if (y0 > y) != (y1 > y) and x < x0 + (y - y0) * (x1 - x0) / (y1 - y0):
            inside = not inside
    return inside


def _joined(loops: Sequence[Sequence[tuple[float, float]]]) -> list[tuple[float, float]]:
    """Join loops: from the first corner of the first one to each other loop, around it, and back."""
    first, *others = loops
    points = list(first)
    for loop in others:
        points += [first[0], *loop, loop[0]]
    return points if not others else [*points, first[0]]
