"""Video files: every frame once, in order, from anywhere, in whatever state the file is.

Clips show their frame number as eight black or white squares.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import itertools
import random
import tempfile
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.logging
import numpy as np
import pytest

from i2v.results.overlay import VideoWriter
from i2v.video import video_decoder
from i2v.video.video_decoder import Decoder
from i2v.video.video_file import VideoFile, turned

HEIGHT, WIDTH = 32, 64
SECOND = Fraction(1, 1000)
X264 = {"preset": "ultrafast", "bf": "3", "g": "10"}


def numbered(number: int) -> np.ndarray:
    """A frame that shows its number in its upper half, one square per bit, and noise below."""
    bits = np.array([number >> bit & 1 for bit in range(8)], np.uint8) * 255
    frame = np.random.default_rng(number).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    frame[: HEIGHT // 2] = np.repeat(bits, WIDTH // 8)[:, None]
    return frame


def number_in(frame: np.ndarray) -> int:
    levels = frame[2 : HEIGHT // 2 - 2, 4 :: WIDTH // 8].mean(axis=(0, 2))
    return sum(1 << bit for bit, level in enumerate(levels) if level > 127)


@dataclasses.dataclass(frozen=True)
class Clip:
    """How to write a clip."""

    count: int = 24
    codec: str = "libx264"
    options: dict[str, str] = dataclasses.field(default_factory=lambda: X264)
    container: str = "mp4"
    muxer: dict[str, str] = dataclasses.field(default_factory=dict)
    pixels: str = "yuv420p"
    times: Callable[[int], int] | None = None  # frame -> milliseconds
    draw: Callable[[int], np.ndarray] = numbered
    rotation: int | None = None

    def encoded(self) -> bytes:
        if self.codec not in av.codecs_available:
            pytest.skip(f"this build of FFmpeg has no {self.codec}")
        # Only a real file can be written twice, as "faststart" needs.
        with tempfile.NamedTemporaryFile() as target:
            self._write(target.name)
            return Path(target.name).read_bytes()

    def _write(self, path: str) -> None:
        with av.open(path, "w", format=self.container, options=self.muxer) as container:
            stream: Any = container.add_stream(self.codec, rate=25, options=self.options)
            stream.height, stream.width = self.draw(0).shape[:2]
            stream.pix_fmt = self.pixels
            if self.times is not None:
                stream.codec_context.time_base = SECOND
            if self.rotation is not None:
                stream.set_display_rotation(self.rotation)
            for index in range(self.count):
                frame = av.VideoFrame.from_ndarray(self.draw(index), format="rgb24")
                if self.times is not None:
                    frame.pts, frame.time_base = self.times(index), SECOND
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))


def repacked(video: bytes, container: str, change: Callable[[int, bytes], bytes] | None = None) -> bytes:
    """The same packets as if written to a pipe: without an index, a duration, or a number of frames."""

    class Pipe(io.RawIOBase):
        written = b""

        def writable(self) -> bool:
            return True

        def write(self, data: bytes) -> int:  # type: ignore[override]
            self.written += bytes(data)
            return len(data)

    pipe = Pipe()
    with av.open(io.BytesIO(video), "r") as source, av.open(pipe, "w", format=container) as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for number, packet in enumerate(source.demux(video=0)):
            if packet.size:
                data = bytes(packet)
                copy: Any = av.Packet(data if change is None else change(number, data))
                copy.pts, copy.dts, copy.time_base = packet.pts, packet.dts, packet.time_base
                copy.is_keyframe, copy.stream = packet.is_keyframe, stream
                target.mux(copy)
    return pipe.written


def numbers(video: VideoFile, indices: Iterable[int] | None = None) -> list[int]:
    return [number_in(video.read(i)) for i in (range(video.num_frames) if indices is None else indices)]


@pytest.fixture
def forgetful(monkeypatch: pytest.MonkeyPatch) -> None:
    """Decoders that keep no frame but the last, so that every step aside has to seek."""
    monkeypatch.setattr(video_decoder, "_RECENT_FRAMES", 1)


@pytest.fixture
def restarts(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The key frames at which decoding started, from now on."""
    started: list[int] = []
    original = Decoder.restart

    def restart(self: Decoder, key: int) -> None:
        started.append(key)
        original(self, key)

    monkeypatch.setattr(Decoder, "restart", restart)
    return started


REFRESH = {"preset": "ultrafast", "g": "10", "intra-refresh": "1"}
X265 = {"preset": "ultrafast", "x265-params": "log-level=none:keyint=10:bframes=3:open-gop=1"}
CLIPS = {
    "B-frames mp4": Clip(),
    "B-frames ts": Clip(container="mpegts"),
    "open GOP": Clip(container="matroska", options={**X264, "x264-params": "open-gop=1"}),
    "intra refresh": Clip(container="matroska", options=REFRESH),
    "intra refresh ts": Clip(container="mpegts", options=REFRESH),
    "fragments": Clip(muxer={"movflags": "frag_keyframe+empty_moov"}),
    "avi without times": Clip(container="avi"),
    "bare stream": Clip(container="h264"),
    "mov": Clip(codec="mpeg4", container="mov", options={"bf": "2", "g": "10"}),
    "m2 program stream": Clip(codec="mpeg2video", container="mpeg", options={"bf": "2", "g": "10"}),
    "hevc": Clip(codec="libx265", options=X265),
    "vp8": Clip(codec="libvpx", container="webm", options={"g": "10", "deadline": "realtime"}),
    "vp9": Clip(codec="libvpx-vp9", container="webm", options={"g": "10", "deadline": "realtime"}),
    "every frame a key": Clip(codec="mjpeg", container="avi", options={}, pixels="yuvj420p"),
    "starts before 0": Clip(times=lambda i: 40 * i - 40),
    "one frame": Clip(count=1),
    "two frames": Clip(count=2),
}


@pytest.mark.parametrize("kept", [1, 8])
@pytest.mark.parametrize("clip", CLIPS.values(), ids=CLIPS.keys())
def test_random_access_equals_decoding_in_order(clip: Clip, kept: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video_decoder, "_RECENT_FRAMES", kept)
    data = clip.encoded()
    with av.open(io.BytesIO(data), "r") as container:
        decoded = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    with VideoFile(data) as video:
        assert video.num_frames == len(decoded)
        assert (video.height, video.width, video.name) == (HEIGHT, WIDTH, "bytes")
        assert video.frame_rate == pytest.approx(25, rel=0.01)
        forward = range(len(decoded))
        for index in itertools.chain(random.Random(0).choices(forward, k=20), forward, reversed(forward)):
            np.testing.assert_array_equal(video.read(index), decoded[index])
        # No frame twice, none left out; one before time 0 is not shown.
        assert numbers(video) == list(range(clip.count - len(decoded), clip.count))


@pytest.mark.usefixtures("forgetful")
@pytest.mark.parametrize("container", ["matroska", "webm", "mpegts", "flv", "h264"])
def test_files_written_to_a_pipe(container: str) -> None:
    codec = "libvpx" if container == "webm" else "libx264"
    data = repacked(Clip(codec=codec, container="matroska", options={"g": "10"}).encoded(), container)
    with av.open(io.BytesIO(data)) as opened:
        assert opened.streams.video[0].frames == 0  # the file does not say
    with VideoFile(data) as video:
        assert numbers(video, range(23, -1, -1)) == list(range(23, -1, -1))


def test_header_with_a_wrong_number_of_frames() -> None:
    data = bytearray(Clip(codec="mpeg4", container="avi", options={}).encoded())
    for name, place in ((b"avih", 24), (b"strh", 40)):
        at = data.index(name) + place
        assert int.from_bytes(data[at : at + 4], "little") == 24
        data[at : at + 4] = (500).to_bytes(4, "little")
    with VideoFile(bytes(data)) as video:
        assert numbers(video) == list(range(24))


@pytest.mark.parametrize("container", ["mp4", "matroska"])
def test_variable_frame_rate(container: str) -> None:
    with VideoFile(Clip(container=container, times=lambda i: 2 * i * i).encoded()) as video:
        assert numbers(video) == list(range(24))
        # 23 steps in 2 * 23^2 ms
        assert video.frame_rate == pytest.approx(23 / 1.058, rel=1e-3)


def test_hidden_reference_frames_of_vp8_do_not_count() -> None:
    def hide(number: int, packet: bytes) -> bytes:
        return bytes([packet[0] & ~0x10]) + packet[1:] if number == 13 else packet

    whole = Clip(codec="libvpx", container="webm", options={"g": "100", "deadline": "realtime"}).encoded()
    with VideoFile(repacked(whole, "webm", hide)) as video:
        assert numbers(video) == [i for i in range(24) if i != 13]


# Orientation, size and colour


def test_every_display_matrix() -> None:
    image = numbered(3)
    for axes, shown in {
        (1, 0, 0, 1): image,
        (0, -1, 1, 0): np.rot90(image),
        (-1, 0, 0, -1): np.rot90(image, 2),
        (0, 1, -1, 0): np.rot90(image, 3),
        (-1, 0, 0, 1): image[:, ::-1],
        (1, 0, 0, -1): image[::-1],
        (0, 1, 1, 0): image.transpose(1, 0, 2),
        (0, -1, -1, 0): np.rot90(image, 2).transpose(1, 0, 2),
        (60000, 3000, -3000, 60000): image,  # at a slight angle
    }.items():
        np.testing.assert_array_equal(turned(image, axes), shown)


@pytest.mark.parametrize("container", ["mp4", "mov"])
@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_rotation_flags_are_applied(container: str, degrees: int) -> None:
    if not hasattr(av.VideoStream, "set_display_rotation"):
        pytest.skip("this PyAV cannot write a display matrix")
    with VideoFile(Clip(count=3, container=container, rotation=degrees).encoded()) as video:
        turns = degrees // 90
        assert (video.height, video.width) == ((HEIGHT, WIDTH) if turns == 2 else (WIDTH, HEIGHT))
        frame = video.read(2)
        assert frame.flags.c_contiguous
        assert number_in(np.rot90(frame, -turns)) == 2


@pytest.mark.parametrize(("height", "width"), [(17, 33), (64, 18), (1, 1), (3, 50)])
def test_odd_and_portrait_sizes(height: int, width: int) -> None:
    def draw(index: int) -> np.ndarray:
        return np.full((height, width, 3), (200, 60, 40 * index), np.uint8)

    clip = Clip(count=4, codec="ffv1", container="matroska", options={}, pixels="yuv444p", draw=draw)
    with VideoFile(clip.encoded()) as video:
        assert (video.height, video.width) == (height, width)
        for index in range(4):
            np.testing.assert_allclose(video.read(index), draw(index), atol=4)


# Damage


def damaged(video: bytes, start: float, length: int) -> bytes:
    at = int(len(video) * start)
    return video[:at] + bytes(length) + video[at + length :]


@pytest.mark.parametrize("container", ["mp4", "matroska", "mpegts", "flv", "h264"])
def test_truncated_files_keep_what_decodes(container: str) -> None:
    options = {"preset": "ultrafast", "bf": "0", "g": "10"}
    whole = Clip(count=40, options=options, muxer={"movflags": "faststart"}).encoded()
    data = whole if container == "mp4" else repacked(whole, container)
    with VideoFile(data[: int(len(data) * 0.6)]) as video:
        shown = numbers(video)
        assert 15 < len(shown) < 30
        # What is left of the last picture may show anything.
        assert shown[:-1] == list(range(len(shown) - 1))


@pytest.mark.parametrize("container", ["mp4", "mpegts"])
@pytest.mark.parametrize("share", [0.5, 0.55, 0.6, 0.65, 0.7])
def test_every_frame_counted_in_a_truncated_file_can_be_read(container: str, share: float) -> None:
    whole = Clip(count=40, muxer={"movflags": "faststart"}).encoded()
    data = whole if container == "mp4" else repacked(whole, container)
    data = data[: int(len(data) * share)]
    decoded = 0
    with av.open(io.BytesIO(data), "r") as opened:
        for packet in opened.demux(video=0):
            with contextlib.suppress(av.FFmpegError):
                decoded += len(packet.decode())
    with VideoFile(data) as video:
        assert len(numbers(video)) == decoded


@pytest.mark.usefixtures("forgetful")
def test_damage_in_the_middle_costs_no_more_than_what_it_hit() -> None:
    data = damaged(Clip(count=40, muxer={"movflags": "faststart"}).encoded(), 0.5, 3000)
    with VideoFile(data) as video:
        assert video.num_frames == 40
        lost = []
        for index in range(40):
            try:
                video.read(index)
            except ValueError as error:
                assert f"frame {index} cannot be decoded: the file is damaged there" in str(error)
                lost.append(index)
        assert 0 < len(lost) < 10
        assert numbers(video, [0, 5, 38, 39]) == [0, 5, 38, 39]


def test_an_end_of_zeros_is_an_error_when_it_is_read() -> None:
    whole = Clip(count=40, muxer={"movflags": "faststart"}).encoded()
    with VideoFile(damaged(whole, 0.6, len(whole) - int(len(whole) * 0.6))) as video:
        assert numbers(video, range(15)) == list(range(15))
        with pytest.raises(ValueError, match="frame 39 cannot be decoded"):
            video.read(39)


def test_a_recording_that_starts_in_the_middle() -> None:
    data = repacked(Clip(count=40).encoded(), "mpegts")
    with VideoFile(data[len(data) // 188 // 3 * 188 :]) as video:
        shown = numbers(video)
        assert len(shown) >= 20
        assert shown == list(range(40 - len(shown), 40))


def test_indices_paths_and_closing(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(Clip().encoded())
    with VideoFile(path) as video:
        assert video.name == str(path)
        for index in (-1, 24):
            with pytest.raises(IndexError, match=f"frame {index}"):
                video.read(index)
    with pytest.raises(RuntimeError, match="frame 0 was requested after the video was closed"):
        video.read(0)
    video.close()
    with pytest.raises(FileNotFoundError, match="folder"):
        VideoFile(tmp_path / "folder")


# Work and memory


def test_opening_decodes_only_the_first_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[int | None] = []
    original = Decoder.next_frame

    def next_frame(self: Decoder) -> int | None:
        decoded.append(original(self))
        return decoded[-1]

    monkeypatch.setattr(Decoder, "next_frame", next_frame)
    with VideoFile(Clip(count=200).encoded()) as video:
        assert video.num_frames == 200
        assert len(decoded) < 12


def test_reading_in_order_never_seeks(restarts: list[int]) -> None:
    with VideoFile(Clip(count=100).encoded()) as video:
        restarts.clear()
        assert numbers(video) == list(range(100))
        assert restarts == []


def test_reading_backwards_seeks_once_for_many_frames(restarts: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video_decoder, "_RECENT_FRAMES", 20)
    with VideoFile(Clip(count=100, options={"preset": "ultrafast", "g": "1000"}).encoded()) as video:
        restarts.clear()
        assert numbers(video, range(99, -1, -1)) == list(range(99, -1, -1))
        assert len(restarts) == 4  # and the first twenty by decoding on from frame 0


@pytest.mark.usefixtures("forgetful")
def test_two_readers_do_not_send_each_other_back(restarts: list[int]) -> None:
    with VideoFile(Clip(count=100).encoded()) as video:
        restarts.clear()
        order = [start + i for i in range(50) for start in (0, 50)]
        assert numbers(video, order) == order
        assert len(restarts) == 1


def test_frames_kept_are_bounded_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video_decoder, "_RECENT_BYTES", 100_000)
    with VideoFile(Clip(count=100).encoded()) as video:
        numbers(video)
        recent = [video._decoders[0].recent(i) for i in range(100)]
        kept = [frame for frame in recent if frame is not None]
        frame_bytes = sum(plane.buffer_size for plane in kept[0].planes)
        assert len(kept) == 100_000 // frame_bytes
        assert recent[-len(kept) :] == kept


@pytest.mark.usefixtures("forgetful")
def test_threads_may_read_at_once() -> None:
    with VideoFile(Clip(count=60).encoded()) as video, ThreadPoolExecutor(4) as pool:

        def reads_right(seed: int) -> bool:
            indices = random.Random(seed).choices(range(60), k=30)
            return numbers(video, indices) == indices

        assert list(pool.map(reads_right, range(4))) == [True] * 4


def test_messages_of_decoders_do_not_wait_for_the_interpreter(tmp_path: Path) -> None:
    # As importing torchvision 0.21 does. A decoder that was freed just then hung for ever, with all of the process.
    av.logging.set_level(av.logging.ERROR)
    with VideoFile(Clip().encoded()):
        assert av.logging.get_level() is None
    av.logging.set_level(av.logging.ERROR)
    with VideoWriter(tmp_path / "a.mp4", 5) as writer:
        writer.write(np.zeros((16, 16, 3), np.uint8))
        assert av.logging.get_level() is None
