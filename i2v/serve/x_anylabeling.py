"""Adapter for X-AnyLabeling: the two endpoints of its remote server, with marks as prompts."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator
from starlette.requests import Request
from starlette.responses import Response

from i2v.serve.endpoint import Endpoint, answer_json
from i2v.serve.pictures import decode_picture
from i2v.serve.schemas import MAX_POINTS, AnswerModel, Coordinate, ImageText, LooseModel, Marks, Point
from i2v.serve.service import Service
from i2v.serve.shapes import shapes_of, upright_box

_LABEL = "AUTOLABEL_OBJECT"  # for which X-AnyLabeling asks the user
_TAG = "X-AnyLabeling"
# X-AnyLabeling hides all of its buttons apart from those that a model names.
_BUTTONS = ("button_add_point", "button_remove_point", "button_add_rect", "button_clear", "button_finish_object")


class Mark(LooseModel):
    """A point, or a rectangle with two opposite corners, in pixels."""

    type: Literal["point", "rectangle"]
    data: Annotated[list[Coordinate], Field(min_length=2, max_length=4)]
    label: Annotated[int, Field(ge=0, le=1, description="1 on the object, 0 on the background")] = 1

    @model_validator(mode="after")
    def _check(self) -> Mark:
        if len(self.data) != (2 if self.type == "point" else 4):
            raise ValueError("data: expected two numbers for a point, or four for a rectangle")
        return self


class Parameters(LooseModel):
    """What to segment, and the kind of the shapes."""

    marks: list[Mark] = Field(min_length=1, max_length=MAX_POINTS)
    output_mode: Literal["polygon", "rectangle"] = "polygon"

    @model_validator(mode="after")
    def _check(self) -> Parameters:
        if sum(mark.type == "rectangle" for mark in self.marks) > 1:
            raise ValueError("marks: expected at most one rectangle")
        return self

    @property
    def as_marks(self) -> Marks:
        """Points and box."""
        points = [Point(x=m.data[0], y=m.data[1], positive=m.label == 1) for m in self.marks if m.type == "point"]
        boxes = [upright_box(mark.data) for mark in self.marks if mark.type == "rectangle"]
        return Marks(points=points, box=boxes[0] if boxes else None)


class PredictRequest(LooseModel):
    """An image and what to segment in it."""

    model: Annotated[str, Field(max_length=200)]
    image: ImageText = Field(description="the image file in base64, or as a data URI")
    params: Parameters


class Shape(AnswerModel):
    """A shape of X-AnyLabeling."""

    label: str
    shape_type: str
    points: list[list[float]]
    score: float
    group_id: int | None = None
    description: str | None = None
    difficult: bool = False
    flags: dict[str, bool] = Field(default={})
    attributes: dict[str, str] = Field(default={})


class Prediction(AnswerModel):
    """The shapes of an object."""

    shapes: list[Shape]
    description: str = ""
    replace: bool = False


class PredictAnswer(AnswerModel):
    """The prediction."""

    success: bool = True
    data: Prediction


class ModelsAnswer(AnswerModel):
    """The models that can be chosen, by id."""

    success: bool = True
    data: dict[str, dict[str, Any]]


async def _models(request: Request, _: None) -> Response:
    model = Service.of(request).model
    described = {
        "display_name": model,
        "widgets": [{"name": name} for name in _BUTTONS],
        "batch_processing_mode": None,  # an image without marks has no answer
    }
    return answer_json(ModelsAnswer(data={model: described}))


async def _predict(request: Request, body: PredictRequest) -> Response:
    picture = await asyncio.to_thread(decode_picture, body.image, upright=True)
    mask, iou = await Service.of(request).images.segment(picture, body.params.as_marks)
    kind = body.params.output_mode
    shapes = [
        Shape(label=_LABEL, shape_type=kind, points=corners.tolist(), score=round(iou, 4))
        for corners in shapes_of(mask, kind)
    ]
    return answer_json(PredictAnswer(data=Prediction(shapes=shapes)))


X_ANYLABELING = (
    Endpoint("GET", "/v1/models", "List the model.", _models, _TAG, ModelsAnswer, refusals=()),
    Endpoint("POST", "/v1/predict", "Segment an object.", _predict, _TAG, PredictAnswer, PredictRequest),
)
