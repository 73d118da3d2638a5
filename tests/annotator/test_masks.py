"""Masks on the wire and in layers."""

from __future__ import annotations

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from i2v.annotator.masks import FrameAnswer, MaskStore, StoredMask, checked_counts, decode
from i2v.results.rle import RunLengths, encode_mask

SIZE = (5, 7)


def random_masks() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    shapes = [(1, 1), (5, 7), (40, 3), (96, 128), (700, 900)]
    masks = [rng.random(shape) < density for shape in shapes for density in (0, 0.01, 0.5, 1)]
    blob = np.zeros((700, 900), bool)
    blob[100:650, 5:880] = True
    return [*masks, blob]


@pytest.mark.parametrize("mask", random_masks(), ids=lambda m: f"{m.shape}-{m.mean():.2f}")
def test_codes_come_back_and_pass_the_check(mask: np.ndarray) -> None:
    counts = encode_mask(mask)
    np.testing.assert_array_equal(decode(counts, mask.shape), mask)
    assert checked_counts(counts.decode(), mask.shape) == counts


def test_runs_go_down_the_columns() -> None:
    mask = RunLengths.of_runs([6, 2, 27], SIZE).mask()
    assert sorted(zip(*np.nonzero(mask), strict=True)) == [(1, 1), (2, 1)]


@pytest.mark.parametrize("runs", [[], [34], [36], [-1, 36], [0, 10**12], [35, 0, 1]])
def test_runs_that_do_not_cover_the_frame_are_refused(runs: list[int]) -> None:
    with pytest.raises(ValueError, match="cover 7x5 pixels"):
        RunLengths.of_runs(runs, SIZE)


def coco_text(*counts: int) -> str:
    return coco_mask.frPyObjects({"size": list(SIZE), "counts": list(counts)}, *SIZE)["counts"].decode()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\u00e9",
        "~",
        "o",  # says that more follows
        "oooooooooooooooo0",  # a run length of 80 bits
        "1" * 10_000,
        encode_mask(np.ones((50, 70), bool)).decode(),  # of a larger frame
        encode_mask(np.ones((2, 2), bool)).decode(),  # of a smaller one
        coco_text(20, 30, 5),
        "K",  # minus five
    ],
)
def test_hostile_codes_never_reach_the_decoder(text: str) -> None:
    with pytest.raises(ValueError, match="a mask"):
        checked_counts(text, SIZE)


def test_confidence_needs_both_scores_and_stays_within_bounds() -> None:
    assert StoredMask(b"", 0.0, 0.8).confidence == pytest.approx(0.4)
    assert StoredMask(b"", 1000.0, 1.7).confidence == pytest.approx(1.0)
    assert StoredMask(b"", -1000.0, 0.9).confidence == pytest.approx(0.0)
    assert StoredMask(b"", None, 0.9).confidence is None
    assert StoredMask(b"", float("nan"), 0.9).confidence is None


def stored(*pixels: tuple[int, int]) -> StoredMask:
    mask = np.zeros(SIZE, bool)
    for pixel in pixels:
        mask[pixel] = True
    return StoredMask(encode_mask(mask))


def test_prompts_go_before_tracking_and_tracking_before_imports() -> None:
    store = MaskStore()
    first, second, third = stored((0, 0)), stored((1, 1)), stored((2, 2))
    store.given = {1: {3: first, 4: first}}
    assert store.shown(1, 3) == first
    store.put_tracked(FrameAnswer(3, {1: second}), prompted=[])
    assert store.shown(1, 3) == second
    store.put_prompted(1, 3, third)
    assert store.shown(1, 3) == third
    store.put_tracked(FrameAnswer(3, {1: first}), prompted=[1])
    assert store.shown(1, 3) == third
    store.put_prompted(1, 3, None)
    assert store.shown(1, 3) == second
    assert store.shown(2, 3) is None
    assert store.frames_of(1) == {3, 4}


def test_outdated_frames_end_at_prompts_and_with_tracking() -> None:
    store = MaskStore()
    for frame in range(6):
        store.put_tracked(FrameAnswer(frame, {1: stored()}), prompted=[])
    store.put_prompted(1, 2, stored())
    store.mark_outdated(1, 1, 4)
    assert store.outdated[1] == {1, 3, 4}
    store.put_tracked(FrameAnswer(3, {1: stored()}), prompted=[])
    assert store.outdated[1] == {1, 4}


def test_contested_pixels_belong_to_who_kept_them() -> None:
    store = MaskStore()
    both, lost = stored((0, 0), (1, 1)), stored((1, 1))
    answer = FrameAnswer(0, {1: both, 2: both}, {1: lost.counts})
    store.put_tracked(answer, prompted=[])
    merged = store.label_map(0, {1: 10, 2: 20}, SIZE)
    # Where nobody ceded, the first object has it.
    assert (merged[1, 1], merged[0, 0], np.count_nonzero(merged)) == (20, 10, 2)


def test_a_copy_does_not_change_with_the_original() -> None:
    store = MaskStore()
    store.put_tracked(FrameAnswer(0, {1: stored((0, 0))}), prompted=[])
    twin = store.copy()
    store.put_tracked(FrameAnswer(0, {1: stored((1, 1))}), prompted=[])
    assert twin.shown(1, 0) == stored((0, 0))
