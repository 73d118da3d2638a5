"""Fixtures of the annotator's tests: a clip, a server in a thread, and a browser."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from support import make_predictor, render_video

pytest.importorskip("starlette")
pytest.importorskip("pydantic")

from i2v.web.footage import Footage, VideoFootage
from i2v.web.server import Door, make_server
from i2v.web.sessions import SessionBook

CHROMIUM = Path("/usr/bin/chromium")
NUM_FRAMES, HEIGHT, WIDTH = 10, 96, 128


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """A folder with a short video."""
    folder = tmp_path / "clip"
    folder.mkdir()
    for frame, picture in enumerate(render_video(NUM_FRAMES, HEIGHT, WIDTH)):
        Image.fromarray(picture).save(folder / f"{frame:03d}.png")
    return folder


@dataclass
class Running:
    """A server at work."""

    address: str
    port: int
    token: str
    book: SessionBook
    out: Path


@contextmanager
def running(footage: Footage, out: Path, resume: Path | None = None, **settings: Any) -> Iterator[Running]:
    """Serve in a thread, with a tiny model, until the block ends."""
    book = SessionBook(make_predictor(), footage, out, save_seconds=0.2, **settings)
    door = Door.open(0)
    ready = threading.Event()
    server = make_server(book, door, ready.set, resume)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [door.socket]}, daemon=True)
    thread.start()
    try:
        assert ready.wait(30)
        yield Running(door.address, door.port, door.token, book, out)
    finally:
        server.should_exit = True
        thread.join(30)
        door.socket.close()
        footage.close()
        assert not thread.is_alive()


@pytest.fixture
def start(clip: Path, tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Make a server of the clip: `with start() as server`."""

    def make(resume: Path | None = None, **settings: Any) -> Any:
        return running(VideoFootage(clip), tmp_path / "out", resume, **settings)

    yield make


@pytest.fixture
def server(start: Callable[..., Any]) -> Iterator[Running]:
    """A server of the clip."""
    with start() as started:
        yield started


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Debian's chromium. CI installs it, so nothing may pass these tests over there."""
    playwright = pytest.importorskip("playwright.sync_api")
    if not CHROMIUM.exists():
        pytest.skip("no browser: apt-get install chromium")
    with playwright.sync_playwright() as tools:
        launched = tools.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        yield launched
        launched.close()
