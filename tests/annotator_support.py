"""What the annotator's tests share: sessions, servers, and what the predictor itself gives."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from starlette.types import ASGIApp
from support import make_predictor

from i2v.annotator.app import make_app
from i2v.annotator.document import Click
from i2v.annotator.engine import Engine
from i2v.annotator.footage import Footage, VideoFootage
from i2v.annotator.masks import decode
from i2v.annotator.plan import plan_tracking
from i2v.annotator.queue_app import make_queue_app
from i2v.annotator.server import Door, make_server
from i2v.annotator.session import Session
from i2v.annotator.sessions import SessionBook
from i2v.annotator.turns import ModelTurns
from i2v.annotator.video_folder import find_videos
from i2v.annotator.video_queue import VideoQueue

T = TypeVar("T")

NUM_FRAMES, HEIGHT, WIDTH = 10, 96, 128
SIZE = (HEIGHT, WIDTH)
# On the first disc, on the second, and beside them, on frame 0.
FIRST, SECOND, OFF = Click(32, 38, True), Click(96, 62, True), Click(10, 90, False)


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
    """Serve in a thread, with a tiny model unless another is given, until the block ends."""
    book = SessionBook(settings.pop("predictor", None) or make_predictor(), footage, out, save_seconds=0.2, **settings)
    door = Door.open(0)
    try:
        with serving(make_app(book, door.token, door.port, resume), door):
            yield Running(door.address, door.port, door.token, book, out)
    finally:
        footage.close()


@contextmanager
def serving(app: ASGIApp, door: Door) -> Iterator[None]:
    """Serve an application in a thread until the block ends."""
    ready = threading.Event()
    server = make_server(app, ready.set)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [door.socket]}, daemon=True)
    thread.start()
    try:
        assert ready.wait(30)
        yield
    finally:
        server.should_exit = True
        thread.join(30)
        door.socket.close()
        assert not thread.is_alive()


def run_async(coroutine: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine, in a thread of its own: a browser of another test may run a loop in this one."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, coroutine).result()


def in_session(clip: Path, scenario: Callable[[Session], Awaitable[Any]]) -> Any:
    """Run a scenario in a session of its own."""

    async def run() -> Any:
        footage, turns = VideoFootage(clip), ModelTurns()
        session = Session(1, footage, Engine(make_predictor(), footage.open()), turns)
        try:
            return await asyncio.wait_for(scenario(session), 110)
        finally:
            await session.close()
            turns.close()
            footage.close()

    return run_async(run())


def until(condition: Callable[[], object], seconds: float = 20) -> None:
    """Wait until something is the case."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


async def finished(session: Session) -> None:
    while session.work.busy:
        await asyncio.sleep(0.005)


async def tracked(session: Session, direction: str = "both", shown: int = 0, **options: Any) -> None:
    prompts = session.prompted_frames
    session.track(plan_tracking(shown, direction, options.pop("until", "end"), prompts, NUM_FRAMES, **options))  # type: ignore[arg-type]
    await finished(session)


def masks_of(session: Session, number: int) -> dict[int, np.ndarray]:
    shown = {frame: session.store.shown(number, frame) for frame in session.store.frames_of([number])}
    return {frame: decode(mask.counts, SIZE) for frame, mask in shown.items() if mask is not None}


def expect(
    clip: Path, script: Callable[[Any, Any], None], *propagations: tuple[int, bool]
) -> dict[int, dict[int, np.ndarray]]:
    """What the predictor gives for a script of prompts and the propagations after it, by object and frame."""
    predictor = make_predictor()
    found: dict[int, dict[int, np.ndarray]] = {}
    with predictor.init_state(clip) as state:
        script(predictor, state)
        for start, reverse in propagations:
            for frame, numbers, logits in predictor.propagate_in_video(state, start, reverse=reverse):
                for number, plane in zip(numbers, logits[:, 0].numpy(), strict=True):
                    found.setdefault(number, {})[frame] = plane > 0
    return found


def assert_same(got: dict[int, np.ndarray], wanted: dict[int, np.ndarray]) -> None:
    assert sorted(got) == sorted(wanted)
    for frame, mask in wanted.items():
        np.testing.assert_array_equal(got[frame], mask, err_msg=f"frame {frame}")
    assert any(mask.any() for mask in wanted.values())


def add(predictor: Any, state: Any, frame: int, number: int, *clicks: Click) -> None:
    for click in clicks:
        predictor.add_new_points_or_box(
            state, frame, number, [[click.x, click.y]], [int(click.positive)], clear_old_points=False
        )


@dataclass
class RunningQueue:
    """A server of several videos at work."""

    address: str
    queue: VideoQueue
    out: Path


@contextmanager
def running_queue(videos: Path, **settings: Any) -> Iterator[RunningQueue]:
    """Serve a folder of videos in a thread, with a tiny model; results go to the folder ``out`` beside it."""
    found, out = find_videos(videos), videos.parent / "out"
    assert found is not None
    queue = VideoQueue(make_predictor(), found, out, **settings)
    door = Door.open(0)
    with serving(make_queue_app(queue, door.token, door.port), door):
        yield RunningQueue(door.address, queue, out)
