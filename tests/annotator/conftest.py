"""Fixtures of the annotator's tests: a clip, servers in threads, and a browser."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from annotator_support import HEIGHT, NUM_FRAMES, WIDTH, Running, running
from page_support import Visitor, visiting
from PIL import Image
from playwright.sync_api import sync_playwright
from support import render_video

from i2v.annotator.footage import VideoFootage


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


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Debian's chromium. CI installs it, so nothing may pass these tests over there."""
    chromium = shutil.which("chromium")
    if chromium is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("no browser: apt-get install chromium")
    with sync_playwright() as tools:
        launched = tools.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield launched
        launched.close()


@pytest.fixture
def visitor(browser: Any, server: Running) -> Iterator[Visitor]:
    """A tab that shows it."""
    with visiting(browser, server.address) as guest:
        yield guest
