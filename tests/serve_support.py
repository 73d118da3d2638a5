"""What the tests of the service share: a server in a thread, and what labelling tools make of its answers."""

from __future__ import annotations

import base64
import functools
import io
import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from PIL import Image
from support import disc_centres, make_predictor, render_video

from i2v.annotator.server import bind, make_server
from i2v.i2v_video_predictor import I2VVideoPredictor
from i2v.results.rle import RunLengths
from i2v.serve.app import make_app
from i2v.serve.folders import AllowedFolders
from i2v.serve.limits import Limits
from i2v.serve.service import Service

TOKEN = "a-token-for-tests-only"
NUM_FRAMES, HEIGHT, WIDTH = 6, 48, 64
FRAMES = render_video(NUM_FRAMES, HEIGHT, WIDTH)
FIRST, SECOND = (tuple(float(side) for side in place) for place, _ in disc_centres(0))


@dataclass
class Served:
    """A running service, and a client that has its token."""

    address: str
    service: Service
    client: httpx.Client
    root: Path

    def post(self, path: str, /, **body: Any) -> httpx.Response:
        return self.client.post(path, json=body)

    def open(self, path: str = "clip") -> str:
        answer = self.post("/sessions", path=path)
        assert answer.status_code == 201, answer.text
        name: str = answer.json()["session"]
        return name

    def click(self, session: str, number: int = 1, place: Sequence[float] = FIRST, frame: int = 0) -> httpx.Response:
        points = [{"x": place[0], "y": place[1]}]
        return self.post(f"/sessions/{session}/prompts", object=number, frame=frame, points=points)

    def track(self, session: str, **request: Any) -> list[dict[str, Any]]:
        answer = self.post(f"/sessions/{session}/track", **request)
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"] == "application/x-ndjson"
        return [json.loads(line) for line in answer.text.splitlines()]


@functools.cache
def tiny() -> I2VVideoPredictor:
    """A tiny predictor that tests share: it keeps nothing of a session."""
    return make_predictor()


@contextmanager
def serving(root: Path, limits: Limits | None = None, predictor: Any = None) -> Iterator[Served]:
    """Serve a folder in a thread, with a tiny model unless another is given, until the block ends."""
    service = Service.create(predictor or tiny(), AllowedFolders([root]), limits, "tiny")
    ready = threading.Event()
    with bind("127.0.0.1", 0, 0) as listener:
        server = make_server(make_app(service, TOKEN), ready.set)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        try:
            assert ready.wait(30)
            headers = {"authorization": f"Bearer {TOKEN}"}
            with httpx.Client(base_url=address, headers=headers, timeout=60) as client:
                yield Served(address, service, client, root)
        finally:
            server.should_exit = True
            thread.join(30)
            assert not thread.is_alive()


def png(picture: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="PNG")
    return buffer.getvalue()


def base64_image(picture: np.ndarray = FRAMES[0]) -> str:
    return base64.b64encode(png(picture)).decode()


def mask_of(answer: dict[str, Any]) -> np.ndarray:
    return RunLengths.of_coco({"size": answer["size"], "counts": answer["counts"]}).mask()


def decode_brush(stream: list[int]) -> np.ndarray:
    """What Label Studio's brush tool reads: values, four for each pixel. Written from the format's description."""
    bits = "".join(f"{byte:08b}" for byte in stream)
    at = 0

    def read(width: int) -> int:
        nonlocal at
        at += width
        return int(bits[at - width : at], 2)

    count, value_bits, widths = read(32), read(5) + 1, [read(4) + 1 for _ in range(4)]
    values: list[int] = []
    while len(values) < count:
        is_run = read(1)
        length = read(widths[read(2)]) + 1
        values += [read(value_bits)] * length if is_run else [read(value_bits) for _ in range(length)]
    assert len(values) == count and not bits[at:].strip("0")
    return np.array(values)
