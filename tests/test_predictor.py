"""Sessions: prompt, follow, correct, remove, reverse, reset."""

from __future__ import annotations

import threading
from collections.abc import Iterable

import numpy as np
import pytest
import torch
from support import make_predictor, render_video
from torch import Tensor

from i2v.i2v_video_predictor import I2VVideoPredictor
from i2v.inference.inference_state import InferenceState
from i2v.inference.live_session import LiveSession
from i2v.modeling.structures import NO_OBJECT_LOGIT

CLICK = {"points": [[16, 19]], "labels": [1]}
OTHER_CLICK = {"points": [[48, 31]], "labels": [1]}


def collect(steps: Iterable[tuple[int, list, Tensor]]) -> dict[int, dict[object, Tensor]]:
    """Masks by frame and object."""
    return {frame: dict(zip(ids, masks.clone(), strict=True)) for frame, ids, masks in steps}


def follow(predictor: I2VVideoPredictor, state: InferenceState, **kwargs) -> dict[int, dict[object, Tensor]]:
    return collect(predictor.propagate_in_video(state, **kwargs))


def same(a: dict[int, dict[object, Tensor]], b: dict[int, dict[object, Tensor]], obj_id: object) -> bool:
    return all(torch.equal(a[frame][obj_id], b[frame][obj_id]) for frame in a.keys() & b.keys())


def test_a_click_is_answered_and_followed(predictor, video):
    state = predictor.init_state(video)
    frame, ids, masks = predictor.add_new_points_or_box(state, 0, "disc", **CLICK)
    assert (frame, ids, masks.shape, masks.dtype) == (0, ["disc"], (1, 1, 48, 64), torch.float32)
    found = follow(predictor, state)
    assert list(found) == list(range(12))
    assert torch.equal(found[0]["disc"], masks[0]), "the prompted frame is given out as it was answered"
    assert all(torch.isfinite(found[t]["disc"]).all() for t in found)
    assert not torch.equal(found[5]["disc"], found[6]["disc"])


def test_a_prompt_returns_the_objects_that_are_asked_for(predictor, video):
    with predictor.init_state(video) as state:
        predictor.add_new_points_or_box(state, 0, 1, **CLICK)
        _, ids, both = predictor.add_new_points_or_box(state, 0, 2, **OTHER_CLICK)
        assert ids == [1, 2]
        _, ids, own = predictor.add_new_points_or_box(state, 0, 2, **OTHER_CLICK, output_ids=[2])
        assert ids == [2]
        _, ids, none = predictor.add_new_points_or_box(state, 0, 3, **CLICK, output_ids=())
        assert (ids, none.shape) == ([], (0, 1, *both.shape[2:]))
        mask = (both[0, 0] > 0).numpy()
        _, ids, _ = predictor.add_new_mask(state, 1, 4, mask, output_ids=[4, 1])
        assert ids == [1, 4]
        # What is returned does not change what is stored.
        torch.testing.assert_close(predictor.masks_on_frame(state, 0, [2])[2], own)
        torch.testing.assert_close(predictor.masks_on_frame(state, 0, [1])[2], both[:1])
        with pytest.raises(KeyError, match="object 9 is not in the session"):
            predictor.add_new_points_or_box(state, 0, 5, **CLICK, output_ids=[9])
        assert 5 not in state.obj_ids
        with pytest.raises(TypeError, match="expected a list of object ids"):
            predictor.add_new_mask(state, 0, 5, mask, output_ids="5")


def test_range_of_propagation_includes_both_ends(predictor, video):
    state = predictor.init_state(video)
    predictor.add_new_points_or_box(state, 3, 1, **CLICK)
    assert list(follow(predictor, state, max_frame_num_to_track=2)) == [3, 4, 5]
    assert list(follow(predictor, state, start_frame_idx=1, max_frame_num_to_track=0)) == [1]
    assert list(follow(predictor, state, reverse=True)) == [3, 2, 1, 0]
    assert list(follow(predictor, state, start_frame_idx=0, reverse=True)) == []


def test_box_mask_and_points_agree_with_their_kinds(predictor, video):
    state = predictor.init_state(video)
    mask = np.zeros((48, 64), bool)
    mask[10:30, 8:26] = True
    answer = predictor.add_new_mask(state, 0, 1, mask)[2]
    overlap = ((answer[0, 0] > 0).numpy() & mask).sum() / ((answer[0, 0] > 0).numpy() | mask).sum()
    assert overlap > 0.85
    assert answer.min() >= -10 and answer.max() <= 10
    boxed = predictor.add_new_points_or_box(state, 0, 2, box=[8, 10, 26, 30])[2]
    assert boxed.shape == (2, 1, 48, 64)
    assert torch.equal(boxed[0], answer[0])


def test_second_click_sees_the_first_answer(predictor, video):
    state = predictor.init_state(video)
    predictor.add_new_points_or_box(state, 0, 1, **CLICK)
    added = predictor.add_new_points_or_box(state, 0, 1, points=[[40, 40]], labels=[0], clear_old_points=False)[2]
    fresh_state = predictor.init_state(video)
    both = {"points": [[16, 19], [40, 40]], "labels": [1, 0]}
    at_once = predictor.add_new_points_or_box(fresh_state, 0, 1, **both)[2]
    assert state.tracks[1].prompts[0].num_points == 2
    assert not torch.equal(added, at_once), "the first answer is a first guess for the second"


def test_objects_do_not_change_each_other(predictor, video):
    alone_state = predictor.init_state(video)
    predictor.add_new_points_or_box(alone_state, 0, 1, **CLICK)
    alone = follow(predictor, alone_state)

    state = predictor.init_state(video)
    predictor.add_new_points_or_box(state, 0, 1, **CLICK)
    predictor.add_new_points_or_box(state, 0, 2, **OTHER_CLICK)
    predictor.add_new_points_or_box(state, 4, 3, box=[30, 20, 60, 40])
    together = follow(predictor, state)
    assert same(alone, together, 1)

    ids, updated = predictor.remove_object(state, 2)
    assert ids == [1, 3] and [frame for frame, _ in updated] == [0]
    rest = follow(predictor, state)
    assert same(together, rest, 1) and same(together, rest, 3)
    assert set(rest[0]) == {1, 3}


def test_object_added_while_following(predictor, video):
    state = predictor.init_state(video)
    predictor.add_new_points_or_box(state, 0, 1, **CLICK)
    found = {}
    for frame, ids, masks in predictor.propagate_in_video(state):
        found[frame] = dict(zip(ids, masks.clone(), strict=True))
        if frame == 5:
            predictor.add_new_points_or_box(state, 5, 2, **OTHER_CLICK)
    assert set(found[5]) == {1} and set(found[6]) == {1, 2}
    fresh = predictor.init_state(video)
    predictor.add_new_points_or_box(fresh, 5, 2, **OTHER_CLICK)
    alone = follow(predictor, fresh)
    assert same({t: found[t] for t in range(6, 12)}, {t: alone[t] for t in range(6, 12)}, 2)


def test_what_follows_a_prompt_does_not_depend_on_where_the_journey_began(predictor, video):
    state = predictor.init_state(video)
    predictor.add_new_points_or_box(state, 5, 1, **CLICK)
    from_prompt = follow(predictor, state)
    from_start = follow(predictor, state, start_frame_idx=0)
    assert list(from_start) == list(range(12))
    assert same(from_prompt, from_start, 1)


def test_prompts_on_several_frames_all_survive(predictor):
    state = predictor.init_state(render_video(44))
    answers = {}
    for frame in (0, 20, 40):
        answers[frame] = predictor.add_new_points_or_box(state, frame, 1, **CLICK)[2][0].clone()
    found = follow(predictor, state)
    assert all(torch.equal(found[frame][1], answers[frame]) for frame in answers)
    assert [m.frame for m in state.tracks[1].bank.conditioning] == [0, 20, 40]
    again = follow(predictor, state)
    assert all(same({t: found[t]}, again, 1) for t in found)


def test_correction_of_a_prompted_frame_takes_effect(predictor, video):
    state = predictor.init_state(video)
    predictor.add_new_points_or_box(state, 0, 1, **CLICK)
    before = follow(predictor, state)
    corrected = predictor.add_new_points_or_box(state, 0, 1, points=[[40, 40]], labels=[0], clear_old_points=False)[2][
        0
    ]
    after = follow(predictor, state)
    assert torch.equal(after[0][1], corrected) and not torch.equal(before[0][1], corrected)
    assert not torch.equal(before[4][1], after[4][1])


@pytest.mark.parametrize("as_prompt", [False, True])
def test_correction_of_a_tracked_frame_stands(video, as_prompt):
    predictor = make_predictor(f"predictor.add_all_frames_to_correct_as_cond={as_prompt}")
    state = predictor.init_state(video)
    predictor.add_new_points_or_box(state, 0, 1, **CLICK)
    before = follow(predictor, state)
    corrected = predictor.add_new_points_or_box(state, 6, 1, points=[[30, 40]], labels=[0])[2][0].clone()
    after = follow(predictor, state)
    assert torch.equal(after[6][1], corrected)
    assert not torch.equal(before[8][1], after[8][1])
    assert [m.frame for m in state.tracks[1].bank.conditioning] == ([0, 6] if as_prompt else [0])
    # A correction that does not guide leaves what lies before it alone.
    assert torch.equal(before[4][1], after[4][1]) != as_prompt


def test_undo_shows_what_was_tracked(predictor, video):
    state = predictor.init_state(video)
    predictor.add_new_points_or_box(state, 0, 1, **CLICK)
    before = follow(predictor, state)
    predictor.add_new_points_or_box(state, 6, 1, points=[[30, 40]], labels=[0])
    _, _, masks = predictor.clear_all_prompts_in_frame(state, 6, 1)
    assert torch.equal(masks[0], before[6][1])
    assert same(before, follow(predictor, state), 1)


def test_undo_of_a_memorized_correction(predictor, video):
    state = predictor.init_state(video)
    predictor.add_new_points_or_box(state, 0, 1, **CLICK)
    before = follow(predictor, state)
    predictor.add_new_points_or_box(state, 6, 1, points=[[30, 40]], labels=[0])
    follow(predictor, state)
    predictor.clear_all_prompts_in_frame(state, 6, 1, need_output=False)
    assert same(before, follow(predictor, state), 1)


def test_clearing_the_last_prompt_leaves_the_others_alone(predictor, video):
    state = predictor.init_state(video)
    predictor.add_new_points_or_box(state, 0, 1, **CLICK)
    predictor.add_new_points_or_box(state, 0, 2, **OTHER_CLICK)
    before = follow(predictor, state)
    _, ids, masks = predictor.clear_all_prompts_in_frame(state, 0, 2)
    assert ids == [1, 2]
    assert torch.equal(masks[0], before[0][1]) and (masks[1] == NO_OBJECT_LOGIT).all()
    after = follow(predictor, state)
    assert same(before, after, 1) and all((after[t][2] == NO_OBJECT_LOGIT).all() for t in after)
    predictor.clear_all_prompts_in_frame(state, 0, 1)
    with pytest.raises(RuntimeError, match="no object has a prompt"):
        predictor.propagate_in_video(state)


def test_clearing_the_first_prompt_promotes_a_correction(predictor, video):
    state = predictor.init_state(video)
    predictor.add_new_points_or_box(state, 0, 1, **CLICK)
    follow(predictor, state)
    predictor.add_new_points_or_box(state, 6, 1, points=[[30, 40]], labels=[0])
    found = follow(predictor, state)
    predictor.clear_all_prompts_in_frame(state, 0, 1)
    assert [m.frame for m in state.tracks[1].bank.conditioning] == [6]
    again = follow(predictor, state)
    assert list(again) == list(range(6, 12)) and torch.equal(again[6][1], found[6][1])


def test_reset_gives_a_fresh_session(predictor, video):
    state = predictor.init_state(video)
    predictor.add_new_points_or_box(state, 0, 1, **CLICK)
    first = follow(predictor, state)
    predictor.reset_state(state)
    assert state.obj_ids == []
    predictor.add_new_points_or_box(state, 0, 1, **CLICK)
    assert same(first, follow(predictor, state), 1)


def test_reverse_reaches_frame_zero_with_finite_masks(video):
    # The memories of the frames just left make a difference, so they are read.
    found = {}
    for window in (0, 4):
        predictor = make_predictor(
            "model.selector.mode=topk",
            f"model.selector.num_maskmem_local_all={window}",
            "model.selector.num_maskmem_global_all=0",
        )
        state = predictor.init_state(video)
        predictor.add_new_points_or_box(state, 11, 1, **CLICK)
        found[window] = follow(predictor, state, reverse=True)
        assert list(found[window]) == list(range(11, -1, -1))
        assert all(torch.isfinite(masks[1]).all() and masks[1].max() > -1000 for masks in found[window].values())
    assert not torch.equal(found[0][0][1], found[4][0][1])


def test_reverse_does_not_depend_on_an_earlier_forward_pass(predictor, video):
    state = predictor.init_state(video)
    predictor.add_new_points_or_box(state, 6, 1, **CLICK)
    backward = follow(predictor, state, reverse=True)
    follow(predictor, state)
    assert same(backward, follow(predictor, state, reverse=True), 1)


def test_correction_on_frame_zero_is_finite(predictor, video):
    state = predictor.init_state(video)
    predictor.add_new_points_or_box(state, 4, 1, **CLICK)
    follow(predictor, state, reverse=True)
    masks = predictor.add_new_points_or_box(state, 0, 1, points=[[20, 20]], labels=[1])[2]
    assert torch.isfinite(masks).all() and masks.max() > -1000


@pytest.mark.parametrize("mode", ["sample", "topk"])
def test_streaming_equals_offline(mode):
    video = render_video(30)
    predictor = make_predictor(f"model.selector.mode={mode}", "predictor.fill_hole_area=4")
    state = predictor.init_state(video)
    predictor.add_new_points_or_box(state, 0, 1, **CLICK)
    predictor.add_new_points_or_box(state, 3, 2, **OTHER_CLICK)
    offline = follow(predictor, state)

    live = {}
    with LiveSession(predictor) as session:
        for image in video:
            frame, ids, masks = session.step(image)
            if frame == 0:
                frame, ids, masks = session.add_new_points_or_box(1, **CLICK)
            if frame == 3:
                frame, ids, masks = session.add_new_points_or_box(2, **OTHER_CLICK)
            live[frame] = dict(zip(ids, masks.clone(), strict=True))
        assert set(session.scores()) == {1, 2}
    assert same(offline, live, 1)
    assert same({t: offline[t] for t in range(3, 30)}, {t: live[t] for t in range(3, 30)}, 2)


def test_a_live_iterator_as_video(predictor):
    video = render_video(9)
    state = predictor.init_state(iter(video))
    predictor.add_new_points_or_box(state, 0, 1, **CLICK)
    live = follow(predictor, state)
    offline_state = predictor.init_state(video)
    predictor.add_new_points_or_box(offline_state, 0, 1, **CLICK)
    assert list(live) == list(range(9)) and same(live, follow(predictor, offline_state), 1)


def test_selection_draws_anew_at_each_propagation():
    video = render_video(30)
    predictor = make_predictor()
    state = predictor.init_state(video)
    predictor.add_new_points_or_box(state, 0, 1, **CLICK)
    first = follow(predictor, state)
    torch.manual_seed(99)
    assert same(first, follow(predictor, state), 1)
    other = make_predictor("predictor.seed=7")
    state = other.init_state(video)
    other.add_new_points_or_box(state, 0, 1, **CLICK)
    assert not same(first, follow(other, state), 1)


def test_going_on_from_the_middle_remakes_memories():
    video = render_video(60)
    predictor = make_predictor("model.selector.mode=topk")
    state = predictor.init_state(video)
    predictor.add_new_points_or_box(state, 0, 1, **CLICK)
    first = follow(predictor, state)
    bank = state.tracks[1].bank
    assert sorted(m.frame for m in bank.tracked) == list(range(40, 60))
    again = follow(predictor, state, start_frame_idx=20, max_frame_num_to_track=3)
    # Older masks are kept rounded, so the memories made of them are alike, not equal.
    for t in again:
        a, b = first[t][1] > 0, again[t][1] > 0
        assert (a & b).sum() / (a | b).sum().clamp(min=1) > 0.7
    assert sorted(m.frame for m in state.tracks[1].bank.tracked) == list(range(4, 24))


def test_click_far_back_remakes_only_a_few(predictor):
    state = predictor.init_state(render_video(60))
    predictor.add_new_points_or_box(state, 0, 1, **CLICK)
    follow(predictor, state)
    predictor.add_new_points_or_box(state, 20, 1, points=[[30, 40]], labels=[0])
    remade = {m.frame for m in state.tracks[1].bank.tracked} & set(range(1, 40))
    assert remade == {16, 17, 18, 19}


def test_forgetting_around_prompts(video):
    predictor = make_predictor(
        "predictor.clear_non_cond_mem_around_input=true", "predictor.add_all_frames_to_correct_as_cond=true"
    )
    state = predictor.init_state(video)
    predictor.add_new_points_or_box(state, 0, 1, **CLICK)
    follow(predictor, state)
    predictor.add_new_points_or_box(state, 11, 1, points=[[30, 40]], labels=[1])
    predictor.propagate_in_video_preflight(state)
    assert sorted(m.frame for m in state.tracks[1].bank.tracked) == [1, 2, 3]
    follow(predictor, state, start_frame_idx=10, max_frame_num_to_track=0)
    assert sorted(m.frame for m in state.tracks[1].bank.tracked) == [1, 2, 3, 10]


def test_scores_of_every_object(predictor, video):
    state = predictor.init_state(video)
    predictor.add_new_points_or_box(state, 0, 1, **CLICK)
    predictor.add_new_mask(state, 0, 2, np.zeros((48, 64), bool))
    scores = predictor.frame_scores(state, 0)
    assert scores[2].object_score == -10 and scores[2].iou == 1
    follow(predictor, state)
    for t in range(12):
        scores = predictor.frame_scores(state, t)
        assert set(scores) == {1, 2} and 0 <= scores[1].iou <= 1
    with pytest.raises(IndexError, match="frame 99 is not in the video"):
        predictor.frame_scores(state, 99)


def test_empty_mask_means_not_in_view(predictor, video):
    state = predictor.init_state(video)
    masks = predictor.add_new_mask(state, 0, 1, torch.zeros(48, 64))[2]
    assert (masks <= 0).all()
    predictor.propagate_in_video_preflight(state)
    memory = state.tracks[1].bank.conditioning[0]
    assert torch.equal(memory.pointer, predictor.model.no_obj_ptr) and not memory.foreground.any()


def test_masks_without_overlap(video):
    predictor = make_predictor("predictor.non_overlap_masks=true")
    state = predictor.init_state(video)
    predictor.add_new_points_or_box(state, 0, 1, **CLICK)
    predictor.add_new_points_or_box(state, 0, 2, **CLICK | {"points": [[18, 20]]})
    for _, _, masks in predictor.propagate_in_video(state):
        assert (masks > 0).sum(dim=0).max() <= 1


@pytest.mark.parametrize(("frames", "height", "width"), [(1, 48, 64), (2, 48, 64), (5, 97, 33), (5, 31, 131)])
def test_short_odd_and_portrait_videos(predictor, frames, height, width):
    state = predictor.init_state(render_video(frames, height, width))
    predictor.add_new_points_or_box(state, 0, 1, points=[[width / 4, height / 3]], labels=[1])
    found = follow(predictor, state)
    assert list(found) == list(range(frames))
    assert all(m[1].shape == (1, height, width) and torch.isfinite(m[1]).all() for m in found.values())


def test_two_threads_and_two_predictors():
    video = render_video(10)
    shared, own = make_predictor(), make_predictor()
    expected_state = shared.init_state(video)
    shared.add_new_points_or_box(expected_state, 0, 1, **CLICK)
    expected = follow(shared, expected_state)
    results: dict[int, dict] = {}

    def work(number: int, predictor: I2VVideoPredictor) -> None:
        state = predictor.init_state(video)
        predictor.add_new_points_or_box(state, 0, 1, **CLICK)
        results[number] = follow(predictor, state)

    threads = [threading.Thread(target=work, args=(i, p)) for i, p in enumerate((shared, shared, own))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 3 and all(same(expected, found, 1) for found in results.values())


def test_memory_stays_bounded():
    predictor = make_predictor()
    state = predictor.init_state(render_video(120, 24, 32))
    predictor.add_new_points_or_box(state, 0, 1, **CLICK | {"points": [[8, 9]]})
    follow(predictor, state)
    track = state.tracks[1]
    assert len(track.bank.tracked) == 20
    assert len(track.history._exact) <= 32
    sizes = [len(packed.logits) + len(packed.pointer) for packed in track.history._packed.values()]
    assert len(sizes) == 119 - 32 and max(sizes) < 2000


def test_half_precision_runs_by_itself(video):
    predictor = make_predictor(dtype="bfloat16")
    full = make_predictor()
    masks = []
    for p in (predictor, full):
        state = p.init_state(video)
        p.add_new_points_or_box(state, 0, 1, **CLICK)
        masks.append(follow(p, state)[0][1])
    assert masks[0].dtype == torch.float32
    assert 0 < (masks[0] - masks[1]).abs().max() < 1.0


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_weights_of_another_type(predictor, video, dtype):
    predictor.model.to(dtype)
    state = predictor.init_state(video)
    predictor.add_new_points_or_box(state, 0, 1, **CLICK)
    assert all(torch.isfinite(masks[1]).all() for masks in follow(predictor, state).values())


BAD_PROMPTS = [
    ({"points": [[16, 19]]}, "points and labels must be given together"),
    ({}, "expected points with labels, or a box, got neither"),
    ({"points": [[16, 19]], "labels": [1, 0]}, "expected 1 labels"),
    ({"points": [[16, 19, 3]], "labels": [1]}, r"points of shape \(P, 2\), got \(1, 3\)"),
    ({"points": [[64.5, 19]], "labels": [1]}, r"point \(64.5, 19\) is off the frame, which is 64 x 48"),
    ({"points": [[16, -1]], "labels": [1]}, "off the frame"),
    ({"points": [[float("nan"), 1]], "labels": [1]}, "off the frame"),
    ({"points": [[16, 19]], "labels": [5]}, "labels 1 .object. or 0 .background., got 5"),
    ({"points": "here", "labels": [1]}, "expected points to be numbers"),
    ({"box": [1, 2, 3]}, "expected one box"),
    ({"box": [20, 2, 10, 30]}, "x0 < x1"),
    ({"box": [70, 2, 90, 30]}, r"box \(70, 2\) to \(90, 30\) is off the frame, which is 64 x 48"),
    ({"box": [1, 2, 30, 40], "clear_old_points": False}, "clear_old_points=True"),
    ({"points": [[1, 2], [30, 40]], "labels": [2, 3], "clear_old_points": False}, "clear_old_points=True"),
    ({"points": [[16, 19]], "labels": [2]}, "both corners of one box, labels 2 and 3, got 1 and 0 of them"),
    ({"points": [[16, 19], [20, 30], [1, 1]], "labels": [3, 2, 3]}, "got 1 and 2 of them"),
    ({"points": [[30, 30], [10, 10]], "labels": [2, 3]}, "x0 < x1"),
    ({"points": [[1, 1], [9, 9]], "labels": [2, 3], "box": [0, 0, 5, 5]}, "expected one box, got another one"),
    ({"points": [[70, 2], [90, 30]], "labels": [2, 3]}, r"box \(70, 2\) to \(90, 30\) is off the frame"),
]


def test_a_box_over_the_edge_is_clipped_however_it_is_given(predictor, video):
    corners, state = np.array([[-0.4, -0.4], [70, 30]]), predictor.init_state(video)
    expected = predictor.add_new_points_or_box(state, 0, 1, box=[0, 0, 64, 30])[2]
    for prompt in ({"box": corners}, {"points": corners, "labels": [2, 3]}):
        predictor.reset_state(state)
        assert torch.equal(predictor.add_new_points_or_box(state, 0, 1, **prompt)[2], expected)
    assert corners.tolist() == [[-0.4, -0.4], [70, 30]], "the caller's array is not changed"


@pytest.mark.parametrize(("prompt", "message"), BAD_PROMPTS)
def test_bad_prompts_say_what_and_where(predictor, video, prompt, message):
    state = predictor.init_state(video)
    with pytest.raises(ValueError, match=message) as error:
        predictor.add_new_points_or_box(state, 2, "dog", **prompt)
    assert "frame 2, object 'dog'" in str(error.value)
    assert state.obj_ids == [], "a failed call leaves no object behind"


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.zeros((48, 64, 3)), r"got \(48, 64, 3\)"),
        (np.zeros((64, 48)), "48x64 .height x width. or of its shape, got 64x48"),
        (np.zeros((0, 0)), "expected a mask of shape"),
    ],
)
def test_bad_masks(predictor, video, mask, message):
    state = predictor.init_state(video)
    with pytest.raises(ValueError, match=message):
        predictor.add_new_mask(state, 0, 1, mask)


@pytest.mark.parametrize("frame", [-1, 12])
def test_frames_off_the_video(predictor, video, frame):
    state = predictor.init_state(video)
    with pytest.raises(IndexError, match=f"frame {frame} is not in the video .* which has 12 frames"):
        predictor.add_new_points_or_box(state, frame, 1, **CLICK)
    predictor.add_new_points_or_box(state, 0, 1, **CLICK)
    with pytest.raises(IndexError, match="is not in the video"):
        predictor.propagate_in_video(state, start_frame_idx=frame)


def test_unknown_objects(predictor, video):
    state = predictor.init_state(video)
    with pytest.raises(RuntimeError, match="nothing to track"):
        predictor.propagate_in_video(state)
    with pytest.raises(KeyError, match="object 'cat' is not in the session"):
        predictor.clear_all_prompts_in_frame(state, 0, "cat")
    assert predictor.remove_object(state, "cat") == ([], [])
    with pytest.raises(RuntimeError, match="object 'cat'"):
        predictor.remove_object(state, "cat", strict=True)
    predictor.add_new_points_or_box(state, 0, 1, **CLICK)
    assert predictor.remove_object(state, 1) == ([], []) and state.obj_ids == []


def test_live_session_before_the_first_frame(predictor):
    session = LiveSession(predictor)
    with pytest.raises(RuntimeError, match="no frame has come yet"):
        session.add_new_points_or_box(1, **CLICK)
