"""The queue of videos on the page."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from annotator_support import FIRST, HEIGHT, NUM_FRAMES, WIDTH, RunningQueue, running_queue, until
from page_support import visiting
from PIL import Image
from support import render_video


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    """A folder of two folders of frames, and a file that is no video in spite of its name."""
    folder = tmp_path / "videos"
    for name in ("a", "b"):
        (folder / name).mkdir(parents=True)
        for frame, picture in enumerate(render_video(NUM_FRAMES, HEIGHT, WIDTH)):
            Image.fromarray(picture).save(folder / name / f"{frame:03d}.png")
    (folder / "c.mp4").write_bytes(b"no video")
    return folder


@pytest.fixture
def queue(videos: Path) -> Iterator[RunningQueue]:
    with running_queue(videos) as server:
        yield server


def test_videos_are_labelled_one_after_another(browser: Any, queue: RunningQueue) -> None:
    with visiting(browser, queue.address) as guest:
        page = guest.page
        shown = page.locator("#video-state")
        page.wait_for_selector("#video-state:has-text('video 1 of 3, new')")
        assert page.url.endswith("/videos/1/?session=1")
        assert page.locator("#previous-video").is_disabled()
        guest.click(FIRST.x, FIRST.y)
        guest.sees(0, 1)
        page.wait_for_selector("#video-state:has-text('in work')")
        page.click("#video-done")
        page.wait_for_selector("#video-done[aria-pressed=true]")
        assert shown.inner_text() == "video 1 of 3, done"
        page.click("#next-video")
        page.wait_for_url("**/videos/2/?session=1")
        page.wait_for_selector("#video-state:has-text('video 2 of 3, new')")
        page.wait_for_selector("body[data-connected=true]")
        assert page.locator("#objects li").count() == 0  # its own session
        # One that cannot be read is named, and the others are there.
        guest.press("Shift+w")
        page.wait_for_selector("#message:has-text('c.mp4')")
        page.wait_for_selector("#videos-dialog[open]")
        assert page.locator("#video-list li").all_inner_texts() == ["a\ndone", "b\nnew", "c.mp4\nnew"]
        page.click("#video-list a:has-text('a')")
        page.wait_for_url("**/videos/1/?session=1")
        page.wait_for_selector("body[data-connected=true]")
        guest.sees(0, 1)
        guest.press("Shift+m")
        page.wait_for_selector("#video-state:has-text('video 1 of 3, in work')")
        guest.press("Shift+q")
        guest.is_told("this is the first video")
        guest.press("?")
        assert "the video before, the next video" in page.locator("#shortcuts dd").all_inner_texts()


def test_what_was_said_before_leaving_is_done(browser: Any, queue: RunningQueue) -> None:
    with visiting(browser, queue.address) as guest:
        guest.press("n", "n", "n", "Shift+w")
        guest.page.wait_for_url("**/videos/2/?session=1")
        # The address may change before the second video is open.
        until(lambda: len(list(queue.queue)) == 2)
        book, _ = sorted(queue.queue, key=lambda book: book.footage.name)
        assert book.get(1).document.numbers == (1, 2, 3)
        until(lambda: book.file_of(1).exists())
        assert book.file_of(1) == queue.out / "a" / "session.json"


def test_a_single_video_has_no_queue(browser: Any, server: Any) -> None:
    with visiting(browser, server.address) as guest:
        assert guest.page.locator("#queue").is_hidden()
        guest.press("?")
        assert not any("video before" in text for text in guest.page.locator("#shortcuts dd").all_inner_texts())
