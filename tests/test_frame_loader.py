"""Frames at the model's size: exact values, reading ahead within its bounds, errors, threads."""

from __future__ import annotations

import gc
import io
import itertools
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import av
import numpy as np
import pytest
import torch
from PIL import Image

from i2v.video import video_decoder
from i2v.video.frame_loader import FrameLoader, normalize
from i2v.video.frame_source import FrameSource, LiveFrames
from i2v.video.sources import open_source, window_indices
from i2v.video.video_decoder import Decoder


class Source(FrameSource):
    """Plain frames of grey level 2 * index that remember which were read, in which order and by which thread."""

    name, height, width, frame_rate = "fake", 4, 6, None

    def __init__(self, count: int = 100) -> None:
        self.count = count
        self.reads: list[int] = []
        self.threads: set[int] = set()
        self.broken: set[int] = set()
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()

    @property
    def num_frames(self) -> int:
        return self.count

    def read(self, index: int) -> np.ndarray:
        self.reads.append(index)
        self.threads.add(threading.get_ident())
        self.entered.set()
        assert self.gate.wait(20)
        self._check_index(index)
        if index in self.broken:
            raise KeyError(f"no frame {index}")  # an error nobody foresaw
        return np.full((4, 6, 3), 2 * index, np.uint8)


def level(frame: torch.Tensor) -> int:
    return int(frame[0, 0, 0])


def settle(source: Source) -> list[int]:
    """What was read, once nothing more is."""
    seen = -1
    while seen != len(source.reads):
        seen = len(source.reads)
        time.sleep(0.05)
    return source.reads


def test_frames_are_resized_as_pillow_does_by_default() -> None:
    frames = np.random.default_rng(0).integers(0, 256, (3, 31, 57, 3), dtype=np.uint8)
    with FrameLoader(open_source(frames), 16) as loader:
        for index, frame in enumerate(frames):
            expected = np.asarray(Image.fromarray(frame).resize((16, 16), Image.Resampling.BICUBIC))
            got = loader.get(index)
            assert (got.dtype, tuple(got.shape), got.is_contiguous()) == (torch.uint8, (3, 16, 16), True)
            np.testing.assert_array_equal(got.permute(1, 2, 0).numpy(), expected)


# Reading ahead


@pytest.mark.parametrize(("step", "expected"), [(1, range(50, 59)), (-1, range(50, 41, -1))])
def test_frames_ahead_are_read_in_order_and_no_further(step: int, expected: range) -> None:
    source = Source()
    with FrameLoader(source, 8) as loader:
        loader.expect(50, step)
        assert settle(source) == list(expected)
        assert threading.get_ident() not in source.threads
        assert [level(loader.get(i)) for i in expected] == [2 * i for i in expected]
        assert source.reads == list(expected)


@pytest.mark.parametrize("step", [1, -1])
def test_every_frame_of_a_pass_is_read_once(step: int) -> None:
    source = Source(60)
    with FrameLoader(source, 8) as loader:
        for frame in range(60)[::step]:
            loader.expect(frame, step)
            wanted = window_indices(frame)
            assert [level(loader.get(i)) for i in wanted] == [2 * i for i in wanted]
            ahead = [(i - frame) * step for i in source.reads]
            assert max(ahead) <= 8
    assert sorted(source.reads) == list(range(60))


@pytest.mark.parametrize(("frame", "step", "expected"), [(97, 1, [97, 98, 99]), (1, -1, [1, 0]), (100, 1, [])])
def test_reading_ahead_stops_at_the_ends(frame: int, step: int, expected: list[int]) -> None:
    source = Source()
    with FrameLoader(source, 8) as loader:
        loader.expect(frame, step)
        assert settle(source) == expected


def test_least_recently_used_frames_go_first() -> None:
    source = Source()
    with FrameLoader(source, 8, capacity=3, ahead=0) as loader:
        for index in (0, 1, 2, 0, 3):
            loader.get(index)
        assert source.reads == [0, 1, 2, 3]
        loader.get(0)
        assert source.reads == [0, 1, 2, 3]
        loader.get(1)
        assert source.reads == [0, 1, 2, 3, 1]


@pytest.mark.parametrize(("capacity", "ahead"), [(1, 8), (5, 8), (6, 8), (9, 2), (24, 0)])
def test_any_capacity_gives_the_right_frames_and_leaves_room_for_the_window(capacity: int, ahead: int) -> None:
    source = Source(20)
    with FrameLoader(source, 8, capacity, ahead) as loader:
        for frame in range(20):
            loader.expect(frame, 1)
            assert [level(loader.get(i)) for i in window_indices(frame)] == [2 * i for i in window_indices(frame)]
            assert len(loader._frames) <= capacity
    if capacity >= 5:
        assert sorted(source.reads) == list(range(20))


def test_a_jump_does_not_wait_for_what_was_expected() -> None:
    source = Source()
    with FrameLoader(source, 8) as loader:
        source.gate.clear()
        loader.expect(10, 1)
        assert source.entered.wait(20)
        with ThreadPoolExecutor(1) as pool:
            jump = pool.submit(loader.get, 70)
            while 70 not in loader._frames:
                time.sleep(0.01)
            source.gate.set()
            assert level(jump.result(20)) == 140
        assert source.reads == [10, 70]


def test_turning_round_forgets_the_frames_beyond() -> None:
    source = Source()
    with FrameLoader(source, 8) as loader:
        source.gate.clear()
        loader.expect(10, 1)
        assert source.entered.wait(20)
        loader.expect(10, -1)
        source.gate.set()
        assert settle(source) == [10, 9, 8, 7, 6, 5, 4, 3, 2]


def test_callers_of_one_frame_share_its_reading() -> None:
    source = Source()
    with FrameLoader(source, 8) as loader, ThreadPoolExecutor(4) as pool:
        source.gate.clear()
        frames = [pool.submit(loader.get, 5) for _ in range(4)]
        assert source.entered.wait(20)
        source.gate.set()
        assert [level(frame.result(20)) for frame in frames] == [10] * 4
    assert source.reads == [5]


# Errors and endings


def test_errors_in_the_background_reach_the_caller_of_that_frame() -> None:
    source = Source()
    source.broken = {3}
    with FrameLoader(source, 8) as loader:
        loader.expect(1, 1)
        settle(source)
        assert level(loader.get(4)) == 8
        with pytest.raises(KeyError, match="no frame 3"):
            loader.get(3)
        source.broken = set()
        assert level(loader.get(3)) == 6


def test_indices_and_settings_that_make_no_sense() -> None:
    with FrameLoader(Source(), 8) as loader:
        for index in (-1, 100):
            with pytest.raises(IndexError, match=f"frame {index}"):
                loader.get(index)
        with pytest.raises(ValueError, match="step: expected 1 or -1, got 0"):
            loader.expect(0, 0)
    for settings in ({"image_size": 0}, {"capacity": 0}, {"ahead": -1}):
        with pytest.raises(ValueError, match=f"{next(iter(settings))}: expected at least"):
            FrameLoader(Source(), **{"image_size": 8, **settings})


def loader_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("i2v-frames")]


def test_close_ends_the_thread_and_what_was_to_be_read() -> None:
    source = Source()
    before = len(loader_threads())
    loader = FrameLoader(source, 8)
    source.gate.clear()
    loader.expect(0, 1)
    assert source.entered.wait(20)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(loader.get, 5)
        closing = threading.Thread(target=loader.close)
        closing.start()
        with pytest.raises(RuntimeError, match=r"fake: (closed while waiting for frame 5|frame 5 was requested after)"):
            waiting.result(20)
        source.gate.set()
        closing.join(20)
    assert len(loader_threads()) == before
    assert source.reads == [0]
    with pytest.raises(RuntimeError, match="frame 0 was requested after the loader was closed"):
        loader.get(0)
    loader.expect(0, 1)
    loader.close()


def test_the_thread_ends_with_a_loader_that_nobody_closed() -> None:
    before = len(loader_threads())
    loader = FrameLoader(Source(), 8)
    loader.get(0)
    assert len(loader_threads()) == before + 1
    del loader
    gc.collect()
    deadline = time.monotonic() + 20
    while len(loader_threads()) > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(loader_threads()) == before


def test_live_frames_are_never_read_ahead() -> None:
    pulled: list[int] = []

    def camera() -> Iterator[np.ndarray]:
        for index in itertools.count():
            pulled.append(threading.get_ident())
            yield np.full((4, 6, 3), index, np.uint8)

    with FrameLoader(LiveFrames(camera(), keep=2), 8) as loader:
        for frame in range(12):
            loader.expect(frame, 1)
            assert [level(loader.get(i)) for i in window_indices(frame)] == window_indices(frame)
            assert len(pulled) == frame + 1
    assert set(pulled) == {threading.get_ident()}


# Video files


def clip(count: int, group: int) -> bytes:
    """Frames that show their number as eight black or white stripes."""
    target = io.BytesIO()
    with av.open(target, "w", format="matroska") as container:
        stream: Any = container.add_stream("mpeg4", rate=25, options={"g": str(group)})
        stream.width, stream.height, stream.pix_fmt = 64, 32, "yuv420p"
        for index in range(count):
            bits = np.array([index >> bit & 1 for bit in range(8)], np.uint8) * 255
            image = np.ascontiguousarray(np.broadcast_to(np.repeat(bits, 8)[:, None], (32, 64, 3)))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
    return target.getvalue()


def shown(frame: torch.Tensor) -> int:
    stripes = frame.float().mean(dim=(0, 1)).reshape(8, 2).mean(dim=1)
    return sum(1 << bit for bit, level in enumerate(stripes) if level > 127)


def test_two_loaders_of_one_video_in_two_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video_decoder, "_RECENT_FRAMES", 4)
    with open_source(clip(60, group=10)) as video, ThreadPoolExecutor(2) as pool:

        def follow(step: int) -> list[int]:
            with FrameLoader(video, 16) as loader:
                result = []
                for frame in range(60)[::step]:
                    loader.expect(frame, step)
                    result.append(shown(loader.get(frame)))
                return result

        forward, backward = pool.map(follow, (1, -1))
        assert forward == list(range(60))
        assert backward == list(range(59, -1, -1))


def test_going_back_through_a_video_decodes_it_few_times(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video_decoder, "_RECENT_FRAMES", 20)
    decoded: list[int | None] = []
    original = Decoder.next_frame

    def next_frame(self: Decoder) -> int | None:
        decoded.append(original(self))
        return decoded[-1]

    monkeypatch.setattr(Decoder, "next_frame", next_frame)
    with open_source(clip(100, group=1000)) as video, FrameLoader(video, 16) as loader:
        for frame in range(99, -1, -1):
            loader.expect(frame, -1)
            assert [shown(loader.get(i)) for i in window_indices(frame)] == window_indices(frame)
    assert len(decoded) < 100 + 80 + 60 + 40 + 20 + 20


# Normalization


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_every_value_is_normalized_exactly(device: str) -> None:
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    levels = torch.arange(256, dtype=torch.uint8).reshape(1, 16, 16).expand(3, 16, 16)
    scaled = (np.arange(256, dtype=np.float64) / 255).astype(np.float32).reshape(1, 16, 16)
    mean = np.array([0.485, 0.456, 0.406], np.float32).reshape(3, 1, 1)
    std = np.array([0.229, 0.224, 0.225], np.float32).reshape(3, 1, 1)
    with torch.inference_mode():
        got = normalize(levels.to(device))
    assert got.dtype == torch.float32
    np.testing.assert_array_equal(got.cpu().numpy(), (scaled - mean) / std)


def test_windows_are_normalized_at_once_and_left_as_they_are() -> None:
    frames = torch.randint(0, 256, (2, 5, 3, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    before = frames.clone()
    assert torch.equal(normalize(frames)[1, 3], normalize(frames[1, 3]))
    assert torch.equal(frames, before)
    with pytest.raises(ValueError, match=r"expected uint8 .*, got torch\.float32 \(3, 4, 4\)"):
        normalize(torch.zeros(3, 4, 4))
    with pytest.raises(ValueError, match=r"got torch\.uint8 \(4, 4, 3\)"):
        normalize(torch.zeros(4, 4, 3, dtype=torch.uint8))
