"""Adapter for labelme: objects as the contents of its JSON files."""

from __future__ import annotations

import asyncio
from typing import Annotated, Literal

from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from i2v.results.label_folders import labelme_content, labelme_shape
from i2v.serve.endpoint import Endpoint, answer_json
from i2v.serve.pictures import decode_picture
from i2v.serve.schemas import AnswerModel, ImageText, Marks, RequestModel
from i2v.serve.service import Service
from i2v.serve.shapes import shapes_of


class LabelledMarks(Marks):
    """Points, a box or both on an object, and what it is called."""

    label: Annotated[str, Field(min_length=1, max_length=80)]


class LabelmeRequest(RequestModel):
    """Objects in an image."""

    image: ImageText = Field(description="the image file in base64, or as a data URI")
    name: Annotated[str, Field(min_length=1, max_length=255)] = Field("image.jpg", description="name of the image file")
    objects: list[LabelledMarks] = Field(min_length=1, max_length=64)
    shape_type: Literal["polygon", "rectangle"] = "polygon"
    tolerance: float = Field(1.0, ge=0, le=100, description="pixels between outlines and polygons")


class LabelmeShape(AnswerModel):
    """A shape of a labelme file."""

    label: str
    points: list[list[float]]
    group_id: int | None
    description: str
    shape_type: str
    flags: dict[str, bool]


class LabelmeAnswer(AnswerModel):
    """A labelme file: save it beside the image."""

    version: str
    flags: dict[str, bool]
    shapes: list[LabelmeShape]
    imagePath: str
    imageData: str | None
    imageHeight: int
    imageWidth: int


async def _label(request: Request, body: LabelmeRequest) -> Response:
    picture = await asyncio.to_thread(decode_picture, body.image, upright=True)
    shapes = []
    for number, marks in enumerate(body.objects, start=1):
        mask, _ = await Service.of(request).images.segment(picture, marks)
        corners = shapes_of(mask, body.shape_type, body.tolerance)
        shapes += [labelme_shape(marks.label, points, number, body.shape_type) for points in corners]
    content = labelme_content(body.name, (picture.shape[0], picture.shape[1]), shapes)
    return answer_json(LabelmeAnswer.model_validate(content))


LABELME = (
    Endpoint(
        "POST",
        "/labelme/annotate",
        "Segment objects, as the contents of a labelme file.",
        _label,
        "labelme",
        LabelmeAnswer,
        LabelmeRequest,
    ),
)
