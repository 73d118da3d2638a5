"""Endpoints: what the routes and the OpenAPI document are both made of."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from typing import Any, TypeAlias

from pydantic import BaseModel, TypeAdapter
from pydantic.json_schema import models_json_schema
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from i2v.annotator.checked_json import validate_json
from i2v.serve.schemas import ErrorAnswer

Handler: TypeAlias = Callable[[Request, Any], Awaitable[Response]]  # the second is the validated body
_REFERENCE = "#/components/schemas/{model}"
_PARAMETER = re.compile(r"\{(\w+)(?::(\w+))?\}")
_MEANINGS = {400: "The request is wrong", 403: "Not allowed", 404: "Not there", 409: "Busy", 429: "Too many"}
_ALWAYS = {401: "The token is missing or wrong", 411: "No length", 413: "Too large", 503: "Too little memory"}


@dataclass(frozen=True)
class Endpoint:
    """One method of one path.

    Attributes:
        method: The HTTP method.
        path: The path, with parameters as Starlette writes them.
        summary: What it does, in one line.
        handler: Answers a request.
        tag: Group in the document.
        answer: Model of the answer; ``None`` if it has no body.
        body: Model of the request; ``None`` if it has no body.
        status: Status of the answer.
        refusals: Statuses of refusals, besides those that every endpoint has.
        queries: Names of parameters of the query, all optional texts.
        is_upload: Whether the body is a file.
        is_stream: Whether the answer is lines of JSON.
        is_public: Whether it needs no token.
    """

    method: str
    path: str
    summary: str
    handler: Handler
    tag: str
    answer: type[BaseModel] | None
    body: type[BaseModel] | None = None
    status: int = 200
    refusals: tuple[int, ...] = (400,)
    queries: tuple[str, ...] = ()
    is_upload: bool = False
    is_stream: bool = False
    is_public: bool = False

    def route(self) -> Route:
        """Return the route, which validates a body before the handler gets it."""
        kind: TypeAdapter[Any] | None = None if self.body is None else TypeAdapter(self.body)
        described = f"a request of {self.method} {self.path}"

        async def respond(request: Request) -> Response:
            body = None if kind is None else validate_json(kind, await request.body(), "", described)
            return await self.handler(request, body)

        return Route(self.path, respond, methods=[self.method], name=f"{self.method} {self.path}")

    def describe(self, names: dict[Any, Any]) -> dict[str, Any]:
        """Return the operation of the OpenAPI document.

        Args:
            names: Schema of each (model, mode).
        """
        operation: dict[str, Any] = {"summary": self.summary, "tags": [self.tag], "responses": self._responses(names)}
        parameters = [
            {"name": name, "in": "path", "required": True, "schema": {"type": "integer" if kind == "int" else "string"}}
            for name, kind in _PARAMETER.findall(self.path)
        ]
        parameters += [
            {"name": name, "in": "query", "required": False, "schema": {"type": "string"}} for name in self.queries
        ]
        if parameters:
            operation["parameters"] = parameters
        if self.is_upload:
            content = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
            operation["requestBody"] = {"required": True, "content": content}
        elif self.body is not None:
            content = {"application/json": {"schema": names[self.body, "validation"]}}
            operation["requestBody"] = {"required": True, "content": content}
        if self.is_public:
            operation["security"] = []
        return operation

    def _responses(self, names: dict[Any, Any]) -> dict[str, Any]:
        done: dict[str, Any] = {"description": "Done"}
        if self.answer is not None:
            kind = "application/x-ndjson" if self.is_stream else "application/json"
            done["content"] = {kind: {"schema": names[self.answer, "serialization"]}}
        refused = {"application/json": {"schema": names[ErrorAnswer, "serialization"]}}
        refusals = {status: _MEANINGS[status] for status in self.refusals} | _ALWAYS
        return {str(self.status): done} | {
            str(status): {"description": meaning, "content": refused} for status, meaning in sorted(refusals.items())
        }


def openapi_document(endpoints: Collection[Endpoint], version: str) -> dict[str, Any]:
    """Return the OpenAPI 3.1 document of endpoints.

    Args:
        endpoints: The endpoints.
        version: Version of the service.
    """
    models: list[tuple[type[BaseModel], Any]] = [(ErrorAnswer, "serialization")]
    models += [(endpoint.answer, "serialization") for endpoint in endpoints if endpoint.answer is not None]
    models += [(endpoint.body, "validation") for endpoint in endpoints if endpoint.body is not None]
    names, definitions = models_json_schema(list(dict.fromkeys(models)), ref_template=_REFERENCE)
    paths: dict[str, dict[str, Any]] = {}
    for endpoint in endpoints:
        path = _PARAMETER.sub(r"{\1}", endpoint.path)
        paths.setdefault(path, {})[endpoint.method.lower()] = endpoint.describe(names)
    return {
        "openapi": "3.1.0",
        "info": {"title": "i2v", "version": version, "description": "Promptable segmentation of videos and images."},
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "schemas": definitions.get("$defs", {}),
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def answer_json(answer: BaseModel, status: int = 200) -> Response:
    """Return an answer as a response."""
    return JSONResponse(answer.model_dump(mode="json"), status)
