"""Several videos: what a folder is taken for, the state of each video, and few open ones at a time."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from annotator_support import FIRST, HEIGHT, WIDTH, finished, run_async, running_queue
from data_support import write_mp4
from PIL import Image
from support import make_predictor, render_video

from i2v.annotator.session import Session
from i2v.annotator.video_folder import find_videos
from i2v.annotator.video_queue import QueueState, VideoQueue
from i2v.errors import InvalidFileError


def images(folder: Path, names: tuple[str, ...] = ("0.png", "1.png", "2.png")) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, picture in zip(names, render_video(len(names), HEIGHT, WIDTH), strict=True):
        Image.fromarray(picture).save(folder / name)
    return folder


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    """A folder of two folders of frames, and a file that is no video in spite of its name."""
    folder = tmp_path / "videos"
    images(folder / "a")
    images(folder / "b")
    (folder / "c.mp4").write_bytes(b"no video")
    return folder


def test_a_folder_of_images_is_one_video_and_one_of_videos_a_queue(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    images(folder / "frames 2")
    (folder / "empty").mkdir()
    images(folder / "a_i2v")  # results
    images(folder / ".hidden")
    for name in ("10.mp4", "9.MOV", "notes.txt", ".8.mp4"):
        (folder / name).write_bytes(b"")
    found = find_videos(folder)
    assert found is not None
    assert [path.name for path in found] == ["9.MOV", "10.mp4", "frames 2"]
    assert find_videos(folder / "frames 2") is None
    images(folder / "frames 2" / "masks")  # as today: what is below images does not count
    assert find_videos(folder / "frames 2") is None


@pytest.mark.parametrize("inner", ["", "inner"])
def test_a_folder_that_could_be_both_is_an_error(tmp_path: Path, inner: str) -> None:
    write_mp4(images(tmp_path / inner) / "x.mp4", 3)
    with pytest.raises(ValueError, match=r"holds images, such as 0\.png, and video files, such as x\.mp4: expected"):
        find_videos(tmp_path)


def test_a_folder_of_neither_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(ValueError, match="expected the images of one video, or several videos, found neither"):
        find_videos(tmp_path)


def in_queue(videos: Path, scenario: Callable[[VideoQueue], Awaitable[Any]], max_open: int = 4) -> Any:
    async def run() -> Any:
        found = find_videos(videos)
        assert found is not None
        queue = VideoQueue(make_predictor(), found, videos.parent / "out", max_open=max_open)
        try:
            return await asyncio.wait_for(scenario(queue), 60)
        finally:
            await queue.close()

    return run_async(run())


def states(queue: VideoQueue) -> list[str]:
    return [queue.state_of(video.number) for video in queue.videos]


async def click(queue: VideoQueue, number: int) -> Session:
    book = await queue.open(number)
    session = book.get(1)
    await session.prompt(1, 0, FIRST, new=True)
    await book.save(session)
    return session


def test_states_follow_the_work_and_are_kept(videos: Path) -> None:
    async def work(queue: VideoQueue) -> None:
        assert states(queue) == ["new"] * 3
        assert queue.current == 1
        await queue.open(1)
        assert states(queue) == ["new"] * 3  # looking at it is no work
        await click(queue, 2)
        assert states(queue) == ["new", "in work", "new"]
        assert queue.current == 2
        await queue.mark(2, True)
        assert queue.current == 1
        await queue.mark(3, True)
        await queue.mark(3, False)
        with pytest.raises(IndexError, match="there is no video 4: the queue has 3"):
            await queue.mark(4, True)

    async def later(queue: VideoQueue) -> None:
        assert states(queue) == ["new", "done", "new"]
        book = await queue.open(2)
        await finished(book.get(1))
        assert list(book.get(1).document.prompts) == [(1, 0)]
        await queue.mark(2, False)
        assert states(queue) == ["new", "in work", "new"]

    in_queue(videos, work)
    out = videos.parent / "out"
    assert sorted(path.relative_to(out).as_posix() for path in out.rglob("*.json")) == ["b/session.json", "queue.json"]
    # A video that is away for a while is still done when it is back.
    (videos / "b").rename(videos.parent / "away")
    in_queue(videos, lambda queue: queue.mark(1, False))
    (videos.parent / "away").rename(videos / "b")
    in_queue(videos, later)


def test_few_videos_are_open_and_idle_ones_make_room(videos: Path) -> None:
    async def work(queue: VideoQueue) -> None:
        session = await click(queue, 1)
        (await queue.open(1)).connected(session)
        await session.prompt(1, 1, FIRST)  # not saved yet
        with session.events.listening(), pytest.raises(ValueError, match="all 1 open videos are in use: close a tab"):
            await queue.open(2)
        other = await queue.open(2)
        assert [book.footage.name for book in queue] == ["b"]
        other.connected(other.get(1))
        book = await queue.open(1)
        await finished(book.get(1))
        assert sorted(book.get(1).document.prompts) == [(1, 0), (1, 1)]

    in_queue(videos, work, max_open=1)


@pytest.mark.parametrize("text", ["", "{}", '{"format":"i2v-queue","version":2,"done":[]}', '{"done":3}'])
def test_a_broken_state_of_the_queue_is_told(tmp_path: Path, text: str) -> None:
    (tmp_path / "queue.json").write_text(text)
    with pytest.raises(InvalidFileError, match=r"queue\.json"):
        QueueState(tmp_path).read()


def test_the_server_opens_videos_as_they_are_asked_for_and_tells_of_broken_ones(videos: Path) -> None:
    with running_queue(videos) as server:
        assert httpx.get(server.address).headers["location"] == "videos/1/?session=1"
        assert httpx.get(f"{server.address}videos/2/frames/0.jpg").status_code == 200
        assert [book.footage.name for book in server.queue] == ["b"]
        assert "i2v" in httpx.get(f"{server.address}videos/3/").text  # the page, which tells of it
        broken = httpx.get(f"{server.address}videos/3/sessions")
        assert broken.status_code == 400
        assert "c.mp4" in broken.json()["error"]
        assert httpx.get(f"{server.address}videos/4/sessions").status_code == 404
        origin = {"origin": "/".join(server.address.split("/")[:3])}

        def mark(number: int, body: bytes, headers: dict[str, str] = origin) -> httpx.Response:
            return httpx.post(f"{server.address}queue/{number}", content=body, headers=headers)

        assert mark(1, b'{"done":true}').json()[0] == {"number": 1, "name": "a", "state": "done"}
        assert mark(1, b'{"done":"yes, perhaps"}').status_code == 400
        assert mark(9, b'{"done":true}').status_code == 404
        assert mark(1, b'{"done":true}', {}).status_code == 403  # only the page may
        assert json.loads((server.out / "queue.json").read_text())["done"] == ["a"]
