"""Counts on command lines: 0 processes, workers or frames are refused everywhere, not taken for the default."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from i2v.cli.numbers import amount, count, percent, whole_number
from sav_dataset import sav_evaluator
from test_pvs import semi_infer
from tools import results, save_gt_mask_multiprocess
from train import train
from train.scripts import extract_sav_frames, make_cutouts, make_file_lists, pack_photos, show_batch


@pytest.mark.parametrize(
    ("read", "good", "bad"),
    [
        (count, {"1": 1, " 7 ": 7, "1_000": 1000}, ["0", "-1", "1.0", "", "x"]),
        (amount, {"0": 0, "12": 12}, ["-1", "1e3"]),
        (percent, {"1": 1, "100": 100}, ["0", "101"]),
        (whole_number, {"-3": -3}, ["3.5"]),
    ],
)
def test_ranges(read: Callable[[str], int], good: dict[str, int], bad: list[str]) -> None:
    assert {text: read(text) for text in good} == good
    for text in bad:
        with pytest.raises(argparse.ArgumentTypeError, match=r"expected a whole number.*, got"):
            read(text)


@pytest.mark.parametrize(
    ("main", "arguments"),
    [
        (sav_evaluator.main, "--pred_root p -n 0"),
        (sav_evaluator.main, "--pred_root p --num_processes -1"),
        (sav_evaluator.main, "--pred_root p --num_worst -1"),
        (semi_infer.main, "--input gm --ckpt none --data_root d --workers 0"),
        (semi_infer.main, "--input gm --ckpt none --data_root d --threads 0"),
        (semi_infer.main, "--input gm --ckpt none --data_root d --gpus 0"),
        (train.main, "i2v-overfit --num-gpus 0"),
        (train.main, "i2v-overfit --num-nodes -1"),
        (make_file_lists.main, "png --images a --annotations b --output c --sample 0"),
        (make_file_lists.main, "png --images a --annotations b --output c --seed -1"),
        (make_cutouts.main, "--input a --output b --every 0"),
        (pack_photos.main, "--photos a --backgrounds b --output c --quality 101"),
        (pack_photos.main, "--photos a --backgrounds b --output c --every 0"),
        (extract_sav_frames.main, "--input a --output b --workers 0"),
        (show_batch.main, "i2v-overfit --batches 0"),
        (save_gt_mask_multiprocess.main, "--workers 0"),
        (results.main, "--output o --rendered 0"),
    ],
)
def test_counts_are_checked(main: Callable[[Sequence[str]], Any], arguments: str, capsys: Any) -> None:
    with pytest.raises(SystemExit) as stop:
        main(arguments.split())
    option, value = arguments.split()[-2:]
    told = capsys.readouterr().err.splitlines()[-1]
    assert stop.value.code == 2
    assert f"argument {option}" in told or f"/{option}" in told or f"{option}/" in told
    assert "expected a whole number from" in told and f"got '{value}'" in told
