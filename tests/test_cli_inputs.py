"""What the command line takes for a video, and how it tells of what it cannot take: a sentence, never a traceback."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import av.error
import numpy as np
import pytest
import torch
from export_support import FakePredictor
from PIL import Image
from support import options_of_tiny_track, render_video
from test_video_file import Clip

from i2v.cli import main as cli
from i2v.cli.main import main
from i2v.errors import USER_ERRORS
from i2v.results.export import read_label_png
from i2v.utils.output_folder import default_output_folder
from i2v.video.standard_input import RawFormat

VIDEO = render_video(4)


@pytest.fixture
def options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Of `i2v track` with a tiny model, in a working directory of its own."""
    monkeypatch.chdir(tmp_path)
    return options_of_tiny_track(tmp_path)


def concatenated(form: str) -> bytes:
    """The pictures one after another, as `cat` writes them."""
    stream = io.BytesIO()
    for picture in VIDEO:
        file = io.BytesIO()
        Image.fromarray(picture).save(file, form, quality=95)
        stream.write(file.getvalue())
    return stream.getvalue()


def feed(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))


def tracked(out: str) -> list[np.ndarray]:
    return [read_label_png(path) for path in sorted(Path(out, "masks").iterdir())]


@pytest.mark.parametrize(
    ("data", "raw"),
    [
        (concatenated("JPEG"), []),
        (concatenated("PNG"), []),
        (VIDEO.tobytes(), ["--raw", "64x48"]),
        (Clip(4).encoded(), []),
    ],
)
def test_a_video_comes_from_standard_input(
    options: list[str], monkeypatch: pytest.MonkeyPatch, data: bytes, raw: list[str]
) -> None:
    feed(monkeypatch, data)
    assert main(["track", "-", *raw, *options]) == 0
    assert len(tracked("stdin_i2v")) == 4
    assert json.loads(Path("stdin_i2v/masks.json").read_text())["video"] in ("standard input", "array")
    if raw:
        np.save("video.npy", VIDEO)
        Path("frames").mkdir()
        for number, picture in enumerate(VIDEO):
            Image.fromarray(picture).save(f"frames/{number}.png")
        assert main(["track", "frames", *options]) == 0
        for own, other in zip(tracked("stdin_i2v"), tracked("frames_i2v"), strict=True):
            np.testing.assert_array_equal(own, other)


def test_standard_input_that_is_no_video(options: list[str], monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    for data, more, message in (
        (b"", [], "standard input is empty"),
        (b"no video\n" * 9, [], "standard input: this is no video"),
        (VIDEO.tobytes()[:-1], ["--raw", "64x48"], "standard input: 36,863 bytes are no whole number of raw frames"),
    ):
        feed(monkeypatch, data)
        assert main(["track", "-", *more, *options]) == 1
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1
    assert main(["track", "clip.mp4", "--raw", "64x48", *options]) == 2
    assert "--raw is about frames on standard input" in capsys.readouterr().err
    assert not Path("stdin_i2v").exists()


@pytest.mark.parametrize("text", ["", "64", "64x", "0x48", "64x48x3", "-1x4", "99999x99999", "٤x٤"])
def test_sizes_of_raw_frames(text: str) -> None:
    with pytest.raises(ValueError):
        RawFormat.parse(text)
    assert RawFormat.parse("640x480") == RawFormat(640, 480)


def test_a_pipe_feeds_the_command(options: list[str]) -> None:
    command = [sys.executable, "-m", "i2v", "track", "-", "--direction", "both", *options]
    done = subprocess.run(command, input=concatenated("JPEG"), capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    assert len(tracked("stdin_i2v")) == 4


def test_patterns_name_their_results_after_their_folder(options: list[str]) -> None:
    Path("my frames").mkdir()
    for number, picture in enumerate(VIDEO):
        Image.fromarray(picture).save(f"my frames/{number}.jpg")
        Image.fromarray(picture).save(f"my frames/{number}.png")
    assert main(["track", "my frames/*.jpg", *options]) == 0
    assert [path.name for path in sorted(Path("my frames_i2v/masks").iterdir())] == [f"{n}.png" for n in range(4)]
    assert default_output_folder(Path("my frames/%d.png")) == Path("my frames_i2v")
    assert default_output_folder(Path("my frames/**/*.png")) == Path("my frames_i2v")
    assert default_output_folder(Path("gone.mp4")) == Path("gone_i2v")


def test_a_colon_in_a_name_is_no_protocol(options: list[str]) -> None:
    Path("12:30").mkdir()
    for name in ("12:30.mp4", "2024-08-01T12:30:05.mp4", "12:30/http:x.mp4", "concat:a|b.mp4"):
        Path(name).write_bytes(Clip(count=3).encoded())
        out = f"{name}:out"
        assert main(["track", name, *options, "--out", out]) == 0
        assert {path.name for path in Path(out).iterdir()} == {
            "masks",
            "masks.json",
            "overlay.mp4",
            "contact_sheet.png",
            "objects.csv",
        }
        assert len(tracked(out)) == 3


ERRORS: list[Exception] = [
    av.error.UnknownError(1, "it broke"),
    av.error.EOFError(1, "it broke"),
    av.error.DecoderNotFoundError(1, "it broke"),
    av.error.EncoderNotFoundError(1, "it broke"),
    av.error.InvalidDataError(1, "it broke"),
    av.error.HTTPNotFoundError(1, "it broke"),
    Image.DecompressionBombError("it broke"),
    torch.OutOfMemoryError("it broke"),
    MemoryError("it broke"),
    OSError(5, "it broke"),
    OverflowError("it broke"),
    EOFError("it broke"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_errors_of_decoders_and_of_the_system_are_sentences(
    options: list[str], monkeypatch: pytest.MonkeyPatch, capsys: Any, error: Exception
) -> None:
    assert isinstance(error, USER_ERRORS)
    Path("clip.mp4").write_bytes(Clip(count=3).encoded())

    class Failing(FakePredictor):
        def init_state(self, video: Any) -> Any:
            raise error

    monkeypatch.setattr(cli, "build_i2v_video_predictor", Failing().build)
    assert main(["track", "clip.mp4", *options]) == 1
    told = capsys.readouterr().err
    assert told.startswith("i2v: error: ") and "it broke" in told and told.count("\n") == 1


def test_the_list_of_errors_has_all_of_ffmpeg() -> None:
    kinds = [kind for kind in vars(av.error).values() if isinstance(kind, type) and issubclass(kind, av.FFmpegError)]
    assert len(kinds) > 20
    assert all(issubclass(kind, USER_ERRORS) for kind in kinds)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["clip.mp4", "--mask", "none.png"], "No such file or directory: 'none.png'"),
        (["clip.mp4", "--mask", "clip.mp4"], "mask clip.mp4: this image cannot be read"),
        (["clip.mp4", "--object", "7", "--mask", "labels.png"], "a label map without label 7: it has 1, 2"),
        (["clip.mp4", "--frame", "3", "--click", "1,1"], "object 1, frame 3: the video has 3 frames, 0 to 2"),
        (["clip.mp4", "--click", "99,1"], "point (99, 1) is off the frame"),
        (["labels.png", "--click", "1,1"], "labels.png: this is no video"),
        (["clip.mp4", "--click", "1,1", "--out", "labels.png/out"], "labels.png is a file"),
        (["clip.mp4", "--click", "1,1", "--out", "shut/out"], "there is no permission to write in"),
    ],
)
def test_what_is_wrong_is_told_before_the_model_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("clip.mp4").write_bytes(Clip(count=3).encoded())
    labels = Image.fromarray(np.kron(np.arange(8).reshape(2, 4) % 3, np.ones((16, 16))).astype(np.uint8))
    labels.save("labels.png")
    Path("shut").mkdir()
    # Nothing is forbidden to the user under whom tests often run.
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).name != "shut")

    def build(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("the model was loaded")

    monkeypatch.setattr(cli, "build_i2v_video_predictor", build)
    assert main(["track", *arguments]) == 1
    told = capsys.readouterr().err
    assert told.startswith("i2v: error: ") and message in told and told.count("\n") == 1


def bomb(path: str, sizes: list[tuple[int, int]]) -> None:
    first, *others = [Image.new("1", size) for size in sizes]
    first.save(path, save_all=True, append_images=others, compression="group4")


def test_what_a_user_can_get_wrong_is_one_sentence(options: list[str], capsys: Any) -> None:
    Path("clip.mp4").write_bytes(Clip(count=3).encoded())
    bomb("bomb.tif", [(20000, 20000)])
    bomb("pages.tif", [(64, 48), (20000, 20000)])
    Path("frames").mkdir()
    os.link("bomb.tif", "frames/0.tif")
    Image.new("L", (64, 48)).save("0.png")
    os.mkfifo("pipe.mp4")
    for arguments, message in (
        (["clip.mp4", "--object", "9" * 30, "--mask", "0.png"], "mask 0.png"),
        (["clip.mp4", "--frame", "9" * 30, "--click", "1,1"], "the video has 3 frames"),
        (["clip.mp4", "--max-frames", "9" * 30], ""),
        (["a\0b.mp4"], "null"),
        (["x" * 5000], "File name too long"),
        (["pipe.mp4"], "pipe.mp4"),
        (["bomb.tif"], "bomb.tif"),
        (["frames"], "frames/0.tif"),
        (["pages.tif"], "a picture of 20000x20000 pixels"),
        (["clip.mp4", "--mask", "bomb.tif"], "bomb.tif"),
        (["clip.mp4", "--set", "predictor.seed=1.5"], "seed: expected a whole number"),
        (["clip.mp4", "--set", "predictor.seed=abc"], "seed"),
        (["clip.mp4", "--set", "predictor.frames_at_once=abc"], "node 'predictor'"),
        (["*.bmp"], "no file matches"),
    ):
        marked = "--click" in arguments or "--mask" in arguments
        status = main(["track", *arguments, *(options[:-2] if marked else options)])
        told = capsys.readouterr().err
        assert "Traceback" not in told
        if message:
            assert status == 1, arguments
            assert told.splitlines()[-1].startswith("i2v: error: ")
            assert message in told.splitlines()[-1]
