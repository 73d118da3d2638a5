"""Who gets in: the token in its three forms, lengths of bodies, and what needs none."""

from __future__ import annotations

import base64
import socket
from pathlib import Path

import httpx
import pytest
from serve_support import TOKEN, Served, base64_image, serving

from i2v.serve.limits import Limits


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"authorization": "Bearer wrong"}, 401),
        ({"authorization": "Bearer"}, 401),
        ({"authorization": f"Bearer {TOKEN}"}, 200),
        ({"authorization": f"bearer {TOKEN}"}, 200),
        ({"authorization": TOKEN}, 401),
        ({"authorization": "Basic " + base64.b64encode(f"any:{TOKEN}".encode()).decode()}, 200),
        ({"authorization": "Basic " + base64.b64encode(f"{TOKEN}:".encode()).decode()}, 401),
        ({"authorization": "Basic ~~~"}, 401),
        ({"authorization": "Basic " + base64.b64encode(b"\xff:\xff").decode()}, 401),
        ({"token": TOKEN}, 200),
        ({"token": ""}, 401),
    ],
)
def test_the_token_is_needed(served: Served, headers: dict[str, str], status: int) -> None:
    answer = httpx.get(f"{served.address}/sessions", headers=headers)
    assert answer.status_code == status
    if status == 401:
        assert answer.json() == {"error": "expected the service's token: Authorization: Bearer TOKEN"}
        assert answer.headers["www-authenticate"] == "Bearer"


def test_health_and_the_document_need_none(served: Served) -> None:
    health = httpx.get(f"{served.address}/health")
    assert health.json() == {"status": "UP", "model_class": "tiny"}
    assert health.headers["x-content-type-options"] == "nosniff"
    assert "access-control-allow-origin" not in health.headers
    assert httpx.get(f"{served.address}/openapi.json").json()["openapi"] == "3.1.0"


def test_bodies_have_a_length_within_limits(root: Path) -> None:
    with serving(root, Limits(upload_bytes=1000, request_bytes=500)) as served:
        assert served.client.post("/sessions/upload", content=b"x" * 1001).status_code == 413
        large = served.post("/images/segment", image=base64_image(), box=[1, 1, 9, 9])
        assert large.status_code == 413 and large.json()["error"] == "the request is larger than 500 bytes"
        chunked = served.client.post("/sessions", content=iter([b"{}"]))
        assert chunked.status_code == 411
        # A length that is not true must not keep anybody waiting, nor be read as another request.
        head = f"POST /sessions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\nContent-Length: 9999999\r\n\r\n"
        port = int(served.address.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
            connection.sendall(head.encode())
            assert b" 413 " in connection.recv(1000)


def test_methods_and_paths_that_do_not_exist_are_told(served: Served) -> None:
    assert served.client.get("/nothing").json() == {"error": "Not Found"}
    assert served.client.put("/sessions", json={}).status_code == 405
    answer = served.client.post("/sessions", content=b"{")
    assert answer.status_code == 400 and answer.json()["error"].startswith("not a request of POST /sessions: Invalid")
