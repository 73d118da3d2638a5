"""Fixtures of the annotator's tests: a clip, servers in threads, and tabs that show them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from annotator_support import HEIGHT, NUM_FRAMES, WIDTH, Running, running
from page_support import Visitor, visiting
from PIL import Image
from support import make_predictor, render_video

from i2v.annotator.footage import VideoFootage
from i2v.checkpoint import save_checkpoint


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """A folder with a short video."""
    folder = tmp_path / "clip"
    folder.mkdir()
    for frame, picture in enumerate(render_video(NUM_FRAMES, HEIGHT, WIDTH)):
        Image.fromarray(picture).save(folder / f"{frame:03d}.png")
    return folder


@pytest.fixture
def start(clip: Path, tmp_path: Path) -> Callable[..., Any]:
    """Make a server of the clip: `with start() as server`."""

    def make(resume: Path | None = None, **settings: Any) -> Any:
        return running(VideoFootage(clip), tmp_path / "out", resume, **settings)

    return make


@pytest.fixture
def server(start: Callable[..., Any]) -> Iterator[Running]:
    """A server of the clip."""
    with start() as started:
        yield started


@pytest.fixture
def visitor(browser: Any, server: Running) -> Iterator[Visitor]:
    """A tab that shows it."""
    with visiting(browser, server.address) as guest:
        yield guest


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of a tiny model's weights."""
    path = tmp_path_factory.mktemp("weights") / "tiny.pt"
    save_checkpoint(make_predictor().model, path)
    return path
