"""Adapter for CVAT: the body that its serverless interactors get, and what they answer."""

from __future__ import annotations

import asyncio
from typing import Annotated

from pydantic import Field, model_validator
from starlette.requests import Request
from starlette.responses import Response

from i2v.results.polygons import outlines_of
from i2v.serve.endpoint import Endpoint, answer_json
from i2v.serve.pictures import decode_picture
from i2v.serve.schemas import MAX_POINTS, AnswerModel, Coordinate, ImageText, LooseModel, Marks, Point
from i2v.serve.service import Service
from i2v.serve.shapes import TOLERANCE, upright_box

Pair = Annotated[list[Coordinate], Field(min_length=2, max_length=2)]
Points = Annotated[list[Pair], Field(max_length=MAX_POINTS)]


class InteractorRequest(LooseModel):
    """Points on an object and beside it, or a box around it, in pixels."""

    image: ImageText = Field(description="the image file in base64")
    pos_points: Points = Field([])
    neg_points: Points = Field([])
    obj_bbox: Annotated[list[Pair], Field(max_length=2)] | Annotated[list[Coordinate], Field(max_length=4)] | None = (
        Field(None, description="two opposite corners, as pairs or in a row; empty for none")
    )

    @model_validator(mode="after")
    def _check(self) -> InteractorRequest:
        if self.obj_bbox and len(self.obj_bbox) != (2 if isinstance(self.obj_bbox[0], list) else 4):
            raise ValueError("obj_bbox: expected two corners")
        if not (self.pos_points or self.neg_points or self.obj_bbox):
            raise ValueError("expected pos_points, neg_points or obj_bbox")
        return self

    @property
    def marks(self) -> Marks:
        """Points and box."""
        points = [Point(x=x, y=y, positive=True) for x, y in self.pos_points]
        points += [Point(x=x, y=y, positive=False) for x, y in self.neg_points]
        corners: list[float] = []
        for value in self.obj_bbox or []:
            corners += value if isinstance(value, list) else [value]
        return Marks(points=points, box=upright_box(corners) if corners else None)


class InteractorAnswer(AnswerModel):
    """The mask, and the outline of its largest part."""

    mask: list[list[int]] = Field(description="rows of 0 and 1, at the size of the image")
    points: list[list[float]] = Field(description="corners x, y of the polygon; none for an empty mask")


async def _interact(request: Request, body: InteractorRequest) -> Response:
    picture = await asyncio.to_thread(decode_picture, body.image, upright=True)
    mask, _ = await Service.of(request).images.segment(picture, body.marks)
    outlines = outlines_of(mask, TOLERANCE)
    return answer_json(
        InteractorAnswer(mask=mask.astype(int).tolist(), points=outlines[0].tolist() if outlines else [])
    )


CVAT = (
    Endpoint(
        "POST",
        "/cvat/interactor",
        "Segment an object, in the form of CVAT's serverless interactors.",
        _interact,
        "CVAT",
        InteractorAnswer,
        InteractorRequest,
    ),
)
