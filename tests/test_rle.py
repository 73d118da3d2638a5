"""Run lengths of masks: as pycocotools writes them, and refused where it would not look."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from i2v.results import rle
from i2v.results.rle import RunLengths, encode_mask, read_size
from i2v.utils.picture_size import MAX_PIXELS


def test_masks_come_back_as_they_went() -> None:
    chance = np.random.default_rng(0)
    for shape in [(1, 1), (1, 70), (70, 1), *chance.integers(1, 90, (60, 2)).tolist()]:
        mask = chance.random(shape) < chance.choice([0, 0.01, 0.5, 0.99, 1])
        counts = encode_mask(mask)
        assert coco_mask.decode({"size": list(mask.shape), "counts": counts}).tolist() == mask.astype(int).tolist()
        for code in (
            {"size": list(mask.shape), "counts": counts.decode()},
            {"size": [float(side) for side in mask.shape], "counts": counts},
            {"size": list(mask.shape), "counts": RunLengths.of_counts(counts, mask.shape).runs.tolist()},
        ):
            lengths = RunLengths.of_coco(code, mask.shape)
            assert np.array_equal(lengths.mask(), mask) and lengths.mask().dtype == bool
            assert lengths.area == np.count_nonzero(mask)


@pytest.mark.parametrize(
    "size",
    [
        [10**9, 10**9],
        [2**31, 2**31],
        [2**32 + 1, 1],
        [10**400, 1],
        [1e308, 1],
        [float("inf"), 1],
        [float("nan"), 1],
        [MAX_PIXELS + 1, 1],
        [0, 5],
        [-5, -7],
        [5],
        [5, 7, 1],
        [5.5, 7],
        ["5", "7"],
        [True, True],
        [[5], 7],
        "57",
        None,
        57,
    ],
)
def test_sizes_that_are_none_or_too_large_are_refused(size: Any) -> None:
    """Some of these end pycocotools with a segmentation fault."""
    with pytest.raises(ValueError, match=r"run lengths of a mask|picture of"):
        RunLengths.of_coco({"size": size, "counts": "S1"})
    with pytest.raises(ValueError, match=r"run lengths of a mask|picture of"):
        read_size({"size": size})


@pytest.mark.parametrize(
    "counts",
    [
        "01",  # two of 35 pixels; pycocotools makes up the rest of memory
        "",
        b"",
        "\u0660",
        "~",
        "o",
        "oooooooooooooooo0",
        "0" * 8_000_001,
        "K",
        [],
        [36],
        [34],
        [-1, 36],
        [35.0],
        [True, 34],
        [2**63, 0],
        [10**400],
        ["35"],
        [None],
        [[35]],
        None,
        35,
        {"35": 0},
    ],
)
def test_run_lengths_that_do_not_cover_the_size_are_refused(counts: Any) -> None:
    with pytest.raises(ValueError, match="the run lengths of a mask: ") as caught:
        RunLengths.of_coco({"size": [5, 7], "counts": counts})
    assert len(str(caught.value)) < 250


@pytest.mark.parametrize("rle", [None, 3, "x", [], {}, {"counts": "S1"}])
def test_what_is_no_rle_is_refused(rle: Any) -> None:
    with pytest.raises(ValueError, match="expected a size of two numbers"):
        RunLengths.of_coco(rle)


def test_another_size_than_the_videos_is_refused_before_the_mask_is_made() -> None:
    rle = {"size": [5000, 6000], "counts": encode_mask(np.zeros((5, 7), bool))}
    with pytest.raises(ValueError, match="the mask is 6000x5000, expected 7x5"):
        RunLengths.of_coco(rle, (5, 7))


def test_short_codes_are_decompressed_as_long_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    codes = [random.integers(44, 116, random.integers(0, 20)).astype(np.uint8).tobytes() for _ in range(1000)]
    codes += [random.integers(48, 112, random.integers(1, 20)).astype(np.uint8).tobytes() for _ in range(1000)]
    outcomes = []
    for short in (rle._SHORT, 0):
        monkeypatch.setattr(rle, "_SHORT", short)
        outcomes.append([decompressed(code) for code in codes])
    assert outcomes[0] == outcomes[1]
    assert sum(isinstance(outcome, list) for outcome in outcomes[0]) > 200


def decompressed(code: bytes) -> list[int] | str:
    try:
        return rle._decompressed(code).tolist()
    except ValueError as error:
        return str(error)
