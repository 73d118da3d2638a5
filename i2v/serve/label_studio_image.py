"""Label Studio's image tasks: clicks and rectangles give a brush mask, polygons, or a rectangle."""

from __future__ import annotations

import secrets
from typing import Any

from i2v.results.rle import Mask
from i2v.serve.brush_rle import encode_brush
from i2v.serve.label_config import RESULT_KINDS, Control
from i2v.serve.label_studio_regions import Region, Size, box_in_percent, box_in_pixels
from i2v.serve.masks import describe_mask
from i2v.serve.pictures import Picture
from i2v.serve.schemas import MAX_POINTS, Marks, Point
from i2v.serve.service import Service
from i2v.serve.shapes import shapes_of


async def image_regions(
    service: Service, control: Control, picture: Picture, marked: list[Region]
) -> list[dict[str, Any]]:
    """Predict the regions of an object.

    Args:
        service: The service.
        control: The tool whose regions are wanted.
        picture: The image.
        marked: Key points and rectangles on the object; others are passed over.

    Returns:
        Regions as Label Studio stores them: none without any mark, or for an empty mask.

    Raises:
        ValueError: If a mark is off the image or incomplete.
    """
    size = picture.shape[0], picture.shape[1]
    marks = marks_of(marked, size)
    if not marks.points and marks.box is None:
        return []
    mask, iou = await service.images.segment(picture, marks)
    label = next((region.label for region in marked if region.label), None)
    kind = RESULT_KINDS[control.tag]
    labels = {kind: [label]} if kind.endswith("labels") and label is not None else {}
    return [
        {
            "id": secrets.token_hex(5),
            "from_name": control.name,
            "to_name": control.to_name,
            "type": kind,
            "original_width": size[1],
            "original_height": size[0],
            "image_rotation": 0,
            "score": round(iou, 4),
            "readonly": False,
            "value": {**value, **labels},
        }
        for value in _values(kind, mask, size)
    ]


def marks_of(marked: list[Region], size: Size) -> Marks:
    """Return key points and the last rectangle as points and a box in pixels.

    Raises:
        ValueError: If one of them has no place, or there are too many.
    """
    points: list[Point] = []
    box: list[float] | None = None
    for region in marked:
        value = region.value
        is_rectangle = region.type.startswith("rectangle")
        if not is_rectangle and not region.type.startswith("keypoint"):
            continue
        if value.x is None or value.y is None:
            raise ValueError(f"{region.type}: expected x and y in per cent")
        if not is_rectangle:
            x, y = value.x * size[1] / 100, value.y * size[0] / 100
            points.append(Point(x=x, y=y, positive=region.is_positive))
        elif value.width is None or value.height is None:
            raise ValueError(f"{region.type}: expected width and height in per cent")
        else:
            box = list(box_in_pixels(value.x, value.y, value.width, value.height, value.rotation, size))
    if len(points) > MAX_POINTS:
        raise ValueError(f"expected at most {MAX_POINTS} key points, got {len(points)}")
    return Marks(points=points, box=box)


def _values(kind: str, mask: Mask, size: Size) -> list[dict[str, Any]]:
    box = describe_mask(mask).box
    if box is None:
        return []
    if kind.startswith("brush"):
        return [{"format": "rle", "rle": encode_brush(mask)}]
    if kind.startswith("rectangle"):
        return [{**box_in_percent(box, size), "rotation": 0}]
    scale = (100 / size[1], 100 / size[0])
    return [{"points": (polygon * scale).tolist(), "closed": True} for polygon in shapes_of(mask, "polygon")]
