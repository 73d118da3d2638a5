"""The README's code runs, and its commands are ones that exist."""

from __future__ import annotations

import functools
import re
import shlex
from pathlib import Path

import av
import numpy as np
import pytest
from support import render_video

import i2v.build_i2v
from i2v.checkpoint import save_checkpoint
from i2v.cli.arguments import make_parser

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.DOTALL | re.MULTILINE)


def write_video(path: Path, frames: np.ndarray) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=24)
        stream.height, stream.width, stream.pix_fmt = frames.shape[1], frames.shape[2], "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))


def test_python_blocks_run(tmp_path, monkeypatch):
    frames = render_video(3, height=360, width=480)
    write_video(tmp_path / "video.mp4", frames)
    (tmp_path / "checkpoints").mkdir()
    model = i2v.build_i2v.build_i2v("i2v-infer", device="cpu")
    save_checkpoint(model, tmp_path / "checkpoints" / "sam-i2v_32gpu.pt")
    small = functools.partial(
        i2v.build_i2v.build_i2v_video_predictor, device="cpu", hydra_overrides_extra=["model.image_size=128"]
    )
    monkeypatch.setattr(i2v.build_i2v, "build_i2v_video_predictor", small)
    monkeypatch.chdir(tmp_path)
    names: dict = {"camera": list(frames), "photo": frames[0]}
    for block in blocks("python"):
        exec(block, names)
        assert names["predictor"].model.image_size == 128
        assert names["frame"] == 2 and names["object_ids"] == [1] and names["masks"].shape == (1, 1, 360, 480)
    assert names["segmented"].dtype.is_floating_point is False
    assert names["candidates"].shape == (3, 360, 480) and names["candidates"].dtype == bool


@pytest.mark.parametrize("line", [line for block in blocks("bash") for line in block.splitlines() if line])
def test_commands_exist(line):
    words = shlex.split(line, comments=True)
    if "&&" in words:
        words = words[words.index("&&") + 1 :]
    if words[0] == "i2v":
        make_parser().parse_args(words[1:])
    elif words[0] == "make":
        assert f"\n{words[1]}:" in (ROOT / "Makefile").read_text()
    elif words[0] in ("sh", "python"):
        assert any((ROOT / folder / words[1]).is_file() for folder in (".", "test_pvs", "train"))
    else:
        assert words[0] == "cd" and (ROOT / words[1]).is_dir()
