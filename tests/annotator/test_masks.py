"""Masks on the wire and in layers."""

from __future__ import annotations

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from i2v.annotator.masks import NO_MASKS, MaskStore, StoredMask, checked_counts, decode
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
    first, second, third = stored((0, 0)), stored((1, 1)), stored((2, 2))
    masks = NO_MASKS.with_imported({3: first, 4: first})
    assert masks.shown(3) == first
    masks = masks.with_tracked(3, second)
    assert masks.shown(3) == second
    masks = masks.with_answer(3, third)
    assert masks.shown(3) == third
    masks = masks.with_answer(5, third).with_tracked(3, first)
    assert masks.shown(3) == third
    masks = masks.with_answer(3, None)
    assert masks.shown(3) == second
    assert masks.frames == {3, 4, 5}
    # An import takes the place of what was tracked, and the last prompt takes what was tracked along.
    assert masks.with_imported({3: first}).shown(3) == first
    assert masks.with_answer(5, None).frames == {3, 4}
    assert masks.with_answer(5, None).shown(3) == first
    assert MaskStore({1: masks}).shown(2, 3) is None


def test_outdated_frames_end_at_prompts_and_with_tracking() -> None:
    masks = NO_MASKS.with_answer(2, stored())
    for frame in (0, 1, 3, 4, 5):
        masks = masks.with_tracked(frame, stored())
    assert (masks.outdated, masks.corrected) == (set(), set())
    masks = masks.with_answer(4, stored())
    assert (masks.outdated, masks.corrected) == ({3, 5}, {4})
    masks = masks.with_answer(4, None)
    assert (masks.outdated, masks.corrected) == ({3, 4, 5}, {4})
    for frame in (4, 3):
        masks = masks.with_tracked(frame, stored())
        assert masks.corrected == {4}
    masks = masks.with_tracked(5, stored())
    assert (masks.outdated, masks.corrected) == (set(), set())
    # Masks that are gone cannot be outdated.
    assert masks.with_answer(4, stored()).with_answer(4, None).with_answer(2, None).outdated == set()


def overlapping() -> MaskStore:
    """Object 1 lost (1, 1) to object 2, and both lost (2, 2) to object 3, where 1 is before 2."""
    masks = NO_MASKS.with_tracked(0, stored((0, 0), (1, 1), (2, 2)))
    store = MaskStore({1: masks, 2: masks, 3: NO_MASKS.with_tracked(0, stored((2, 2)))})
    pixel = stored((2, 2)).counts
    lost = {(1, 2): stored((1, 1)).counts, (2, 1): pixel, (1, 3): pixel, (2, 3): pixel}
    return store.with_overlaps(0, {1, 2, 3}, lost)


LABELS = {1: 10, 2: 20, 3: 30}


def test_contested_pixels_belong_to_who_kept_them() -> None:
    merged = overlapping().label_map(0, LABELS, SIZE)
    # Where nobody lost, the first object has it.
    assert (merged[0, 0], merged[1, 1], merged[2, 2], np.count_nonzero(merged)) == (10, 20, 30, 3)


def test_pixels_lost_to_an_object_that_is_gone_are_ones_own_again() -> None:
    store = overlapping()
    states = {number: (store.of(number), store.overlaps_of(number)) for number in LABELS}
    left = store.with_object(3, NO_MASKS, {})
    merged = left.label_map(0, LABELS, SIZE)
    assert (merged[1, 1], merged[2, 2], np.count_nonzero(merged)) == (20, 10, 3)
    assert left.with_object(2, NO_MASKS, {}).label_map(0, LABELS, SIZE)[1, 1] == 10
    np.testing.assert_array_equal(
        left.with_object(3, *states[3]).label_map(0, LABELS, SIZE), store.label_map(0, LABELS, SIZE)
    )
    # A mask that is gone while the object stays holds no pixel either.
    assert store.with_masks(3, NO_MASKS).label_map(0, LABELS, SIZE)[2, 2] == 10


def test_overlaps_are_said_anew_of_the_objects_that_changed() -> None:
    store = overlapping().with_overlaps(0, {3}, {(2, 3): stored((2, 2)).counts})
    assert store.lost(1, 0) == [stored((1, 1)).counts]
    assert store.lost(2, 0) == [stored((2, 2)).counts] * 2


def test_a_store_does_not_change() -> None:
    store = overlapping()
    other = store.with_masks(1, store.of(1).with_tracked(4, stored())).with_object(2, NO_MASKS, {})
    assert store.frames_of(LABELS) == [0]
    assert store.label_map(0, LABELS, SIZE)[1, 1] == 20
    assert other.changed_frames(store) == store.changed_frames(other) == [0, 4]
    assert store.changed_frames(overlapping()) == []
