"""Benchmarks of the model: both sides compute the same, and the figures are of what ran."""

from __future__ import annotations

import argparse
import json
from contextlib import nullcontext

import pytest
import torch
from support import TINY, make_predictor, randomize, render_video

from i2v.build_i2v import build_i2v
from tools import benchmark
from tools.benchmarks import objects, pipeline, sides, speed, train
from tools.benchmarks.flops import FlopCounter
from tools.benchmarks.plain import plain_path


def follow(predictor, video, plain: bool) -> list[torch.Tensor]:
    with plain_path(predictor.model) if plain else nullcontext(), predictor.init_state(video) as state:
        predictor.add_new_points_or_box(state, 0, 1, points=[[20, 19]], labels=[1])
        predictor.add_new_points_or_box(state, 6, 2, box=[40, 20, 60, 45])
        return [masks for _, _, masks in predictor.propagate_in_video(state)]


def test_the_plain_path_gives_the_same_masks():
    predictor, video = make_predictor("model.selector.mode=topk"), render_video(12)
    before = predictor.model.memory_attention.forward
    plain, ours = follow(predictor, video, plain=True), follow(predictor, video, plain=False)
    assert predictor.model.memory_attention.forward == before, "the model is itself again"
    worst = max(float((a - b).abs().max()) for a, b in zip(plain, ours, strict=True))
    assert 0 < worst < 2e-3, "equal but for round-off, and not the same code"
    assert max(float(masks.abs().max()) for masks in plain) > 1


def test_the_plain_path_of_the_small_model_gives_the_same_features():
    # Its trunk is another one, and its features are at more strides.
    model = build_i2v("i2v-nano-infer", None, device="cpu", hydra_overrides_extra=["model.image_size=64"])
    randomize(model)
    windows = torch.randn(2, 3, 5, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        ours = model.encode(windows)
        with plain_path(model):
            plain = model.encode(windows)
    pairs = zip((plain.vision, *plain.high_res), (ours.vision, *ours.high_res), strict=True)
    worst = [float((a - b).abs().max() / a.abs().max()) for a, b in pairs]
    assert len(worst) == 3 and 0 < max(worst) < 1e-4


def arguments(module, *options: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    module.add_arguments(parser)
    return parser.parse_args(["--config", str(TINY), "--device", "cpu", *options])


def test_speed_by_stage(tmp_path):
    pytest.importorskip("matplotlib")
    picture = tmp_path / "speed.png"
    options = ["--frames", "2", "--warm-up", "2", "--dtype", "float32", "bfloat16", "--plot", str(picture)]
    options += ["--whole", "3"]
    report = speed.run(arguments(speed, *options))
    rows = {row["stage"]: row for row in report["rows"]}
    assert list(rows) == [*sides.STAGES, "rest", "frame"]
    for name in ("plain", "float32", "bfloat16"):
        parts = [rows[stage][f"{name} s"] for stage in (*sides.STAGES, "rest")]
        assert all(seconds >= 0 for seconds in parts) and rows["frame"][f"{name} s"] > 0
    assert rows["memory attention"]["plain GFLOP"] > 0
    assert rows["frame"]["float32 ratio"] == pytest.approx(
        rows["frame"]["float32 s"] / rows["frame"]["plain s"], rel=0.05
    )
    assert report["lowest mask IoU with plain"]["float32"] > 0.98
    assert report["frames/s with decoding and writing"] > 0
    assert set(report["machine"]["matmul_gflops"]) == {"float32", "bfloat16"}
    assert picture.read_bytes().startswith(b"\x89PNG") and json.dumps(report)


def test_cost_of_objects(tmp_path):
    pytest.importorskip("matplotlib")
    picture = tmp_path / "objects.png"
    options = ["--objects", "1", "3", "--plain-up-to", "1", "--frames", "1", "--plot", str(picture)]
    one, three = objects.run(arguments(objects, *options))["rows"]
    assert one["float32 ratio"] > 0 and "plain s" not in three and "float32 ratio" not in three
    assert three["float32 s/object"] == pytest.approx(three["float32 s"] / 3, abs=1e-3)
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_operations_are_counted_as_they_run():
    queries, keys = torch.randn(1, 2, 10, 8), torch.randn(1, 2, 6, 8)
    room = torch.zeros(3, 4, 5)
    with torch.inference_mode(), FlopCounter() as counter:
        torch.nn.functional.linear(queries, torch.randn(3, 8))
        torch.nn.functional.scaled_dot_product_attention(queries, keys, keys)
        room.baddbmm_(torch.randn(3, 4, 7), torch.randn(3, 7, 5))
        torch.nn.functional.conv2d(torch.randn(1, 2, 4, 4), torch.randn(3, 2, 1, 1))
    linear, attention, product, convolution = 2 * 20 * 8 * 3, 4 * 2 * 10 * 6 * 8, 2 * 3 * 4 * 7 * 5, 2 * 16 * 2 * 3
    assert counter.gflop * 1e9 == pytest.approx(linear + attention + product + convolution)


def test_lowest_iou_is_of_the_worst_object():
    wanted = torch.zeros(2, 1, 2, 4, dtype=torch.bool)
    wanted[0, 0, 0] = True
    found = wanted.clone()
    found[0, 0, 0, 0] = False
    assert sides.lowest_iou([wanted, found], [wanted, wanted]) == pytest.approx(0.75)


def test_a_table_with_missing_figures():
    table = benchmark.table([{"objects": 1, "plain s": 2.0}, {"objects": 2}])
    assert len(table.splitlines()) == 4


def test_pipeline_runs_the_command_on_a_rendered_video():
    options = ["--sizes", "64x48", "--frames", "3", "--threads", "1", "--repeats", "1"]
    (row,) = pipeline.run(arguments(pipeline, *options))["rows"]
    assert (row["video"], row["threads"]) == ("64x48", 1) and 0 < row["frames/s"] == row["best"]
    with pytest.raises(ValueError, match="expected width and height such as 480x270, got '64'"):
        pipeline.run(arguments(pipeline, "--sizes", "64"))


def test_training_steps_are_timed_by_option():
    parser = argparse.ArgumentParser()
    train.add_arguments(parser)
    options = ["--config", "i2v-overfit", "--size", "64", "--frames", "2", "--steps", "2", "--options", "float32"]
    (row,) = train.run(parser.parse_args(options))["rows"]
    assert row["option"] == "float32" and 0 <= row["of which data"] <= row["seconds"] and row["memory GiB"] > 0
    with pytest.raises(ValueError, match=r"expected at least 2, .*got 1"):
        train.run(parser.parse_args([*options, "--steps", "1"]))
