"""The benchmark of scoring and testing compares like with like."""

from __future__ import annotations

import argparse

import pytest
from support import TINY

from tools.benchmarks import eval as benchmark


def test_both_sides_do_the_same():
    pytest.importorskip("cv2")
    parser = argparse.ArgumentParser()
    benchmark.add_arguments(parser)
    passes = f"--config {TINY} --device cpu --image-size 64 --objects 1 2 --frames 3 --repeats 1 --video-size 48 64"
    args = parser.parse_args(f"{passes} --masks 8 --mask-size 60 80 --processes 1".split())
    scoring, one, two = benchmark.run(args)["rows"]
    assert scoring["ours"] == scoring["plain"] != "J&F 100.000000"
    assert (one["ours"], one["plain"]) == ("3 frames encoded", "3 frames encoded")
    assert (two["ours"], two["plain"]) == ("3 frames encoded", "6 frames encoded")
    assert all(row["ratio"] > 0 and row["CPU ratio"] > 0 for row in (scoring, one, two))
