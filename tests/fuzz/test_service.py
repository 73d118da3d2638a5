"""Requests made up from the service's OpenAPI document: all answers are as it describes, none has a status of 500."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from PIL import Image
from serve_support import FRAMES, TOKEN, Served, base64_image, png, serving

from i2v.serve.app import ENDPOINTS
from i2v.serve.limits import Limits

schemathesis = pytest.importorskip("schemathesis", reason="made-up requests need schemathesis (extra fuzz)")

# Not among them: that made-up requests which fit the document succeed, as most name what is not there.
CHECKS = [
    getattr(schemathesis.checks, name)
    for name in (
        *("not_a_server_error", "status_code_conformance", "content_type_conformance", "response_schema_conformance"),
        "negative_data_rejection",
    )
]
HEADERS = {"authorization": f"Bearer {TOKEN}"}
# With `make fuzz` the time is shared by the endpoints, after the readers have had theirs.
SECONDS = float(os.environ.get("FUZZ_SECONDS", 0)) / len(ENDPOINTS) / 4
EXAMPLES = 15


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    root = tmp_path_factory.mktemp("served")
    (root / "clip").mkdir()
    for number, frame in enumerate(FRAMES):
        Image.fromarray(frame).save(root / "clip" / f"{number}.png")
    (root / "photo.png").write_bytes(png(FRAMES[0]))
    with serving(root, Limits(sessions=4, upload_bytes=1 << 20, request_bytes=1 << 20)) as running:
        yield running


@pytest.fixture(scope="module")
def schema(served: Served) -> Any:
    return schemathesis.openapi.from_url(f"{served.address}/openapi.json")


def real(case: Any, session: str) -> Any:
    """The case with what no generator makes up: a session that exists, and an image."""
    if case.path_parameters and "session" in case.path_parameters:
        case.path_parameters["session"] = session
    if isinstance(case.body, dict) and isinstance(case.body.get("image"), str):
        case.body["image"] = base64_image()
    if isinstance(case.body, dict) and isinstance(case.body.get("path"), str):
        case.body["path"] = "photo.png" if case.path == "/images/segment" else "clip"
    return case


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda endpoint: f"{endpoint.method} {endpoint.path}")
@pytest.mark.parametrize("is_real", [False, True], ids=["made up", "real"])
def test_made_up_requests_are_answered_as_described(served: Served, schema: Any, endpoint: Any, is_real: bool) -> None:
    operation = schema[endpoint.path.replace(":int", "")][endpoint.method]
    deadline = time.monotonic() + SECONDS / 2
    seen: set[int] = set()

    @settings(max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(case=operation.as_strategy())
    def ask(case: Any) -> None:
        for session in served.service.sessions.all()[2:]:
            served.client.delete(f"/sessions/{session.name}")
        if is_real:
            sessions = served.service.sessions.all()
            case = real(case, sessions[0].name if sessions else served.open())
        answer = case.call(headers=HEADERS)
        seen.add(answer.status_code)
        case.validate_response(answer, checks=CHECKS, headers=HEADERS)

    ask()
    while time.monotonic() < deadline:
        ask()
    assert seen and max(seen) < 500
