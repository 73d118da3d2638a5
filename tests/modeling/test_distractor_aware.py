"""DistractorAwareSelector: which frames show the object beside a similar one, and how long they stay."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from i2v.build_i2v import build_i2v_video_predictor
from i2v.modeling.memory.distractor_aware import DistractorAwareSelector
from i2v.modeling.memory.memory_bank import FrameMemory, MemoryBank
from i2v.modeling.memory.selectors import SimilaritySelector
from i2v.modeling.structures import FramePrediction, TrackingStep

SIDE = 24


def prediction(
    *boxes: tuple[int, int, int, int], chosen: tuple[int, int, int, int], **scores: float
) -> FramePrediction:
    """Mask candidates that are boxes (left, top, right, bottom), of which one is chosen."""

    def logits(box: tuple[int, int, int, int]) -> torch.Tensor:
        left, top, right, bottom = box
        mask = torch.full((SIDE, SIDE), -5.0)
        mask[top:bottom, left:right] = 5
        return mask

    low_res = logits(chosen)[None, None]
    return FramePrediction(
        candidates=torch.stack([logits(box) for box in (chosen, *boxes)])[None],
        ious=torch.tensor([[scores.get("iou", 0.9), *([0.1] * len(boxes))]]),
        low_res=low_res,
        high_res=low_res,
        pointer=torch.zeros(1, 8),
        object_score=torch.tensor([[scores.get("object_score", 4.0)]]),
    )


OBJECT = (2, 2, 8, 8)


@pytest.mark.parametrize(
    ("boxes", "expected"),
    [
        ([], False),
        ([OBJECT], False),
        ([(3, 3, 6, 6)], False),  # a part of the object
        ([(1, 1, 9, 9)], False),  # a wider outline
        ([(2, 2, 22, 8)], True),  # the object and another one beside it
        ([(14, 14, 20, 20)], True),  # the other one alone
        ([(20, 20, 22, 22)], False),  # a speck
        ([OBJECT, (14, 14, 20, 20)], True),
    ],
)
def test_a_candidate_far_beyond_the_mask_is_a_distractor(boxes: list, expected: bool) -> None:
    near = DistractorAwareSelector().near_distractor(prediction(*boxes, chosen=OBJECT))
    assert near is not None and near.tolist() == [expected]


@pytest.mark.parametrize("scores", [{"iou": 0.7}, {"object_score": -1.0}])
def test_a_frame_of_which_the_model_is_not_sure_tells_nothing(scores: dict[str, float]) -> None:
    near = DistractorAwareSelector().near_distractor(prediction((14, 14, 20, 20), chosen=OBJECT, **scores))
    assert near is not None and near.tolist() == [False]
    empty = replace(prediction((14, 14, 20, 20), chosen=OBJECT), low_res=torch.full((1, 1, SIDE, SIDE), -5.0))
    near = DistractorAwareSelector().near_distractor(empty)
    assert near is not None and near.tolist() == [False]


def memory(frame: int, near: bool = False) -> FrameMemory:
    return FrameMemory(
        frame,
        torch.zeros(1, 4, 2, 2),
        torch.ones(1, 1, 2, 2, dtype=torch.bool),
        torch.zeros(1, 8),
        torch.tensor([1.0, 0.0]),
        torch.tensor([near]),
    )


def tracked_bank(selector: SimilaritySelector, num_frames: int, near: set[int]) -> MemoryBank:
    bank = MemoryBank(span=selector.span, num_resolving=selector.num_resolving).add_conditioning(memory(0))
    for frame in range(1, num_frames):
        bank = bank.add_tracked(memory(frame, frame in near))
    return bank


def selected(selector: SimilaritySelector, bank: MemoryBank, frame: int) -> list[tuple[int, int]]:
    generator = torch.Generator().manual_seed(0)
    (selection,) = selector.select(TrackingStep(frame), [bank], torch.tensor([1.0, 0.0]), [generator])
    return [(m.frame, slot) for m, slot in selection.memories]


def test_frames_near_distractors_are_kept_beyond_the_windows_and_take_global_slots() -> None:
    selector = DistractorAwareSelector(num_resolving=2, min_gap=5)
    bank = tracked_bank(selector, 100, {3, 20, 22, 40})
    chosen = selected(selector, bank, 100)
    assert chosen[0] == (0, 0)
    # 22 and not 20 beside it; 3 is older than the two that fit.
    assert chosen[1:3] == [(22, 1), (40, 2)]
    assert [slot for _, slot in chosen] == [0, 1, 2, 3, 4, 5, 6]
    assert all(80 <= frame < 100 for frame, _ in chosen[3:])
    assert len(bank.tracked) == selector.span + selector.num_resolving


def test_without_distractors_the_selection_is_by_similarity() -> None:
    plain, aware = SimilaritySelector(), DistractorAwareSelector()
    for frame in (2, 7, 60):
        assert selected(aware, tracked_bank(aware, frame, set()), frame) == selected(
            plain, tracked_bank(plain, frame, set()), frame
        )


def test_frames_in_the_local_window_are_not_selected_twice() -> None:
    selector = DistractorAwareSelector()
    frames = [frame for frame, _ in selected(selector, tracked_bank(selector, 30, {29, 15}), 30)]
    assert 15 in frames and len(frames) == len(set(frames))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_resolving": 0}, "num_resolving: expected 1 to 4"),
        ({"num_resolving": 5}, "num_resolving: expected 1 to 4"),
        ({"min_iou": 1.5}, "min_iou: expected 0 to 1"),
        ({"max_box_iou": -0.1}, "max_box_iou: expected 0 to 1"),
        ({"min_gap": 0}, "min_gap: expected at least 1"),
        ({"mode": "best"}, "memory selection mode"),
    ],
)
def test_arguments_out_of_range(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DistractorAwareSelector(**arguments)


def test_it_is_chosen_in_a_config_and_tracks_objects_of_one_batch_apart() -> None:
    predictor = build_i2v_video_predictor(
        "i2v-nano-infer", hydra_overrides_extra=["selector@model.selector=distractor_aware"]
    )
    assert isinstance(predictor.policy.selector, DistractorAwareSelector)
    assert predictor.policy.memory_selection == "sample"
    two = FramePrediction.batch([prediction((14, 14, 20, 20), chosen=OBJECT), prediction(OBJECT, chosen=OBJECT)])
    near = predictor.policy.selector.near_distractor(two)
    both = replace(
        memory(4), features=torch.zeros(2, 4, 2, 2), foreground=torch.ones(2, 1, 2, 2), pointer=torch.zeros(2, 8)
    )
    assert [m.resolves_distractor for m in replace(both, near_distractor=near).split()] == [True, False]
