"""The i2v command with a tiny real model, and `i2v info`."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from export_support import (
    Array,
    decode,
)
from PIL import Image
from support import TINY

from i2v.checkpoint import save_checkpoint
from i2v.cli.main import main
from i2v.results.export import read_label_png
from i2v.results.overlay import VideoWriter


def test_info_says_what_a_checkpoint_holds_and_whether_it_fits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr("i2v.build_i2v.build_i2v", lambda config, device, trust_config: torch.nn.Linear(3, 2))
    good, bad, broken = tmp_path / "good.pt", tmp_path / "bad.pt", tmp_path / "broken.pt"
    torch.save({"model": torch.nn.Linear(3, 2).state_dict(), "epoch": 7, "optimizer": {"state": {}}}, good)
    save_checkpoint(torch.nn.Linear(4, 2, bias=False), bad)
    broken.write_bytes(b"no checkpoint at all")

    assert main(["info", str(good), "--config", "tiny"]) == 0
    facts = dict(re.split(r"\s{2,}", line, maxsplit=1) for line in capsys.readouterr().out.splitlines())
    digest = subprocess.run(["sha256sum", good], capture_output=True, text=True, check=True).stdout[:64]
    assert facts["sha256"] == digest
    assert (facts["entries"], facts["numbers"], facts["dtypes"]) == ("2", "8", "float32")
    assert (facts["epoch"], facts["also holds"]) == ("7", "optimizer")
    assert facts["fits"] == "tiny: yes; all entries fit"

    assert main(["info", str(bad)]) == 1
    report = capsys.readouterr().out
    assert "i2v-infer: no; 1 missing: bias" in report
    assert "weight" in report

    assert main(["info", str(broken)]) == 1
    assert main(["info", str(tmp_path / "none.pt")]) == 1
    errors = capsys.readouterr().err.splitlines()
    assert [line.startswith("i2v: error: ") for line in errors] == [True, True]
    assert "broken.pt is not a checkpoint" in errors[0]
    assert "none.pt does not exist" in errors[1]


def test_the_command_gives_what_the_predictor_gives(tmp_path: Path, predictor: Any, video: Array, capsys: Any) -> None:
    frames, out = tmp_path / "frames", tmp_path / "out"
    frames.mkdir()
    for t, picture in enumerate(video):
        Image.fromarray(picture).save(frames / f"{t}.png")
    save_checkpoint(predictor.model, tmp_path / "w.pt")
    options = ["--config", str(TINY), "--checkpoint", str(tmp_path / "w.pt"), "--device", "cpu", "--out", str(out)]
    marks = "--frame 3 --click 19,19 --click 60,2,0 --object 2 --box 35,22,55,40 --direction both"
    assert main(["track", str(frames), *options, *marks.split()]) == 0

    state = predictor.init_state(video)
    predictor.add_new_points_or_box(state, 3, 1, points=[[19, 19], [60, 2]], labels=[1, 0])
    predictor.add_new_points_or_box(state, 3, 2, box=[35, 22, 55, 40])
    forward = list(predictor.propagate_in_video(state, 3))
    backward = list(predictor.propagate_in_video(state, 3, reverse=True))[1:]
    assert len(forward) + len(backward) == len(video)
    found = {1: 0, 2: 0}
    for frame, obj_ids, logits in forward + backward:
        assert obj_ids == [1, 2]
        png = read_label_png(out / "masks" / f"{frame}.png")
        first, second = logits[:, 0].numpy()
        np.testing.assert_array_equal(png == 1, (first > 0) & (first >= second))
        np.testing.assert_array_equal(png == 2, (second > 0) & (second > first))
        found = {obj_id: count + int(np.count_nonzero(png == obj_id)) for obj_id, count in found.items()}
    assert min(found.values()) > 0
    records = json.loads((out / "masks.json").read_text())["frames"]
    assert [record["frame"] for record in records] == list(range(len(video)))
    for record in records:
        scores = predictor.frame_scores(state, record["frame"])
        for entry in record["objects"]:
            assert entry["object_score"] == pytest.approx(scores[entry["id"]].object_score, abs=1e-3)
            assert entry["iou"] == pytest.approx(scores[entry["id"]].iou, abs=1e-3)
    assert len(decode(out / "overlay.mp4")) == len(video)
    assert "untrained" not in capsys.readouterr().err


def test_track_reads_video_files_and_warns_once_of_untrained_weights(tmp_path: Path, video: Array, capsys: Any) -> None:
    with VideoWriter(tmp_path / "tall.mp4", frame_rate=10) as writer:
        for picture in video.transpose(0, 2, 1, 3)[:, :, :46]:
            writer.write(np.ascontiguousarray(picture))
    out = tmp_path / "out"
    options = ["--config", str(TINY), "--random-weights", "--device", "cpu", "--out", str(out), "--click", "19,19"]
    assert main(["track", str(tmp_path / "tall.mp4"), *options, "--set", "predictor.fill_hole_area=0"]) == 0
    assert capsys.readouterr().err.count("warning") == 1
    pictures = decode(out / "overlay.mp4")
    assert [picture.shape for picture in pictures] == [(64, 46, 3)] * len(video)
    with av.open(str(out / "overlay.mp4")) as container:
        assert container.streams.video[0].average_rate == 10
    assert read_label_png(out / "masks" / "00000.png").shape == (64, 46)


def test_no_command_uses_a_model_without_weights_unasked(tmp_path: Path, video: Array, capsys: Any) -> None:
    with VideoWriter(tmp_path / "a.mp4") as writer:
        writer.write(video[0])
    out = tmp_path / "out"
    for line in (
        ["track", str(tmp_path / "a.mp4"), "--click", "1,1", "--out", str(out)],
        ["demo", "--out", str(out)],
        ["annotate", str(tmp_path / "a.mp4"), "--no-browser"],
    ):
        assert main([*line, "--config", str(TINY)]) == 2
        (error,) = capsys.readouterr().err.splitlines()
        assert error.startswith(f"i2v: error: --config {TINY}: this config has no weights of its own: add --checkpoint")
        assert main([*line, "--checkpoint", "w.pt", "--random-weights"]) == 2
        assert "got both: w.pt" in capsys.readouterr().err
    assert main(["export", "--to", "onnx", "--out", str(out), "--config", str(TINY)]) == 2
    assert ": add CHECKPOINT, or --random-weights" in capsys.readouterr().err  # there is no --checkpoint
    assert not out.exists()


def test_mistakes_that_the_library_finds_are_one_line_too(tmp_path: Path, video: Array, capsys: Any) -> None:
    clip = tmp_path / "a.mp4"
    with VideoWriter(clip) as writer:
        writer.write(video[0])
    (tmp_path / "broken.mp4").write_bytes(b"this is no video")
    (tmp_path / "w.pt").write_bytes(b"this is no checkpoint")
    for name, options, message in (
        ("a.mp4", "--random-weights --config nowhere", "nowhere"),
        ("a.mp4", f"--random-weights --config {TINY} --set model.nothing=1", "unknown key 'model.nothing'"),
        ("a.mp4", f"--random-weights --config {TINY} --set model", "model"),
        ("a.mp4", f"--random-weights --config {TINY} --device cuda:99", "cuda:99"),
        ("a.mp4", f"--config {TINY} --checkpoint {tmp_path}/w.pt", "w.pt is not a checkpoint"),
        ("a.mp4", f"--config {TINY} --checkpoint {tmp_path}/none.pt", "none.pt does not exist"),
        ("broken.mp4", f"--random-weights --config {TINY}", "broken.mp4"),
    ):
        out = ["--out", str(tmp_path / "out"), "--click", "1,1"]
        assert main(["track", str(tmp_path / name), *options.split(), *out]) == 1
        (error,) = [line for line in capsys.readouterr().err.splitlines() if "warning" not in line]
        assert error.startswith("i2v: error: ")
        assert message in error
    assert not (tmp_path / "out").exists()


def test_info_of_a_real_checkpoint(tmp_path: Path, predictor: Any, capsys: Any) -> None:
    save_checkpoint(predictor.model, tmp_path / "w.pt")
    assert main(["info", str(tmp_path / "w.pt"), "--config", str(TINY)]) == 0
    entries = len(predictor.model.state_dict())
    assert re.search(rf"^entries +{entries}$", capsys.readouterr().out, re.MULTILINE)
    small = ["info", str(tmp_path / "w.pt"), "--config", str(tmp_path / "other.yaml")]
    (tmp_path / "other.yaml").write_text(TINY.read_text().replace("num_layers: 2", "num_layers: 1"))
    assert main(small) == 1
    assert "unexpected: memory_attention.layers.1." in capsys.readouterr().out
