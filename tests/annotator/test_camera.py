"""A live camera, played by an iterator."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from annotator_support import FIRST, HEIGHT, SIZE, WIDTH, add, running
from page_support import visiting
from PIL import Image
from support import make_predictor, render_video

from i2v.annotator.camera import Recording, open_camera
from i2v.annotator.masks import decode

PICTURES = render_video(12, HEIGHT, WIDTH)


class Camera:
    """Gives pictures when it is told to."""

    def __init__(self) -> None:
        self._pictures: queue.Queue[Any] = queue.Queue()

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        picture = self._pictures.get(timeout=30)
        if isinstance(picture, Exception):
            raise picture
        return picture

    def give(self, *pictures: Any) -> None:
        for picture in pictures:
            self._pictures.put(picture)


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def record(camera: Camera, folder: Path, **options: Any) -> Recording:
    camera.give(PICTURES[0])
    recording = Recording(camera, folder, frame_rate=1e6, **options)
    recording.start()
    return recording


def test_frames_arrive_one_by_one_and_end_with_the_camera(tmp_path: Path) -> None:
    camera = Camera()
    recording = record(camera, tmp_path / "camera")
    source = recording.open()
    assert (recording.num_available, recording.live, source.num_frames) == (1, True, None)
    with pytest.raises(IndexError, match="frame 1 has not arrived: 1 frames so far"):
        source.read(1)
    camera.give(*PICTURES[1:4])
    wait_for(lambda: recording.num_available == 4)
    # A picture of JPEG's quality, and the same one for the model, for the page, and in the folder.
    assert np.abs(source.read(3).astype(int) - PICTURES[3]).mean() < 4
    with Image.open(tmp_path / "camera" / "000003.jpg") as image:
        np.testing.assert_array_equal(source.read(3), np.asarray(image))
    assert recording.jpeg(3) == (tmp_path / "camera" / "000003.jpg").read_bytes()
    camera.give(OSError("unplugged"))
    wait_for(lambda: not recording.live)
    assert recording.trouble == "the camera stopped: unplugged"
    assert source.num_frames == 4
    recording.close()


def test_a_recording_keeps_its_rate_and_its_bounds(tmp_path: Path) -> None:
    now = iter(np.arange(0, 100, 0.01))
    recording = Recording(iter(PICTURES), tmp_path / "slow", frame_rate=20, clock=lambda: float(next(now)))
    recording.start()
    wait_for(lambda: not recording.live)
    # The clock moves on by 0.01 s at every look: not all of the pictures can be 0.05 s apart.
    assert 3 <= recording.num_available < len(PICTURES) - 3
    bounded = Recording(iter(PICTURES), tmp_path / "short", frame_rate=1e6, max_frames=5)
    bounded.start()
    wait_for(lambda: not bounded.live)
    assert bounded.num_available == 5


def test_what_is_no_camera_is_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="camera 77: cannot be opened as"):
        open_camera("77")
    with pytest.raises(ValueError, match="the camera delivered no frame"):
        Recording(iter(()), tmp_path / "empty")
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "000000.jpg").write_bytes(b"")
    with pytest.raises(FileExistsError, match="an earlier recording: use another --out"):
        Recording(iter(PICTURES), tmp_path / "old")
    changing = Recording(iter([PICTURES[0], PICTURES[1][:50]]), tmp_path / "changing", frame_rate=1e6)
    changing.start()
    wait_for(lambda: not changing.live)
    assert changing.trouble is not None
    assert "128x50, unlike those before it" in changing.trouble


def test_objects_are_tracked_while_the_camera_runs(browser: Any, tmp_path: Path) -> None:
    camera = Camera()
    recording = record(camera, tmp_path / "camera")
    with running(recording, tmp_path / "out") as server, visiting(browser, server.address) as visitor:
        visitor.click(FIRST.x, FIRST.y)
        visitor.sees(0, 1)
        visitor.press("f")
        visitor.works()
        camera.give(*PICTURES[1:6])
        # The page stays with the latest frame, whose mask comes by itself.
        visitor.sees(5, 1)
        assert visitor.page.locator("#position").inner_text().endswith("live")
        camera.give(*PICTURES[6:9])
        visitor.sees(8, 1)
        camera.give(StopIteration())
        visitor.is_done()
        store = server.book.get(1).store
        # The mouse is at whole pixels of the window.
        (click,) = server.book.get(1).document.prompts[1, 0]
        assert (click.x, click.y) == pytest.approx((FIRST.x, FIRST.y), abs=0.2)
        got = {frame: decode(store.shown(1, frame).counts, SIZE) for frame in range(9)}  # type: ignore[union-attr]
    predictor = make_predictor()
    with predictor.init_state(tmp_path / "camera") as state:
        add(predictor, state, 0, 1, click)
        for frame, _, logits in predictor.propagate_in_video(state, 0):
            np.testing.assert_array_equal(got.pop(frame), logits[0, 0].numpy() > 0)
    assert got == {}


def test_closing_ends_the_thread(tmp_path: Path) -> None:
    camera = Camera()
    recording = record(camera, tmp_path / "camera")
    threading.Timer(0.05, camera.give, [PICTURES[1]]).start()
    recording.close()
    assert not recording.live
    assert not any(thread.name == "i2v-camera" for thread in threading.enumerate())
