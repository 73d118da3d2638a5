"""Fixtures of the service's tests: a folder with a video, and a server that may read it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from serve_support import FRAMES, Served, png, serving


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with frames of a video and a photo, and a file beside it that is not allowed."""
    folder = tmp_path_factory.mktemp("served")
    (folder / "allowed" / "clip").mkdir(parents=True)
    for number, frame in enumerate(FRAMES):
        Image.fromarray(frame).save(folder / "allowed" / "clip" / f"{number}.png")
    (folder / "allowed" / "photo.png").write_bytes(png(FRAMES[0]))
    (folder / "secret.png").write_bytes(png(FRAMES[0]))
    return folder / "allowed"


@pytest.fixture(scope="module")
def served(root: Path) -> Iterator[Served]:
    """A running service."""
    with serving(root) as running:
        yield running
