"""Documents, and plans of what to track."""

from __future__ import annotations

import pytest

from i2v.annotator.document import MAX_STEPS, Box, Click, Document, Paint
from i2v.annotator.plan import TrackRange, plan_tracking, plan_update

CLICK, BOX, PAINT = Click(1, 2, True), Box(1, 2, 3, 4), Paint(b"x")


def test_objects_get_numbers_that_are_not_used_again() -> None:
    document = Document().with_object().with_object("cup").without_object(2).with_object()
    assert [(o.number, o.name) for o in document.objects] == [(1, "object 1"), (3, "object 3")]
    assert document.renamed(3, "plate").objects[1].name == "plate"
    with pytest.raises(ValueError, match=r"no object 2: there are 1, 3"):
        document.renamed(2, "x")


def test_no_more_objects_than_labels() -> None:
    document = Document()
    for _ in range(254):
        document = document.with_object()
    with pytest.raises(ValueError, match="from 1 to 254"):
        document.with_object()
    # 255 is the void label of other tools: it can come from a file, but is not given out.
    document = document.without_object(7).with_object(number=255)
    assert document.with_object().numbers[-1] == 7


@pytest.mark.parametrize("name", ["a\0b", "a\x1b[2J", "gnp\u202eexe", "two\u2028lines"])
def test_names_can_be_shown(name: str) -> None:
    with pytest.raises(ValueError, match="characters that can be shown"):
        Document().with_object(name)
    with pytest.raises(ValueError, match="characters that can be shown"):
        Document().with_object().renamed(1, name)


def test_clicks_add_up_and_boxes_and_masks_begin_anew() -> None:
    document = Document().with_object()
    place = (1, 7)
    chains = []
    for steps in ([CLICK], [CLICK], [BOX], [CLICK], [PAINT], [PAINT, CLICK]):
        document = document.with_steps(place, *steps)
        chains.append(document.prompts[place])
    assert chains == [(CLICK,), (CLICK,) * 2, (BOX,), (BOX, CLICK), (PAINT,), (PAINT, CLICK)]
    assert document.prompted_frames(1) == [7]
    assert document.cleared(place).prompts == {}
    with pytest.raises(ValueError, match="no prompt on frame 3"):
        document.cleared((1, 3))
    with pytest.raises(ValueError, match=f"at most {MAX_STEPS} prompts"):
        document.with_steps(place, *[CLICK] * (MAX_STEPS + 1))


def test_deleting_an_object_takes_its_prompts() -> None:
    document = Document().with_object().with_object().with_steps((1, 0), CLICK).with_steps((2, 0), BOX)
    document = document.with_objects([1, 4])
    assert document.numbers == (1, 2, 4)
    assert document.without_object(1).prompts == {(2, 0): (BOX,)}


PROMPTS = {1: [10], 2: [4, 20]}


@pytest.mark.parametrize(
    ("shown", "direction", "until", "objects", "ranges"),
    [
        (12, "forward", "end", None, [TrackRange(10, 20, False)]),
        (12, "forward", "prompt", None, [TrackRange(10, 10, False)]),
        (10, "forward", "end", None, [TrackRange(10, 20, False)]),
        (2, "forward", "end", None, [TrackRange(4, 26, False)]),
        (12, "backward", "end", None, [TrackRange(20, 21, True)]),
        (12, "backward", "prompt", None, [TrackRange(20, 10, True)]),
        (25, "backward", "end", None, [TrackRange(20, 21, True)]),
        (12, "both", "end", None, [TrackRange(10, 20, False), TrackRange(10, 11, True)]),
        (12, "both", "prompt", None, [TrackRange(10, 10, False), TrackRange(10, 6, True)]),
        (12, "forward", "prompt", [2], [TrackRange(4, 16, False, frozenset([2]))]),
    ],
)
def test_tracking_starts_at_the_nearest_prompt(shown, direction, until, objects, ranges) -> None:
    assert plan_tracking(shown, direction, until, PROMPTS, 30, objects) == ranges


def test_tracking_that_leads_nowhere_says_so() -> None:
    with pytest.raises(ValueError, match="nothing to track yet"):
        plan_tracking(0, "forward", "end", {1: []}, 30)
    with pytest.raises(ValueError, match="no frame to track backward"):
        plan_tracking(0, "backward", "end", {1: [0]}, 30)
    assert plan_tracking(0, "both", "end", {1: [0]}, 30) == [TrackRange(0, 30, False)]


def test_live_tracking_has_no_end_and_comes_last() -> None:
    assert plan_tracking(5, "both", "end", {1: [5]}, 9, live=True) == [
        TrackRange(5, 6, True),
        TrackRange(5, None, False),
    ]


def test_an_update_goes_from_a_correction_to_the_prompts_around_it() -> None:
    everywhere = {1: set(range(40))}
    ranges = plan_update([(1, 20)], {1: [10, 20, 30]}, everywhere, 40)
    assert ranges == [TrackRange(20, 10, False, frozenset([1])), TrackRange(20, 10, True, frozenset([1]))]
    # What was never tracked is not tracked now.
    ranges = plan_update([(1, 20)], {1: [10, 20]}, {1: {25}}, 40)
    assert ranges == [TrackRange(20, 20, False, frozenset([1]))]
    assert plan_update([(1, 20)], {1: [10, 20]}, {}, 40) == []


def test_an_update_after_a_prompt_was_taken_back_starts_before_it() -> None:
    everywhere = {1: set(range(40)), 2: set(range(40))}
    assert plan_update([(1, 20)], {1: [10, 30]}, everywhere, 40) == [TrackRange(10, 20, False, frozenset([1]))]
    assert plan_update([(1, 20)], {1: [30]}, everywhere, 40) == [TrackRange(30, 31, True, frozenset([1]))]
    assert plan_update([(1, 20)], {1: []}, everywhere, 40) == []


def test_corrections_on_one_frame_are_tracked_together() -> None:
    everywhere = {1: set(range(40)), 2: set(range(40))}
    ranges = plan_update([(1, 0), (2, 0)], {1: [0], 2: [0]}, everywhere, 40)
    assert ranges == [TrackRange(0, 40, False, frozenset([1, 2]))]
