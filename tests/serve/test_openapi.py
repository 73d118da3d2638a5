"""The OpenAPI document: complete, and true of what the service answers."""

from __future__ import annotations

import json
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from serve_support import FIRST, Served, base64_image

from i2v.serve.app import ENDPOINTS

POINT = [{"x": FIRST[0], "y": FIRST[1]}]


@pytest.fixture
def document(served: Served) -> dict[str, Any]:
    return dict(served.client.get("/openapi.json").json())


def check(document: dict[str, Any], method: str, path: str, status: int, value: Any, kind: str = "json") -> None:
    content = document["paths"][path][method]["responses"][str(status)]["content"]
    schema = {**content[f"application/{kind}"]["schema"], "components": document["components"]}
    Draft202012Validator(schema).validate(value)


def test_all_endpoints_and_references_are_there(document: dict[str, Any]) -> None:
    described = {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}
    assert described == {(endpoint.method, endpoint.path.replace(":int", "")) for endpoint in ENDPOINTS}
    text = json.dumps(document)
    for reference in {part.split('"')[0] for part in text.split("#/components/schemas/")[1:]}:
        assert reference in document["components"]["schemas"]
    assert document["paths"]["/health"]["get"]["security"] == []
    assert "security" not in document["paths"]["/predict"]["post"]
    for methods in document["paths"].values():
        for operation in methods.values():
            assert operation["summary"].endswith(".") and "401" in operation["responses"]


def test_answers_are_as_described(served: Served, document: dict[str, Any]) -> None:
    opened = served.post("/sessions", path="clip")
    check(document, "post", "/sessions", 201, opened.json())
    session = opened.json()["session"]
    check(document, "get", "/sessions", 200, served.client.get("/sessions").json())
    check(document, "post", "/sessions/{session}/prompts", 200, served.click(session).json())
    for line in served.track(session):
        check(document, "post", "/sessions/{session}/track", 200, line, "x-ndjson")
    check(document, "post", "/sessions/{session}/track", 404, served.post("/sessions/none/track").json())
    served.client.delete(f"/sessions/{session}")
    segmented = served.post("/images/segment", image=base64_image(), points=POINT)
    check(document, "post", "/images/segment", 200, segmented.json())
    interacted = served.post("/cvat/interactor", image=base64_image(), pos_points=[list(FIRST)])
    check(document, "post", "/cvat/interactor", 200, interacted.json())
    objects = [{"label": "disc", "points": POINT}]
    labelled = served.post("/labelme/annotate", image=base64_image(), objects=objects)
    check(document, "post", "/labelme/annotate", 200, labelled.json())
    check(document, "post", "/predict", 400, served.post("/predict").json())
