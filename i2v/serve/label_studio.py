"""Adapter for Label Studio: the endpoints of its machine learning backends."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, Literal
from urllib.parse import parse_qs, unquote, urlsplit

from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from i2v.errors import shortened
from i2v.serve.endpoint import Endpoint, answer_json
from i2v.serve.folders import AllowedFolders
from i2v.serve.label_config import LabelConfig
from i2v.serve.label_studio_image import image_regions
from i2v.serve.label_studio_regions import Region
from i2v.serve.label_studio_video import video_regions
from i2v.serve.pictures import Picture, decode_picture, read_picture
from i2v.serve.schemas import AnswerModel, LooseModel
from i2v.serve.service import Service

_TAG = "Label Studio"
_MAX_TASKS = 64
_STORED, _LOCAL = "/data/upload/", "/data/local-files/"


class HealthAnswer(AnswerModel):
    """That the service is there."""

    status: Literal["UP"] = "UP"
    model_class: str


class SetupRequest(LooseModel):
    """What Label Studio says of a project when it connects."""

    project: str | None = None
    label_schema: str | None = Field(None, alias="schema")


class SetupAnswer(AnswerModel):
    """Which model answers."""

    model_version: str


class Task(LooseModel):
    """A task: its data by the keys of the configuration."""

    id: int | str | None = None
    data: dict[str, Any]


class Context(LooseModel):
    """What the user has marked."""

    result: list[Region] = Field([], max_length=1000)


class Params(LooseModel):
    """Parameters of a prediction."""

    context: Context | None = None


class PredictRequest(LooseModel):
    """Tasks to predict, and the project's configuration."""

    tasks: list[Task] = Field(max_length=_MAX_TASKS)
    label_config: str
    params: Params | None = None


class Prediction(AnswerModel):
    """The regions of a task."""

    model_version: str
    score: float
    result: list[dict[str, Any]]


class PredictAnswer(AnswerModel):
    """A prediction for each task."""

    results: list[Prediction]


async def _health(request: Request, _: None) -> Response:
    return answer_json(HealthAnswer(model_class=Service.of(request).model))


async def _setup(request: Request, body: SetupRequest) -> Response:
    if body.label_schema:
        LabelConfig.parse(body.label_schema)
    return answer_json(SetupAnswer(model_version=Service.of(request).model))


async def _predict(request: Request, body: PredictRequest) -> Response:
    service, config = Service.of(request), LabelConfig.parse(body.label_config)
    context = body.params.context if body.params else None
    marked = context.result if context else []
    predictions = []
    for task in body.tasks:
        regions = await _regions(service, config, task, marked)
        scores = [region["score"] for region in regions if "score" in region]
        score = sum(scores) / len(scores) if scores else 0.0
        predictions.append(Prediction(model_version=service.model, score=round(score, 4), result=regions))
    return answer_json(PredictAnswer(results=predictions))


async def _regions(service: Service, config: LabelConfig, task: Task, marked: list[Region]) -> list[dict[str, Any]]:
    if not marked:  # there is nothing to predict from
        return []
    if config.has_video:
        control = config.video_control()
        path = find_file(service.folders, config.source_of(control, task.data))
        return await video_regions(service, control, path, marked)
    control = config.image_control(next((region.label for region in marked if region.label), None))
    picture = await asyncio.to_thread(_picture, service.folders, config.source_of(control, task.data))
    return await image_regions(service, control, picture, marked)


def _picture(folders: AllowedFolders, source: str) -> Picture:
    if source.startswith("data:"):
        return decode_picture(source, upright=True)
    return read_picture(find_file(folders, source), upright=True)


def find_file(folders: AllowedFolders, source: str) -> Path:
    """Return the path of a task's file: uploaded to Label Studio, in its local storage, or anywhere in the folders.

    Args:
        folders: The folders that may be read.
        source: What the task says. Of an address, only the path counts: nothing is fetched.

    Raises:
        HTTPException: If there is no such file below the folders.
        ValueError: If the address is not one of Label Studio's.
    """
    parts = urlsplit(source)
    if parts.path.startswith(_STORED):
        return folders.find(unquote(parts.path.removeprefix("/data/")))
    if parts.path.startswith(_LOCAL) and (named := parse_qs(parts.query).get("d")):
        return folders.find(named[0])
    if parts.scheme and parts.netloc:
        raise ValueError(
            f"data: {shortened(source, 80)}: nothing is fetched from other machines: expected a file that was uploaded "
            "to Label Studio, or one of its local storage"
        )
    return folders.find(source)


LABEL_STUDIO = (
    Endpoint(
        "GET", "/health", "Say that the service is there.", _health, _TAG, HealthAnswer, refusals=(), is_public=True
    ),
    Endpoint("POST", "/setup", "Connect a project.", _setup, _TAG, SetupAnswer, SetupRequest),
    Endpoint(
        "POST",
        "/predict",
        "Predict regions from what the user has marked: masks in images, rectangles in videos.",
        _predict,
        _TAG,
        PredictAnswer,
        PredictRequest,
        refusals=(400, 403, 404, 409, 429),
    ),
)
