"""The i2v command with a stand-in predictor: parsing, results, errors and interrupts."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from disk_support import small_disk
from export_support import (
    HEIGHT,
    NUM_FRAMES,
    WIDTH,
    Array,
    FakePredictor,
    Source,
    check_results,
    decode,
    labels_of,
    picture_of,
    write_clip,
)
from PIL import Image

from i2v.cli import main as cli
from i2v.cli.main import main
from i2v.demo import render_demo_clip
from i2v.pretrained import nano_checkpoint
from i2v.results.export import read_label_png
from i2v.results.overlay import PALETTE

ROOT = Path(__file__).parents[1]


@pytest.fixture
def clip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return write_clip(tmp_path / "clip")


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakePredictor:
    predictor = FakePredictor()
    monkeypatch.setattr(cli, "build_i2v_video_predictor", predictor.build)
    monkeypatch.setattr(cli, "open_source", Source)
    return predictor


def test_track_writes_results_that_agree(clip: Path, fake: FakePredictor, capsys: Any) -> None:
    assert main(["track", "clip", "--click", "10,20", "--object", "2", "--box", "30,20,50,40"]) == 0
    check_results(Path("clip_i2v"), list(range(NUM_FRAMES)), (1, 2))
    output = capsys.readouterr()
    assert re.search(r"^10 frames in [\d.]+ s \([\d.]+ frames/s\)$", output.out, re.MULTILINE)
    assert "clip_i2v/overlay.mp4" in output.out
    assert output.err.count("using i2v-nano") == 1
    assert "frames/s" in output.err
    assert fake.state is not None
    assert fake.state.closed
    with av.open("clip_i2v/overlay.mp4") as container:
        assert container.streams.video[0].average_rate == 12.5


def test_prompts_apply_in_order_and_join_by_object_and_frame(clip: Path, fake: FakePredictor) -> None:
    options = "--click 10,20 --click 11.5,21,0 --object 2 --box 1,2,30,4 --frame 3 --click 5,6 --object 1"
    assert main(["track", "clip", *options.split(), "--click", "7,8,1", "--box", "0,0,64,48"]) == 0
    assert fake.prompts == [
        (1, 0, [[10, 20], [11.5, 21]], [1, 0], None),
        (2, 0, None, None, [1, 2, 30, 4]),
        (2, 3, [[5, 6]], [1], None),
        (1, 3, [[7, 8]], [1], [0, 0, 64, 48]),
    ]


def test_options_reach_the_builder(clip: Path, fake: FakePredictor, capsys: Any) -> None:
    options = "--config other --checkpoint w.pt --device cpu --set a.b=1 --set c=2 --out r --click 3,3"
    assert main(["track", "clip", *options.split()]) == 0
    assert fake.built_with == {
        "config": "other",
        "ckpt_path": "w.pt",
        "device": "cpu",
        "hydra_overrides_extra": ["a.b=1", "c=2"],
        "trust_config": False,
        "random_weights": False,
    }
    assert "untrained" not in capsys.readouterr().err
    assert Path("r/masks.json").exists()


@pytest.mark.parametrize(
    ("options", "visited", "written"),
    [
        ("--frame 4 --click 30,20", [4, 5, 6, 7, 8, 9], [4, 5, 6, 7, 8, 9]),
        ("--frame 4 --click 30,20 --max-frames 2", [4, 5], [4, 5]),
        ("--frame 4 --click 30,20 --direction backward", [4, 3, 2, 1, 0], [0, 1, 2, 3, 4]),
        (
            "--frame 2 --click 20,20 --frame 4 --click 30,20 --direction backward --max-frames 3",
            [4, 3, 2],
            [2, 3, 4],
        ),
        (
            "--frame 3 --click 30,20 --direction both --max-frames 3",
            [3, 4, 5, 3, 2, 1],
            [1, 2, 3, 4, 5],
        ),
        (
            "--frame 8 --click 40,20 --frame 7 --click 40,20 --direction both",
            [7, 8, 9, 7, 6, 5, 4, 3, 2, 1, 0],
            list(range(10)),
        ),
    ],
)
def test_directions_and_limits_leave_the_video_in_order(
    clip: Path, fake: FakePredictor, options: str, visited: list[int], written: list[int]
) -> None:
    assert main(["track", "clip", *options.split()]) == 0
    assert fake.visited == visited
    check_results(Path("clip_i2v"), written, (1,))


def save_mask(path: str, values: Array, mode: str) -> None:
    image = Image.fromarray(values)
    if mode == "P":
        image.putpalette(PALETTE.tobytes())
    else:
        image = image.convert(mode)
    image.save(path)


@pytest.mark.parametrize(
    ("mode", "obj_id", "expected"),
    [("P", 2, (2,)), ("L", 2, (2,)), ("RGB", 1, (1,)), ("RGBA", 1, (1,))],
)
def test_mask_prompts(clip: Path, fake: FakePredictor, mode: str, obj_id: int, expected: tuple[int, ...]) -> None:
    labels = labels_of(2)
    save_mask("mask.png", labels, mode)
    assert main(["track", "clip", "--object", str(obj_id), "--frame", "2", "--mask", "mask.png"]) == 0
    ((given_id, frame, mask),) = fake.prompts
    assert (given_id, frame, mask.dtype) == (obj_id, 2, bool)
    np.testing.assert_array_equal(mask, np.isin(labels, expected))


def test_wrong_masks_are_refused(clip: Path, fake: FakePredictor, capsys: Any) -> None:
    save_mask("small.png", np.ones((20, 30), np.uint8), "L")
    save_mask("empty.png", np.zeros((HEIGHT, WIDTH), np.uint8), "L")
    save_mask("labels.png", labels_of(2), "P")
    for options, message in (
        ("--object 7 --mask labels.png", "mask labels.png: the picture is a label map without label 7: it has 1, 2"),
        ("--mask small.png", "object 1, frame 0, mask small.png: the image is 30x20, expected 64x48"),
        ("--mask empty.png", "mask empty.png: every pixel is zero"),
        ("--mask none.png", "No such file or directory: 'none.png'"),
        ("--mask clip", "clip: this is a folder, expected a file"),
    ):
        assert main(["track", "clip", *options.split()]) == 1
        assert message in capsys.readouterr().err
    assert not Path("clip_i2v").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("track clip", "nothing to track"),
        ("track clip --click 10", "argument --click: expected X,Y or X,Y,0 in pixels"),
        ("track clip --click 10,x", "argument --click: expected X,Y or X,Y,0 in pixels"),
        ("track clip --click 10,nan", "argument --click: expected X,Y or X,Y,0 in pixels"),
        ("track clip --click 1,2,3", "argument --click: expected X,Y or X,Y,0 in pixels"),
        ("track clip --box 10,20,5,30", "argument --box: expected X0,Y0,X1,Y1"),
        ("track clip --box 1,2,3", "argument --box: expected X0,Y0,X1,Y1"),
        ("track clip --object a --click 1,2", "argument --object: expected a whole number, got 'a'"),
        ("track clip --frame -1 --click 1,2", "argument --frame: expected a whole number from 0 up, got '-1'"),
        ("track clip --click 1,2 --max-frames 0", "argument --max-frames: expected a whole number from 1 up, got '0'"),
        ("track clip --click 1,2 --object 2", "--object 2 applies to the prompts that follow, but there are none"),
        ("track clip --mask a.png --click 1,2", "object 1, frame 0: a --mask cannot be combined with other prompts"),
        ("track clip --click 1,2 --mask a.png", "object 1, frame 0: a --mask cannot be combined with other prompts"),
        ("track clip --box 1,2,3,4 --box 1,2,3,5", "object 1, frame 0: expected at most one --box, got a second one"),
        ("track clip --click 1,2 --direction up", "argument --direction: invalid choice: 'up'"),
        ("track", "the following arguments are required: VIDEO"),
        ("fly", "invalid choice: 'fly'"),
        ("", "the following arguments are required: COMMAND"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_2(options: str, message: str, capsys: Any) -> None:
    assert main(options.split()) == 2
    error = capsys.readouterr().err
    assert error.startswith("i2v: error: ")
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("none.mp4 --click 1,2", "none.mp4: no such video file or folder of frames"),
        ("clip --click 64.5,2", "object 1, frame 0: point (64.5, 2) is off the frame, which is 64 x 48"),
        (
            "clip --object 4 --frame 2 --click=3,-0.5",
            "object 4, frame 2: point (3, -0.5) is off the frame, which is 64 x 48",
        ),
        ("clip --box 65,2,80,40", "object 1, frame 0: box (65, 2) to (80, 40) is off the frame, which is 64 x 48"),
        ("clip --frame 10 --click 1,2", "object 1, frame 10: the video has 10 frames, 0 to 9"),
        ("clip --click 1,2 --direction backward", "all prompts are on frame 0"),
        ("clip --click 1,2 --out full", "full is not empty: give --overwrite"),
        ("clip --click 1,2 --out clip/000.png", "clip/000.png is a file"),
        ("clip --click 1,2 --out clip --overwrite", "clip is in the output folder, clip"),
        ("clip --click 1,2 --out . --overwrite", "clip is in the output folder, ."),
    ],
)
def test_mistakes_are_one_line_and_exit_1(
    clip: Path, fake: FakePredictor, capsys: Any, options: str, message: str
) -> None:
    Path("full").mkdir()
    Path("full/notes.txt").write_text("mine")
    assert main(["track", *options.split()]) == 1
    (error,) = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert error.startswith("i2v: error: ")
    assert message in error
    assert not Path("clip_i2v").exists()
    assert fake.visited == []


def test_too_many_objects_are_refused_before_the_model_is_built(clip: Path, fake: FakePredictor, capsys: Any) -> None:
    options = [word for k in range(256) for word in ("--object", str(k), "--click", "1,2")]
    assert main(["track", "clip", *options]) == 1
    assert "at most 255 objects, got 256" in capsys.readouterr().err
    assert fake.built_with == {}


def test_a_full_folder_is_refused_before_the_model_is_built_and_overwritten_on_demand(
    clip: Path, fake: FakePredictor
) -> None:
    (Path("clip_i2v") / "masks").mkdir(parents=True)
    Path("clip_i2v/masks/00077.png").write_text("old")
    assert main(["track", "clip", "--click", "1,20"]) == 1
    assert fake.built_with == {}
    assert main(["track", "clip", "--click", "1,20", "--overwrite"]) == 0
    check_results(Path("clip_i2v"), list(range(NUM_FRAMES)), (1,))


def test_a_failure_half_way_keeps_the_finished_frames(clip: Path, fake: FakePredictor, capsys: Any) -> None:
    fake.fails_at = 6
    assert main(["track", "clip", "--click", "1,20"]) == 1
    check_results(Path("clip_i2v"), list(range(6)), (1,))
    error = capsys.readouterr().err
    assert "i2v: stopped: 6 finished frames are kept in clip_i2v\n" in error
    assert error.endswith("i2v: error: frame 6: cannot be read\n")
    assert "Traceback" not in error
    assert main(["track", "clip", "--click", "1,20", "--overwrite", "-v"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_a_failure_on_the_first_frame_writes_nothing(clip: Path, fake: FakePredictor, capsys: Any) -> None:
    fake.fails_at = 0
    assert main(["track", "clip", "--click", "1,20"]) == 1
    assert "no frame was finished" in capsys.readouterr().err
    assert not Path("clip_i2v").exists()


# Run in processes of their own: these get signals and limits.
COMMAND = """
import resource, sys
sys.path.insert(0, sys.argv.pop(1))
import export_support
from i2v.cli import main as cli
hangs_after, limit = int(sys.argv.pop(1)), int(sys.argv.pop(1))
cli.build_i2v_video_predictor = export_support.FakePredictor(hangs_after=hangs_after).build
cli.open_source = export_support.Source
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
sys.exit(cli.main(sys.argv[1:]))
"""


def start(folder: Path, *arguments: str, hangs_after: int = -1, limit: int = -1) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", COMMAND, str(Path(__file__).parent), str(hangs_after), str(limit)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([*command, *arguments], cwd=folder, env=environment, stderr=subprocess.PIPE, text=True)


def wait_for(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("direction", "numbers"),
    [
        ("forward", [signal.SIGINT]),
        ("backward", [signal.SIGINT]),
        ("forward", [signal.SIGTERM]),
        ("backward", [signal.SIGHUP]),
        ("forward", [signal.SIGTERM, signal.SIGTERM]),  # as `timeout` does
    ],
)
def test_an_interrupt_leaves_whole_files_of_the_finished_frames(
    clip: Path, direction: str, numbers: list[signal.Signals]
) -> None:
    frame = {"forward": "0", "backward": "9"}[direction]
    options = ["track", "clip", "--frame", frame, "--click", "1,20", "--direction", direction]
    process = start(clip.parent, *options, hangs_after=4)
    masks = clip.parent / "clip_i2v" / "masks"
    wait_for(lambda: masks.exists() and len(list(masks.glob("[0-9]*.png"))) == 4)
    for number in numbers:
        process.send_signal(number)
        time.sleep(0.002)  # else the system makes one of two
    _, error = process.communicate(timeout=60)
    assert process.returncode == 128 + numbers[0]
    assert "i2v: stopped: 4 finished frames are kept in clip_i2v\n" in error
    by = "" if numbers[0] == signal.SIGINT else f" by {numbers[0].name}"
    assert error.endswith(f"i2v: interrupted{by}\n")
    assert "Traceback" not in error
    check_results(masks.parent, {"forward": [0, 1, 2, 3], "backward": [6, 7, 8, 9]}[direction], (1,))
    assert not list(masks.parent.rglob(".*"))


def test_a_run_that_outlives_its_terminal_goes_on_under_nohup(clip: Path) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # which a started process inherits
    try:
        process = start(clip.parent, "track", "clip", "--click", "1,20", hangs_after=4)
    finally:
        signal.signal(signal.SIGHUP, before)
    masks = clip.parent / "clip_i2v" / "masks"
    wait_for(lambda: masks.exists() and len(list(masks.glob("[0-9]*.png"))) == 4)
    process.send_signal(signal.SIGHUP)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.5)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 143


def test_a_run_after_one_that_was_killed_leaves_nothing_of_it(clip: Path) -> None:
    process = start(clip.parent, "track", "clip", "--click", "1,20", hangs_after=4)
    out = clip.parent / "clip_i2v"
    wait_for(lambda: (out / "masks").exists() and len(list((out / "masks").glob("[0-9]*.png"))) == 4)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    assert len(list(out.glob(".masks.json.*"))) == 1
    (out / ".masks.json.1234.tmp").write_text("the user's")
    again = start(clip.parent, "track", "clip", "--click", "1,20", "--overwrite")
    again.communicate(timeout=60)
    assert again.returncode == 0
    check_results(out, list(range(NUM_FRAMES)), (1,))
    assert [path.name for path in out.rglob(".*")] == [".masks.json.1234.tmp"]


def test_an_interrupt_before_the_first_frame_writes_nothing(clip: Path) -> None:
    process = start(clip.parent, "track", "clip", "--click", "1,20", hangs_after=0)
    assert process.stderr is not None
    seen = ""
    while "tracking" not in seen:  # the bar appears before the first frame
        character = process.stderr.read(1)
        assert character, seen
        seen += character
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "no frame was finished" in error
    assert not Path("clip_i2v").exists()


def check_kept(out: Path, error: str) -> dict[str, bool]:
    """Results that a full disk has cut short are whole, agree, and are what the message says. Which are there?"""
    assert "Traceback" not in error
    assert not list(out.rglob(".*"))
    pngs = sorted(int(path.stem) for path in (out / "masks").glob("*.png"))
    for frame in pngs:
        wanted = np.where(labels_of(frame % NUM_FRAMES) == 1, 1, 0)
        np.testing.assert_array_equal(read_label_png(out / "masks" / f"{frame:05d}.png"), wanted)
    there = {name: (out / name).exists() for name in ("masks.json", "overlay.mp4", "contact_sheet.png", "objects.csv")}
    if there["masks.json"]:
        assert [record["frame"] for record in json.loads((out / "masks.json").read_text())["frames"]] == pngs
    if there["overlay.mp4"]:
        assert len(decode(out / "overlay.mp4")) == len(pngs)
    lacking = ", ".join(name for name, is_there in there.items() if not is_there)
    kept = f"i2v: stopped: {len(pngs)} finished frames are kept in {out}"
    if pngs:
        assert f"{kept}, but not {lacking}\n" in error if lacking else f"{kept}\n" in error
    else:
        assert "i2v: stopped: no frame was finished\n" in error
    return there


@pytest.mark.parametrize(("direction", "frame"), [("forward", "0"), ("backward", "9")])
@pytest.mark.parametrize("limit", [100, 1200, 1500, 3000])
def test_files_that_may_not_grow_keep_what_is_done(clip: Path, direction: str, frame: str, limit: int) -> None:
    options = ["--frame", frame, "--click", "1,20", "--direction", direction, "--out", "out"]
    process = start(clip.parent, "track", "clip", *options, limit=limit)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "i2v: error: [Errno 27] File too large: 'out/" in error
    there = check_kept(Path("out"), error)
    # A mask takes some 900 bytes, JSON some 250 a frame, the overlay some 2,000 in all: what fits is there.
    assert there["masks.json"] == (limit > 100)
    assert not there["contact_sheet.png"]


def write_long_clip(folder: Path, num_frames: int) -> None:
    """The clip over and over, with noise at its lower edge, which takes some room as a video."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for frame in range(num_frames):
        picture = picture_of(frame % NUM_FRAMES)
        picture[42:] = rng.integers(0, 100, (HEIGHT - 42, WIDTH, 3))
        Image.fromarray(picture).save(folder / f"{frame:03d}.png")


@pytest.mark.parametrize(("direction", "frame"), [("forward", "0"), ("backward", "59")])
@pytest.mark.parametrize("num_kib", [4, 32, 200, 292, 356])
def test_a_full_disk_keeps_what_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, direction: str, frame: str, num_kib: int
) -> None:
    monkeypatch.chdir(tmp_path)
    write_long_clip(tmp_path / "long", 60)
    with small_disk(tmp_path / "disk", num_kib):
        out = tmp_path / "disk" / "out"
        options = ["--frame", frame, "--click", "1,20", "--direction", direction, "--out", str(out)]
        process = start(tmp_path, "track", "long", *options)
        _, error = process.communicate(timeout=60)
        assert process.returncode == 1
        assert f"i2v: error: the disk is full: [Errno 28] No space left on device: '{out}/" in error
        there = check_kept(out, error)
        assert there["masks.json"] == (num_kib > 4)


def test_demo_tracks_a_rendered_clip_and_may_be_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fake: FakePredictor, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["demo"]) == 0
    assert main(["demo"]) == 0
    assert fake.built_with["config"] == "i2v-nano-infer"
    assert fake.built_with["ckpt_path"] == str(nano_checkpoint())
    assert fake.built_with["hydra_overrides_extra"] == []
    masks = render_demo_clip().masks
    (obj_id, frame, ((x, y),), labels, box) = fake.prompts[0]
    assert (obj_id, frame, labels, box) == (1, 0, [1], None)
    assert masks[0, int(y), int(x)]
    assert len(decode(Path("i2v_demo/overlay.mp4"))) == 48
    output = capsys.readouterr()
    assert output.err.count("using i2v-nano") == 2
    assert "untrained" not in output.err
    # The stand-in takes what is red for the object; the number must be that of its masks.
    ious = []
    for t in range(48):
        found = read_label_png(Path(f"i2v_demo/masks/{t:05d}.png")) > 0
        ious.append((found & masks[t]).sum() / (found | masks[t]).sum())
    assert f"mean IoU with the exact masks of the clip: {np.mean(ious):.3f}\n" in output.out


def test_demo_of_a_config_without_weights_says_what_its_masks_mean(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fake: FakePredictor, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["demo", "--config", "i2v-infer", "--random-weights"]) == 0
    assert fake.built_with["hydra_overrides_extra"] == ["model.image_size=128"]
    output = capsys.readouterr()
    assert "untrained" in output.err
    assert "random weights" in output.out


def test_demo_of_a_video_clicks_its_centre_unless_told(clip: Path, fake: FakePredictor, capsys: Any) -> None:
    assert main(["demo", "clip", "--checkpoint", "w.pt", "--config", "nano"]) == 0
    assert main(["demo", "clip", "--click", "3,25", "--out", "other"]) == 0
    assert fake.prompts == [(1, 0, [[32, 24]], [1], None), (1, 0, [[3, 25]], [1], None)]
    check_results(Path("clip_i2v"), list(range(NUM_FRAMES)), (1,))
    assert "mean IoU" not in capsys.readouterr().out
    assert main(["demo", "clip"]) == 1
    assert "clip_i2v is not empty" in capsys.readouterr().err


def run_module(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "i2v", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_the_module_runs_as_the_command() -> None:
    from i2v import __version__

    version = run_module("--version")
    assert (version.returncode, version.stdout) == (0, f"i2v {__version__}\n")
    assert "--max-frames N" in run_module("track", "--help").stdout
    wrong = run_module("track", "none.mp4", "--click", "1,2")
    assert (wrong.returncode, wrong.stdout) == (1, "")
    assert wrong.stderr == "i2v: error: none.mp4: no such video file or folder of frames\n"


def test_the_command_starts_without_torch() -> None:
    code = "import sys, i2v.cli.main; print(sorted({'torch', 'hydra', 'omegaconf'} & set(sys.modules)))"
    finished = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert finished.stdout == "[]\n"
