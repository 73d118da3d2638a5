"""Cut-out videos, the table of objects, and overlays of videos whose frames come unevenly."""

from __future__ import annotations

import csv
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from export_support import HEIGHT, WIDTH, Array, Score, decode
from support import options_of_tiny_track, render_video

from i2v.cli.main import main
from i2v.results.export import ResultFolder
from i2v.results.frame_names import FrameNames, uneven_times
from i2v.results.matte import GREEN, MATTE_NAMES, MATTES, compose_matte, matte_of, matte_writer
from i2v.results.overlay import VideoWriter
from i2v.video.sources import open_source

RED = (255, 0, 20)


def picture() -> Array:
    """Red on the left half, white noise on the right."""
    pixels = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3)).astype(np.uint8)
    pixels[:, : WIDTH // 2] = RED
    return pixels


def left_half(obj_id: int = 1) -> Array:
    labels = np.zeros((HEIGHT, WIDTH), np.uint8)
    labels[:, : WIDTH // 2] = obj_id
    return labels


def decode_rgba(path: Path) -> list[Array]:
    """Frames with alpha; FFmpeg's own decoder of VP9 would drop it."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        if path.suffix == ".mov":
            return [frame.to_ndarray(format="rgba") for frame in container.decode(stream)]
        decoder = av.CodecContext.create("libvpx-vp9", "r")
        packets = [*container.demux(stream)]
        return [frame.to_ndarray(format="rgba") for packet in packets for frame in decoder.decode(packet)]


@pytest.mark.parametrize("kind", MATTES)
def test_a_matte_shows_the_object_alone(tmp_path: Path, kind: Any) -> None:
    with matte_writer(kind, tmp_path, 25.0) as writer:
        for _ in range(3):
            writer.write(compose_matte(kind, picture(), left_half()))
    path = tmp_path / MATTE_NAMES[kind]
    frames = decode_rgba(path) if kind in ("alpha", "prores") else decode(path)
    assert len(frames) == 3
    inside, outside = frames[1][:, : WIDTH // 2 - 6], frames[1][:, WIDTH // 2 + 6 :]
    np.testing.assert_allclose(inside[..., :3].mean((0, 1)), RED, atol=8)
    if kind in ("alpha", "prores"):
        assert inside[..., 3].min() > 250 and outside[..., 3].max() < 5
        assert outside[..., :3].mean() < 16, "nothing of the background is left"
    elif kind == "green":
        np.testing.assert_allclose(outside.mean((0, 1)), GREEN, atol=8)
    else:
        assert outside[:, 8:].std() < 0.5 * picture()[:, WIDTH // 2 :].std()


def test_edges_of_a_matte_are_soft_and_stay_in_place() -> None:
    opacity = matte_of(left_half(7)).astype(int)
    edge = opacity[HEIGHT // 2]
    assert (np.diff(edge) <= 0).all() and edge[0] == 255 and edge[-1] == 0
    assert edge[WIDTH // 2 - 1] > 127 > edge[WIDTH // 2]


@pytest.mark.parametrize("kind", MATTES)
def test_odd_sides_are_padded(tmp_path: Path, kind: Any) -> None:
    with matte_writer(kind, tmp_path, None) as writer:
        writer.write(compose_matte(kind, picture()[:-1, :-1], left_half()[:-1, :-1]))
    with av.open(str(tmp_path / MATTE_NAMES[kind])) as container:
        stream = container.streams.video[0]
        assert (stream.width, stream.height) == (WIDTH, HEIGHT) and stream.average_rate == 24


class Video:
    """Frames at uneven times, as of a phone."""

    name = "clip.mp4"
    frame_rate = 10.0
    times = (0.0, 0.1, 0.2, 0.7, 0.8, 1.4)

    @property
    def num_frames(self) -> int:
        return len(self.times)

    def read(self, frame: int) -> Array:
        del frame
        return picture()

    def frame_name(self, frame: int, /) -> None:
        del frame

    def frame_time(self, frame: int, /) -> float:
        return self.times[frame]


def times_of(path: Path) -> list[float]:
    with av.open(str(path)) as container:
        return [float(frame.pts * frame.time_base) for frame in container.decode(video=0)]


@pytest.mark.parametrize("is_forward", [True, False])
def test_videos_keep_uneven_times(tmp_path: Path, is_forward: bool) -> None:
    video = Video()
    mattes = ("alpha", "prores", "green")
    results = ResultFolder(tmp_path / "out", [1], False, video if is_forward else None, FrameNames(video), mattes)
    frames = [2, 3, 4, 5] if is_forward else [5, 4, 3, 2]
    logits = torch.from_numpy(left_half().astype(np.float32) - 0.5)[None, None]
    for frame in frames:
        results.add(frame, [1], logits, {1: Score(1.0, 0.5)})
    results.finish(video, [])
    assert results.lacks() == []
    expected = [time - 0.2 for time in video.times[2:]]
    for name in ("overlay.mp4", *(MATTE_NAMES[kind] for kind in mattes)):
        assert times_of(results.folder / name) == pytest.approx(expected, abs=0.002), name


def test_even_times_come_at_the_frame_rate() -> None:
    even = Video()
    even.times = tuple(round(k / 10 + 0.004 * (k % 2), 3) for k in range(6))  # rounded by their container
    assert [uneven_times(even)(frame) for frame in range(6)] == [None] * 6
    assert uneven_times(Video())(3) == 0.7
    assert uneven_times(None)(0) is None


def test_times_are_given_for_all_frames_or_none(tmp_path: Path) -> None:
    with (
        pytest.raises(ValueError, match="frame 1: expected a time for all frames or for none"),
        VideoWriter(tmp_path / "a.mp4") as writer,
    ):
        writer.write(picture(), 0.5)
        writer.write(picture())
    assert len(decode(tmp_path / "a.mp4")) == 1


def test_the_table_says_where_each_object_is(tmp_path: Path) -> None:
    results = ResultFolder(tmp_path, [7, 300], names=FrameNames(Video()))
    nothing = torch.full((1, HEIGHT, WIDTH), -1.0)
    shown = torch.from_numpy(left_half().astype(np.float32) - 0.5)[None]
    results.add(4, [7, 300], torch.stack((shown, nothing)), {7: Score(2.5, float("nan"))})
    results.add(3, [7, 300], torch.stack((nothing, shown)), {7: Score(-2.5, 0.25), 300: Score(1.0, 0.5)})
    results.finish(Video(), [])
    with (tmp_path / "objects.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    box = {"x": "0", "y": "0", "width": "32", "height": "48", "area": str(32 * 48)}
    absent = {"x": "", "y": "", "width": "", "height": "", "area": "0"}
    assert rows == [
        {"object": "7", "frame": "3", "time": "0.7", **absent, "object_score": "-2.5", "iou": "0.25"},
        {"object": "300", "frame": "3", "time": "0.7", **box, "object_score": "1.0", "iou": "0.5"},
        {"object": "7", "frame": "4", "time": "0.8", **box, "object_score": "2.5", "iou": ""},
        {"object": "300", "frame": "4", "time": "0.8", **absent, "object_score": "", "iou": ""},
    ]


def write_uneven_video(path: Path, times: list[float]) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.codec_context.time_base = Fraction(1, 1000)
        frames = render_video(len(times))
        stream.height, stream.width, stream.pix_fmt = frames.shape[1], frames.shape[2], "yuv420p"
        for frame, time in zip(frames, times, strict=True):
            image = av.VideoFrame.from_ndarray(frame, format="rgb24")
            image.pts = round(time * 1000)
            container.mux(stream.encode(image))
        container.mux(stream.encode(None))


def test_the_command_writes_mattes_beside_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    times = [0.0, 0.1, 0.2, 1.2, 1.3]
    write_uneven_video(Path("clip.mp4"), times)
    options = [*options_of_tiny_track(tmp_path), "--matte", "alpha", "--matte", "blur", "--matte", "alpha"]
    assert main(["track", "clip.mp4", *options]) == 0
    printed = capsys.readouterr().out
    out = Path("clip_i2v")
    names = ["contact_sheet.png", "masks", "masks.json", "matte_alpha.webm", "matte_blur.mp4", "objects.csv"]
    assert sorted(path.name for path in out.iterdir()) == [*names, "overlay.mp4"]
    assert "clip_i2v/matte_alpha.webm" in printed and "clip_i2v/objects.csv" in printed
    with open_source("clip.mp4") as source:
        known = [source.frame_time(frame) for frame in range(5)]
    for name in ("overlay.mp4", "matte_alpha.webm", "matte_blur.mp4"):
        assert times_of(out / name) == pytest.approx(known, abs=0.002)
    with (out / "objects.csv").open(newline="") as file:
        assert [float(row["time"]) for row in csv.DictReader(file)] == pytest.approx(times, abs=0.002)
    assert main(["track", "clip.mp4", *options[:-6], "--overwrite"]) == 0
    assert sorted(path.name for path in out.iterdir()) == [*names[:3], "objects.csv", "overlay.mp4"]
    assert main(["track", "clip.mp4", *options[:-6], "--matte", "pink"]) == 2
    assert "argument --matte: invalid choice: 'pink'" in capsys.readouterr().err
