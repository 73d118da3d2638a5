"""Whatever is in a checkpoint, a config or a command line: it is used, or refused in a sentence."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from typing import Any

import pytest
import torch
from export_support import FakePredictor, Source, write_clip
from fuzz_files import NUMBERS, TEXTS, VALUES, changed_json, mutated
from fuzz_support import Target, fuzz
from hypothesis import strategies as st

from i2v.checkpoint import CheckpointError, read_checkpoint, read_checkpoint_info
from i2v.cli import main as cli
from i2v.cli.info import _claims
from i2v.config import ConfigError, instantiate, load_config
from i2v.pretrained import config_of

# Checkpoints: bytes that torch.save has not written, and what it may write beside the weights.

WEIGHTS = {"a.weight": torch.ones(2, 3), "a.steps": torch.tensor(7)}


def saved(content: object, **options: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, **options)
    return buffer.getvalue()


@st.composite
def checkpoints(draw: st.DrawFn) -> bytes:
    names = st.sampled_from(["config", "model", "epoch", "size", "__class__"]) | st.sampled_from(TEXTS)
    beside = draw(st.dictionaries(names, VALUES, max_size=4))
    return saved({"model": WEIGHTS, "config": "i2v-nano-infer", **beside})


SAVED = [
    saved({"model": WEIGHTS, "config": "i2v-nano-infer"}),
    saved({"model": WEIGHTS, "epoch": 3}, _use_new_zipfile_serialization=False),
    saved(WEIGHTS),
]


def read_weights(data: bytes, folder: Path) -> None:
    path = folder / "m.pt"
    path.write_bytes(data)
    info = read_checkpoint_info(path)
    assert sum(weights.numel() for weights in read_checkpoint(path).values()) == info.num_values
    for name, claim in _claims(info.metadata, ("file",)):
        assert f"{name}{claim}".isprintable() and len(name) < 1000
    config_of(path, info.metadata)


# Configs: what a file says, and what is made of it. JSON is YAML, too.

TARGETS = [
    "i2v.inference.inference_state.PredictorSettings",
    "os.system",
    "pathlib.Path.write_text",
    "builtins.open",
    "i2v.cli.main",
]
REFERENCES = ["${oc.env:HOME}", "${predictor}", "${.x}", "${a${b}}", "${grid:64}", "\\${x}", "${x", "${x.y[0]}"]
CONFIG = {
    "defaults": [{"model": "i2v-mini"}, {"selector@model.selector": "recent"}, "_self_"],
    "predictor": {"_target_": TARGETS[0], "seed": 3, "_partial_": False, "_args_": [], "_convert_": "all"},
    "x": {"y": [1, "${predictor.seed}"], "z": {"_target_": TARGETS[0]}},
}
TEXT = b"""defaults:
  - i2v-nano-infer
  - override model: i2v-mini
  - _self_
x: &x {a: 1, b: [1, 2]}
y: [*x, *x, {<<: *x}]
predictor: {_target_: i2v.inference.inference_state.PredictorSettings, seed: "${x.a}"}
"""


@st.composite
def configs(draw: st.DrawFn) -> bytes:
    data = draw(changed_json([CONFIG]))
    for value in draw(st.lists(st.sampled_from([*TARGETS, *REFERENCES]), max_size=2)):
        data = data.replace(draw(st.sampled_from([b'"all"', b"3", b'"recent"', b'"_self_"'])), f'"{value}"'.encode())
    return data.replace(b'"\\$', b'"\\\\$')


def use_config(data: bytes, folder: Path) -> None:
    """Compose a config, and make of it what is small: a model may be of any size."""
    (folder / "inside").mkdir()
    (folder / "secret.yaml").write_text("model: {secret: true}")
    path = folder / "inside" / "config.yaml"
    path.write_bytes(data)
    composed = load_config(path, ("++predictor.fill_hole_area=8",))
    assert "secret" not in str(composed)
    instantiate(composed, "predictor")


# Command lines. What their paths name is the user's to say; here they stay in the folder.

WORDS = [
    *("--click", "--box", "--mask", "--object", "--frame", "--direction", "--max-frames", "--out", "--overwrite"),
    *("--set", "--config", "--checkpoint", "--device", "--trust-config", "-v", "--", "", "-", "both", "backward"),
    *("5,20", "5,20,0", "1,2,30,40", "nan,1", "1e308,1", ",", "0", "3", "-1", "1e3", "٣", "0" * 5000, "9" * 30),
    *("clip", "clip/000.png", "none", "a\nb", "\x1b[2J", "\udcff", "\u202e", "x" * 300, "." * 3, "model.image_size=64"),
]
ENDINGS = [*NUMBERS, *REFERENCES]


@st.composite
def command_lines(draw: st.DrawFn) -> bytes:
    words = draw(st.lists(st.sampled_from(WORDS) | st.sampled_from(ENDINGS).map(str), max_size=6))
    base = draw(st.sampled_from([["--click", "5,20"], ["--box", "1,2,30,40", "--frame", "3", "--click", "5,20"], []]))
    place = draw(st.integers(0, len(base)))
    return "\0".join([*base[:place], *words, *base[place:]]).encode("utf-8", "surrogateescape")


def run_command(data: bytes, folder: Path) -> None:
    words = data.decode("utf-8", "surrogateescape").split("\0")
    write_clip(folder / "clip")
    told = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stderr(told):
        patch.chdir(folder)
        patch.setattr(cli, "build_i2v_video_predictor", FakePredictor().build)
        patch.setattr(cli, "open_source", Source)
        with contextlib.redirect_stdout(io.StringIO()):
            status = cli.main(["track", "clip", *(word for word in words if word not in ("-h", "--help"))])
    errors = [line for line in told.getvalue().splitlines() if line.startswith("i2v: error: ")]
    assert status in (0, 1, 2) and len(errors) == (status != 0), told.getvalue()
    assert all(line.isprintable() and len(line) < 3000 for line in errors)
    assert "Traceback" not in told.getvalue() or "-v" in words
    assert not [path for path in folder.rglob(".*") if path.name.endswith(".tmp")]
    assert {path.name for path in (folder / "clip").iterdir()} == {f"{frame:03d}.png" for frame in range(10)}


TARGETS_OF_MODELS = [
    Target("checkpoint", st.one_of(checkpoints(), mutated(st.sampled_from(SAVED))), read_weights, (CheckpointError,)),
    Target("yaml", st.one_of(configs(), mutated(st.just(TEXT))), use_config, (ConfigError,)),
    Target("command_line", command_lines(), run_command, ()),
]


@pytest.mark.timeout(900)
@pytest.mark.parametrize("target", TARGETS_OF_MODELS, ids=str)
def test_no_file_and_no_word_breaks_a_command(
    target: Target, tmp_path: Path, fuzz_seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/secret")
    fuzz(target, tmp_path, fuzz_seconds)
