"""The prompt protocols, by what they ask of the predictor."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from support import make_predictor
from vos_support import disc_mask, render

from test_pvs.prompts import PROTOCOLS, Target, box_around, protocol


class RecordingPredictor:
    """Writes down what is asked of it, and answers clicks with masks that were laid down."""

    def __init__(self, answers: list[np.ndarray]) -> None:
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self._answers = iter(answers)

    def add_new_mask(self, state, frame_idx, obj_id, mask):
        self.calls.append(("mask", {"frame": frame_idx, "obj": obj_id, "mask": mask}))

    def add_new_points_or_box(self, state, frame_idx, obj_id, points=None, labels=None, box=None):
        what = {"points": list(points), "labels": list(labels)} if box is None else {"box": box}
        self.calls.append(("prompt", what))
        if box is not None:
            return None
        other = np.zeros_like(answer := next(self._answers))
        logits = torch.from_numpy(np.stack((other, answer)).astype(np.float32))[:, None] - 0.5
        return frame_idx, ["another", obj_id], logits

    def clear_all_prompts_in_frame(self, state, frame_idx, obj_id, need_output):
        self.calls.append(("clear", {"frame": frame_idx, "obj": obj_id}))

    def points(self) -> list[list[tuple[float, float]]]:
        return [what["points"] for name, what in self.calls if name == "prompt"]


def square(top: int, left: int, height: int, width: int) -> np.ndarray:
    mask = np.zeros((20, 30), bool)
    mask[top : top + height, left : left + width] = True
    return mask


GT = square(5, 5, 9, 9)
TARGET = Target("7", 3, GT)
HALF, MOST, WRONG = square(5, 5, 9, 4), square(5, 5, 9, 7), square(14, 20, 5, 9)


def ask(name: str, answers: list[np.ndarray], **options: bool) -> RecordingPredictor:
    predictor = RecordingPredictor(answers)
    protocol(name, **options)(predictor, None, TARGET)
    return predictor


def test_mask():
    ((name, what),) = ask("gm", []).calls
    assert name == "mask"
    assert (what["frame"], what["obj"]) == (3, "7")
    assert what["mask"] is GT


def test_box_covers_all_parts_and_ends_one_beyond():
    assert ask("bb", []).calls == [("prompt", {"box": (5.0, 5.0, 14.0, 14.0)})]
    assert box_around(square(0, 2, 1, 1) | square(19, 29, 1, 1)) == (2.0, 0.0, 30.0, 20.0)


def test_one_click_is_one_call():
    assert ask("1c", [HALF]).calls == [("prompt", {"points": [(9.0, 9.0)], "labels": [1]})]


def test_first_click_is_the_object_pixel_nearest_to_the_centroid():
    ring = square(4, 4, 11, 11) & ~square(6, 6, 7, 7)
    predictor = RecordingPredictor([ring])
    PROTOCOLS["1c"](predictor, None, Target("0", 0, ring))
    assert predictor.points() == [[(9.0, 5.0)]]


def test_three_clicks_go_to_the_middle_of_the_largest_error():
    # Missed: columns 9 to 13, rows 5 to 13; then 12 and 13; last a surplus square.
    predictor = ask("3c", [HALF, MOST, GT | WRONG, GT])
    first, second, third = (9.0, 9.0), (11.0, 7.0), (12.0, 5.0)
    assert predictor.points() == [[first], [first, second], [first, second, third], [first, second]]
    assert [what["labels"] for _, what in predictor.calls] == [[1], [1, 1], [1, 1, 1], [1, 1]]


def test_a_surplus_part_gets_a_negative_click():
    predictor = ask("3c", [GT | WRONG, GT, GT, GT])
    assert predictor.calls[1][1] == {"points": [(9.0, 9.0), (22.0, 16.0)], "labels": [1, 0]}
    # Nothing is wrong any more: the published rule clicks the corner.
    assert predictor.calls[2][1] == {"points": [(9.0, 9.0), (22.0, 16.0), (0.0, 0.0)], "labels": [1, 0, 0]}


@pytest.mark.parametrize(
    ("answers", "best"), [([GT, HALF, MOST], 1), ([HALF, GT, GT], 2), ([HALF, MOST, GT], 3), ([WRONG] * 3, 1)]
)
def test_the_first_best_clicks_are_given_once_more(answers, best):
    predictor = ask("3c", [*answers, GT])
    assert [len(points) for points in predictor.points()] == [1, 2, 3, best]
    assert "clear" not in dict(predictor.calls)


def test_five_clicks():
    assert [len(points) for points in ask("5c", [HALF, HALF, MOST, GT, HALF, GT]).points()] == [1, 2, 3, 4, 5, 4]


def test_replaying_the_best_starts_over():
    predictor = ask("3c", [HALF, GT, HALF, HALF, GT], replay_best=True)
    assert [name for name, _ in predictor.calls] == ["prompt"] * 3 + ["clear"] + ["prompt"] * 2
    assert [len(points) for points in predictor.points()] == [1, 2, 3, 1, 2]
    assert len(ask("3c", [HALF, MOST, GT], replay_best=True).calls) == 3  # the last was best: nothing to do


def test_replayed_mask_is_the_one_that_was_best():
    predictor = make_predictor()
    video = [render([disc_mask(0, t)]) for t in range(2)]
    target = Target("0", 0, disc_mask(0, 0))
    seen = []
    ask_original = predictor.add_new_points_or_box

    def remember(*args, **kwargs):
        answer = ask_original(*args, **kwargs)
        seen.append(answer[2].clone())
        return answer

    predictor.add_new_points_or_box = remember
    with predictor.init_state(video) as state:
        protocol("5c", replay_best=True)(predictor, state, target)
        ious = [
            float(((logits[0, 0] > 0).numpy() & target.mask).sum() / ((logits[0, 0] > 0).numpy() | target.mask).sum())
            for logits in seen[:5]
        ]
        _, _, logits = next(predictor.propagate_in_video(state))
    assert len(seen) > 5, "the last click was the best one: this video shows nothing"
    assert torch.equal(logits, seen[int(np.argmax(ious))])


def test_unknown_protocols_are_refused():
    with pytest.raises(ValueError, match="prompt: expected one of gm, bb, 1c, 3c, 5c, got '2c'"):
        protocol("2c")
