"""Videos and sessions in other processes: forked, spawned, and the workers of a DataLoader."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import threading
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from support import make_predictor, render_video
from test_video_file import Clip
from worker_support import Checksums, checksum

from i2v.video.frame_loader import FrameLoader
from i2v.video.sources import AnimatedImage, FrameArray, FrameSource, ImageFolder, LiveFrames, VideoFile

LIMIT = 60  # seconds
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    path = tmp_path / "12:30.mp4"
    path.write_bytes(Clip(count=30).encoded())
    return path


def in_child(work: Callable[[], object], start: str = "fork") -> None:
    """Run work in another process, and fail if it fails there or hangs."""
    process = multiprocessing.get_context(start).Process(target=_report, args=(work,))
    process.start()
    process.join(LIMIT)
    if process.is_alive():
        process.kill()
        process.join()
        pytest.fail(f"the child hangs after {LIMIT} s")
    assert process.exitcode == 0


def _report(work: Callable[[], object]) -> None:
    try:
        work()
    except BaseException:  # noqa: BLE001 what it is does not matter: the parent sees the status
        traceback.print_exc()
        os._exit(1)


@needs_fork
def test_an_open_video_is_read_in_a_forked_process(clip: Path) -> None:
    video = VideoFile(clip)
    wanted = [checksum(video, frame) for frame in (3, 20, 5)]

    def work() -> None:
        assert [checksum(video, frame) for frame in (3, 20, 5)] == wanted
        video.close()

    in_child(work)
    assert checksum(video, 3) == wanted[0]
    video.close()
    video.close()


@needs_fork
def test_a_video_that_is_being_read_is_read_in_a_forked_process(clip: Path) -> None:
    video = VideoFile(clip)
    wanted = checksum(video, 7)
    held = threading.Event()
    done = threading.Event()

    def hold() -> None:
        with video._opened.get().lock:
            held.set()
            done.wait(LIMIT)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(LIMIT)

    def work() -> None:
        assert checksum(video, 7) == wanted

    try:
        in_child(work)
    finally:
        done.set()
        thread.join()


@needs_fork
def test_an_open_video_can_be_dropped_in_a_forked_process(clip: Path) -> None:
    videos = [VideoFile(clip)]
    checksum(videos[0], 9)
    in_child(videos.clear)


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_workers_of_a_loader_share_an_open_video(clip: Path, start: str) -> None:
    video = VideoFile(clip)
    wanted = [checksum(video, frame) for frame in range(12)]
    loader = torch.utils.data.DataLoader(
        Checksums(video, 12), batch_size=4, num_workers=1, multiprocessing_context=start, timeout=5 * LIMIT
    )
    assert [int(value) for batch in loader for value in batch] == wanted


def sources(folder: Path, clip: Path) -> Iterator[FrameSource]:
    from PIL import Image

    frames = render_video(num_frames=4)
    pictures = [Image.fromarray(frame) for frame in frames]
    pictures[0].save(folder / "a.webp", save_all=True, append_images=pictures[1:], lossless=True)
    (folder / "frames").mkdir()
    for number, picture in enumerate(pictures):
        picture.save(folder / "frames" / f"{number}.png")
    yield VideoFile(clip)
    yield VideoFile(clip.read_bytes())
    yield AnimatedImage(folder / "a.webp")
    yield ImageFolder(folder / "frames")
    yield FrameArray(frames)


def test_sources_can_be_pickled(tmp_path: Path, clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = list(sources(Path(), Path(clip.name)))
    copies = [pickle.loads(pickle.dumps(source)) for source in found]
    monkeypatch.chdir("/")
    for source, copied in zip(found, copies, strict=True):
        for fact in ("name", "num_frames", "frame_rate", "height", "width"):
            assert getattr(copied, fact) == getattr(source, fact)
        assert copied.frame_time(3) == source.frame_time(3)
        np.testing.assert_array_equal(copied.read(3), source.read(3))
        source.close()
        np.testing.assert_array_equal(copied.read(1).shape, (source.height, source.width, 3))


def test_live_frames_cannot_be_pickled() -> None:
    with pytest.raises(TypeError, match="live frames cannot be pickled"):
        pickle.dumps(LiveFrames(iter(render_video())))


@needs_fork
def test_a_session_says_that_it_belongs_to_another_process() -> None:
    predictor = make_predictor()
    state = predictor.init_state(render_video())
    predictor.add_new_points_or_box(state, 0, 1, points=[[16, 19]], labels=[1])

    def work() -> None:
        for use in (
            lambda: next(predictor.propagate_in_video(state)),
            lambda: predictor.add_new_points_or_box(state, 0, 1, points=[[16, 19]], labels=[1]),
            lambda: predictor.add_new_mask(state, 0, 1, np.ones((48, 64), bool)),
            lambda: predictor.masks_on_frame(state, 0),
            lambda: predictor.prefetch_frame(state, 3),
            lambda: predictor.reset_state(state),
            state.copy,
        ):
            with pytest.raises(RuntimeError, match="made in another process, before a fork"):
                use()
        state.close()

    in_child(work)
    assert len(list(predictor.propagate_in_video(state))) == 12
    state.close()


@needs_fork
def test_a_loader_says_that_it_belongs_to_another_process() -> None:
    with FrameLoader(FrameArray(render_video()), 32) as loader:
        loader.get(0)

        def work() -> None:
            with pytest.raises(RuntimeError, match="array: this loader reads frames in another process"):
                loader.get(1)
            loader.close()

        in_child(work)
        assert loader.get(1).shape == (3, 32, 32)
