"""The annotator on a real video with the model that comes with i2v; minutes long, so only where it is asked for:

    I2V_REAL_VIDEO=path/to/video.mp4 python -m pytest tests/annotator/test_real_video.py --timeout 3600

`I2V_PICTURES=docs/images` also takes the pictures of docs/annotator.md; `I2V_REAL_FRAMES=24` is content with the first
frames of the video.
"""

from __future__ import annotations

import itertools
import os
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from annotator_support import add, running, running_queue
from page_support import Visitor, visiting

from i2v.annotator.document import Click
from i2v.annotator.footage import VideoFootage
from i2v.build_i2v import build_i2v_video_predictor
from i2v.results.export import label_map, read_label_png

VIDEO = os.environ.get("I2V_REAL_VIDEO")
PICTURES = os.environ.get("I2V_PICTURES")
NUM_FRAMES = int(os.environ.get("I2V_REAL_FRAMES", "0"))
pytestmark = pytest.mark.skipif(VIDEO is None, reason="takes minutes: set I2V_REAL_VIDEO to a video")

# Two cups of 02_cups.mp4 on its frame 12, which are tracked both ways.
START = 12
MIDDLE, RIGHT, TABLE = Click(656, 420, True), Click(912, 420, True), Click(780, 620, False)


def first_frames(video: Path, count: int, folder: Path) -> Path:
    """The video cut off after so many frames, without encoding it anew; 0 leaves it whole."""
    if not count:
        return video
    cut = folder / video.name
    with av.open(str(video)) as source, av.open(str(cut), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        packets = (packet for packet in source.demux(video=0) if packet.dts is not None)
        for packet in itertools.islice(packets, count):
            packet.stream = stream
            target.mux(packet)
    return cut


def picture(visitor: Visitor, name: str) -> None:
    """A picture of the page for the docs, where it is asked for."""
    if PICTURES is not None:
        visitor.page.wait_for_timeout(300)
        visitor.page.screenshot(path=str(Path(PICTURES) / f"{name}.jpg"), type="jpeg", quality=80)


@pytest.mark.timeout(3600)
def test_two_cups_are_clicked_corrected_tracked_both_ways_and_exported(browser: Any, tmp_path: Path) -> None:
    from i2v.pretrained import choose_model

    assert VIDEO is not None
    model = choose_model()
    predictor = build_i2v_video_predictor(model.config, model.checkpoint, device="cpu")
    video = first_frames(Path(VIDEO), NUM_FRAMES, tmp_path)
    footage = VideoFootage(video)
    with (
        running(footage, tmp_path / "out", predictor=predictor) as server,
        visiting(browser, server.address, color_scheme="dark") as visitor,
    ):
        visitor.page.set_default_timeout(600_000)
        visitor.goes_to(START)
        visitor.click(MIDDLE.x, MIDDLE.y)
        visitor.sees(START, 1)
        picture(visitor, "annotator-click")
        visitor.makes_object(2)
        visitor.click(RIGHT.x, RIGHT.y)
        visitor.sees(START, 1, 2)
        visitor.click(100, 100)
        visitor.page.wait_for_selector("#undo:not(:disabled)")
        visitor.press("z")
        visitor.press("1")
        visitor.click(TABLE.x, TABLE.y, button="right")
        visitor.press("f")
        visitor.page.wait_for_function(
            "() => parseInt(document.getElementById('progress-text').textContent.split(': ')[1]) >= 6"
        )
        picture(visitor, "annotator-tracking")
        visitor.press("Escape")
        visitor.is_done()
        visitor.press("g")
        visitor.works()
        visitor.reload()
        visitor.works()
        visitor.is_done()
        visitor.goes_to(20)
        visitor.sees(20, 1, 2)
        picture(visitor, "annotator-tracked")
        visitor.page.emulate_media(color_scheme="light")
        visitor.press("x")
        picture(visitor, "annotator-export")
        visitor.page.click("#export-now")
        visitor.is_told("exported to")
        visitor.press("?")
        picture(visitor, "annotator-help")
        visitor.press("Escape")
        document = server.book.get(1).document
        folder = server.out / "export" / "masks"
        got = {int(path.stem): read_label_png(path) for path in folder.iterdir()}

    with predictor.init_state(video) as state:
        for number in document.numbers:
            add(predictor, state, START, number, *document.prompts[number, START])  # type: ignore[arg-type]
        for reverse in (False, True):
            for frame, numbers, logits in predictor.propagate_in_video(state, START, reverse=reverse):
                np.testing.assert_array_equal(got[frame], label_map(logits, numbers), err_msg=f"{frame}")
    assert sorted(got) == list(range(footage.num_available))


@pytest.mark.timeout(600)
def test_the_videos_beside_it_are_a_queue(browser: Any, tmp_path: Path) -> None:
    assert VIDEO is not None
    folder = tmp_path / "videos"
    folder.mkdir()
    beside = sorted(path for path in Path(VIDEO).parent.iterdir() if path.suffix == Path(VIDEO).suffix)[:4]
    for path in beside:
        (folder / path.name).symlink_to(path.resolve())
    with (
        running_queue(folder) as server,
        visiting(browser, f"{server.address}videos/{beside.index(Path(VIDEO)) + 1}/", color_scheme="dark") as visitor,
    ):
        visitor.page.set_default_timeout(120_000)
        visitor.press("s")  # its session file makes it one in work
        visitor.page.wait_for_selector("#saved:has-text('all changes saved')")
        visitor.page.evaluate("() => fetch('../../queue/1', { method: 'POST', body: '{\"done\":true}' })")
        visitor.page.click("#videos")
        visitor.page.wait_for_selector("#video-list li:has-text('in work')")
        visitor.page.wait_for_selector("#video-list li:has-text('done')")
        picture(visitor, "annotator-videos")
