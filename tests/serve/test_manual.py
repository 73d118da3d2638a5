"""The code of docs/serve.md runs."""

from __future__ import annotations

import json
import re
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from serve_support import TOKEN, base64_image, serving
from support import render_video

from i2v.results.overlay import VideoWriter

PAGE = Path(__file__).parents[2] / "docs" / "serve.md"
CLIENT, FORWARDER = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), flags=re.DOTALL | re.MULTILINE)


def test_the_client_gets_masks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frames = render_video(3, height=420, width=480)
    with VideoWriter(tmp_path / "clip.mp4", 10.0) as writer:
        for frame in frames:
            writer.write(frame)
    Image.fromarray(frames[0]).save(tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    with serving(tmp_path) as served:
        names: dict[str, Any] = {"token": TOKEN}
        exec(CLIENT.replace("http://127.0.0.1:8766", served.address), names)
    assert names["mask"]["size"] == [420, 480] and names["mask"]["object"] == 1
    assert names["line"] == {"done": True, "frames": 3}
    assert names["cup"]["area"] > 0


def test_the_function_of_cvat_passes_requests_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(tmp_path) as served:
        monkeypatch.setenv("I2V_SERVE", served.address)
        monkeypatch.setenv("I2V_SERVE_TOKEN", TOKEN)
        names: dict[str, Any] = {}
        exec(FORWARDER, names)
        context = types.SimpleNamespace(Response=lambda **response: response)
        event = types.SimpleNamespace(body={"image": base64_image(), "pos_points": [[16, 19]], "neg_points": []})
        response = names["handler"](context, event)
    assert response["status_code"] == 200
    mask = np.array(json.loads(response["body"])["mask"])
    assert mask.shape == (48, 64)
